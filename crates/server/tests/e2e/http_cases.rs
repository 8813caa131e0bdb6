//! Tests of every case of `docs/http.md` over TCP: the answers, and the state of the connection
//! after them.

use crate::bad_input::Witness;
use crate::cases::{cases, sent, statuses};
use crate::server::{Client, Server, TEXT, frame};

/// Each case of the document gets the documented answers, and the connection ends or continues as
/// the document says.
#[test]
fn requests_are_answered_as_the_document_says() {
    let server = Server::start(&[]);
    let mut witness = Witness::of(&server);
    let mut refused = 0;
    for [section, case, code, answers, then] in cases() {
        // The case alone, and behind another request in the same packet.
        for before in ["", "{next}"] {
            let what = format!("{section}, {case}: {before}{code}");
            let mut client = server.connect();
            let stream = sent(code);
            client.send(&[sent(&format!("`{before}`")), stream.clone()].concat());
            if !before.is_empty() {
                assert_eq!(client.answer().status, 200, "{what}");
            }
            let mut method = if stream.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
            let mut last = None;
            for status in statuses(answers) {
                let answer = client.answer_to(method);
                assert_eq!(answer.status, status, "{what} got {answer:?}");
                (method, last) = ("GET", Some(answer));
            }
            let fields = answers.split_once(", ").map_or("", |(_, fields)| fields);
            for field in fields.split("; ").filter(|field| !field.is_empty()) {
                let (name, value) = field.split_once(": ").expect("a field");
                let answer = last.as_ref().expect("an answer that has it");
                assert_eq!(answer.header(name), Some(value), "{what}");
            }
            if then == "refused" {
                refused += 1;
                let answer = last.as_ref().expect("a refusal");
                assert_eq!(answer.header("connection"), Some("close"), "{what}");
            }
            ends(&mut client, then, &what);
            witness.is_served();
        }
    }
    assert!(refused > 100, "{refused} refusals");
    server.wait_until("counted", |stats| stats["closed"]["bad_request"] == refused);
    server.wait_until("reclaimed", |stats| stats["connections"] == 1);
}

/// Checks that the connection ends or continues as `then` says.
fn ends(client: &mut Client, then: &str, what: &str) {
    match then {
        "open" => assert_eq!(client.get("/healthz").status, 200, "{what}"),
        "WebSocket" => {
            client.send(&frame(TEXT, b"murre"));
            assert_eq!(client.bytes(7), b"\x81\x05murre", "{what}");
        }
        "closed" | "refused" | "ended" => assert!(client.rest().is_empty(), "{what}"),
        "waits" => {
            client.half_close();
            assert!(client.rest().is_empty(), "{what}");
        }
        _ => panic!("{what}: then?"),
    }
}
