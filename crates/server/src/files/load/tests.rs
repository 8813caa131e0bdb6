//! Tests of the loading of a folder: paths, links, encoded forms and the limit of memory.

use std::os::unix::fs::symlink;
use std::time::Duration;

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
        &[("index.html", "root"), ("a/b/index.html", "ab"), ("a/c.txt", "c"), ("aindex.html", "")],
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

/// Links to files inside the folder are followed; links out of it or to hidden names, hidden names
/// themselves and special files are left out. Files that change later are served as they were at start.
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
        ("hidden", ".env"),
        ("hidden-folder", ".git"),
        ("in-a-hidden-folder", ".git/config"),
        ("through-a-hidden-name", ".page"),
        (".page", "page"),
        ("known", ".well-known"),
    ];
    for (name, to) in links {
        symlink(to, place.join(name)).expect("a link");
    }
    nix::unistd::mkfifo(&place.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let files = Files::read(&place, 1 << 20, None).expect("it can be read");
    assert_eq!(files.count(), 5, "{:?}", files.paths.keys());
    for served in ["/inside", "/through-a-hidden-name"] {
        assert_eq!(at(&files, served), Some("p"));
    }
    assert_eq!(at(&files, "/known/security.txt"), Some("w"));
    assert_eq!(at(&files, "/.well-known/security.txt"), Some("w"));
    fs::write(place.join("page"), "changed").expect("room");
    assert_eq!(at(&files, "/page"), Some("p"));
}

/// Links to folders inside the folder are followed, except links to a folder that contains
/// them. The target may have two dots, as in a volume of Kubernetes.
#[test]
fn links_to_folders_are_followed() {
    let outside = Folder::new("folders", &[("out/x", "x"), ("in/a/page", "p"), ("in/b/c/y", "y")]);
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

/// Links that multiply folders exponentially, in a chain or in a circle, end with an error that names
/// the links.
#[test]
fn links_do_not_multiply() {
    let circle = Folder::new("circle", &[]);
    for from in 0..12 {
        fs::create_dir(circle.0.join(from.to_string())).expect("room");
        for to in (0..12).filter(|&to| to != from) {
            let place = circle.0.join(from.to_string()).join(to.to_string());
            symlink(format!("../{to}"), place).expect("a link");
        }
    }
    let folder = Folder::new("multiply", &[("30/end", "")]);
    for number in 0..30 {
        fs::create_dir(folder.0.join(number.to_string())).expect("room");
        for name in ["a", "b"] {
            let place = folder.0.join(number.to_string()).join(name);
            symlink(format!("../{}", number + 1), place).expect("a link");
        }
    }
    for folder in [circle, folder] {
        let error = Files::read(&folder.0, 1 << 30, None).expect_err("more than 2^30 paths");
        assert!(matches!(error, FilesError::TooManyLinks { .. }), "{error}");
        assert!(error.to_string().contains("link to each other"), "{error}");
    }
}

/// The log has one line for each reason why entries are not served, and each entry counts once,
/// however many links lead to its folder.
#[test]
fn entries_are_left_out_once() {
    let folder = Folder::new("once", &[("a/page", "p")]);
    for name in ["b", "c"] {
        symlink("a", folder.0.join(name)).expect("a link");
    }
    for name in ["out", "away"] {
        symlink("../../nowhere", folder.0.join("a").join(name)).expect("a link");
    }
    let mut left_out = LeftOut::default();
    let read = fs::canonicalize(&folder.0).expect("it is there");
    let chain = [read.clone(), read.join("a")];
    for _ in 0..3 {
        for entry in entries(&chain[1]).expect("it can be read") {
            let kind = entry.file_type().expect("it is there");
            if let Err(why) = found(&read, &chain, &entry.path(), kind) {
                left_out.add(entry.path(), why);
            }
        }
    }
    assert_eq!(left_out.0.len(), 2, "{:?}", left_out.0);
    assert_eq!(folder.read().count(), 3);
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

/// An encoded form that is older than its file is not served in its place, but at its own path.
#[test]
fn old_forms_are_not_served() {
    let folder = Folder::new("old", &[("a.js", "new"), ("a.js.gz", "old"), ("a.js.br", "new")]);
    let set = |name: &str, seconds| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = fs::File::options().write(true).open(folder.0.join(name)).expect("it is there");
        file.set_modified(at).expect("it is ours");
    };
    for (form, encoded) in
        [(999, vec!["br"]), (1000, vec!["br", "gzip"]), (1001, vec!["br", "gzip"])]
    {
        for (name, at) in [("a.js", 1000), ("a.js.gz", form), ("a.js.br", 1000)] {
            set(name, at);
        }
        let files = folder.read();
        let Some(Entry::File(forms)) = files.find("/a.js") else { panic!("it is there") };
        let found: Vec<_> = forms.encoded.iter().map(|(coding, _)| coding.name()).collect();
        assert_eq!(found, encoded, "{form}");
        assert_eq!(at(&files, "/a.js.gz"), Some("old"));
    }
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
