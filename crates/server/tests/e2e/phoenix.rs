//! Tests of Phoenix Channels over WebSocket: the behaviours of Phoenix's own integration tests
//! (`test/phoenix/integration/websocket_channels_test.exs`), and messages byte by byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use crate::client::Client;
use crate::guarded::{Guarded, expiring, now, signed, token};
use crate::phoenix_client::Phoenix;
use crate::server::Server;

/// Everybody may publish.
const OPEN: &str = "--namespace=default,publish=anyone;from,publish=anyone,phoenix-push=broadcast_from;\
                    kept,publish=anyone,history-size=10;ask,phoenix-push=request;shut,subscribe=nobody";

fn server() -> Server {
    Server::start(&["--phoenix-path=/socket,/", OPEN, "--shards=2"])
}

/// A conversation of version 2: joins, pushes, stale and missing join refs, a second join of the topic,
/// leaves.
#[test]
fn a_conversation() {
    let server = server();
    for path in ["/socket/websocket?vsn=2.0.0", "/websocket?vsn=2.0.5&user_id=7"] {
        let mut client = Phoenix::at(&server, path);
        client.send(r#"["1","1","room:lobby","phx_join",{"token":"t"}]"#);
        client.hears(&[r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#]);
        client.send(r#"["1","2","room:lobby","new_msg",{"body" : "hi"}]"#);
        client.hears(&[
            r#"["1","2","room:lobby","phx_reply",{"status":"ok","response":{}}]"#,
            r#"[null,null,"room:lobby","new_msg",{"body":"hi"}]"#,
        ]);
        client.send(r#"[null,"3","phoenix","heartbeat",{}]"#);
        client.hears(&[r#"[null,"3","phoenix","phx_reply",{"status":"ok","response":{}}]"#]);
        client.send(r#"["1","4","nowhere","x",{}]"#);
        client.hears(&[
            r#"[null,"4","nowhere","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        ]);
        client.send(r#"["0","5","room:lobby","x",{}]"#);
        client.send(r#"[null,"6","room:lobby","new_msg",{}]"#);
        client.hears(&[
            r#"["1","6","room:lobby","phx_reply",{"status":"ok","response":{}}]"#,
            r#"[null,null,"room:lobby","new_msg",{}]"#,
        ]);
        client.send(r#"["7","7","room:lobby","phx_join",{}]"#);
        client.hears(&[
            r#"["7","7","room:lobby","phx_reply",{"status":"ok","response":{}}]"#,
            r#"["1","1","room:lobby","phx_close",{}]"#,
        ]);
        client.send(r#"["1","8","room:lobby","phx_leave",{}]"#);
        client.send(r#"["7","9","room:lobby","phx_leave",{}]"#);
        client.hears(&[
            r#"["7","9","room:lobby","phx_reply",{"status":"ok","response":{}}]"#,
            r#"["7","7","room:lobby","phx_close",{}]"#,
        ]);
        client.send(r#"["7","10","room:lobby","phx_leave",{}]"#);
        client.hears(&[r#"["7","10","room:lobby","phx_reply",{"status":"ok","response":{}}]"#]);
        client.silent();
    }
}

/// A conversation of version 1, whose messages have no join ref.
#[test]
fn version_1() {
    let server = server();
    for path in ["/socket/websocket", "/socket/websocket?vsn=1.0.0"] {
        let mut client = Phoenix::at(&server, path);
        client.send(r#"{"topic":"room:a","event":"phx_join","payload":{},"ref":"1"}"#);
        let ok = |reference: &str| {
            format!(
                r#"{{"topic":"room:a","event":"phx_reply","payload":{{"status":"ok","response":{{}}}},"ref":{reference}}}"#
            )
        };
        client.hears(&[&ok("\"1\"")]);
        client.send(r#"{"topic":"room:a","event":"e","payload":{},"ref":2}"#);
        client.hears(&[&ok("2"), r#"{"topic":"room:a","event":"e","payload":{},"ref":null}"#]);
        client.send(r#"{"topic":"room:a","event":"phx_leave","payload":{},"ref":"3"}"#);
        client.hears(&[
            &ok("\"3\""),
            r#"{"topic":"room:a","event":"phx_close","payload":{},"ref":null}"#,
        ]);
    }
}

/// Refs are any strings, numbers or null, and come back as they were sent.
#[test]
fn refs_come_back() {
    let server = server();
    let mut client = Phoenix::of(&server);
    for (join_ref, other) in
        [("\"x\\n🚀\"", "7"), ("7", "\"7\""), ("null", "\"1\""), ("\"0\"", "\"00\"")]
    {
        client.send(&format!(r#"[{join_ref},12,"a","phx_join",{{}}]"#));
        client.hears(&[&format!(
            r#"[{join_ref},12,"a","phx_reply",{{"status":"ok","response":{{}}}}]"#
        )]);
        // Another ref is stale, if the join has one; null means the current join.
        client.send(&format!(r#"[{other},1,"a","phx_leave",{{}}]"#));
        client.silent();
        client.send(r#"[null,"l","a","phx_leave",{}]"#);
        client.hears(&[
            &format!(r#"[{join_ref},"l","a","phx_reply",{{"status":"ok","response":{{}}}}]"#),
            &format!(r#"[{join_ref},{join_ref},"a","phx_close",{{}}]"#),
        ]);
    }
}

/// All subscribers get a publication, of both versions and other protocols, with its event; a rule
/// leaves out the sender.
#[test]
fn publications_reach_all() {
    let server = server();
    let (mut ann, mut bob) = (Phoenix::of(&server), Phoenix::of(&server));
    let mut old = Phoenix::at(&server, "/socket/websocket");
    let mut murre = Client::of(&server);
    for topic in ["room:a", "from:a"] {
        ann.join(topic, "1");
        bob.join(topic, "2");
        old.send(&format!(r#"{{"topic":"{topic}","event":"phx_join","payload":{{}},"ref":"1"}}"#));
        assert!(old.receive().contains("\"ok\""));
        murre.subscribe(topic);
        ann.send(&format!(r#"["1","2","{topic}","shout",{{"n":1.50}}]"#));
        ann.hears(&[&format!(
            r#"["1","2","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
        )]);
        let shout = format!(r#"[null,null,"{topic}","shout",{{"n":1.50}}]"#);
        bob.hears(&[&shout]);
        match topic {
            "from:a" => ann.silent(),
            _ => ann.hears(&[&shout]),
        }
        old.hears(&[&format!(
            r#"{{"topic":"{topic}","event":"shout","payload":{{"n":1.50}},"ref":null}}"#
        )]);
        let heard = murre.receive();
        assert_eq!(heard["data"], json!({"event": "shout", "payload": {"n": 1.5}}));
    }
    for (command, expected) in [
        (json!({"data": {"n": 2}, "event": "tell"}), r#""tell",{"n":2}"#),
        (json!({"data": {"event": "tell", "payload": {"n": 3}}}), r#""tell",{"n":3}"#),
        (json!({"data": [4]}), r#""publication",{"data":[4]}"#),
    ] {
        let mut command = command;
        command["action"] = json!("publish");
        command["identifier"] = json!("room:a");
        murre.send(command);
        bob.hears(&[&format!(r#"[null,null,"room:a",{expected}]"#)]);
    }
    let wrong =
        json!({"action": "publish", "identifier": "room:a", "data": 1, "event": "phx_close"});
    murre.silent_at_last();
    assert_eq!(murre.error(wrong), "bad_command");
}

/// The API publishes with an event.
#[test]
fn the_api_publishes_events() {
    let guarded = Guarded::start(&["--phoenix-path=/socket/"]);
    let mut client = Phoenix::of(&guarded.server);
    client.join("news", "1");
    let body = r#"{"identifier":"news","data":{"n":1},"event":"headline"}"#;
    assert_eq!(guarded.post("/api/publish", body).0, 200);
    let body = r#"{"identifiers":["news"],"data":{"n":2},"event":"headline"}"#;
    assert_eq!(guarded.post("/api/broadcast", body).0, 200);
    for n in [1, 2] {
        client.hears(&[&format!(r#"[null,null,"news","headline",{{"n":{n}}}]"#)]);
    }
    let body = r#"{"identifier":"news","data":1,"event":"phx_error"}"#;
    let (status, answer) = guarded.post("/api/publish", body);
    assert_eq!((status, &answer["code"]), (400, &json!("bad_event")), "{answer}");
}

/// Binary pushes reach clients of version 2 as binary, with their event, and others as text.
#[test]
fn binary_messages() {
    let server = server();
    let (mut ann, mut bob) = (Phoenix::of(&server), Phoenix::of(&server));
    let mut old = Phoenix::at(&server, "/socket/websocket");
    let mut murre = Client::of(&server);
    ann.join("topic", "12");
    bob.join("topic", "1");
    old.send(r#"{"topic":"topic","event":"phx_join","payload":{},"ref":"1"}"#);
    old.receive();
    ann.say_binary(b"\x00\x02\x03\x05\x0512123topiceventefg");
    ann.hears(&[r#"["12","123","topic","phx_reply",{"status":"ok","response":{}}]"#]);
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.message(), Message::binary(b"\x02\x05\x05topiceventefg".to_vec()));
    }
    old.hears(&[r#"{"topic":"topic","event":"event","payload":{"binary":"ZWZn"},"ref":null}"#]);
    murre.subscribe("topic");
    murre.0.send(Message::binary(b"\x01\x05topic\xff".to_vec())).expect("sent");
    let expected = b"\x02\x05\x0btopicpublication\xff".to_vec();
    assert_eq!(bob.message(), Message::binary(expected));
    // A stale join ref.
    ann.say_binary(b"\x00\x01\x01\x05\x0113topice");
    bob.silent();
}

/// A push is a request to the service of the namespace's name under the rule `request`, and its
/// response is the reply.
#[test]
fn pushes_can_be_requests() {
    let guarded = Guarded::start(&[
        "--phoenix-path=/socket",
        "--namespace=ask,phoenix-push=request;default,serve=anyone",
    ]);
    let path = format!("/socket/websocket?vsn=2.0.0&token={}", expiring(60));
    let mut client = Phoenix::at(&guarded.server, &path);
    client.join("ask:me", "1");
    client.send(r#"["1","2","ask:me","sum",{"of":[1,2]}]"#);
    client.hears(&[
        r#"["1","2","ask:me","phx_reply",{"status":"error","response":{"reason":"no_responders"}}]"#,
    ]);
    let mut service = Client::of(&guarded.server);
    service.ask(json!({"action": "serve", "service": "ask"}));
    for (message, payload, answer, expected) in [
        (
            &br#"["1","3","ask:me","sum",{"of" : [1,2]}]"#[..],
            ("payload", json!({"of": [1, 2]})),
            json!({"data": {"sum": 3}}),
            r#"{"status":"ok","response":{"sum":3}}"#,
        ),
        (
            b"\0\x01\x01\x06\x0313ask:mesum\xff",
            ("binary", json!("/w==")),
            json!({"data": 3}),
            r#"{"status":"ok","response":{"data":3}}"#,
        ),
        (
            br#"[null,"3","ask:me","sum",{}]"#,
            ("payload", json!({})),
            json!({"error": "nothing to add"}),
            r#"{"status":"error","response":{"reason":"nothing to add"}}"#,
        ),
    ] {
        match message[0] {
            b'[' => client.send(str::from_utf8(message).expect("text")),
            _ => client.say_binary(message),
        }
        let request = service.receive();
        let mut asked = json!({"topic": "ask:me", "event": "sum", "user": "ann"});
        asked[payload.0] = payload.1;
        assert_eq!((&request["service"], &request["data"]), (&json!("ask"), &asked));
        let mut reply = answer;
        reply["action"] = json!("reply");
        reply["request"] = request["request"].clone();
        service.send(reply);
        client.hears(&[&format!(r#"["1","3","ask:me","phx_reply",{expected}]"#)]);
    }
}

/// The handshake takes the two versions and refuses others with 403, chooses the subprotocol
/// `phoenix`, and checks the origin.
#[test]
fn handshakes() {
    let server = server();
    let ask = |query: &str, fields: &[(&'static str, &str)]| {
        let url = format!("ws://{}/socket/websocket{query}", server.data);
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in fields {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
        match tungstenite::client(request, server.connect().0) {
            Ok((_, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                (101, protocol.map(|value| value.to_str().expect("text").to_owned()))
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                (response.status().as_u16(), None)
            }
            Err(error) => panic!("{error}"),
        }
    };
    for (query, status) in [
        ("", 101),
        ("?vsn=1.0.0", 101),
        ("?a[b]=c&vsn=2.0.0&", 101),
        ("?vsn=3.0.0", 403),
        ("?vsn[]=2.0.0", 403),
        ("?vsn=x", 403),
        ("?token=x", 403),
    ] {
        assert_eq!(ask(query, &[]).0, status, "{query}");
    }
    let phoenix = Some("phoenix".to_owned());
    let offer = |offer| [("sec-websocket-protocol", offer)];
    assert_eq!(ask("", &offer("phoenix")), (101, phoenix));
    assert_eq!(ask("", &offer("phoenix, base64url.bearer.phx.!")).0, 403);
    assert_eq!(ask("", &[("origin", "https://other.example")]).0, 403);
    assert_eq!(server.connect().get("/socket/websocket").status, 426);
    let plain = Server::start(&[]);
    assert_eq!(plain.connect().get("/socket/websocket").status, 404, "off by default");
}

/// A token comes in the query, in the subprotocol, or with a join, and only a good one gives rights.
#[test]
fn tokens() {
    let guarded = Guarded::start(&["--phoenix-path=/socket"]);
    let good = token(&json!({"sub": "ann", "exp": now() + 60}));
    let forged = signed(&json!({"sub": "ann"}), "another secret of more than thirty-two bytes");
    let push = |client: &mut Phoenix| {
        client.send(r#"["1","p","room:a","e",{}]"#);
        let reply: Value = serde_json::from_str(&client.receive()).expect("JSON");
        if reply[4]["status"] == "ok" {
            client.hears(&[r#"[null,null,"room:a","e",{}]"#]);
        }
        reply[4]["response"]["reason"].as_str().unwrap_or("ok").to_owned()
    };
    let mut anonymous = Phoenix::of(&guarded.server);
    anonymous.join("room:a", "1");
    assert_eq!(push(&mut anonymous), "not_allowed");
    let path = format!("/socket/websocket?token={good}&vsn=2.0.0");
    let mut ann = Phoenix::at(&guarded.server, &path);
    ann.join("room:a", "1");
    assert_eq!(push(&mut ann), "ok");

    let url = format!("ws://{}/socket/websocket?vsn=2.0.0", guarded.server.data);
    let mut request = url.into_client_request().expect("a request");
    let offer = format!("phoenix, base64url.bearer.phx.{}", STANDARD_NO_PAD.encode(&good));
    request.headers_mut().insert("sec-websocket-protocol", offer.parse().expect("a value"));
    let (socket, _) = tungstenite::client(request, guarded.server.connect().0).expect("accepted");
    let mut ann = Phoenix(socket);
    ann.join("room:a", "1");
    assert_eq!(push(&mut ann), "ok");

    let mut late = Phoenix::of(&guarded.server);
    for key in ["token", "access_token"] {
        late.send(&json!(["1", "1", "room:a", "phx_join", {key: forged}]).to_string());
        late.hears(&[
            r#"["1","1","room:a","phx_reply",{"status":"error","response":{"reason":"bad_token"}}]"#,
        ]);
    }
    late.send(&json!(["1", "2", "room:a", "phx_join", {"token": good}]).to_string());
    late.hears(&[r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#]);
    assert_eq!(push(&mut late), "ok");
}

/// A join tells the position of a channel with history, and recovers from one.
#[test]
fn joins_recover() {
    let server = server();
    let mut client = Phoenix::of(&server);
    client.send(r#"["1","1","kept:a","phx_join",{}]"#);
    let reply: Value = serde_json::from_str(&client.receive()).expect("JSON");
    let position = &reply[4]["response"]["position"];
    assert_eq!(position["offset"], 0, "{reply}");
    for n in 1..=3 {
        client.send(&format!(r#"["1","p","kept:a","e",{{"n":{n}}}]"#));
        client.receive();
        client.receive();
    }
    let mut back = Phoenix::of(&server);
    let params = json!({"position": {"epoch": position["epoch"], "offset": 1}});
    back.send(&json!(["5", "5", "kept:a", "phx_join", params]).to_string());
    let reply: Value = serde_json::from_str(&back.receive()).expect("JSON");
    assert_eq!(reply[4]["response"]["recovered"], true, "{reply}");
    for n in 2..=3 {
        back.hears(&[&format!(r#"[null,null,"kept:a","e",{{"n":{n}}}]"#)]);
    }
    back.send(r#"["6","6","kept:b","phx_join",{"position":7}]"#);
    assert!(back.receive().contains(r#"{"reason":"bad_position"}"#));
    back.silent();
}

/// Joins that are refused, and pushes that are, are told by their reason and end nothing.
#[test]
fn refusals() {
    let server =
        Server::start(&["--phoenix-path=/socket", OPEN, "--max-phoenix-topics=2", "--shards=1"]);
    let mut client = Phoenix::of(&server);
    let long = "x".repeat(256);
    for (join_ref, topic, reason) in [
        ("null", "phoenix", "unmatched topic"),
        ("null", "", "unmatched topic"),
        ("null", &long, "unmatched topic"),
        ("\"1\"", "shut:a", "not_allowed"),
    ] {
        client.send(&format!(r#"["1","2","{topic}","phx_join",{{}}]"#));
        client.hears(&[&format!(
            r#"[{join_ref},"2","{topic}","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#
        )]);
    }
    client.join("a", "1");
    client.join("b", "2");
    client.send(r#"["3","3","c","phx_join",{}]"#);
    client.hears(&[
        r#"["3","3","c","phx_reply",{"status":"error","response":{"reason":"too many channels joined"}}]"#,
    ]);
    // A topic that is joined can be joined again.
    client.send(r#"["4","4","a","phx_join",{}]"#);
    client.hears(&[
        r#"["4","4","a","phx_reply",{"status":"ok","response":{}}]"#,
        r#"["1","1","a","phx_close",{}]"#,
    ]);
    for (event, payload, reason) in [
        ("phx_close", "{}", "bad_event"),
        ("presence_diff", "{}", "bad_event"),
        ("", "{}", "bad_event"),
        ("e", "[]", "bad_payload"),
        ("e", "null", "bad_payload"),
    ] {
        client.send(&format!(r#"["4","5","a","{event}",{payload}]"#));
        client.hears(&[&format!(
            r#"["4","5","a","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#
        )]);
    }
    client.silent();
    server.wait_until("counted", |stats| stats["total"]["commands_refused"] == 10);
}

/// A message that is not JSON ends the connection with 1007, one of another form with 1008.
#[test]
fn malformed_messages_end_the_connection() {
    let server = server();
    for (text, code) in [
        ("", 1007),
        ("[", 1007),
        ("{}", 1008),
        (r#"["1","1","a"]"#, 1008),
        (r#"{"topic":"a","event":"b","payload":{},"ref":"1"}"#, 1008),
    ] {
        let mut client = Phoenix::of(&server);
        client.send(text);
        assert_eq!(client.closed(), code, "{text}");
    }
    for (path, bytes) in [
        ("/socket/websocket?vsn=2.0.0", &b"\x03\0\0\0\0\0"[..]),
        ("/socket/websocket?vsn=2.0.0", b"\0\xff"),
        ("/socket/websocket", b"\x00\x01\x01\x05\x0113topice"),
    ] {
        let mut client = Phoenix::at(&server, path);
        client.say_binary(bytes);
        assert_eq!(client.closed(), 1008, "{bytes:?}");
    }
}

/// The server never ends a session with 1000: 1001 for an administrator, 1008 for an expired token or
/// too many messages, 1012 for a drain.
#[test]
fn ends() {
    let guarded = Guarded::start(&["--phoenix-path=/socket", "--max-commands-per-second=1"]);
    let path = |token: &str| format!("/socket/websocket?vsn=2.0.0&token={token}");
    let mut ann = Phoenix::at(&guarded.server, &path(&expiring(60)));
    assert_eq!(guarded.post("/api/disconnect", r#"{"user":"ann"}"#).1["disconnected"], 1);
    assert_eq!(ann.closed(), 1001);
    let mut late = Phoenix::at(&guarded.server, &path(&expiring(-8)));
    assert_eq!(late.closed(), 1008);
    let mut fast = Phoenix::of(&guarded.server);
    for _ in 0..7 {
        fast.send(r#"["1","1","a","x",{}]"#);
    }
    let mut reasons = Vec::new();
    loop {
        match fast.message() {
            Message::Text(text) => reasons.push(text.contains("too_fast")),
            Message::Close(Some(frame)) => break assert_eq!(u16::from(frame.code), 1008),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reasons, [false, false, true, true, true]);
    let mut last = Phoenix::of(&guarded.server);
    guarded.server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(last.closed(), 1012);
}

/// Many joins of topics whose owners are on both shards, each followed at once by a push, a second join
/// and a leave: the replies come in the order of the messages of each topic.
#[test]
fn messages_of_a_topic_keep_their_order() {
    let server = server();
    let mut client = Phoenix::of(&server);
    for round in 0..30 {
        let topic = format!("kept:{round}");
        for message in [
            json!(["1", "1", topic, "phx_join", {}]),
            json!(["1", "2", topic, "e", {}]),
            json!(["3", "3", topic, "phx_join", {}]),
            json!(["3", "4", topic, "phx_leave", {}]),
        ] {
            client.send(&message.to_string());
        }
        let mut heard = Vec::new();
        while heard.last() != Some(&("3".to_owned(), "phx_close".to_owned())) {
            let message: Value = serde_json::from_str(&client.receive()).expect("JSON");
            assert_eq!(message[2], topic.as_str());
            let text = |at: usize| message[at].as_str().unwrap_or("-").to_owned();
            heard.push((text(1), text(3)));
        }
        heard.retain(|(_, event)| event != "e");
        let expected = ["1", "2", "3", "1", "4", "3"];
        let refs: Vec<&str> = heard.iter().map(|(reference, _)| &**reference).collect();
        assert_eq!(refs, expected, "{heard:?}");
    }
    client.silent();
    drop(client);
    server.wait_until("nothing is left", |stats| stats["total"]["subscriptions"] == 0);
}

/// The ping interval of Phoenix clients is their own: longer than that of others, so heartbeats alone
/// keep them alive, and a silent one is pinged in the end.
#[test]
fn heartbeats_are_enough() {
    let flags = ["--phoenix-path=/socket", "--ping-interval=0.2", "--slow-timeout=0.3"];
    let patient = Server::start(&[&flags[..], &["--phoenix-ping-interval=3600"]].concat());
    let mut client = Phoenix::of(&patient);
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        client.send(r#"[null,"hb","phoenix","heartbeat",{}]"#);
        let Message::Text(_) = client.0.read().expect("a message") else { panic!("a ping") };
    }
    let quick = Server::start(&[&flags[..], &["--phoenix-ping-interval=1"]].concat());
    let Message::Ping(_) = Phoenix::of(&quick).0.read().expect("a message") else {
        panic!("no ping")
    };
}
