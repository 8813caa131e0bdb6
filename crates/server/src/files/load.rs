//! Loading of a folder into memory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use httpdate::HttpDate;
use murre_codec::http::Headers;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest, Sha256};

use super::encodings::Coding;
use super::media_types::media_type;
use super::{Entry, File, Files, Forms};

/// The reason why a folder cannot be served.
#[derive(Debug)]
pub(crate) enum FilesError {
    /// The folder or an entry in it cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// The files take more than `bytes_max` bytes of memory.
    TooMuch { folder: PathBuf, bytes_max: u64 },
    /// The page of `--files-fallback` is not in the folder.
    NoFallback { path: String },
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilesError::Unreadable { path, error } => write!(
                f,
                "cannot read {} (--files): {error}; check the path and its permissions",
                path.display()
            ),
            FilesError::TooMuch { folder, bytes_max } => write!(
                f,
                "the files in {} take more than {bytes_max} bytes of memory; raise \
                 --max-files-bytes, or serve fewer",
                folder.display()
            ),
            FilesError::NoFallback { path } => write!(
                f,
                "there is no file {path} in the folder of --files; let --files-fallback be the path of \
                 one, as /index.html"
            ),
        }
    }
}

impl Files {
    /// Reads every file in `folder` and below it, if they take at most `bytes_max` bytes. The file
    /// at the path `fallback` is the page for paths without a file.
    ///
    /// Names that begin with a dot are left out: editors and version control create such files, and
    /// some hold secrets. Also left out are entries that are neither a file nor a folder, and links
    /// that lead out of the folder or to a folder that contains the link. A file whose name is the
    /// name of another file and `.br` or `.gz` is also the encoded form of the other file.
    ///
    /// # Errors
    /// The folder or an entry cannot be read, the files take too many bytes, or there is no
    /// fallback.
    pub(crate) fn read(
        folder: &Path,
        bytes_max: u64,
        fallback: Option<&str>,
    ) -> Result<Self, FilesError> {
        let root = folder.canonicalize().map_err(unreadable(folder))?;
        let too_much = || FilesError::TooMuch { folder: root.clone(), bytes_max };
        let mut files = Files::default();
        let mut read = BTreeMap::new();
        let mut folders = vec![Folder { chain: vec![root.clone()], path: b"/".to_vec() }];
        while let Some(Folder { chain, path: prefix }) = folders.pop() {
            let folder = chain.last().expect("it has itself");
            for entry in entries(folder).map_err(unreadable(folder))? {
                let (name, place) = (entry.file_name(), entry.path());
                let mut path = [&prefix, name.as_bytes()].concat();
                let kind = entry.file_type().map_err(unreadable(&place))?;
                if is_hidden(name.as_bytes()) {
                    continue;
                }
                match found(&root, &chain, place, kind) {
                    Found::Folder(place) => {
                        // Links can multiply folders, so each folder that a link leads to counts as
                        // bytes.
                        files.bytes += if kind.is_symlink() { ENTRY_BYTES } else { 0 };
                        path.push(b'/');
                        let chain = chain.iter().cloned().chain([place]).collect();
                        folders.push(Folder { chain, path });
                    }
                    Found::File(place) => {
                        let room = bytes_max.saturating_sub(files.bytes);
                        let raw = Raw::read(&place, &name, room).map_err(unreadable(&place))?;
                        files.count += 1;
                        files.bytes += raw.content.len() as u64 + path.len() as u64 + ENTRY_BYTES;
                        read.insert(path, raw);
                    }
                    Found::Nothing => {}
                }
                if files.bytes > bytes_max {
                    return Err(too_much());
                }
            }
        }
        for (path, raw) in &read {
            files.insert(path, forms(path, raw, &read));
        }
        if let Some(path) = fallback {
            let path = format!("/{}", path.trim_start_matches('/'));
            let raw =
                read.get(path.as_bytes()).ok_or(FilesError::NoFallback { path: path.clone() })?;
            files.fallback = Some(forms(path.as_bytes(), raw, &read).into());
        }
        Ok(files)
    }

    fn insert(&mut self, path: &[u8], forms: Forms) {
        let forms = Arc::new(forms);
        let folder = path.strip_suffix(b"index.html").filter(|folder| folder.ends_with(b"/"));
        if let Some(folder) = folder {
            self.paths.insert(folder.into(), Entry::File(Arc::clone(&forms)));
            let location = percent_encode(folder, ESCAPED).to_string();
            // For the root, the name without the slash is empty. No request has an empty path.
            self.paths.insert(folder[..folder.len() - 1].into(), Entry::Redirect { location });
        }
        self.paths.insert(path.into(), Entry::File(forms));
    }
}

/// A folder that has not been read yet.
struct Folder {
    /// The folders on the path to this one and itself, with links resolved.
    chain: Vec<PathBuf>,
    /// Its path in requests, with a slash at the end.
    path: Vec<u8>,
}

/// A file that was read, before its encoded forms are found.
struct Raw {
    content: Bytes,
    content_type: &'static str,
    modified: SystemTime,
}

/// A file with its encoded forms, which share their bytes with the files of the same content.
fn forms(path: &[u8], raw: &Raw, read: &BTreeMap<Vec<u8>, Raw>) -> Forms {
    let Raw { content, content_type, modified } = raw;
    let encoded = Coding::ALL.into_iter().filter_map(|coding| {
        let form = read.get(&[path, coding.suffix()].concat())?;
        let (content, modified) = (form.content.clone(), form.modified);
        Some((coding, File::new(content, content_type, modified, Some(Form::Encoded(coding)))))
    });
    let encoded: Vec<_> = encoded.collect();
    let form = (!encoded.is_empty()).then_some(Form::Plain);
    Forms { file: File::new(content.clone(), content_type, *modified, form), encoded }
}

/// One of several forms of a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Plain,
    Encoded(Coding),
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    move |error| FilesError::Unreadable { path: path.to_owned(), error }
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(folder)?.collect()
}

/// Whether a name is hidden. `.well-known` is not hidden, because clients ask for it (RFC 8615).
fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".") && name != b".well-known"
}

/// The target of an entry in a folder.
enum Found {
    File(PathBuf),
    Folder(PathBuf),
    Nothing,
}

/// The file or folder to which an entry leads. Links are followed inside the folder `root`, but not
/// to one of the folders in `chain`, which contain the link, because that recursion has no end.
fn found(root: &Path, chain: &[PathBuf], place: PathBuf, kind: fs::FileType) -> Found {
    if kind.is_file() {
        return Found::File(place);
    }
    if kind.is_dir() {
        return Found::Folder(place);
    }
    let leads_to = place.canonicalize().ok().filter(|_| kind.is_symlink());
    let why = match leads_to {
        None => "it is neither a file, nor a folder, nor a link to one",
        Some(to) if !to.starts_with(root) => "it is a link out of the folder of --files",
        Some(to) if to.is_file() => return Found::File(to),
        Some(to) if chain.iter().any(|on_the_way| on_the_way.starts_with(&to)) => {
            "it is a link to a folder that holds it"
        }
        Some(to) if to.is_dir() => return Found::Folder(to),
        Some(_) => "it is a link to neither a file nor a folder",
    };
    tracing::warn!(path = %place.display(), why, "not served");
    Found::Nothing
}

impl Raw {
    /// Reads a file, but at most `room` bytes and one more.
    fn read(place: &Path, name: &OsStr, room: u64) -> io::Result<Self> {
        let file = fs::File::open(place)?;
        let metadata = file.metadata()?;
        let mut content = Vec::with_capacity(metadata.len().min(room) as usize);
        file.take(room + 1).read_to_end(&mut content)?;
        let extension = Path::new(name).extension().and_then(OsStr::to_str);
        let content_type = media_type(extension.unwrap_or_default());
        let content = Bytes::from(content.into_boxed_slice());
        Ok(Raw { content, content_type, modified: metadata.modified()? })
    }
}

impl File {
    /// A file with this content, served as this media type. `form` is `None` if the file has only
    /// one form.
    pub(super) fn new(
        content: impl Into<Bytes>,
        content_type: &'static str,
        modified: SystemTime,
        form: Option<Form>,
    ) -> Self {
        let content = content.into();
        let tag = tag(&content);
        // The date must not lie in the future (RFC 9110 section 8.8.2.1) or before 1970.
        let modified = modified.min(SystemTime::now()).max(SystemTime::UNIX_EPOCH).into();
        // The client may store the file, but asks each time whether it has changed.
        let mut headers_unchanged =
            Headers::default().with("ETag", &tag).with("Cache-Control", "no-cache");
        if form.is_some() {
            headers_unchanged = headers_unchanged.with("Vary", "Accept-Encoding");
        }
        let mut headers = headers_unchanged
            .with("Last-Modified", &HttpDate::to_string(&modified))
            .with("Accept-Ranges", "bytes")
            .with("X-Content-Type-Options", "nosniff");
        if let Some(Form::Encoded(coding)) = form {
            headers = headers.with("Content-Encoding", coding.name());
        }
        File { content, content_type, tag, modified, headers, headers_unchanged }
    }
}

/// An entity tag of the content: half of its SHA-256.
fn tag(content: &[u8]) -> String {
    let mut tag = String::from('"');
    for byte in &Sha256::digest(content)[..16] {
        write!(tag, "{byte:02x}").expect("a string takes all that is written to it");
    }
    tag + "\""
}

/// The approximate memory of a file besides its content and its path, in bytes. It bounds folders
/// of empty files, too.
const ENTRY_BYTES: u64 = 512;
/// The characters that are escaped in the location of a redirect.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder for one test, removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("murre-{}-{name}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            fs::create_dir(&folder.0).expect("it is new");
            files.iter().for_each(|(path, content)| folder.write(path, content));
            folder
        }

        fn write(&self, path: &str, content: &str) {
            let place = self.0.join(path);
            fs::create_dir_all(place.parent().expect("below the folder")).expect("room");
            fs::write(place, content).expect("room");
        }

        fn read(&self) -> Files {
            Files::read(&self.0, 1 << 20, None).expect("it can be read")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("it is there");
        }
    }

    /// The content at a path, or the location to which it redirects.
    fn at<'f>(files: &'f Files, path: &str) -> Option<&'f str> {
        files.find(path).map(|entry| match entry {
            Entry::File(forms) => str::from_utf8(&forms.file.content).expect("text"),
            Entry::Redirect { location } => location,
        })
    }

    /// Files are found by path, and the page of a folder by the path of the folder.
    #[test]
    fn files_and_folders_are_found() {
        let folder = Folder::new(
            "found",
            &[
                ("index.html", "root"),
                ("a/b/index.html", "ab"),
                ("a/c.txt", "c"),
                ("aindex.html", ""),
            ],
        );
        let files = folder.read();
        for (path, found) in [
            ("/", Some("root")),
            ("/index.html", Some("root")),
            ("/a/b/", Some("ab")),
            ("/a/b", Some("/a/b/")),
            ("/a/b/index.html", Some("ab")),
            ("/a/c.txt", Some("c")),
            ("/aindex.html", Some("")),
            ("", None),
            ("*", None),
            ("/a", None),
            ("/a/", None),
            ("/a/c.txt/", None),
            ("/A/c.txt", None),
            ("//a/c.txt", None),
            ("a/c.txt", None),
        ] {
            // No request can have the empty path, which redirects to the root.
            assert_eq!(at(&files, path).filter(|_| !path.is_empty()), found, "{path:?}");
        }
        assert_eq!(files.count(), 4);
    }

    /// Paths with escapes find names of any bytes, and the locations of redirects are escaped.
    #[test]
    fn names_are_written_in_any_way() {
        let odd = "é %2F?#\"\r\n\u{1}<.d";
        let folder = Folder::new("names", &[("a b.txt", "1"), ("50%.txt", "2"), ("ü", "3")]);
        folder.write(&format!("{odd}/index.html"), "4");
        let files = folder.read();
        for (path, found) in [
            ("/a%20b.txt", "1"),
            ("/%61%20b%2Etxt", "1"),
            ("/50%25.txt", "2"),
            ("/50%.txt", "2"),
            ("/%c3%BC", "3"),
            ("/ü", "3"),
        ] {
            assert_eq!(at(&files, path), Some(found), "{path:?}");
        }
        let escaped = "/%C3%A9%20%252F%3F%23%22%0D%0A%01%3C.d/";
        assert_eq!(at(&files, escaped), Some("4"));
        assert_eq!(at(&files, escaped.trim_end_matches('/')), Some(escaped));
        for path in ["/a+b.txt", "/%C3", "/%", "/a%2520b.txt", "/a b.txt%00", "/%00"] {
            assert_eq!(at(&files, path), None, "{path:?}");
        }
    }

    /// No form of a path finds a file outside the folder or replaces a separator.
    #[test]
    fn nothing_is_found_outside() {
        let outside = Folder::new("outside", &[("secret", "s"), ("in/page", "p"), ("in/d/x", "x")]);
        let files = Files::read(&outside.0.join("in"), 1 << 20, None).expect("it can be read");
        assert_eq!(at(&files, "/page"), Some("p"));
        for path in [
            "/../secret",
            "/d/../../secret",
            "/d/../page",
            "/./page",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/%2e%2e%2fsecret",
            "/..%5csecret",
            "/..\\secret",
            "/%252e%252e/secret",
            "/%c0%ae%c0%ae/secret",
            "/page%00",
            "/page%00.html",
            "/d%2fx",
            "/d%2Fx",
            "%2fpage",
            "/secret",
            "/etc/passwd",
            "//etc/passwd",
        ] {
            assert_eq!(at(&files, path), None, "{path:?}");
        }
        assert_eq!(at(&files, &outside.0.join("secret").display().to_string()), None);
    }

    /// Links to files inside the folder are followed; links out of it, hidden names and special
    /// files are left out. Files that change later are served as they were at start.
    #[test]
    fn links_do_not_lead_out() {
        let outside = Folder::new("links", &[("secret", "s"), ("in/page", "p"), ("in/.env", "e")]);
        outside.write("in/.git/config", "g");
        outside.write("in/.well-known/security.txt", "w");
        let place = outside.0.join("in");
        let links = [
            ("inside", "page"),
            ("out", "../secret"),
            ("absolute", "/etc/passwd"),
            ("up", ".."),
            ("round", "."),
            ("twice", "out"),
            ("nowhere", "nothing"),
            ("itself", "itself"),
        ];
        for (name, to) in links {
            symlink(to, place.join(name)).expect("a link");
        }
        nix::unistd::mkfifo(&place.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let files = Files::read(&place, 1 << 20, None).expect("it can be read");
        assert_eq!(files.count(), 3, "{:?}", files.paths.keys());
        assert_eq!(at(&files, "/inside"), Some("p"));
        assert_eq!(at(&files, "/.well-known/security.txt"), Some("w"));
        fs::write(place.join("page"), "changed").expect("room");
        assert_eq!(at(&files, "/page"), Some("p"));
    }

    /// Links to folders inside the folder are followed, except links to a folder that contains
    /// them. The target may be hidden, as in a volume of Kubernetes.
    #[test]
    fn links_to_folders_are_followed() {
        let outside =
            Folder::new("folders", &[("out/x", "x"), ("in/a/page", "p"), ("in/b/c/y", "y")]);
        outside.write("in/..2026/index.html", "mounted");
        let place = outside.0.join("in");
        for (name, to) in [
            ("link", "a"),
            ("deep", "b/c"),
            ("..data", "..2026"),
            ("site", "..data"),
            ("index.html", "..data/index.html"),
            ("away", "../out"),
            ("root", "."),
            ("b/c/up", ".."),
            ("b/c/other", "../../a"),
            ("a/back", "../b"),
        ] {
            symlink(to, place.join(name)).expect("a link");
        }
        let files = Files::read(&place, 1 << 20, None).expect("it ends");
        for (path, found) in [
            ("/link/page", Some("p")),
            ("/deep/y", Some("y")),
            ("/site/", Some("mounted")),
            ("/site", Some("/site/")),
            ("/index.html", Some("mounted")),
            ("/b/c/other/page", Some("p")),
            ("/a/back/c/y", Some("y")),
            ("/link/back/c/y", Some("y")),
            ("/away/x", None),
            ("/root/a/page", None),
            ("/b/c/up/c/y", None),
            ("/b/c/other/back/c/y", None),
            ("/..data/index.html", None),
        ] {
            assert_eq!(at(&files, path), found, "{path}");
        }
    }

    /// Links that multiply folders exponentially end with the error for too much content.
    #[test]
    fn links_do_not_multiply() {
        let folder = Folder::new("multiply", &[("30/end", "")]);
        for number in 0..30 {
            fs::create_dir(folder.0.join(number.to_string())).expect("room");
            for name in ["a", "b"] {
                let place = folder.0.join(number.to_string()).join(name);
                symlink(format!("../{}", number + 1), place).expect("a link");
            }
        }
        let error = Files::read(&folder.0, 1 << 20, None).expect_err("2^30 paths");
        assert!(matches!(error, FilesError::TooMuch { .. }), "{error}");
    }

    /// An encoded form is also served as a file at its own path, and shares its bytes.
    #[test]
    fn encoded_forms_are_found() {
        let folder = Folder::new(
            "encoded",
            &[("a.js", "plain"), ("a.js.gz", "gz"), ("a.js.br", "br"), ("b.js.gz", "alone")],
        );
        let files = folder.read();
        let Some(Entry::File(forms)) = files.find("/a.js") else { panic!("it is there") };
        let found = forms.encoded.iter().map(|(coding, file)| (coding.name(), &*file.content));
        assert_eq!(found.collect::<Vec<_>>(), [("br", &b"br"[..]), ("gzip", b"gz")]);
        for (_, form) in &forms.encoded {
            assert_eq!(form.content_type, forms.file.content_type);
            assert_ne!(form.tag, forms.file.tag);
        }
        assert_eq!(at(&files, "/a.js.gz"), Some("gz"));
        assert_eq!(at(&files, "/b.js.gz"), Some("alone"));
        assert_eq!(at(&files, "/b.js"), None);
        assert_eq!(files.count(), 4);
    }

    /// Content above the limit is refused, in one file or in many, and the error for an unreadable
    /// folder names it.
    #[test]
    fn too_much_is_refused() {
        let folder = Folder::new("much", &[("a", "12345"), ("b/c", "67890")]);
        let files = folder.read();
        assert_eq!(files.bytes(), 10 + 6 + 2 * ENTRY_BYTES);
        assert!(Files::read(&folder.0, files.bytes(), None).is_ok());
        let error = Files::read(&folder.0, files.bytes() - 1, None).expect_err("a byte too much");
        assert!(error.to_string().contains("--max-files-bytes"), "{error}");
        assert!(Files::read(&folder.0, 0, None).is_err());
        for (name, problem) in [("a", "Not a directory"), ("none", "No such file")] {
            let place = folder.0.join(name);
            let error = Files::read(&place, 1 << 20, None).expect_err("no folder").to_string();
            assert!(error.contains(problem) && error.contains(name), "{error}");
        }
    }

    /// The tag depends on the content alone.
    #[test]
    fn tags_are_of_the_content() {
        // The known SHA-256 of the empty text.
        assert_eq!(tag(b""), "\"e3b0c44298fc1c149afbf4c8996fb924\"");
        assert_ne!(tag(b"a"), tag(b"b"));
    }
}
