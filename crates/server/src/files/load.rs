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
    /// Links lead to more than [`LINKED_FOLDERS_MAX`] folders, if each way to a folder counts.
    TooManyLinks { folder: PathBuf },
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
            FilesError::TooManyLinks { folder } => write!(
                f,
                "links in {} (--files) lead to folders in more than {LINKED_FOLDERS_MAX} ways, as links \
                 in folders that link to each other do; remove links, or make them links to files",
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
    /// that lead out of the folder, to a hidden name, or to a folder that contains the link. A file
    /// whose name is the name of another file and `.br` or `.gz` is also the encoded form of the other
    /// file, unless it is older.
    ///
    /// # Errors
    /// The folder or an entry cannot be read, the files take too many bytes, links multiply the
    /// folders, or there is no fallback.
    pub(crate) fn read(
        folder: &Path,
        bytes_max: u64,
        fallback: Option<&str>,
    ) -> Result<Self, FilesError> {
        let root = folder.canonicalize().map_err(unreadable(folder))?;
        let too_much = || FilesError::TooMuch { folder: root.clone(), bytes_max };
        let (mut files, mut left_out, mut linked) = (Files::default(), LeftOut::default(), 0);
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
                match found(&root, &chain, &place, kind) {
                    Ok(Found::Folder(place)) => {
                        // Links can multiply folders without end.
                        linked += usize::from(kind.is_symlink());
                        if linked > LINKED_FOLDERS_MAX {
                            return Err(FilesError::TooManyLinks { folder: root });
                        }
                        path.push(b'/');
                        let chain = chain.iter().cloned().chain([place]).collect();
                        folders.push(Folder { chain, path });
                    }
                    Ok(Found::File(place)) => {
                        let room = bytes_max.saturating_sub(files.bytes);
                        let raw = Raw::read(&place, &name, room).map_err(unreadable(&place))?;
                        files.count += 1;
                        files.bytes += raw.content.len() as u64 + path.len() as u64 + ENTRY_BYTES;
                        read.insert(path, raw);
                    }
                    Err(why) => left_out.add(place, why),
                }
                if files.bytes > bytes_max {
                    return Err(too_much());
                }
            }
        }
        for (path, raw) in &read {
            files.insert(path, forms(path, raw, &read, &mut left_out));
        }
        if let Some(path) = fallback {
            let path = format!("/{}", path.trim_start_matches('/'));
            let Some(Entry::File(page)) = files.paths.get(path.as_bytes()) else {
                return Err(FilesError::NoFallback { path });
            };
            files.fallback = Some(Arc::clone(page));
        }
        left_out.log();
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

/// The entries that are not served, each once, with the reasons.
#[derive(Default)]
struct LeftOut(BTreeMap<PathBuf, &'static str>);

impl LeftOut {
    fn add(&mut self, place: PathBuf, why: &'static str) {
        self.0.insert(place, why);
    }

    /// Logs one line for each reason.
    fn log(self) {
        let mut reasons: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for (place, why) in self.0 {
            reasons.entry(why).or_default().push(place);
        }
        for (why, places) in reasons {
            let path = places[0].display();
            tracing::warn!(%path, entries = places.len(), why, "not served");
        }
    }
}

/// A file with its encoded forms, which share their bytes with the files of the same content. A form
/// that is older than the file is one of former content.
fn forms(path: &[u8], raw: &Raw, read: &BTreeMap<Vec<u8>, Raw>, left_out: &mut LeftOut) -> Forms {
    let Raw { content, content_type, modified } = raw;
    let encoded = Coding::ALL.into_iter().filter_map(|coding| {
        let path = [path, coding.suffix()].concat();
        let form = read.get(&path)?;
        if form.modified < *modified {
            let why = "it is older than the file of which it is an encoded form; encode it again";
            left_out.add(OsStr::from_bytes(&path).into(), why);
            return None;
        }
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

/// Whether a link may not lead to the file or folder at this path below the folder of `--files`.
/// Kubernetes mounts volumes through links to folders whose names begin with two dots, as
/// `page -> ..data/page` and `..data -> ..2026_11_30_12_00_00.7`.
fn is_hidden_target(below: &Path) -> bool {
    let mut names = below.iter().map(OsStr::as_bytes);
    names.any(|name| is_hidden(name) && !name.starts_with(b".."))
}

/// The target of an entry in a folder.
enum Found {
    File(PathBuf),
    Folder(PathBuf),
}

/// The file or folder to which an entry leads. Links are followed inside the folder `root`, but not
/// to one of the folders in `chain`, which contain the link, because that recursion has no end.
///
/// # Errors
/// The reason why the entry is not served.
fn found(
    root: &Path,
    chain: &[PathBuf],
    place: &Path,
    kind: fs::FileType,
) -> Result<Found, &'static str> {
    if kind.is_file() {
        return Ok(Found::File(place.into()));
    }
    if kind.is_dir() {
        return Ok(Found::Folder(place.into()));
    }
    let leads_to = place.canonicalize().ok().filter(|_| kind.is_symlink());
    let to = leads_to.ok_or("it is neither a file, nor a folder, nor a link to one")?;
    let below = to.strip_prefix(root).map_err(|_| "it is a link out of the folder of --files")?;
    if is_hidden_target(below) {
        Err("it is a link to a name that begins with a dot, or into such a folder")
    } else if to.is_file() {
        Ok(Found::File(to))
    } else if chain.iter().any(|on_the_way| on_the_way.starts_with(&to)) {
        Err("it is a link to a folder that holds it")
    } else if to.is_dir() {
        Ok(Found::Folder(to))
    } else {
        Err("it is a link to neither a file nor a folder")
    }
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

/// The most ways through links to folders that are followed: more than a site has on purpose.
const LINKED_FOLDERS_MAX: usize = 10_000;
/// The approximate memory of a file besides its content and its path, in bytes. It bounds folders
/// of empty files, too.
const ENTRY_BYTES: u64 = 512;
/// The characters that are escaped in the location of a redirect.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests;
