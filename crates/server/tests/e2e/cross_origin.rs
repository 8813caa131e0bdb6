//! Tests of the origins whose pages may use channels: one rule for all transports.

use crate::reader::Position;
use crate::server::{Answer, Server};

/// The answer to a request of a page over a transport; for a stream, the head of its answer.
fn request(server: &Server, transport: &str, origin: &str) -> Answer {
    let target = match transport {
        "/poll" => format!("/poll?topic=a&position={}", Position { epoch: 1, offset: 1 }),
        "/sse" => "/sse?topic=a".into(),
        path => path.into(),
    };
    let upgrade = match transport {
        "/ws" => {
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        }
        _ => "",
    };
    let mut client = server.connect();
    let fields = format!("Host: {}\r\nOrigin: {origin}\r\n{upgrade}", server.data);
    client.send(format!("GET {target} HTTP/1.1\r\n{fields}\r\n").as_bytes());
    // The test reads only the head of the answer, which has the same form for all transports.
    client.answer_to("HEAD")
}

const HERE: &str = "http://own";

/// Each rule holds for WebSockets, streams and polls, and pages of allowed origins may read the
/// answer.
#[test]
fn one_rule_for_all_transports() {
    let listed = "--allow-origin=https://app.example, https://*.murre.example";
    for (flag, origin, is_allowed) in [
        (None, HERE, true),
        (None, "https://elsewhere.example", false),
        (None, "null", false),
        (Some(listed), "https://app.example", true),
        (Some(listed), "https://APP.example:443", true),
        (Some(listed), "https://a.murre.example", true),
        (Some(listed), "http://app.example", false),
        (Some(listed), "https://app.example.evil.example", false),
        (Some(listed), HERE, false),
        (Some(listed), "null", false),
        (Some("--allow-origin=any"), "https://elsewhere.example", true),
        (Some("--allow-origin=any"), "null", true),
    ] {
        let rules = "--namespace=default,history-size=1";
        let server = Server::start(&[Some(rules), flag].into_iter().flatten().collect::<Vec<_>>());
        let own = format!("http://{}", server.data);
        let origin = if origin == HERE { own.as_str() } else { origin };
        for (transport, status) in [("/ws", 101), ("/sse", 200), ("/poll", 200)] {
            let answer = request(&server, transport, origin);
            let what = format!("{transport} {flag:?} {origin}: {answer:?}");
            assert_eq!(answer.status, if is_allowed { status } else { 403 }, "{what}");
            let readers = answer.header("access-control-allow-origin");
            if !is_allowed || transport == "/ws" {
                assert_eq!(readers, None, "{what}");
            } else {
                assert!(readers == Some(origin) || readers == Some("*"), "{what}");
                let varies = answer.header("vary").is_some_and(|vary| vary.contains("Origin"));
                assert!(varies || readers == Some("*"), "{what}");
            }
        }
    }
}

/// The answer to a preflight allows an allowed page to send a token and the id of an event.
#[test]
fn preflights() {
    let server = Server::start(&[
        "--allow-origin=https://app.example",
        "--namespace=default,history-size=1",
    ]);
    let ask = |path: &str, fields: &str| {
        let mut client = server.connect();
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nHost: m\r\n{fields}\r\n").as_bytes());
        client.answer()
    };
    for path in ["/sse?topic=a", "/poll?topic=a"] {
        let method = "Access-Control-Request-Method: GET\r\n";
        let wanted = "Access-Control-Request-Headers: authorization, last-event-id\r\n";
        let answer = ask(path, &format!("Origin: https://app.example\r\n{method}{wanted}"));
        assert!(matches!(answer.status, 200 | 204), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        let allowed =
            answer.header("access-control-allow-headers").expect("headers").to_lowercase();
        for name in ["authorization", "last-event-id"] {
            assert!(allowed.split(", ").any(|allowed| allowed == name), "{allowed}");
        }
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(methods.split(", ").any(|method| method == "GET"), "{methods}");
        let refused = ask(path, &format!("Origin: https://elsewhere.example\r\n{method}{wanted}"));
        assert_eq!(refused.status, 403);
        assert_eq!(refused.header("access-control-allow-origin"), None);
        // Without an origin, OPTIONS is an unsupported method.
        assert_eq!(ask(path, "").status, 405);
    }
}

/// An allowed page may also read an error.
#[test]
fn errors_can_be_read() {
    let server = Server::start(&[
        "--allow-origin=https://app.example",
        "--namespace=default,subscribe=nobody",
    ]);
    for (target, status) in [
        ("/sse?topic=a", 403),
        ("/poll?topic=a", 403),
        ("/sse?topic=%ff", 400),
        ("/sse?topic=a&token=x", 401),
    ] {
        let mut client = server.connect();
        client.send(
            format!("GET {target} HTTP/1.1\r\nHost: m\r\nOrigin: https://app.example\r\n\r\n")
                .as_bytes(),
        );
        let answer = client.answer();
        let readers = answer.header("access-control-allow-origin");
        assert_eq!((answer.status, readers), (status, Some("https://app.example")), "{target}");
    }
}
