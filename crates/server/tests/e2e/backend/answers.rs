//! Tests of what the application says beside its consent: data for the client, and what others see of it.

use serde_json::{Value, json};

use super::{body, publish, start, subscribe, that_does};
use crate::application::{Application, Do};
use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::phoenix_client::Phoenix;
use crate::reader::{Events, Position};
use crate::server::Server;

/// The value of a series in `/metrics`.
fn metric(server: &Server, series: &str) -> u64 {
    let metrics = server.admin("/metrics");
    let value =
        metrics.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
}

/// The data of a subscribe answer is in the reply of each protocol, whatever its form. A poll has no reply.
#[test]
fn data_comes_with_the_reply() {
    let application = that_does("subscribe", |call| {
        Do::Say(match call.body["channel"].as_str() {
            Some("ask:list") => json!({"result": {"data": [1, 2.5]}}),
            Some("ask:binary") => json!({"result": {"b64data": "AP8="}}),
            // The position is the server's.
            _ => json!({"result": {"data": {"a": 1, "position": 7}}}),
        })
    });
    let rules = "--namespace=ask,subscribe=backend,history-size=5;plain,subscribe=backend";
    let paths = ["--phoenix-path=/socket", "--supabase-path=/realtime/v1"];
    let server =
        Server::start(&[&[&*application.flag(), rules, "--shards=2"], &paths[..]].concat());
    let mut client = Client::of(&server);
    let object = json!({"a": 1, "position": 7});
    assert_eq!(client.subscribe("ask:x")["data"], object);
    assert_eq!(client.subscribe("ask:list")["data"], json!([1, 2.5]));
    assert_eq!(client.subscribe("ask:binary")["binary"], "AP8=");
    assert_eq!(client.subscribe("news"), json!({"type": "subscribed", "identifier": "news"}));
    let mut stream = Events::open(&server, "/sse?channel=plain:x", None);
    let event = stream.next().expect("an event");
    assert_eq!((&*event.name, &event.data["data"]), ("subscribed", &object));
    assert_eq!(server.connect().get("/poll?channel=ask:x").status, 200);
    let mut phoenix = Phoenix::of(&server);
    for (topic, response) in [
        ("plain:x", r#"{"a":1,"position":7}"#),
        ("ask:list", r#"{"data":[1,2.5],"position":"#),
        ("ask:binary", r#"{"binary":"AP8=","position":"#),
        ("ask:x", r#"{"a":1,"position":7,"position":{"epoch":"#),
    ] {
        phoenix.send(&json!(["1", "1", topic, "phx_join", {}]).to_string());
        let reply = phoenix.receive();
        assert!(reply.contains(&format!(r#""response":{response}"#)), "{reply}");
    }
    let mut supabase = Phoenix::at(&server, "/realtime/v1/websocket?apikey=k&vsn=2.0.0");
    supabase.send(r#"["1","1","realtime:plain:x","phx_join",{"config":{}}]"#);
    let response = json!({"a": 1, "position": 7, "postgres_changes": []});
    assert_eq!(supabase.json()[4]["response"], response);
}

/// The data of a connect answer is the first that a client hears, where its protocol has a message for it.
#[test]
fn data_greets_a_client() {
    let application = that_does("connect", |call| {
        let data = &call.body["data"]["name"];
        Do::Say(json!({"result": {"user": "ann", "data": {"hello": data}}}))
    });
    let server = start(&application, &["--shards=2"]);
    let greeting = |name: &str| json!({"type": "connected", "data": {"hello": name}});
    let mut clients = ["a", "b"].map(|name| Client::at(&server, &format!("/ws?name={name}")));
    for (client, name) in clients.iter_mut().zip(["a", "b"]) {
        assert_eq!(client.receive(), greeting(name));
        client.silent();
    }
    let mut stream = Events::open(&server, "/sse?channel=news&name=c", None);
    let event = stream.next().expect("an event");
    assert_eq!((&*event.name, event.data), ("connected", greeting("c")));
    assert_eq!(stream.next().expect("an event").name, "subscribed");
    // The others are not greeted, which is counted.
    assert_eq!(server.connect().get("/poll?channel=ask:x").status, 200);
    let mut phoenix = Phoenix::of(&server);
    phoenix.silent();
    let ignored = r#"murre_backend_answers_without_effect_total{call="connect"}"#;
    assert_eq!(metric(&server, ignored), 2);
}

/// Others see the application's `info` of a client in place of the client's own metadata, on every transport
/// and after each change; another user has none of it.
#[test]
fn others_see_the_info() {
    let application = Application::start(|call| {
        let name = &call.body["data"]["name"];
        Do::Say(match &*call.kind {
            "connect" => json!({"result": {
                "user": name, "info": {"name": name, "role": "guest"}, "meta": {"of": name},
            }}),
            "subscribe" if call.body["channel"] == "ask:x" => {
                json!({"result": {"info": {"role": "host"}}})
            }
            _ => json!({"result": {}}),
        })
    });
    let rules = "--namespace=ask,subscribe=backend,publish=backend,presence=members,presence-grace=0,\
                 history-size=5;here,presence=members,presence-grace=0";
    let paths = ["--phoenix-path=/socket", "--supabase-path=/realtime/v1"];
    let backend = application.flag();
    let flags = [&[&*backend, rules, "--shards=2"], &paths[..]].concat();
    let guarded = Guarded::start(&flags);
    let server = &guarded.server;
    let meta_of = |channel: &str, user: &str| {
        let members = guarded.get(&format!("/api/presence/{channel}")).1["members"].take();
        let members = members.as_array().expect("a list").clone();
        members.into_iter().find(|member| member["user"] == user).map(|mut one| one["meta"].take())
    };
    let until = |channel: &str, user: &str, expected: Value| {
        server.wait_until(&format!("{user} is as expected in {channel}"), |_| {
            meta_of(channel, user) == Some(expected.clone())
        });
    };
    let with_meta = |channel: &str, meta: Value| json!({"action": "subscribe", "identifier": channel, "meta": meta});
    let mut ann = Client::at(server, "/ws?name=ann");
    let claims = json!({"role": "king", "mood": "good"});
    assert_eq!(ann.ask(with_meta("ask:x", claims.clone()))["type"], "subscribed");
    assert_eq!(ann.ask(with_meta("here:x", claims))["type"], "subscribed");
    until("ask:x", "ann", json!({"name": "ann", "role": "host", "mood": "good"}));
    until("here:x", "ann", json!({"name": "ann", "role": "guest", "mood": "good"}));
    let update = json!({
        "action": "presence_update", "identifier": "ask:x",
        "meta": {"r\u{6f}le": "king", "name": "bob", "mood": "bad"},
    });
    assert_eq!(ann.ask(update)["type"], "presence_updated");
    until("ask:x", "ann", json!({"name": "ann", "role": "host", "mood": "bad"}));
    // A session that leaves and comes back, without metadata of its own.
    assert_eq!(
        ann.ask(json!({"action": "presence_leave", "identifier": "ask:x"}))["type"],
        "presence_left"
    );
    let nothing = json!({"action": "presence_update", "identifier": "ask:x", "meta": null});
    assert_eq!(ann.ask(nothing)["type"], "presence_updated");
    until("ask:x", "ann", json!({"name": "ann", "role": "host"}));

    let host = |name: &str| json!({"name": name, "role": "host"});
    let _stream = Events::open(server, "/sse?channel=ask:x&name=sue", None);
    until("ask:x", "sue", host("sue"));
    let mut poll = server.connect();
    let position = Position::of(&body(&server.connect().get("/poll?channel=ask:x&name=pat")));
    let target = format!("/poll?channel=ask:x&name=pat&position={position}");
    poll.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    until("ask:x", "pat", host("pat"));
    let mut phoenix = Phoenix::at(server, "/socket/websocket?vsn=2.0.0&name=pia");
    phoenix.send(r#"["1","1","ask:x","phx_join",{}]"#);
    until("ask:x", "pia", host("pia"));
    let mut supabase = Phoenix::at(server, "/realtime/v1/websocket?apikey=k&vsn=2.0.0&name=sam");
    supabase.send(r#"["1","1","realtime:ask:x","phx_join",{"config":{}}]"#);
    supabase.send(r#"["1","2","realtime:ask:x","presence",{"type":"presence","event":"track","payload":{"role":1,"at":2}}]"#);
    until("ask:x", "sam", json!({"name": "sam", "role": "host", "at": 2}));

    // Another user has neither the info nor the `meta` of the one before.
    ann.publish("ask:x", json!(1));
    let asked = |at: usize| application.calls("publish")[at].body.clone();
    assert_eq!((&asked(0)["user"], &asked(0)["meta"]), (&json!("ann"), &json!({"of": "ann"})));
    let auth = json!({"action": "auth", "token": token(&json!({"sub": "eve"}))});
    ann.send(auth);
    server.wait_until("eve is there", |_| meta_of("here:x", "eve").is_some());
    until("here:x", "eve", Value::Null);
    ann.send(publish("ask:x"));
    application.wait_for("publish", 2);
    assert_eq!((&asked(1)["user"], asked(1).get("meta")), (&json!("eve"), None));
}

/// Data that is longer than a publication may be is no consent, for each kind of call; members that have no
/// effect are counted, and change nothing.
#[test]
fn answers_are_bounded() {
    let application = Application::start(|call| {
        let long = "x".repeat(2000);
        Do::Say(match &*call.kind {
            _ if call.body["channel"] == "ask:long" => json!({"result": {"data": long}}),
            "publish" => json!({"result": {"skip_history": true, "tags": {"a": "b"}}}),
            "subscribe" => json!({"result": {"override": {}, "delta": ""}}),
            _ => json!({"result": {"data": "x".repeat(900)}}),
        })
    });
    let connect = ["--backend-connect=off", "--max-publication-bytes=1000"];
    let server = start(&application, &connect);
    let mut client = Client::of(&server);
    let request = |service: &str| json!({"action": "request", "service": service, "data": 1});
    for command in [subscribe("ask:long"), publish("ask:long"), request("ask:long")] {
        assert_eq!(client.error(command), "backend_failed");
    }
    assert_eq!(client.ask(request("ask:x"))["data"], "x".repeat(900));
    client.subscribe("ask:x");
    client.send(publish("ask:x"));
    assert_eq!(client.receive()["offset"], 1, "it is kept");
    let series = |call| format!("murre_backend_answers_without_effect_total{{call=\"{call}\"}}");
    let counts = ["publish", "subscribe", "rpc"].map(|call| metric(&server, &series(call)));
    assert_eq!(counts, [1, 0, 0]);
    let log = server.log_until("have no effect");
    assert!(log.last().is_some_and(|line| line.contains("skip_history, tags")), "{log:?}");
}
