//! Tests of the events of sessions of every kind: Phoenix clients that poll, Supabase clients, and clients whom
//! the application has admitted.

use serde_json::{Value, json};

use super::PATIENT;
use super::receiver::{Manner, Receiver};
use crate::application::{self, Do};
use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::knowledge::Application;
use crate::phoenix_client::Phoenix;
use crate::reader::Events;

/// A session of each kind is connected with its user, occupies its channel, is a member of it, and is gone
/// when it ends.
#[test]
fn every_kind_of_session() {
    let receiver = Receiver::start(Manner::Take);
    let application = application::Application::start(|call| {
        let user = &call.body["data"]["name"];
        Do::Say(json!({"result": {"user": user}}))
    });
    let here = "--namespace=here,publish=anyone,presence=members,presence-grace=0";
    let paths = ["--phoenix-path=/socket", "--supabase-path=/realtime/v1"];
    let hook = [&*receiver.flag(), "--webhook-delay=0.1", PATIENT];
    let backend = application.flag();
    let flags = [&[&*backend, here, "--shards=3"], &paths[..], &hook[..]].concat();
    let guarded = Guarded::start(&flags);
    let server = &guarded.server;
    let body = |answer: &crate::server::Answer| -> Value {
        serde_json::from_slice(&answer.body).expect("JSON")
    };

    let mut websocket = Client::at(server, "/ws?name=websocket");
    websocket.subscribe("here:a");
    let mut stream = Events::open(server, "/sse?channel=here:a&name=stream", None);
    assert_eq!(stream.next().expect("an event").name, "subscribed");
    let mut phoenix = Phoenix::at(server, "/socket/websocket?vsn=2.0.0&name=phoenix");
    phoenix.join("here:a", "1");
    let mut supabase =
        Phoenix::at(server, "/realtime/v1/websocket?apikey=k&vsn=2.0.0&name=supabase");
    supabase.join("realtime:here:a", "1");
    let track = r#"["1","2","realtime:here:a","presence",{"type":"presence","event":"track","payload":{}}]"#;
    supabase.send(track);
    // One that the application is asked about, and one with a token.
    let mut polls = Vec::new();
    let with_token = format!("token={}", token(&json!({"sub": "poll with a token"})));
    for query in ["name=poll", &*with_token] {
        let mut poll = server.connect();
        let target = format!("/socket/longpoll?vsn=2.0.0&{query}");
        let begun = body(&poll.get(&target));
        let session = begun["token"].as_str().expect("a token");
        let target = format!("/socket/longpoll?vsn=2.0.0&token={session}");
        let join = r#"["1","1","here:a","phx_join",{}]"#;
        let length = join.len();
        let post =
            format!("POST {target} HTTP/1.1\r\nHost: m\r\nContent-Length: {length}\r\n\r\n{join}");
        poll.send(post.as_bytes());
        assert_eq!(body(&poll.answer())["status"], 200);
        assert_eq!(body(&poll.get(&target))["status"], 200, "the reply");
        polls.push(poll);
    }
    let users = ["websocket", "stream", "phoenix", "supabase", "poll", "poll with a token"];
    let knows = receiver.until("told of all", |state| {
        let there: Vec<&str> =
            state.knows.connections.values().filter_map(|user| user.as_deref()).collect();
        let all = users.iter().all(|user| there.contains(user));
        let occupied = state.knows.occupied.contains("here:a");
        (all && occupied && state.knows.members.len() == users.len()).then(|| state.knows.clone())
    });
    assert_eq!(knows.connections.len(), users.len());
    for ((channel, connection), user) in &knows.members {
        assert_eq!(channel, "here:a");
        assert_eq!(knows.connections[connection].as_ref(), Some(user));
        let online = guarded.get(&format!("/api/users/{}", user.replace(' ', "%20"))).1;
        assert_eq!(online["connections"], json!([connection]));
    }
    for user in users {
        let order = json!({"user": user}).to_string();
        assert_eq!(guarded.post("/api/disconnect", order).1, json!({"disconnected": 1}), "{user}");
    }
    receiver.until("empty", |state| (state.knows == Application::default()).then_some(()));
}

/// A client that the application refuses is never connected, and one whose session the application does not
/// extend is disconnected.
#[test]
fn the_application_ends_sessions() {
    let receiver = Receiver::start(Manner::Take);
    let application = application::Application::start(|call| {
        let name = &call.body["data"]["name"];
        Do::Say(match &*call.kind {
            "connect" if name == "mallory" => json!({"error": {"code": 1, "message": "no"}}),
            "connect" => json!({"result": {"user": name, "expire_at": 1}}),
            _ => json!({"result": {"expired": true}}),
        })
    });
    let hook = [&*receiver.flag(), "--webhook-delay=0.1", PATIENT];
    let guarded = Guarded::start(&[&[&*application.flag(), "--shards=2"], &hook[..]].concat());
    assert_eq!(guarded.server.upgrade("/ws?name=mallory").1.status, 403);
    let mut ann = Client::at(&guarded.server, "/ws?name=ann");
    assert_eq!(ann.receive()["code"], "token_expired");
    let told = receiver.until("told of ann's end", |state| {
        let batches = state.requests.iter().map(|request| request.body["events"].as_array());
        let events: Vec<(Value, Value)> = batches
            .flat_map(|events| events.expect("a list"))
            .map(|event| (event["event"].clone(), event["user"].clone()))
            .collect();
        (events.len() >= 2).then_some(events)
    });
    let expected = ["connected", "disconnected"].map(|event| (json!(event), json!("ann")));
    assert_eq!(told, expected);
}
