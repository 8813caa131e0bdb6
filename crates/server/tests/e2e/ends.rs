//! Tests of the ends of sessions by the server: each reason over each transport, in the form of the
//! transport.

use std::io::{BufRead, BufReader, Read};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::chunks::Chunks;
use crate::client::Client;
use crate::guarded::{Guarded, expiring};
use crate::matrix::Transport::{self, Poll, Stream, StreamOfTwo, WebSocket};
use crate::reader::Position;
use crate::recovery::{FAST, numbered};
use crate::server::{self, Server};

/// The reason why a session ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    TokenExpired,
    Administrator,
    Slow,
    Draining,
    TooFast,
}
use Reason::{Administrator, Draining, Slow, TokenExpired, TooFast};

/// The last messages to the client.
enum Told {
    /// An error, and a close frame with this code.
    Closed(u16, &'static str),
    /// An event `error` as the last one.
    Event(&'static str),
    /// An answer with this status and error.
    Answer(u16, &'static str),
    /// The time to come back: in a close frame, in a `retry:` field, or by an empty answer.
    ComeBack,
}
use Told::{Answer, Closed, ComeBack, Event};

/// Makes a test of each row.
macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident: $reason:expr, $transport:expr => $told:expr;)*) => {
        $($(#[$doc])* #[test] fn $name() { ends($reason, $transport, &$told) })*
    };
}

// Streams and polls send no commands, so they are never too fast. A poll has only one answer, and
// `costs::a_poll_that_is_not_read` tests polls that are not read.
cells! {
    /// A token expires under a WebSocket.
    a_token_expires_under_a_websocket: TokenExpired, WebSocket => Closed(1008, "token_expired");
    /// A token expires under a stream.
    a_token_expires_under_a_stream: TokenExpired, Stream => Event("token_expired");
    /// A token expires under a stream of two channels.
    a_token_expires_under_a_stream_of_two: TokenExpired, StreamOfTwo => Event("token_expired");
    /// A token expires under a poll that waits.
    a_token_expires_under_a_poll: TokenExpired, Poll => Answer(401, "token_expired");
    /// An administrator ends a WebSocket.
    an_administrator_ends_a_websocket: Administrator, WebSocket => Closed(4000, "disconnected");
    /// An administrator ends a stream.
    an_administrator_ends_a_stream: Administrator, Stream => Event("disconnected");
    /// An administrator ends a stream of two channels.
    an_administrator_ends_a_stream_of_two: Administrator, StreamOfTwo => Event("disconnected");
    /// An administrator ends a poll that waits.
    an_administrator_ends_a_poll: Administrator, Poll => Answer(403, "disconnected");
    /// A WebSocket is read too slowly.
    a_websocket_is_too_slow: Slow, WebSocket => Closed(1013, "too_slow");
    /// A stream is read too slowly.
    a_stream_is_too_slow: Slow, Stream => Event("too_slow");
    /// A stream of two channels is read too slowly.
    a_stream_of_two_is_too_slow: Slow, StreamOfTwo => Event("too_slow");
    /// The server drains under a WebSocket.
    a_drain_ends_a_websocket: Draining, WebSocket => ComeBack;
    /// The server drains under a stream.
    a_drain_ends_a_stream: Draining, Stream => ComeBack;
    /// The server drains under a stream of two channels.
    a_drain_ends_a_stream_of_two: Draining, StreamOfTwo => ComeBack;
    /// The server drains under a poll that waits.
    a_drain_ends_a_poll: Draining, Poll => ComeBack;
    /// A WebSocket sends commands too fast.
    a_websocket_is_too_fast: TooFast, WebSocket => Closed(1008, "too_fast");
}

/// Begins a session, causes its end, and compares all that the client receives with the table.
fn ends(reason: Reason, transport: Transport, told: &Told) {
    // In a channel with history, a slow reader gets its reason only when it reads again.
    let history = if reason == Slow { "" } else { ",history-size=5" };
    let rules = &format!("--namespace=default,publish=anyone{history}");
    let mut flags = vec!["--shards=2", "--retry-after=7", "--drain-timeout=0.5", rules];
    flags.extend(match reason {
        Slow => &["--slow-grace=0.1", "--max-log-bytes=1024", FAST][..],
        TooFast => &["--max-commands-per-second=10"],
        _ => &[FAST],
    });
    let guarded = Guarded::start(&flags);
    let server = &guarded.server;
    // With the leeway of 10 s for clocks that differ, the token expires in one or two seconds.
    let token = expiring(if reason == TokenExpired { -8 } else { 3600 });
    let mut session = begin(server, transport, &token);
    server.wait_until("subscribed", |stats| stats["total"]["subscriptions"] != 0);
    bring_about(reason, &guarded, &mut session);
    if transport == Poll {
        hold_poll(told, &mut session);
        drop(session);
        return server_is_empty(reason, server);
    }
    let mut sent = Vec::new();
    match session.0.read_to_end(&mut sent) {
        Ok(_) => {}
        // The server may have closed before it received all commands.
        Err(error) => {
            assert_eq!((error.kind(), reason), (std::io::ErrorKind::ConnectionReset, TooFast))
        }
    }
    hold(transport, told, &sent);
    drop(session);
    server_is_empty(reason, server);
}

/// Begins a session on the channel `a`, and also on `b` for a stream of two.
fn begin(server: &Server, transport: Transport, token: &str) -> server::Client {
    let target = match transport {
        WebSocket => {
            let mut client = server.raw_websocket(&format!("/ws?token={token}"));
            client.send(&text(r#"{"action":"subscribe","identifier":"a"}"#));
            return client;
        }
        Stream => format!("/sse?topic=a&token={token}"),
        StreamOfTwo => format!("/sse?topic=a&topic=b&token={token}"),
        Poll => format!("/poll?topic=a&position={}&token={token}", Position::now(server, "a")),
    };
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    client
}

fn text(text: &str) -> Vec<u8> {
    server::frame(server::TEXT, text.as_bytes())
}

fn bring_about(reason: Reason, guarded: &Guarded, session: &mut server::Client) {
    match reason {
        // The token expires by itself.
        TokenExpired => {}
        Administrator => {
            let answer = guarded.post("/api/disconnect", r#"{"user":"ann"}"#);
            assert_eq!(answer, (200, json!({"disconnected": 1})));
        }
        Slow => {
            let mut publisher = Client::of(&guarded.server);
            let ended = |stats: &Value| stats["total"]["slow_consumers_disconnected"] == 1;
            for number in 0.. {
                publisher.publish_patiently("a", numbered(number, 50_000));
                if ended(&guarded.server.stats()) {
                    break;
                }
            }
        }
        Draining => guarded.server.signal(Signal::SIGTERM),
        TooFast => session.send(&text(r#"{"action":"ping"}"#).repeat(1000)),
    }
}

/// Checks that all received bytes are as in the table.
fn hold(transport: Transport, told: &Told, sent: &[u8]) {
    match transport {
        WebSocket => {
            let (messages, close) = frames(sent);
            let code = u16::from_be_bytes([close[0], close[1]]);
            match told {
                Closed(expected, error) => {
                    let last: Value =
                        serde_json::from_str(messages.last().expect("an error")).expect("JSON");
                    assert_eq!((code, &last["code"]), (*expected, &json!(error)));
                }
                _ => assert!(code == 1012 && retry(&close[2..], "retry=", ""), "{close:?}"),
            }
        }
        Stream | StreamOfTwo => {
            assert!(sent.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", sent.escape_ascii());
            let head = sent.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
            let mut chunks = Chunks::new(BufReader::new(&sent[head + 4..]));
            let mut sent = String::new();
            chunks.read_to_string(&mut sent).expect("no frames");
            assert!(chunks.ended, "the last chunk tells that nothing is missing");
            assert_eq!(chunks.inner.fill_buf().expect("bytes"), b"", "nothing follows");
            assert!(sent.ends_with("\n\n"), "the last event is whole");
            let last = sent.trim_end().rsplit("\n\n").next().expect("an event");
            match told {
                Event(error) => {
                    let data = last.strip_prefix("event: error\ndata: ").expect(last);
                    let data: Value = serde_json::from_str(data).expect("JSON");
                    assert_eq!((&data["type"], &data["code"]), (&json!("error"), &json!(error)));
                }
                _ => assert!(retry(last.as_bytes(), "retry: ", "000"), "{last}"),
            }
        }
        Poll => unreachable!("a poll is one answer"),
    }
}

/// Checks that the answer to a poll is as in the table, and that the connection continues as the
/// answer says.
fn hold_poll(told: &Told, session: &mut server::Client) {
    let answer = session.answer();
    let body: Value = serde_json::from_slice(&answer.body).expect("one JSON object");
    let (status, code) = match told {
        Answer(status, code) => (*status, json!(code)),
        _ => (200, Value::Null),
    };
    assert_eq!((answer.status, &body["code"]), (status, &code), "{answer:?}");
    let ends = matches!(told, Answer(401, _) | ComeBack);
    assert_eq!(answer.header("connection"), ends.then_some("close"), "{answer:?}");
    assert!(answer.header("date").is_some(), "{answer:?}");
    assert_eq!(answer.header("www-authenticate").is_some(), answer.status == 401, "{answer:?}");
    if ends {
        assert!(session.rest().is_empty());
    } else {
        assert_eq!(session.get("/healthz").status, 200);
    }
}

/// Whether a text ends with `before`, a number of seconds from 1 to 7, and `zeros`.
fn retry(text: &[u8], before: &str, zeros: &str) -> bool {
    let text = std::str::from_utf8(text).expect("text");
    let ends = |seconds: u32| text.ends_with(&format!("{before}{seconds}{zeros}"));
    (1..=7).any(ends)
}

/// The text messages of a WebSocket, and the payload of the close frame that ends it.
fn frames(mut bytes: &[u8]) -> (Vec<&str>, &[u8]) {
    let mut messages = Vec::new();
    loop {
        let (head, length) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            length => (2, usize::from(length)),
        };
        let (payload, rest) = bytes[head..].split_at(length);
        match bytes[0] {
            server::TEXT => messages.push(std::str::from_utf8(payload).expect("text")),
            server::CLOSE => {
                assert!(rest.is_empty(), "the close frame is the last");
                return (messages, payload);
            }
            other => panic!("a frame {other:#x}"),
        }
        bytes = rest;
    }
}

/// Checks that nothing is left of the session, unless the server has drained and ended.
fn server_is_empty(reason: Reason, server: &Server) {
    if reason == Draining {
        return;
    }
    server.wait_until("empty", |stats| {
        let names =
            ["subscriptions", "connections_authenticated", "tokens_expiring", "commands_waiting"];
        names.iter().all(|name| stats["total"][name] == 0)
    });
}
