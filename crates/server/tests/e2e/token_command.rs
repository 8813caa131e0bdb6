//! Tests of `murre token` as a process: outputs and exit codes.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::json;

use crate::client::Client;
use crate::guarded::{Guarded, SECRET};
use crate::server::murre;

fn token(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = murre();
    command.arg("token").args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// The server takes a token that the command makes, with its rights; the command checks it, from an
/// argument or from its input. The exit code is 0 for a good token, 1 for a bad one, 2 for bad arguments.
#[test]
fn make_and_check() {
    let guarded = Guarded::start(&["--namespace=chat,subscribe=token,publish=token"]);
    let file = std::env::temp_dir().join(format!("murre-token-{}", std::process::id()));
    std::fs::write(&file, SECRET).expect("there is room for a file");
    let (key, secret) = (
        format!("--key-file={}", file.display()),
        format!("--jwt-hmac-secret-file={}", file.display()),
    );
    let make = ["make", &key, "--sub=ann", "--channel=chat:*=subscribe,publish"];
    let (code, made, problem) = token(&make, "");
    assert_eq!((code, &*problem), (Some(0), ""));
    let mut client = Client::at(&guarded.server, &format!("/ws?token={}", made.trim()));
    client.subscribe("chat:lobby");
    assert_eq!(client.error(json!({"action": "subscribe", "identifier": "news"})), "not_allowed");
    for (arguments, input) in
        [(&["check", &secret, made.trim()][..], ""), (&["check", &secret], &*made)]
    {
        let (code, report, problem) = token(arguments, input);
        assert_eq!((code, &*problem), (Some(0), ""));
        assert!(
            report.contains("ann") && report.contains("chat:*: subscribe, publish"),
            "{report}"
        );
    }
    let (code, report, problem) = token(&["check", &secret], "x.y.z");
    assert_eq!((code, &*report), (Some(1), ""));
    assert!(problem.starts_with("murre: the token is not") && problem.lines().count() == 1);
    let (code, _, problem) = token(&["check", "x.y.z"], "");
    assert!(code == Some(2) && problem.contains("--jwt-hmac-secret-file"), "{problem}");
    let (code, _, problem) = token(&["make", &key], "");
    assert!(code == Some(2) && problem.contains("--sub"), "{problem}");
    std::fs::remove_file(&file).expect("it was there");
}
