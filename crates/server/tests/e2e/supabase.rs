//! Tests of the additions of Supabase's realtime-js to Phoenix Channels, message by message.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::application::{Application, Do};
use crate::client::Client;
use crate::guarded::{Guarded, expiring, signed, token};
use crate::phoenix_client::Phoenix;
use crate::server::{Client as Http, Server};

const FLAGS: [&str; 3] = [
    "--supabase-path=/realtime/v1",
    "--shards=2",
    "--namespace=default,publish=anyone;here,publish=anyone,presence=members,presence-grace=0,presence-key=client;\
     users,presence=members,presence-grace=0;own,subscribe=authenticated",
];

const PATH: &str = "/realtime/v1/websocket?apikey=sb_publishable_key&vsn=2.0.0";

/// Joins with this configuration. Returns the reply.
fn join(client: &mut Phoenix, topic: &str, join_ref: &str, config: &Value) -> Value {
    let payload = json!({"config": config});
    client.send(&json!([join_ref, join_ref, topic, "phx_join", payload]).to_string());
    let mut reply = client.json();
    assert_eq!(reply[3], "phx_reply", "{reply}");
    reply[4].take()
}

fn joined(client: &mut Phoenix, topic: &str, join_ref: &str, config: &Value) {
    let ok = json!({"status": "ok", "response": {"postgres_changes": []}});
    assert_eq!(join(client, topic, join_ref, config), ok);
}

/// Broadcasts reach all others, and their sender if it has asked for that; they are answered if it has
/// asked for that. Clients of `murre.v1` take part.
#[test]
fn broadcasts() {
    let guarded = Guarded::start(&FLAGS);
    let mut ann = Phoenix::at(&guarded.server, PATH);
    let mut bob = Phoenix::at(&guarded.server, PATH);
    let mut old = Phoenix::at(&guarded.server, "/realtime/v1/websocket?apikey=k&vsn=1.0.0");
    let mut murre = Client::of(&guarded.server);
    joined(&mut ann, "realtime:r", "1", &json!({}));
    joined(&mut bob, "realtime:r", "1", &json!({"broadcast": {"ack": true, "self": "true"}}));
    old.send(r#"{"topic":"realtime:r","event":"phx_join","payload":{},"ref":"1"}"#);
    assert_eq!(old.json()["payload"]["status"], "ok");
    murre.subscribe("r");
    let envelope = r#"{"type":"broadcast","event":"cursor","payload":{"x":1.50}}"#;
    let heard = format!(r#"[null,null,"realtime:r","broadcast",{envelope}]"#);
    let heard_of_old =
        format!(r#"{{"topic":"realtime:r","event":"broadcast","payload":{envelope},"ref":null}}"#);
    ann.send(&format!(r#"["1","2","realtime:r","broadcast",{envelope}]"#));
    bob.hears(&[&heard]);
    old.hears(&[&heard_of_old]);
    let data = json!({"event": "cursor", "payload": {"x": 1.5}});
    assert_eq!(murre.receive()["data"], data);
    ann.silent();
    bob.say_binary(b"\x03\x01\x01\x0a\x06\0\x0114realtime:rcursor{\"x\": 1.50}");
    bob.hears(&[r#"["1","4","realtime:r","phx_reply",{"status":"ok","response":{}}]"#, &heard]);
    ann.hears(&[&heard]);
    old.hears(&[&heard_of_old]);
    assert_eq!(murre.receive()["data"], data);
    // Bytes, which version 1 gets in base64.
    ann.say_binary(b"\x03\x01\x01\x0a\x01\x02\x0014realtime:re{}\xff");
    assert_eq!(bob.message(), Message::binary(b"\x04\x0a\x01\0\0realtime:re\xff".to_vec()));
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"binary": "/w=="}});
    assert_eq!(old.json()["payload"], payload);
    ann.silent();
    let bytes = murre.0.read().expect("a message");
    assert_eq!(bytes, Message::binary(b"\x01\x01r\0\0\0\0\0\0\0\0\xff".to_vec()));
    murre.publish("r", json!([7]));
    ann.hears(&[
        r#"[null,null,"realtime:r","broadcast",{"type":"broadcast","event":"publication","payload":{"data":[7]}}]"#,
    ]);
}

/// A stale join ref is ignored, and one that is missing means the current join.
#[test]
fn join_refs() {
    let guarded = Guarded::start(&FLAGS);
    let mut ann = Phoenix::at(&guarded.server, PATH);
    let config = json!({"broadcast": {"ack": true}});
    joined(&mut ann, "realtime:r", "1", &config);
    joined(&mut ann, "realtime:r", "5", &config);
    ann.hears(&[r#"["1","1","realtime:r","phx_close",{}]"#]);
    let payload = r#"{"type":"broadcast","event":"e","payload":{}}"#;
    for event in ["broadcast", "presence", "access_token", "phx_leave"] {
        ann.send(&format!(r#"["1","6","realtime:r","{event}",{payload}]"#));
    }
    ann.say_binary(b"\x03\x01\x01\x0a\x01\0\x0116realtime:re{}");
    ann.silent();
    ann.send(&format!(r#"[null,"7","realtime:r","broadcast",{payload}]"#));
    ann.hears(&[r#"["5","7","realtime:r","phx_reply",{"status":"ok","response":{}}]"#]);
    ann.say_binary(b"\x03\0\x01\x0a\x01\0\x018realtime:re{}");
    ann.hears(&[r#"["5","8","realtime:r","phx_reply",{"status":"ok","response":{}}]"#]);
    ann.send(r#"[null,"9","realtime:r","phx_leave",{}]"#);
    ann.hears(&[
        r#"["5","9","realtime:r","phx_reply",{"status":"ok","response":{}}]"#,
        r#"["5","5","realtime:r","phx_close",{}]"#,
    ]);
}

/// A message of the event `presence`.
fn presence_event(topic: &str, event: &str, payload: &Value) -> String {
    let payload = json!({"type": "presence", "event": event, "payload": payload});
    json!(["1", "t", topic, "presence", payload]).to_string()
}

/// The reply to the next message with this ref, after news of members, which are added to `news`.
fn reply_among(client: &mut Phoenix, reference: &str, news: &mut Vec<Value>) -> Value {
    loop {
        let mut message = client.json();
        if message[3] == "phx_reply" {
            assert_eq!(message[1], reference, "{message}");
            return message[4].take();
        }
        let event = message[3].as_str().expect("an event");
        assert!(["presence_state", "presence_diff"].contains(&event), "{message}");
        news.push(message);
    }
}

/// A client is a member from `track` to `untrack`, under the key that it has chosen, and the others are
/// told.
#[test]
fn presence() {
    let guarded = Guarded::start(&FLAGS);
    let mut ann = Phoenix::at(&guarded.server, PATH);
    let mut bob = Phoenix::at(&guarded.server, PATH);
    let topic = "realtime:here:a";
    joined(&mut ann, topic, "1", &json!({"presence": {"enabled": true, "key": "ann"}}));
    ann.hears(&[r#"["1",null,"realtime:here:a","presence_state",{}]"#]);
    joined(&mut bob, topic, "1", &json!({"presence": {"key": "bob", "enabled": false}}));
    let ok = json!({"status": "ok", "response": {}});
    let news = &mut Vec::new();
    bob.send(&presence_event(topic, "track", &json!({"n": 1})));
    assert_eq!(reply_among(&mut bob, "t", news), ok);
    let diff = ann.json();
    assert_eq!((&diff[2], &diff[3]), (&json!(topic), &json!("presence_diff")));
    let meta = &diff[4]["joins"]["bob"]["metas"][0];
    assert_eq!((&meta["n"], &diff[4]["leaves"]), (&json!(1), &json!({})));
    bob.send(&presence_event(topic, "TRACK", &json!({"n": 2})));
    assert_eq!(reply_among(&mut bob, "t", news), ok);
    let update = ann.json();
    let joined_again = &update[4]["joins"]["bob"]["metas"][0];
    assert_eq!((&joined_again["phx_ref_prev"], &joined_again["n"]), (&meta["phx_ref"], &json!(2)));
    bob.send(&presence_event(topic, "untrack", &json!(null)));
    assert_eq!(reply_among(&mut bob, "t", news), ok);
    let leave = ann.json();
    assert_eq!(leave[4]["leaves"]["bob"]["metas"][0]["phx_ref"], joined_again["phx_ref"]);
    bob.send(&presence_event(topic, "x", &json!({})));
    assert_eq!(reply_among(&mut bob, "t", news)["response"]["reason"], "bad_payload");
    // Where members are users, whoever has none cannot be one.
    joined(&mut bob, "realtime:users:a", "2", &json!({"presence": {"enabled": false}}));
    bob.send(r#"["2","t","realtime:users:a","presence",{"event":"track","payload":{}}]"#);
    assert_eq!(reply_among(&mut bob, "t", news)["response"]["reason"], "not_allowed");
    assert!(news.iter().all(|message| message[2] == topic), "no member, no news: {news:?}");
}

/// Clients that know no `presence.enabled` are told of the members. Those that have said no are told from
/// their first `track` on: all members once, then the changes.
#[test]
fn watchers() {
    let guarded = Guarded::start(&FLAGS);
    let topic = "realtime:here:w";
    let mut ann = Phoenix::at(&guarded.server, PATH);
    joined(&mut ann, topic, "1", &json!({"presence": {"key": 42}}));
    ann.hears(&[r#"["1",null,"realtime:here:w","presence_state",{}]"#]);
    let mut bob = Phoenix::at(&guarded.server, PATH);
    joined(&mut bob, topic, "1", &json!({"presence": {"key": "bob", "enabled": false}}));
    ann.send(&presence_event(topic, "track", &json!({"n": 0})));
    let news = &mut Vec::new();
    reply_among(&mut ann, "t", news);
    while !news.iter().any(|message| message[4]["joins"]["42"]["metas"][0]["n"] == 0) {
        news.push(ann.json());
    }
    bob.silent();
    news.clear();
    for n in 1..3 {
        bob.send(&presence_event(topic, "track", &json!({"n": n})));
        reply_among(&mut bob, "t", news);
        let is_told = |message: &Value| {
            let metas = [&message[4]["joins"]["bob"], &message[4]["bob"]];
            metas.iter().any(|member| member["metas"][0]["n"] == n)
        };
        while !news.iter().any(is_told) {
            news.push(bob.json());
        }
    }
    let states: Vec<_> = news.iter().filter(|message| message[3] == "presence_state").collect();
    assert_eq!(states.len(), 1, "{news:?}");
    assert_eq!((&states[0][0], &news[0]), (&json!("1"), states[0]), "before the changes");
    assert_eq!(states[0][4]["42"]["metas"][0]["n"], 0, "{news:?}");
}

/// The status and the JSON of the answer to a POST; null without a body.
fn posted(client: &mut Http, path: &str, fields: &str, text: impl AsRef<[u8]>) -> (u16, Value) {
    let text = text.as_ref();
    let length = text.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: {length}\r\n\r\n");
    client.send(&[head.as_bytes(), text].concat());
    let answer = client.answer();
    let body = match answer.body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&answer.body).expect("JSON"),
    };
    (answer.status, body)
}

const API: &str = "/realtime/v1/api/broadcast";

/// Broadcasts over HTTP reach all clients of a channel: several in one request, and one whose payload is
/// JSON or bytes.
#[test]
fn broadcasts_over_http() {
    let guarded = Guarded::start(&FLAGS);
    let server = &guarded.server;
    let mut ann = Phoenix::at(server, PATH);
    let mut murre = Client::of(server);
    joined(&mut ann, "realtime:r:a/é", "1", &json!({}));
    murre.subscribe("r:a/é");
    let mut http = server.connect();
    let message = |event: &str, payload: &str| {
        format!(r#"{{"topic":"r:a/é","event":"{event}","payload":{payload},"private":false}}"#)
    };
    let (one, two) = (message("cursor", r#"{ "x": 1.50 }"#), message("other", "{}"));
    let body = format!(r#"{{"messages":[{one},{two}]}}"#);
    let fields = "apikey: sb_publishable_key\r\nAuthorization: Bearer sb_publishable_key\r\n\
                  Content-Type: application/json\r\n";
    assert_eq!(posted(&mut http, API, fields, body), (202, Value::Null));
    let heard = |event: &str, payload: &str| {
        let envelope = format!(r#"{{"type":"broadcast","event":"{event}","payload":{payload}}}"#);
        format!(r#"[null,null,"realtime:r:a/é","broadcast",{envelope}]"#)
    };
    ann.hears(&[&heard("cursor", r#"{"x":1.50}"#), &heard("other", "{}")]);
    assert_eq!(murre.receive()["data"], json!({"event": "cursor", "payload": {"x": 1.5}}));
    let path = format!("{API}/r%3Aa%2F%C3%A9/events/a%20b");
    assert_eq!(posted(&mut http, &path, "", "[1, 2]"), (202, Value::Null));
    ann.hears(&[&heard("a b", "[1,2]")]);
    let bytes = "Content-Type: application/octet-stream\r\n";
    assert_eq!(posted(&mut http, &path, bytes, b"\xff\0"), (202, Value::Null));
    let expected = "\x04\x0f\x03\0\0realtime:r:a/éa b".as_bytes();
    assert_eq!(ann.message(), Message::binary([expected, b"\xff\0"].concat()));
    // What a page of another host asks before, and how it is answered.
    let flags =
        ["--supabase-path=/", "--namespace=default,publish=anyone", "--allow-origin=https://a.b"];
    let other = Server::start(&flags);
    let mut page = other.connect();
    let preflight = "Access-Control-Request-Method: POST\r\n\
                     Access-Control-Request-Headers: apikey,authorization,content-type\r\n";
    for (origin, preflighted, status) in [("https://a.b", 204, 202), ("https://c.d", 403, 403)] {
        let head = format!("HTTP/1.1\r\nHost: m\r\nOrigin: {origin}\r\n");
        page.send(format!("OPTIONS /api/broadcast {head}{preflight}\r\n").as_bytes());
        let answer = page.answer();
        assert_eq!(answer.status, preflighted, "{origin}");
        if preflighted == 204 {
            let allowed = answer.header("access-control-allow-headers").expect("fields");
            assert!(
                ["apikey", "Authorization", "Content-Type"].iter().all(|one| allowed.contains(one))
            );
            assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
        }
        page.send(
            format!("POST /api/broadcast/r/events/e {head}Content-Length: 2\r\n\r\n{{}}")
                .as_bytes(),
        );
        let answer = page.answer();
        assert_eq!(answer.status, status, "{origin}");
        let allowed = (status == 202).then_some(origin);
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}

/// A backend that decides who connects is asked about a request over HTTP without a user's token, and what it
/// says is the answer.
#[test]
fn a_backend_is_asked_about_http() {
    let application = Application::start(|call| match call.body["data"]["name"].as_str() {
        Some("ann") => Do::Say(json!({"result": {"user": "ann"}})),
        _ => Do::Say(json!({"error": {"code": 103, "message": "not you"}})),
    });
    let flags = ["--shards=1", FLAGS[0], "--namespace=default,publish=authenticated"];
    let server = Server::start(&[&[&*application.flag()], &flags[..]].concat());
    let mut hears = Client::at(&server, "/ws?name=ann");
    hears.subscribe("r");
    let mut http = server.connect();
    let path = format!("{API}/r/events/e?private=true&name=");
    for (name, status) in [("ann", 202), ("bob", 403), ("ann", 202)] {
        let (found, said) = posted(&mut http, &format!("{path}{name}"), "", "{}");
        assert_eq!(found, status, "{said}");
        if status == 403 {
            assert_eq!(said["message"], "not you");
        } else {
            assert_eq!(hears.receive()["data"]["event"], "e");
        }
    }
    let calls = application.calls("connect");
    let last = &calls.last().expect("some").body;
    assert_eq!((&last["transport"], &last["name"]), (&json!("http"), &json!("phoenix")));
    assert_eq!(calls.len(), 4);
    server
        .wait_until("no session is left", |stats| stats["total"]["connections_authenticated"] == 1);
}

/// What is wrong with a request over HTTP is said in the form of Supabase's server, counted, and none of
/// its messages is published.
#[test]
fn refusals_over_http() {
    let rules = "--namespace=own,publish=authenticated;asked,publish=anyone,phoenix-push=request";
    let guarded = Guarded::start(&[&FLAGS[..2], &[rules, "--strict-namespaces"]].concat());
    let server = &guarded.server;
    let mut ann =
        Phoenix::at(server, &format!("/realtime/v1/websocket?apikey={}&vsn=2.0.0", expiring(60)));
    joined(&mut ann, "realtime:own:a", "1", &json!({}));
    let batch = |topics: &[&str], private: bool| {
        let message =
            |topic: &&str| json!({"topic": topic, "event": "e", "payload": {}, "private": private});
        json!({"messages": topics.iter().map(message).collect::<Vec<_>>()}).to_string()
    };
    let user = format!("Authorization: Bearer {}\r\n", expiring(60));
    let key = format!("apikey: {}\r\n", expiring(60));
    let forged = signed(&json!({"sub": "ann"}), "another secret of more than thirty-two bytes");
    let forged = format!("Authorization: Bearer {forged}\r\n");
    let long = format!(
        "{{\"messages\":[{{\"topic\":\"own:a\",\"event\":\"e\",\"payload\":{{\"x\":\"{}\"}}}}]}}",
        "x".repeat(70_000)
    );
    let single = format!("{API}/own:a/events/e");
    let invalid = json!({"messages": [{}, {"topic": ["can't be blank"]}]});
    let refused = |stats: &Value| stats["total"]["commands_refused"].as_u64().expect("a number");
    for (path, fields, body, status, message) in [
        (API, "", "{".to_owned(), 400, "the body is not JSON"),
        (API, "", "{}".into(), 422, "messages: can't be blank"),
        (API, &user, batch(&["own:a", ""], false), 422, "topic: can't be blank"),
        (API, &user, batch(&["own:a", "nowhere:a"], false), 422, "unmatched topic"),
        (API, &user, batch(&["own:a", "asked:a"], false), 403, "not_allowed"),
        (API, &user, long, 422, "too_long"),
        (API, "", batch(&["own:a"], false), 403, "not_allowed"),
        (API, "", batch(&["own:a"], true), 403, "not_allowed"),
        (&single, "", "{}".into(), 403, "not_allowed"),
        (
            &single,
            "Content-Type: text/plain\r\n",
            "{}".into(),
            415,
            "Content-Type is application/json or application/octet-stream",
        ),
        (&single, "", "{".into(), 400, "the body is not JSON"),
        (&format!("{API}/own:a/events/phx_close"), &user, "{}".into(), 422, ""),
        (&format!("{single}?private=yes"), &user, "{}".into(), 422, "private: is invalid"),
        (
            &format!("{API}/own:a"),
            &user,
            "{}".into(),
            404,
            "the path is /api/broadcast/TOPIC/events/EVENT",
        ),
    ] {
        let before = refused(&server.stats());
        let (found, said) = posted(&mut server.connect(), path, fields, &body);
        assert_eq!(found, status, "{path} {body} {said}");
        let text = said["message"].as_str().expect("a text");
        assert!(text == message || message.is_empty(), "{text}");
        if message.starts_with("topic:") {
            assert_eq!(said["errors"], invalid);
        }
        server.wait_until("counted", |stats| refused(stats) == before + 1);
    }
    assert_eq!(posted(&mut server.connect(), API, &forged, batch(&["own:a"], false)).0, 401);
    // The messages of one connection have a rate, as its commands.
    let many = vec!["own:a"; 201];
    assert_eq!(posted(&mut server.connect(), API, &user, batch(&many, false)).0, 429);
    ann.silent();
    for fields in [&user, &key] {
        assert_eq!(posted(&mut server.connect(), API, fields, batch(&["own:a"], true)).0, 202);
        assert_eq!(ann.json()[4]["event"], "e");
    }
    let slash = format!("{API}/");
    assert_eq!(posted(&mut server.connect(), &slash, &key, batch(&["own:a"], true)).0, 202);
    assert_eq!(ann.json()[4]["event"], "e");
    let private = format!("{single}?private=true");
    assert_eq!(posted(&mut server.connect(), &private, &key, "{}").0, 202);
    assert_eq!(ann.json()[4]["event"], "e");
}

/// Joins that are refused, and events that are.
#[test]
fn refusals() {
    let guarded = Guarded::start(&FLAGS);
    let mut client = Phoenix::at(&guarded.server, PATH);
    let long = format!("realtime:{}", "x".repeat(250));
    for (topic, config, reason) in [
        ("realtime:", json!({}), "unmatched topic"),
        ("room:a", json!({}), "unmatched topic"),
        (&long, json!({}), "unmatched topic"),
        (
            "realtime:r",
            json!({"postgres_changes": [{"event": "*"}]}),
            "postgres_changes are not served here",
        ),
        ("realtime:r", json!({"broadcast": {"ack": 1}}), "bad_config"),
        ("realtime:r", json!({"private": true}), "not_allowed"),
        ("realtime:own:a", json!({}), "not_allowed"),
    ] {
        let reply = join(&mut client, topic, "1", &config);
        assert_eq!(reply, json!({"status": "error", "response": {"reason": reason}}), "{topic}");
    }
    joined(&mut client, "realtime:r", "1", &json!({}));
    for (event, payload, reason) in [
        ("broadcast", json!({"payload": {}}), "bad_payload"),
        ("broadcast", json!({"event": "phx_close"}), "bad_event"),
        ("presence", json!({"event": "track"}), "no_presence"),
        ("postgres_changes", json!({}), "bad_event"),
    ] {
        client.send(&json!(["1", "2", "realtime:r", event, payload]).to_string());
        assert_eq!(client.json()[4]["response"]["reason"], reason, "{event}");
    }
    client.silent();
    client.say_binary(b"\x03\x01\x01\x0a\x01\0\x0116realtime:re{");
    assert_eq!(client.closed(), 1007);
}

/// A key or a token that names a user is checked, wherever it comes; others are no credentials. A token
/// that has become bad ends the topic.
#[test]
fn tokens() {
    let guarded = Guarded::start(&FLAGS);
    let (good, late) = (expiring(60), expiring(-60));
    let forged = signed(&json!({"sub": "ann"}), "another secret of more than thirty-two bytes");
    let anonymous = token(&json!({"role": "anon"}));
    let at = |key: &str| format!("/realtime/v1/websocket?apikey={key}&vsn=2.0.0");
    let mut ann = Phoenix::at(&guarded.server, &at(&good));
    joined(&mut ann, "realtime:own:a", "1", &json!({"private": true}));
    assert_eq!(guarded.server.upgrade(&at(&forged)).1.status, 403);
    let mut client = Phoenix::at(&guarded.server, &at(&anonymous));
    assert_eq!(join(&mut client, "realtime:own:a", "1", &json!({}))["status"], "error");
    for (token, status) in
        [(&forged, "error"), (&late, "error"), (&anonymous, "error"), (&good, "ok")]
    {
        let payload = json!({"config": {}, "access_token": token});
        client.send(&json!(["2", "2", "realtime:own:a", "phx_join", payload]).to_string());
        assert_eq!(client.json()[4]["status"], status);
    }
    let renew = |client: &mut Phoenix, token: Value| {
        let payload = json!({"access_token": token});
        client.send(&json!(["2", "3", "realtime:own:a", "access_token", payload]).to_string());
    };
    for token in
        [json!(null), json!(anonymous), json!("sb_secret"), json!(good), json!(expiring(90))]
    {
        renew(&mut client, token);
    }
    client.silent();
    renew(&mut client, json!(late));
    client.hears(&[
        r#"["2",null,"realtime:own:a","system",{"extension":"system","status":"error","message":"bad_token","channel":"own:a"}]"#,
        r#"["2","2","realtime:own:a","phx_close",{}]"#,
    ]);
    client.silent();
    guarded.server.wait_until("one is left", |stats| stats["total"]["subscriptions"] == 1);
}
