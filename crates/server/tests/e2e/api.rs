//! Tests of the API of the admin port.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::client::Client as Subscriber;
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

/// The answer to a request with these header fields.
fn answer_to(server: &Server, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let mut client = server.admin_connection();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: m\r\nContent-Length: {length}\r\n");
    client.send(format!("{head}{fields}\r\n{body}").as_bytes());
    client.answer()
}

fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    ask(server, "POST", path, "correct horse", &body)
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    ask(server, "GET", path, "correct horse", &Value::Null)
}

/// Publications by the API reach subscribers even if the namespace does not allow clients to
/// publish.
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
    let heard = subscriber.receive();
    assert_eq!((&heard["offset"], &heard["data"]), (&json!(1), &json!({"n": [1, 2]})));
    let all = json!({"identifiers": ["plain", "kept:a", ""], "data": "all"});
    let (status, outcomes) = post(&server, "/api/broadcast", all);
    assert_eq!(status, 200);
    assert_eq!(outcomes["published"][0], json!({"identifier": "plain"}));
    assert_eq!(outcomes["published"][1]["position"]["offset"], 2);
    assert_eq!(outcomes["published"][2]["error"], "bad_identifier");
    let mut heard =
        [subscriber.receive(), subscriber.receive()].map(|heard| heard["identifier"].clone());
    heard.sort_by_key(Value::to_string);
    assert_eq!(heard, ["kept:a", "plain"]);
}

/// The list of channels comes in pages and has each channel once; a channel is also found by its
/// name.
#[test]
fn looking_at_channels() {
    let (server, _file) = server();
    let mut subscriber = Subscriber::of(&server);
    let names: Vec<String> = (10..35).map(|number| format!("room {number}/é")).collect();
    names.iter().for_each(|name| _ = subscriber.subscribe(name));
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(&server, &format!("/api/channels?limit=10{from}"));
        assert_eq!(status, 200);
        for channel in page["channels"].as_array().expect("an array") {
            assert_eq!(channel["subscribers"], 1);
            found.push(channel["identifier"].as_str().expect("a name").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        from = format!("&from={next}");
    }
    found.sort();
    assert_eq!(found, names);
    assert_eq!(get(&server, "/api/channels/room%2010%2F%C3%A9").1["identifier"], names[0]);
    assert_eq!(get(&server, "/api/channels/nothing").0, 404);
    // The earlier names of the routes still work.
    let page = get(&server, "/api/topics?limit=1").1;
    assert_eq!(page["topics"].as_array().map(Vec::len), Some(1));
    assert_eq!(get(&server, "/api/topics/room%2010%2F%C3%A9").1["identifier"], names[0]);
}

/// The API describes and ends a connection by the name that `pong` gives to its client.
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
    assert_eq!(subscriber.receive()["code"], "disconnected");
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

/// Requests without the key are refused, and without a key file the API is off; its description
/// needs no key.
#[test]
fn the_key_is_needed() {
    let (server, _file) = server();
    for key in ["", "wrong", "correct hors", "correct horses"] {
        assert_eq!(ask(&server, "GET", "/api/channels", key, &Value::Null).0, 401, "{key:?}");
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
    assert_eq!(get(&server, "/api/channels").0, 403);
}

/// Every error is a JSON object with the status and code of its kind, and `openapi.json` lists the
/// status for the request.
#[test]
fn errors_are_json_objects() {
    let file = KeyFile::new();
    let key = format!("--api-key-file={}", file.0.display());
    let small = ["--max-publication-bytes=1", "--max-name-bytes=1"];
    let server = Server::start(&[&key, small[0], small[1]]);
    let described = get(&server, "/api/openapi.json").1;
    let key = "Authorization: bearer correct horse\r\n";
    let json = &format!("{key}Content-Type: application/json\r\n");
    let publish = r#"{"identifier": "a", "data": 1}"#;
    let long = &" ".repeat(100_000);
    for (method, path, fields, body, status, code) in [
        ("POST", "/api/publish", json.as_str(), "{", 400, "bad_json"),
        ("POST", "/api/publish", json, r#"{"identifier": "", "data": 1}"#, 400, "bad_identifier"),
        (
            "POST",
            "/api/publish",
            json,
            r#"{"identifier": "a", "data": 10}"#,
            400,
            "bad_publication",
        ),
        ("POST", "/api/publish", json, r#"{"identifier": 1, "data": 1}"#, 422, "bad_body"),
        ("POST", "/api/publish", json, "{}", 422, "bad_body"),
        ("POST", "/api/publish", key, publish, 415, "bad_content_type"),
        ("POST", "/api/publish", json, long, 413, "body_too_long"),
        ("POST", "/api/broadcast", json, long, 413, "body_too_long"),
        ("POST", "/api/disconnect", json, long, 413, "body_too_long"),
        ("POST", "/api/disconnect", json, "{}", 400, "bad_order"),
        ("POST", "/api/publish", "", publish, 401, "wrong_key"),
        ("POST", "/api/publish", "Authorization: Basic Og==\r\n", publish, 401, "wrong_key"),
        ("GET", "/api/channels?limit=many", key, "", 400, "bad_query"),
        ("GET", "/api/channels?from=here", key, "", 400, "bad_page"),
        ("GET", "/api/channels/%ff", key, "", 400, "bad_path"),
        ("GET", "/api/channels/nothing", key, "", 404, "not_found"),
        ("GET", "/api/connections/here", key, "", 400, "bad_connection"),
        ("DELETE", "/api/channels", key, "", 405, "bad_method"),
        ("GET", "/api/publish", key, "", 405, "bad_method"),
        ("POST", "/stats", "", "", 405, "bad_method"),
        ("GET", "/api/sessions/online", key, "", 404, "no_session_log"),
        ("GET", "/api/sessions?from=yesterday", key, "", 400, "bad_query"),
        ("GET", "/api/sessions?after=here", key, "", 400, "bad_query"),
        ("GET", "/api/sessions/peaks?limit=1", key, "", 400, "bad_query"),
        ("GET", "/api/nothing", key, "", 404, "not_found"),
        ("GET", "/nothing", "", "", 404, "not_found"),
    ] {
        let answer = answer_to(&server, method, path, fields, body);
        let what = format!("{method} {path}: {answer:?}");
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        let error: Value = serde_json::from_str(answer.text()).expect("JSON");
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{what}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
        let scheme = (status == 401).then_some("Bearer");
        assert_eq!(answer.header("www-authenticate"), scheme, "{what}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{what}");
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let path = ["channels/%ff", "channels/nothing", "connections/here"]
            .iter()
            .find(|one| path.ends_with(*one))
            .map_or(path, |one| {
                if one.starts_with("channels") {
                    "/api/channels/{channel}"
                } else {
                    "/api/connections/{connection}"
                }
            });
        let operation = &described["paths"][path][method.to_lowercase()];
        assert!(
            operation.is_null() || operation["responses"][status.to_string()].is_object(),
            "{what}"
        );
    }
}

/// Data of `--max-publication-bytes` bytes can be published, also to many channels with long names,
/// because no other limit on bodies is lower.
#[test]
fn long_publications() {
    let file = KeyFile::new();
    let key = format!("--api-key-file={}", file.0.display());
    let server = Server::start(&[&key, "--max-publication-bytes=4000000"]);
    let data = "x".repeat(4_000_000 - 2);
    let (status, published) =
        post(&server, "/api/publish", json!({"identifier": "a", "data": data}));
    assert_eq!((status, &published["identifier"]), (200, &json!("a")));
    let names: Vec<_> =
        (1000..2000).map(|number| format!("{number}{}", "\u{1f426}".repeat(62))).collect();
    let (status, _) = post(&server, "/api/broadcast", json!({"identifiers": names, "data": data}));
    assert_eq!(status, 200);
    let longer = format!("{data}x");
    let (status, error) = post(&server, "/api/publish", json!({"identifier": "a", "data": longer}));
    assert_eq!((status, &error["code"]), (400, &json!("bad_publication")));
}
