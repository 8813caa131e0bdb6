//! Tests of malformed input, which is an error and never taken for absent.

use serde_json::{Value, json};

use crate::guarded::Guarded;
use crate::matrix::SHARDS;
use crate::reader::{Events, Position};
use crate::server::Server;

const KEPT: &str = "--namespace=default,publish=anyone,history-size=5";

/// A malformed query is refused with an error that names the problem, and the connection continues.
#[test]
fn queries() {
    let server = Server::start(&[SHARDS[0], SHARDS[1], KEPT]);
    let mut client = server.connect();
    for (target, code) in [
        ("/poll?topic=a&position=garbage", "bad_command"),
        ("/poll?topic=a&position=", "bad_command"),
        ("/poll?topic=a&position", "bad_command"),
        ("/poll?topic=a&position=1", "bad_command"),
        ("/poll?topic=a&position=1-", "bad_command"),
        ("/poll?topic=a&position=-1", "bad_command"),
        ("/poll?topic=a&position=1-+1", "bad_command"),
        ("/poll?topic=a&position=%ff", "bad_command"),
        ("/poll?topic=a&position=1-1&position=1-1", "bad_command"),
        ("/poll?topic=a&position=1-1&position=2-1", "bad_command"),
        ("/poll?topic=a&topic=b", "bad_command"),
        ("/poll?topic=%ff", "bad_identifier"),
        ("/poll?topic=", "bad_identifier"),
        ("/poll?topic", "bad_identifier"),
        ("/poll?topic=a%00", "bad_identifier"),
        ("/poll?position=1-1", "bad_command"),
        ("/poll?", "bad_command"),
        ("/sse?topic=%ff", "bad_identifier"),
        ("/sse?topic=%c3%28", "bad_identifier"),
        ("/sse?topic=a&topic=", "bad_identifier"),
        ("/sse?topic=a&position=garbage", "bad_command"),
        ("/sse?topics=a", "bad_command"),
    ] {
        let answer = client.get(target);
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, &body["code"]), (400, &json!(code)), "{target}: {body}");
        assert!(body["message"].as_str().is_some_and(|message| message.len() > 10), "{body}");
    }
    assert_eq!(client.get("/healthz").status, 200);
}

/// A malformed id of an event counts as a lost position, for every channel of the stream.
#[test]
fn ids_of_events() {
    let server = Server::start(&[SHARDS[0], SHARDS[1], KEPT]);
    let good = Position::now(&server, "a");
    for (target, last) in [
        ("/sse?topic=a", "garbage".to_owned()),
        ("/sse?topic=a", "0".into()),
        ("/sse?topic=a", format!("{good}-1")),
        ("/sse?topic=a", format!("{good},{good}")),
        ("/sse?topic=a", format!(" x{good}")),
        ("/sse?topic=a", "\u{1f426}".into()),
        ("/sse?topic=a&topic=b", format!("{good}")),
        ("/sse?topic=a&topic=b", "garbage".into()),
        ("/sse?topic=a&topic=b", "garbage,1".into()),
    ] {
        let mut events = Events::open(&server, target, Some(&last));
        for _ in target.split('&') {
            let subscribed = events.next().expect("an event");
            let [name, recovered] = [json!(subscribed.name), subscribed.data["recovered"].clone()];
            assert_eq!((name, recovered), (json!("subscribed"), json!(false)), "{target} {last:?}");
        }
    }
    // Nor is an id in the query.
    for query in ["lastEventId=garbage", "lastEventId=%ff", "lastEventId=0"] {
        let mut events = Events::open(&server, &format!("/sse?topic=a&{query}"), None);
        assert_eq!(events.next().expect("an event").data["recovered"], false, "{query}");
    }
    // A valid id is recovered.
    let mut events = Events::open(&server, "/sse?topic=a", Some(&good.to_string()));
    assert_eq!(events.next().expect("an event").data["recovered"], true);
}

/// Malformed credentials are refused, and not taken for absent.
#[test]
fn credentials() {
    let guarded = Guarded::start(&[KEPT]);
    let status = |target: &str, fields: &str| {
        let mut client = guarded.server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n{fields}\r\n").as_bytes());
        client.bytes(12)[9..].to_vec()
    };
    for path in ["/poll?topic=a", "/sse?topic=a"] {
        for fields in [
            "Authorization: Bearer\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: bearer x\r\n",
            "Authorization: Bearer \u{e9}\r\n",
        ] {
            assert_eq!(status(path, fields), b"401", "{path} {fields:?}");
        }
        for query in ["&token=", "&token", "&token=%ff", "&token=a.b.c", "&token=a.b.c&token="] {
            assert_eq!(status(&format!("{path}{query}"), ""), b"401", "{path} {query}");
        }
        assert_eq!(status(path, ""), b"200");
        assert_eq!(status(path, "Authorization: Basic eDp5\r\n"), b"200", "not for us");
    }
}

/// The API refuses data that a WebSocket may not send, and publishes nothing of it.
#[test]
fn data_by_the_api() {
    let guarded = Guarded::start(&[SHARDS[0], SHARDS[1], KEPT]);
    let start = Position::now(&guarded.server, "a");
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    let good = [nested(1), nested(31), b"1e308".to_vec(), b"\"\\u00e9\"".to_vec()];
    let bad = [
        nested(33),
        nested(500_000),
        b"1e400".to_vec(),
        b"-1e400".to_vec(),
        b"[0,1e999]".to_vec(),
        b"\"\xff\"".to_vec(),
        b"\"\xc3\x28\"".to_vec(),
        b"\"\\ud800\"".to_vec(),
        b"nul".to_vec(),
        b"01".to_vec(),
        b"".to_vec(),
    ];
    for (path, channel) in
        [("/api/publish", r#""identifier":"a""#), ("/api/broadcast", r#""identifiers":["a"]"#)]
    {
        let post = |data: &[u8]| {
            let body = [format!("{{{channel},\"data\":").as_bytes(), data, b"}"].concat();
            guarded.post(path, body)
        };
        for data in &bad {
            let (status, body) = post(data);
            let text = String::from_utf8_lossy(&data[..data.len().min(20)]).into_owned();
            assert_eq!((status, &body["code"]), (400, &json!("bad_json")), "{path} {text}: {body}");
        }
        for data in &good {
            assert_eq!(post(data).0, 200);
        }
    }
    let end = Position::now(&guarded.server, "a");
    assert_eq!(end.offset - start.offset, 2 * good.len() as u64);
}
