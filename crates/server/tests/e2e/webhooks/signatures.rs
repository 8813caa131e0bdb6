//! Tests of signatures, with the functions of the documentation.

use std::process::Command;

use nix::sys::signal::Signal;

use super::File;
use super::receiver::{Manner, Receiver, Request};
use crate::client::Client;
use crate::server::Server;

const KEYS: [&str; 3] = [
    "the first key, of more than 32 bytes",
    "the second key, of more than 32 bytes",
    "the third key, which is longer than a block of SHA-256, that is more than 64 bytes",
];

/// Each body is signed by all keys, as the functions of the documentation in Python and in JavaScript verify it.
/// SIGHUP reads the keys again; a key that cannot be read changes nothing.
#[test]
fn signatures() {
    let receiver = Receiver::start(Manner::Take);
    let files = [
        File::new("one", &format!("{}\n", KEYS[0])),
        File::new("two", &format!("{}\r\n", KEYS[1])),
    ];
    let keys = format!("--webhook-key-file={},{}", files[0].0.display(), files[1].0.display());
    let server = Server::start(&[&receiver.flag(), &keys, "--webhook-delay=0.1"]);
    let mut signed: Vec<(Request, [bool; 3])> = Vec::new();
    let mut visit = |keys: [bool; 3]| {
        drop(Client::of(&server));
        let is_gone = |request: &Request| {
            request.body["events"]
                .as_array()?
                .iter()
                .find(|event| event["event"] == "disconnected")
                .map(drop)
        };
        receiver.until("told", |state| {
            let new = state.requests.iter().skip(signed.len());
            new.filter_map(is_gone).next()
        });
        let new = receiver.requests().into_iter().skip(signed.len()).collect::<Vec<_>>();
        signed.extend(new.into_iter().map(|request| (request, keys)));
    };
    visit([true, true, false]);
    std::fs::write(&files[0].0, "short").expect("written");
    server.signal(Signal::SIGHUP);
    server.log_until("keys of webhooks are not read again");
    visit([true, true, false]);
    std::fs::write(&files[0].0, KEYS[2]).expect("written");
    server.signal(Signal::SIGHUP);
    server.log_until("keys of webhooks are read again");
    visit([false, true, true]);
    let requests = [signed.swap_remove(0), signed.pop().expect("the last")];
    for (language, program, argument) in [("python", "python3", "-c"), ("js", "node", "--eval")] {
        let script = script(language);
        for (at, (request, keys)) in requests.iter().enumerate() {
            let signature = request.signature.as_deref().expect("signed");
            let time: i64 = signature[2..]
                .split(',')
                .next()
                .and_then(|time| time.parse().ok())
                .expect(signature);
            assert!((time - crate::guarded::now()).abs() < 120, "{signature}");
            let body = str::from_utf8(&request.text).expect("text");
            let verify = |key: &str, signature: &str, body: &str, now: i64| {
                let now = now.to_string();
                let output = Command::new(program)
                    .args([argument, &script])
                    .envs([("KEY", key), ("SIGNATURE", signature), ("BODY", body), ("NOW", &now)])
                    .output();
                let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
                match str::from_utf8(&output.stdout).expect("text").trim() {
                    "true" => true,
                    "false" => false,
                    other => panic!("{other} {}", String::from_utf8_lossy(&output.stderr)),
                }
            };
            for (key, signs) in KEYS.iter().zip(keys) {
                assert_eq!(
                    verify(key, signature, body, time),
                    *signs,
                    "{language} {key} {signature}"
                );
            }
            if at > 0 {
                continue;
            }
            let key = KEYS[1];
            for (signature, body, now) in [
                (signature, &*format!("{body} "), time),
                (signature, body, time + 301),
                (signature, body, time - 301),
                (&signature.replace(&format!("t={time}"), &format!("t={}", time + 1)), body, time),
                (&format!("{signature},t={time}"), body, time),
                (&signature.replace("v1=", "v2="), body, time),
                (&signature.to_uppercase(), body, time),
                (&format!("t={time},v1="), body, time),
                ("t=,v1=00", body, time),
                ("nonsense", body, time),
                ("", body, time),
            ] {
                assert!(!verify(key, signature, body, now), "{language} {signature}");
            }
            assert!(verify(key, signature, body, time + 299));
        }
    }
}

/// The function `verify` of the documentation, and a call of it.
fn script(language: &str) -> String {
    let text = include_str!("../../../../../docs/webhooks.md");
    let (_, code) = text.split_once(&format!("```{language}\n")).expect("a block of code");
    let (code, _) = code.split_once("```").expect("its end");
    match language {
        "python" => format!(
            "{code}\nimport os\nenv = os.environb\nprint('true' if verify([env[b'KEY']], os.environ['SIGNATURE'], \
             env[b'BODY'], now=int(os.environ['NOW'])) else 'false')"
        ),
        _ => {
            let code = code.replace(
                "import { createHmac, timingSafeEqual } from 'node:crypto'",
                "const { createHmac, timingSafeEqual } = require('node:crypto')",
            );
            let code = code.replace("export function", "function");
            format!(
                "{code}\nconst {{ KEY, SIGNATURE, BODY, NOW }} = process.env\n\
                 console.log(verify([KEY], SIGNATURE, Buffer.from(BODY), Number(NOW)))"
            )
        }
    }
}
