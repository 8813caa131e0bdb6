//! Tests of sessions that the application has admitted for a while.

use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::{ok, publish, start, subscribe};
use crate::application::{Application, Call, Do};
use crate::client::Client;
use crate::guarded::now;
use crate::reader::Position;
use crate::server::Server;

/// The claims of a connect answer are those of a token: rights, and an expiry that a refresh call extends.
#[test]
fn connect_answers_are_tokens() {
    let application = Application::start(|call| match &*call.kind {
        "connect" => Do::Say(json!({"result": {
            "user": "ann", "expire_at": now() - 9, "meta": 7, "channels": ["ask:mine", "news"],
        }})),
        "refresh" if call.body["meta"] == 7 => {
            Do::Say(json!({"result": {"expire_at": now() - 9, "meta": 8}}))
        }
        "refresh" => Do::Say(json!({"result": {"expired": true}})),
        _ => Do::Say(json!({"error": {"code": 103, "message": "permission denied"}})),
    });
    let server = start(&application, &[]);
    let mut client = Client::of(&server);
    client.subscribe("ask:mine");
    assert_eq!(client.error(subscribe("ask:other")), "not_allowed");
    assert_eq!(client.error(publish("news")), "not_allowed");
    // The expiry has a leeway of 10 seconds. A refresh to a time that has passed is none.
    let ended = client.receive();
    assert_eq!((&ended["type"], &ended["code"]), (&json!("error"), &json!("token_expired")));
    assert_eq!(application.calls("refresh").len(), 1);
    assert_eq!(application.calls("refresh")[0].body["user"], "ann");
}

/// A refresh call extends a session as often as the application wants, and a call that fails ends nobody.
#[test]
fn sessions_are_refreshed() {
    let application = Application::start(|call| match (&*call.kind, &call.body["meta"]) {
        ("connect", _) => {
            Do::Say(json!({"result": {"user": "ann", "expire_at": now() - 9, "meta": 1}}))
        }
        ("refresh", Value::Number(meta)) if *meta == 1.into() => {
            // 10 seconds of leeway: it is asked again two seconds later.
            Do::Say(json!({"result": {"expire_at": now() + 1, "meta": 2}}))
        }
        ("refresh", _) => Do::Close,
        _ => Do::Say(ok()),
    });
    let server = start(&application, &[]);
    let mut client = Client::of(&server);
    application.wait_for("refresh", 1);
    client.publish("news", json!(1));
    application.wait_for("refresh", 2);
    client.publish("news", json!(2));
    assert_eq!(server.stats()["total"]["connections_authenticated"], 1);
}

/// The answer about a session is not for the next one of its connection, as a proxy's has with polls.
#[test]
fn a_late_answer_is_for_no_other_user() {
    let of_bob = Arc::new((Mutex::new(false), Condvar::new()));
    let told = Arc::clone(&of_bob);
    let application = Application::start(move |call| match (&*call.kind, &call.body["user"]) {
        ("connect", _) => Do::Say(match &call.body["data"]["name"] {
            Value::Null => json!({"result": {}}),
            user => json!({"result": {"user": user, "expire_at": now() - 9}}),
        }),
        ("refresh", user) if user == "ann" => {
            let is_asked = told.0.lock().expect("no panic");
            drop(told.1.wait_while(is_asked, |is_asked| !*is_asked).expect("no panic"));
            Do::Say(json!({"result": {"expired": true}}))
        }
        ("refresh", _) => {
            *told.0.lock().expect("no panic") = true;
            told.1.notify_all();
            Do::Say(json!({"result": {"expire_at": now() + 1000}}))
        }
        _ => Do::Say(ok()),
    });
    let server = start(&application, &["--shards=1", "--backend-timeout=60"]);
    let position =
        |server: &Server| Position::of(&super::body(&server.connect().get("/poll?channel=ask:x")));
    let mut publisher = Client::of(&server);
    let mut proxy = server.connect();
    let mut poll = |name: &str| {
        let target = format!("/poll?channel=ask:x&name={name}&position={}", position(&server));
        proxy.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
        let is_asked = |call: &Call| call.body["user"] == name;
        server
            .wait_until("it is asked about", |_| application.calls("refresh").iter().any(is_asked));
        if name == "bob" {
            let late = "murre_backend_answers_late_total 1\n";
            server.wait_until("ann's answer is late", |_| {
                server.admin("/metrics").text().contains(late)
            });
        }
        publisher.send(publish("ask:x"));
        assert_eq!(proxy.answer().status, 200, "{name}");
    };
    poll("ann");
    poll("bob");
}
