//! Tests of extreme numbers in every input that takes a number: they affect only their own command.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::matrix::{SHARDS, TRANSPORTS};
use crate::reader::{Position, Reader};
use crate::server::{Server, murre};

/// Extreme numbers in the syntax of JSON.
const NUMBERS: [&str; 19] = [
    "0",
    "-0",
    "-1",
    "0.5",
    "1e3",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890123456789012345678901234567890",
    "1e19",
    "1e300",
    "-1e300",
];

/// A check for integers without a sign, up to `max`.
fn up_to(max: u64) -> impl Fn(&str) -> bool {
    move |number| number.parse().is_ok_and(|number: u64| number <= max)
}

/// Every member of a command that takes a number accepts it or gives `bad_command`, and the next
/// command is answered.
#[test]
fn members_of_commands() {
    let open = "--namespace=default,publish=anyone,serve=anyone,history-size=5";
    let server = Server::start(&[SHARDS[0], SHARDS[1], "--max-commands-per-second=100000", open]);
    let mut client = Client::of(&server);
    client.publish("a", json!(1));
    let history = |members: &str| format!(r#"{{"action":"history","identifier":"a",{members}}}"#);
    let request = r#"{"action":"request","service":"s","data":1,"id":1,"timeout":N}"#;
    type Takes = Box<dyn Fn(&str) -> bool>;
    let members: [(String, Takes); 7] = [
        (r#"{"action":"ping","id":N}"#.into(), Box::new(up_to(1 << 53))),
        (history(r#""limit":N"#), Box::new(up_to(1000))),
        (history(r#""position":{"epoch":N,"offset":0}"#), Box::new(up_to(u32::MAX.into()))),
        (history(r#""position":{"epoch":0,"offset":N}"#), Box::new(up_to(u64::MAX))),
        (request.into(), Box::new(|number| number != "0" && up_to(60_000)(number))),
        (r#"{"action":"publish","identifier":"a","data":N,"id":1}"#.into(), Box::new(|_| true)),
        (r#"{"action":"reply","request":N,"data":1}"#.into(), Box::new(|_| false)),
    ];
    for (command, takes) in &members {
        for number in NUMBERS {
            let command = command.replace('N', number);
            client.send_text(&command);
            let answer = client.receive();
            let taken = answer["type"] != "error" || answer["code"] == "no_responders";
            assert_eq!(taken, takes(number), "{command}: {answer}");
            assert!(taken || answer["code"] == "bad_command", "{command}: {answer}");
        }
    }
    // A subscription that cannot be recovered says so.
    for member in ["epoch", "offset"] {
        for number in NUMBERS {
            let mut subscriber = Client::of(&server);
            let Position { epoch, offset } = Position::now(&server, "a");
            let mut position = json!({"epoch": epoch, "offset": offset}).to_string();
            let known = if member == "epoch" { epoch } else { offset };
            position = position
                .replace(&format!("\"{member}\":{known}"), &format!("\"{member}\":{number}"));
            let subscribe = r#"{"action":"subscribe","identifier":"a","position":"#;
            subscriber.send_text(&format!("{subscribe}{position}}}"));
            let answer = subscriber.receive();
            let is_lost =
                answer["recovered"] == false || number == "0" && answer["recovered"] == true;
            assert!(is_lost || answer["code"] == "bad_command", "{position}: {answer}");
            client.publish("a", json!(2));
            if is_lost {
                while subscriber.receive()["data"] != 2 {}
            }
        }
    }
}

/// Every number as a time in a token gives no expiry or one that has passed, in the header, in the
/// query and in `auth`.
#[test]
fn times_of_tokens() {
    let guarded = Guarded::start(&["--max-commands-per-second=100000"]);
    let server = &guarded.server;
    let mut client = Client::of(server);
    for claim in ["exp", "nbf"] {
        for number in NUMBERS {
            let claims: Value = serde_json::from_str(&format!("[{number}]")).expect("JSON");
            let token = token(&json!({"sub": "ann", (claim): claims[0]}));
            let in_future = number.parse::<f64>().expect("a number") > 2e9;
            let is_good = in_future == (claim == "exp");
            let answer = client.ask(json!({"action": "auth", "token": token}));
            let expected = if is_good { "authenticated" } else { "error" };
            assert_eq!(answer["type"], expected, "{claim} {number}: {answer}");
            let by_query = format!("GET /sse?topic=a&token={token} HTTP/1.1\r\nHost: m\r\n\r\n");
            let by_header = format!(
                "GET /sse?topic=a HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            for request in [by_query, by_header] {
                let mut stream = server.connect();
                stream.send(request.as_bytes());
                let status = if is_good { "200" } else { "401" };
                assert_eq!(
                    stream.bytes(12),
                    format!("HTTP/1.1 {status}").as_bytes(),
                    "{claim} {number}"
                );
            }
        }
    }
}

/// Every number in the position of a poll or in the id of an event is accepted as a position or
/// refused.
#[test]
fn positions_in_texts() {
    let kept = "--namespace=default,history-size=5";
    let server = Server::start(&[SHARDS[0], SHARDS[1], kept, "--ping-interval=600"]);
    for number in NUMBERS {
        for (position, max) in
            [(format!("{number}-0"), u32::MAX.into()), (format!("0-{number}"), u64::MAX)]
        {
            let answer = server.connect().get(&format!("/poll?topic=a&position={position}"));
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            if up_to(max)(number) {
                assert_eq!((answer.status, &body["recovered"]), (200, &json!(false)), "{position}");
            } else {
                assert_eq!(
                    (answer.status, &body["code"]),
                    (400, &json!("bad_command")),
                    "{position}"
                );
            }
            let mut stream = crate::reader::Events::open(&server, "/sse?topic=a", Some(&position));
            let subscribed = stream.next().expect("an event");
            assert_eq!(subscribed.data["recovered"], false, "{position}");
        }
    }
}

/// Every number in a query or a path of the API is accepted or refused.
#[test]
fn the_api() {
    let guarded = Guarded::start(&["--shards=2"]);
    for number in NUMBERS {
        for path in [
            format!("/api/channels?limit={number}"),
            format!("/api/channels?from={number}-0"),
            format!("/api/channels?from=0-{number}"),
            format!("/api/connections/{number}-0-0"),
            format!("/api/connections/0-{number}-0"),
            format!("/api/connections/0-0-{number}"),
        ] {
            let (status, body) = guarded.get(&path);
            assert!(matches!(status, 200 | 400 | 404), "{path}: {status} {body}");
            assert!(status == 200 || body["message"].is_string(), "{path}: {status} {body}");
        }
        let connection = format!(r#"{{"connection":"0-{number}-0"}}"#);
        let (status, _) = guarded.post("/api/disconnect", connection);
        assert!(matches!(status, 200 | 400), "{number}: {status}");
    }
}

/// Whether the server accepts a flag. It runs with a wrong address, too, so its error names either
/// the flag or the address.
fn is_taken(flag: &str) -> bool {
    let wrong_address = "--listen=wrong";
    let output = murre().args(["serve", flag, wrong_address]).stderr(Stdio::piped()).output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(2), "{flag}");
    let error = String::from_utf8(output.stderr).expect("text");
    let name = flag.split('=').next().expect("a name");
    assert!(error.contains(name) || error.contains("--listen"), "{flag}: {error}");
    !error.contains(name)
}

/// The server runs and ends with every limit at its smallest value, and with every limit at its
/// largest.
#[test]
fn limits() {
    let limits = Server::start(&[]).stats()["limits"].take();
    let names: Vec<String> =
        limits.as_object().expect("an object").keys().map(|name| name.replace('_', "-")).collect();
    assert!(names.len() > 25, "{names:?}");
    let numbers =
        ["0.1", "1", "255", "1024", "3600", "1000000", "16000000", "100000000", "1073741824"];
    let mut numbers: Vec<&str> =
        numbers.into_iter().chain(NUMBERS).filter(|n| !n.starts_with('-')).collect();
    numbers.sort_by(|a, b| a.parse::<f64>().expect(a).total_cmp(&b.parse().expect(b)));
    let flags = |numbers: &[&str]| -> Vec<String> {
        let first = |name: &String| {
            let mut flags = numbers.iter().map(|number| format!("--{name}={number}"));
            flags.find(|flag| is_taken(flag)).unwrap_or_else(|| panic!("--{name} takes nothing"))
        };
        // These limits are left out, because connections take memory and the largest floor would
        // refuse all clients.
        let rest =
            names.iter().filter(|name| !["max-conns", "memory-floor-bytes"].contains(&&***name));
        rest.map(first).collect()
    };
    let smallest = flags(&numbers);
    numbers.reverse();
    let largest = flags(&numbers);
    // With the smallest limits a message does not fit, so clients receive none.
    works(&smallest, false);
    works(&largest, true);
}

/// Starts a server with these flags, connects a client of every kind, and ends the server.
fn works(flags: &[String], hears: bool) {
    let open =
        "--namespace=default,publish=anyone,serve=anyone,history-size=1000000,history-ttl=31536000";
    let end = ["--shards=2", "--drain-timeout=0.1", open];
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(end).collect();
    let server = Server::start(&flags);
    if hears {
        for transport in TRANSPORTS {
            let mut reader = Reader::begin(&server, transport, "a", None);
            let mut client = Client::of(&server);
            client.publish("a", json!(1));
            assert_eq!(reader.data(), 1, "{transport:?}");
            let request =
                json!({"action": "request", "service": "s", "data": 1, "timeout": 60_000});
            assert_eq!(client.error(request), "no_responders");
        }
    } else {
        let _ = server.connect();
        server.wait_until("served", |stats| stats["total"]["connections_accepted"] == 1);
    }
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{flags:?}: {log:?}");
}
