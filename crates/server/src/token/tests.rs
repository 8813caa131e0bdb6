//! Tests of `murre token`: what is made is checked, and what is wrong is said.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: TokenCommand,
}

/// The output and the problem of a command line.
fn run(line: &[&str]) -> (String, Option<String>) {
    let line = Line::try_parse_from([&["token"], line].concat());
    line.expect("the arguments are right").command.run()
}

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub/auth/keys").join(name)
}

/// A file with a secret. Removed when dropped.
struct Secret(PathBuf);

impl Secret {
    fn new(name: &str, secret: &str) -> Self {
        let path = std::env::temp_dir().join(format!("murre-{}-{name}", std::process::id()));
        std::fs::write(&path, secret).expect("there is room for a file");
        Secret(path)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A token that is made with any kind of key is good for its public part, and the report has its claims.
#[test]
fn made_and_checked() {
    let secret = Secret::new("made", "a secret of more than thirty-two bytes\n");
    for (private, flag, public, algorithm) in [
        (secret.0.clone(), "--jwt-hmac-secret-file", secret.0.clone(), "HS256"),
        (key("rsa.private.pem"), "--jwt-public-key-file", key("rsa.public.pem"), "RS256"),
        (key("ec.private.pem"), "--jwt-public-key-file", key("ec.public.pem"), "ES256"),
        (key("ed.private.pem"), "--jwt-public-key-file", key("ed.public.pem"), "EdDSA"),
    ] {
        let private = format!("--key-file={}", private.display());
        let public = format!("{flag}={}", public.display());
        let make = |more: &[&str]| {
            let (token, problem) = run(&[&["make", &private], more].concat());
            assert_eq!(problem, None, "{algorithm}");
            token
        };
        let check = |token: &str, more: &[&str]| run(&[&["check", token, &public], more].concat());
        let token = make(&[
            "--sub=ann",
            "--channel=chat:*=subscribe,publish",
            "--channel=a=b=history",
            "--channel=none=",
            "--audience=chat",
            "--issuer=https://id.example",
            "--key-id=one",
        ]);
        let required = ["--jwt-audience=chat", "--jwt-issuer=https://id.example"];
        let (report, problem) = check(&token, &required);
        assert_eq!(problem, None, "{report}");
        for line in [
            &*format!("algorithm  {algorithm}"),
            "key        one",
            "user       ann",
            "for        a connection",
            "chat:*: subscribe, publish",
            "a=b: history",
            "none: none",
        ] {
            assert!(report.contains(line), "{line}: {report}");
        }
        assert!(report.contains(" GMT"), "{report}");
        let (_, problem) = check(&token, &["--jwt-audience=other"]);
        assert!(problem.is_some_and(|why| why.contains("`aud`")));
        let forever = make(&["--sub=ann", "--ttl=never", "--no-channels"]);
        let (report, _) = check(&forever, &[]);
        assert!(report.contains("until      for ever") && report.contains("none in any channel"));
        let (report, _) = check(&make(&["--sub=ann"]), &[]);
        assert!(report.contains("as the rules of the namespaces say"), "{report}");
        let one = make(&["--subscription=chat:lobby"]);
        let (report, problem) = check(&one, &[]);
        assert!(problem.is_none() && report.contains("the subscription to chat:lobby"), "{report}");
        assert!(report.contains("without a user"), "{report}");
        let cut = &token[..token.len() - 10];
        assert!(check(cut, &[]).1.is_some());
    }
}

/// A token that has expired is reported with its claims, and with the problem.
#[test]
fn an_expired_token_is_shown() {
    let secret = Secret::new("expired", "thirty-two bytes or more of secret");
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJleHAiOjE1MDB9.";
    let key = jsonwebtoken::EncodingKey::from_secret(b"thirty-two bytes or more of secret");
    let signed = token.trim_end_matches('.').as_bytes();
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(signed, &key, algorithm).expect("signed");
    let public = format!("--jwt-hmac-secret-file={}", secret.0.display());
    let (report, problem) = run(&["check", &format!("{token}{signature}"), &public]);
    assert!(report.contains("user       ann") && report.contains("1970"), "{report}");
    assert!(problem.is_some_and(|why| why.contains("expired")));
}

/// A wrong argument is refused by the parser, and a key or claims that cannot be used are named.
#[test]
fn what_is_wrong_is_said() {
    let secret = Secret::new("wrong", "a secret of more than thirty-two bytes\n");
    let good = format!("--key-file={}", secret.0.display());
    for line in [
        &["make", "--sub=ann"][..],
        &["make", &good],
        &["make", &good, "--sub=a", "--ttl=0s"],
        &["make", &good, "--sub=a", "--ttl=5"],
        &["make", &good, "--sub=a", "--ttl=-1h"],
        &["make", &good, "--sub=a", "--ttl=99999999999999999999d"],
        &["make", &good, "--sub=a", "--ttl=400000000000000000d"],
        &["make", &good, "--sub=a", "--channel=a"],
        &["make", &good, "--sub=a", "--channel=a=sing"],
        &["make", &good, "--sub=a", "--channel=a=", "--no-channels"],
        &["make", &good, "--subscription=a", "--channel=b="],
        &["check", "x.y.z"],
    ] {
        let parsed = Line::try_parse_from([&["token"], line].concat());
        assert!(parsed.is_err(), "{line:?}");
    }
    let public = format!("--key-file={}", key("ed.public.pem").display());
    let p384 = format!("--key-file={}", key("p384.public.pem").display());
    for (line, named) in [
        (&["make", "--key-file=/none/such", "--sub=a"][..], "/none/such"),
        (&["make", &public, "--sub=a"], "private key"),
        (&["make", &p384, "--sub=a"], "private key"),
        (&["make", &good, "--sub="], "`sub`"),
        (&["make", &good, "--sub=a", "--channel=a=", "--channel=a=publish"], "twice"),
        (&["make", &good, "--sub=a", "--channel==publish"], "pattern"),
        (&["make", &good, "--subscription="], "`channel`"),
        (&["check", "x.y.z", "--jwt-hmac-secret-file=/none/such"], "/none/such"),
        (&["check", "x.y.z", &good.replace("key-file", "jwt-hmac-secret-file")], "JSON Web Token"),
    ] {
        let (output, problem) = run(line);
        let problem = problem.expect("it is wrong");
        assert!(output.is_empty() && problem.contains(named), "{line:?} {problem}");
        assert_eq!(problem.lines().count(), 1, "{problem}");
    }
}
