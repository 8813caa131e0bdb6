//! Tests of static files on the data port.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::server::{Answer, Client, Server, murre};

/// A folder for one test with these files.
fn folder(name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{name}"));
    // An earlier run may have left the folder.
    let _ = fs::remove_dir_all(&folder);
    for (path, content) in files {
        let place = folder.join(path);
        fs::create_dir_all(place.parent().expect("below the folder")).expect("room");
        fs::write(place, content).expect("room");
    }
    folder
}

fn serve(folder: &PathBuf, flags: &[&str]) -> Server {
    let mut command = murre();
    // Warnings about files that are left out come before the start line, which must be the first
    // line here.
    command.args(["serve", "--max-conns=100", "--log-filter=info,murre::files=error"]);
    Server::spawn(command.args(flags).arg("--files").arg(folder))
}

/// The answer to a request for `target` with these fields.
fn ask(client: &mut Client, method: &str, target: &str, fields: &str) -> Answer {
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: murre\r\n{fields}\r\n").as_bytes());
    client.answer_to(method)
}

/// A large content that does not repeat within a short distance.
fn large() -> Vec<u8> {
    (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// The requests of a browser are answered: a page and its style, again with conditions, in parts,
/// and by the folder.
#[test]
fn a_page_is_served() {
    let folder = folder(
        "page",
        &[("index.html", b"<p>root"), ("a b/index.html", b"<p>below"), ("s.css", b"p {}")],
    );
    let server = serve(&folder, &[]);
    let mut client = server.connect();
    assert_eq!(server.start["files"], 3);

    let page = client.get("/?query=is&not=looked&at");
    assert_eq!((page.status, page.text()), (200, "<p>root"));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert!(page.header("last-modified").is_some_and(|date| date.ends_with(" GMT")));
    let style = client.get("/s%2Ecss");
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));

    let tag = page.header("etag").expect("a tag");
    assert!(tag.starts_with('"') && tag.ends_with('"') && style.header("etag") != Some(tag));
    client.send(format!("GET / HTTP/1.1\r\nHost: m\r\nIf-None-Match: {tag}\r\n\r\n").as_bytes());
    let unchanged = client.answer_to("HEAD");
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(tag)));
    assert_eq!(unchanged.header("content-length"), None);

    let moved = client.get("/a%20b?x=%0d%0a1");
    assert_eq!((moved.status, moved.header("location")), (301, Some("/a%20b/?x=%0d%0a1")));
    assert_eq!(client.get("/a%20b/").text(), "<p>below");

    let part = ask(&mut client, "GET", "/", &format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n"));
    assert_eq!((part.status, part.text()), (206, "p>"));
    assert_eq!(part.header("content-range"), Some("bytes 1-2/7"));
    let beyond = ask(&mut client, "GET", "/", "Range: bytes=7-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */7")));

    let head = ask(&mut client, "HEAD", "/s.css", "Range: bytes=1-2\r\n");
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    let refused = ask(&mut client, "POST", "/s.css", "");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(ask(&mut client, "POST", "/none", "").status, 404);
    assert_eq!(server.stats()["total"]["connections_accepted"], 1);
}

/// Clients that accept a coding get the encoded form of a file. Each form has its own tag and
/// `Vary`; ranges and conditions apply to the form.
#[test]
fn encoded_files_are_served() {
    let files: [(&str, &[u8]); 4] = [
        ("a.js", b"let plain = 1;"),
        ("a.js.br", b"brotli"),
        ("a.js.gz", b"gzipped!"),
        ("b.js", b"b"),
    ];
    let server = serve(&folder("encoded", &files), &[]);
    let mut client = server.connect();
    let mut tags = Vec::new();
    for (accepted, coding, body) in [
        ("gzip, deflate, br, zstd", Some("br"), "brotli"),
        ("gzip", Some("gzip"), "gzipped!"),
        ("identity", None, "let plain = 1;"),
    ] {
        let fields = format!("Accept-Encoding: {accepted}\r\n");
        let answer = ask(&mut client, "GET", "/a.js", &fields);
        assert_eq!((answer.status, answer.text()), (200, body), "{accepted}");
        assert_eq!(answer.header("content-encoding"), coding, "{accepted}");
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{accepted}");
        let tag = answer.header("etag").expect("a tag").to_owned();
        let fields = format!("{fields}If-None-Match: {tag}\r\n");
        let unchanged = ask(&mut client, "HEAD", "/a.js", &fields);
        assert_eq!((unchanged.status, unchanged.header("vary")), (304, Some("Accept-Encoding")));
        let part = ask(
            &mut client,
            "GET",
            "/a.js",
            &format!("{fields}Range: bytes=1-2\r\n").replace("If-None-Match", "If-Match"),
        );
        assert_eq!((part.status, part.text()), (206, &body[1..=2]), "{accepted}");
        assert!(!tags.contains(&tag), "{accepted}");
        tags.push(tag);
    }
    let other = ask(&mut client, "GET", "/b.js", "Accept-Encoding: br\r\n");
    assert_eq!(
        (other.text(), other.header("vary"), other.header("content-encoding")),
        ("b", None, None)
    );
    assert_eq!(client.get("/a.js.gz").header("content-encoding"), None);
}

/// With a fallback, a browser that asks for a page at a path without a file gets the fallback page;
/// missing scripts and pictures, and other requests, get 404.
#[test]
fn a_fallback_is_for_pages() {
    let files: [(&str, &[u8]); 2] = [("app/index.html", b"<p>app"), ("a.js", b"a")];
    let folder = folder("fallback", &files);
    let server = serve(&folder, &["--files-fallback=/app/index.html"]);
    let mut client = server.connect();
    for (method, target, fields, status) in [
        ("GET", "/", "", 200),
        ("GET", "/users/7?tab=1", "Accept: text/html,application/xhtml+xml;q=0.9\r\n", 200),
        ("GET", "/users/7", "Accept: */*;q=0.8\r\n", 200),
        ("HEAD", "/users/", "", 200),
        ("GET", "/users/7", "Accept: application/json\r\n", 404),
        ("GET", "/assets/gone.js", "Accept: */*\r\n", 404),
        ("POST", "/users/7", "", 404),
        ("GET", "/sse", "", 400),
        ("GET", "/ws", "", 426),
    ] {
        let answer = ask(&mut client, method, target, fields);
        assert_eq!(answer.status, status, "{method} {target} {fields}");
        if status == 200 {
            assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
        }
    }
    assert_eq!(client.get("/a.js").text(), "a");
    let mut command = murre();
    command.args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    command.args(["--files-fallback=none.html", "--files"]).arg(&folder);
    let output = command.output().expect("the binary starts");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.code() == Some(1) && stderr.contains("--files-fallback"), "{stderr}");
}

/// The server's own paths take precedence over files of the same name, and the log names those.
#[test]
fn routes_go_before_files() {
    let files: [(&str, &[u8]); 5] = [
        ("healthz", b"f"),
        ("ws", b"f"),
        ("scenario", b"f"),
        ("index.html", b"f"),
        ("a/api/broadcast", b"f"),
    ];
    let folder = folder("routes", &files);
    let server = serve(&folder, &["--bench", "--supabase-path=/a"]);
    let mut client = server.connect();
    assert_eq!(client.get("/healthz").text(), "ok\n");
    assert_ne!(client.get("/ws").text(), "f");
    assert_ne!(client.get("/scenario").text(), "f");
    assert_eq!(client.get("/?length=3").text(), "abc");
    assert_eq!(client.get("/index.html").text(), "f");
    // A WebSocket handshake for a file gets the file, as a request without `Upgrade` does.
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(ask(&mut client, "GET", "/index.html", upgrade).text(), "f");
    server.signal(Signal::SIGTERM);
    let (_, log) = server.end();
    let hidden = log.iter().filter(|line| line.contains("the file at this path is not served"));
    let hidden: Vec<_> = hidden.collect();
    assert_eq!(hidden.len(), 3, "{log:?}");
    for (line, path) in hidden.iter().zip(["\"/healthz\"", "\"/ws\"", "\"/a/api/broadcast\""]) {
        assert!(line.contains(path), "{line}");
    }
}

/// No path leads to a file outside the folder, and the connection continues.
#[test]
fn there_is_no_way_out() {
    let outside = folder("outside", &[("secret", b"s"), ("in/page", b"p"), ("in/.env", b"e")]);
    let inside = outside.join("in");
    for (name, to) in [("link", "../secret"), ("up", ".."), ("passwd", "/etc/passwd")] {
        symlink(to, inside.join(name)).expect("a link");
    }
    let server = serve(&inside, &[]);
    let mut client = server.connect();
    for target in [
        "/../secret",
        "/./../secret",
        "/x/../../secret",
        "/%2e%2e/secret",
        "/%2E%2E%2Fsecret",
        "/..%2fsecret",
        "/..%5csecret",
        "/..\\secret",
        "/%252e%252e/secret",
        "/%c0%ae%c0%ae/secret",
        "/page%00",
        "/page%00.html",
        "/page/",
        "/link",
        "/up/secret",
        "/passwd",
        "/.env",
        "/%2eenv",
        "/etc/passwd",
        "//etc/passwd",
        "//page",
        "http://murre/../secret",
        "/?../secret",
        "/%",
        "/%zz",
    ] {
        assert_eq!(client.get(target).status, 404, "{target}");
    }
    assert_eq!(client.get("http://murre/page").text(), "p");
}

/// A file far larger than the send limit arrives whole, many times on one connection, and no client
/// counts as slow. Many clients that wait for the file share one copy in memory.
#[test]
fn large_files_are_shared() {
    let content = large();
    let folder = folder("large", &[("large.bin", &content), ("small.txt", b"small")]);
    let server = serve(&folder, &["--max-send-bytes=1024", "--shards=2"]);
    let before = server.stats()["memory"]["process"]["anonymous_bytes"].as_u64().expect("bytes");
    let request =
        "GET /large.bin HTTP/1.1\r\nHost: m\r\n\r\nGET /small.txt HTTP/1.1\r\nHost: m\r\n\r\n";
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(request.repeat(2).as_bytes());
    }
    for client in &mut clients {
        // A part of the answer has arrived, so all of it has been queued.
        assert_eq!(client.0.peek(&mut [0]).expect("an answer"), 1);
    }
    let during = server.stats()["memory"]["process"]["anonymous_bytes"].as_u64().expect("bytes");
    let grown = during.saturating_sub(before);
    assert!(grown < 2 * content.len() as u64, "{grown} bytes more for 50 who wait");
    for client in clients.iter_mut().take(3) {
        assert!(client.answer().body == content);
        assert_eq!(client.answer().text(), "small");
        assert!(client.answer().body == content);
        assert_eq!(client.answer().text(), "small");
    }
    let part = ask(&mut clients[0], "GET", "/large.bin", "Range: bytes=100000-5000000\r\n");
    assert!(part.status == 206 && part.body == content[100_000..=5_000_000]);
    drop(clients);
    server.wait_until("reclaimed", |stats| stats["connections"] == 0);
    assert_eq!(server.stats()["closed"]["slow_consumer"], 0);
}

/// A folder that is too large or cannot be read gives one line and exit code 1.
#[test]
fn what_cannot_be_served_is_one_clear_line() {
    let folder = folder("much", &[("a", &[0; 2000])]);
    let file = folder.join("a");
    for (place, problem) in [
        (&folder, "--max-files-bytes"),
        (&file, "Not a directory"),
        (&folder.join("none"), "No such file"),
    ] {
        let mut command = murre();
        command.args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
        let output = command.env("MURRE_FILES", place).env("MURRE_MAX_FILES_BYTES", "2000");
        let output = output.output().expect("the binary starts");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
    }
}
