//! The API of the admin port: publish, look, disconnect.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::channels::Client as Subscriber;
use crate::server::{Answer, Server};

/// A server with an API key, and the file that holds it.
fn server() -> (Server, KeyFile) {
    let file = KeyFile::new();
    let flag = format!("--api-key-file={}", file.0.display());
    let kept = "--namespace=kept,history-size=5";
    (Server::start(&["--shards=3", &flag, kept]), file)
}

struct KeyFile(PathBuf);

impl KeyFile {
    fn new() -> Self {
        let unique = format!("murre-key-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(unique);
        fs::write(&path, "correct horse\n").expect("there is room for a file");
        KeyFile(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn ask(server: &Server, method: &str, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let mut client = server.admin_connection();
    client.send(
        format!(
            "{method} {path} HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    let Answer { status, body, .. } = client.answer();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    ask(server, "POST", path, "correct horse", &body)
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    ask(server, "GET", path, "correct horse", &Value::Null)
}

/// What is published there reaches subscribers, whatever their namespace allows to clients.
#[test]
fn publishing() {
    let (server, _file) = server();
    let mut subscriber = Subscriber::of(&server);
    for identifier in ["kept:a", "plain"] {
        subscriber.subscribe(identifier);
    }
    let (status, published) =
        post(&server, "/api/publish", json!({"identifier": "kept:a", "data": {"n": [1, 2]}}));
    assert_eq!((status, &published["position"]["offset"]), (200, &json!(1)));
    let heard = subscriber.hear();
    assert_eq!((&heard["offset"], &heard["data"]), (&json!(1), &json!({"n": [1, 2]})));
    let all = json!({"identifiers": ["plain", "kept:a", ""], "data": "all"});
    let (status, outcomes) = post(&server, "/api/broadcast", all);
    assert_eq!(status, 200);
    assert_eq!(outcomes["published"][0], json!({"identifier": "plain"}));
    assert_eq!(outcomes["published"][1]["position"]["offset"], 2);
    assert_eq!(outcomes["published"][2]["error"], "bad_identifier");
    let mut heard = [subscriber.hear(), subscriber.hear()].map(|heard| heard["identifier"].clone());
    heard.sort_by_key(Value::to_string);
    assert_eq!(heard, ["kept:a", "plain"]);
}

/// Channels are listed a page at a time, each once, and found by name.
#[test]
fn looking_at_channels() {
    let (server, _file) = server();
    let mut subscriber = Subscriber::of(&server);
    let names: Vec<String> = (10..35).map(|number| format!("room {number}/é")).collect();
    names.iter().for_each(|name| _ = subscriber.subscribe(name));
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(&server, &format!("/api/topics?limit=10{from}"));
        assert_eq!(status, 200);
        for topic in page["topics"].as_array().expect("an array") {
            assert_eq!(topic["subscribers"], 1);
            found.push(topic["identifier"].as_str().expect("a name").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        from = format!("&from={next}");
    }
    found.sort();
    assert_eq!(found, names);
    assert_eq!(get(&server, "/api/topics/room%2010%2F%C3%A9").1["identifier"], names[0]);
    assert_eq!(get(&server, "/api/topics/nothing").0, 404);
}

/// A connection is looked at and ended by the name that it hears in `pong`.
#[test]
fn looking_at_and_ending_connections() {
    let (server, _file) = server();
    let mut subscriber = Subscriber::of(&server);
    subscriber.subscribe("a");
    let pong = subscriber.ask(json!({"action": "ping"}));
    let name = pong["connection"].as_str().expect("a name");
    let (status, info) = get(&server, &format!("/api/connections/{name}"));
    assert_eq!((status, &info["subscriptions"], &info["user"]), (200, &json!(["a"]), &Value::Null));
    let order = json!({"connection": name});
    assert_eq!(post(&server, "/api/disconnect", order.clone()), (200, json!({"disconnected": 1})));
    let closed = subscriber.0.read().expect("a close frame");
    let tungstenite::Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
    assert_eq!(u16::from(frame.code), 4000);
    drop(subscriber);
    server.wait_until("gone", |stats| stats["connections"] == 0);
    assert_eq!(post(&server, "/api/disconnect", order), (200, json!({"disconnected": 0})));
    assert_eq!(get(&server, &format!("/api/connections/{name}")).0, 404);
    assert_eq!(get(&server, "/api/connections/9999-1-1").0, 400);
    assert_eq!(post(&server, "/api/disconnect", json!({})).0, 400);
    assert_eq!(post(&server, "/api/disconnect", json!({"user": "nobody"})).1["disconnected"], 0);
}

/// Without the key there is nothing, and without a key file there is no API; the description of it
/// is for everybody.
#[test]
fn the_key_is_needed() {
    let (server, _file) = server();
    for key in ["", "wrong", "correct hors", "correct horses"] {
        assert_eq!(ask(&server, "GET", "/api/topics", key, &Value::Null).0, 401, "{key:?}");
    }
    let described = get(&server, "/api/openapi.json").1;
    for (path, methods) in described["paths"].as_object().expect("an object") {
        for method in methods.as_object().expect("an object").keys() {
            let path = path.replace("{topic}", "a").replace("{connection}", "0-0-0");
            let (status, _) = ask(&server, &method.to_uppercase(), &path, "wrong", &json!({}));
            assert_eq!(status, 401, "{path} is there");
        }
    }
    let server = Server::start(&[]);
    assert_eq!(get(&server, "/api/topics").0, 403);
}
