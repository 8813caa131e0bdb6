//! Tests of what the application decides about: subscriptions, publications, requests.

use std::net::TcpStream;

use serde_json::json;
use tungstenite::{Message, WebSocket};

use super::{body, ok, publish, start, subscribe};
use crate::application::{Application, Do};
use crate::client::Client;
use crate::server::murre;

/// The application decides about subscriptions, publications and requests over every way in; its data takes
/// the place of what was published, and its refusal has its own words.
#[test]
fn the_application_decides() {
    let application = Application::start(|call| {
        let channel = call.body["channel"].as_str().unwrap_or_default();
        let no = json!({"error": {"code": 4242, "message": "not on my watch", "temporary": true}});
        Do::Say(match &*call.kind {
            "connect" => ok(),
            _ if channel.ends_with("no") => no,
            "publish" if call.body["b64data"].is_string() => json!({"result": {"b64data": "AQID"}}),
            "publish" => json!({"result": {"data": {"was": call.body["data"], "text": "a\n b"}}}),
            "rpc" => json!({"result": {"data": [call.body["method"], call.body["data"]]}}),
            _ => ok(),
        })
    });
    let server = start(&application, &["--shards=2"]);
    let mut reader = Client::of(&server);
    reader.subscribe("ask:x");
    let mut client = Client::of(&server);
    client.publish("ask:x", json!({"n": 1}));
    let data = json!({"was": {"n": 1}, "text": "a\n b"});
    assert_eq!(reader.receive()["data"], data);
    client.0.send(Message::binary([&[1, 5], &b"ask:x\xff\xfe"[..]].concat())).expect("sent");
    let Message::Binary(bytes) = reader.0.read().expect("a message") else { panic!("text") };
    assert!(bytes.ends_with(&[2, 1, 2, 3]), "{bytes:?}");
    let sent = application.calls("publish");
    assert_eq!(
        (&sent[1].body["encoding"], &sent[1].body["b64data"]),
        (&json!("binary"), &json!("//4="))
    );
    let request = json!({"action": "request", "service": "ask:it", "data": [1]});
    assert_eq!(client.ask(request)["data"], json!(["ask:it", [1]]));
    for command in [
        subscribe("ask:no"),
        publish("ask:no"),
        json!({"action": "request", "service": "ask:no", "data": 1}),
    ] {
        let answer = client.ask(command);
        assert_eq!(
            (&answer["code"], &answer["message"]),
            (&json!("refused"), &json!("not on my watch"))
        );
    }
    for path in ["/poll?channel=ask:no", "/sse?channel=ask:no", "/sse?channel=ask:x&channel=ask:no"]
    {
        let answer = server.connect().get(path);
        assert_eq!((answer.status, &body(&answer)["message"]), (403, &json!("not on my watch")));
    }
    assert_eq!(client.error(subscribe("ask:x\u{0}")), "bad_identifier");
    // History is for subscribers where the backend decides about subscriptions.
    let history = json!({"action": "history", "identifier": "ask:x"});
    assert_eq!(client.error(history.clone()), "not_allowed");
    client.subscribe("ask:x");
    assert_eq!(client.ask(history)["type"], "history");
    assert_eq!(client.error(subscribe("ask:x")), "already_subscribed");
}

/// Phoenix clients: a join has its parameters in the call, a push can be a call, and a refusal is the reply.
#[test]
fn phoenix_clients_are_asked_about() {
    let application = Application::start(|call| {
        Do::Say(match (&*call.kind, &call.body["data"]) {
            ("connect", _) => json!({"result": {"user": "ann"}}),
            ("subscribe", data) if data["key"] == 1 => json!({"result": {}}),
            ("subscribe", _) => json!({"error": {"code": 1, "message": "a key, please"}}),
            ("rpc", data) if call.body["method"] == "bye" => {
                json!({"disconnect": {"code": 4600, "reason": data["why"]}})
            }
            ("rpc", data) => json!({"result": {"data": {"got": data, "by": call.body["user"]}}}),
            _ => json!({"result": {}}),
        })
    });
    let server = start(&application, &[]);
    let mut client = server.websocket("/socket/websocket?vsn=2.0.0");
    let say = |client: &mut WebSocket<TcpStream>, text: &str| {
        client.send(Message::text(text)).expect("sent");
    };
    say(&mut client, r#"["1","1","ask:x","phx_join",{}]"#);
    say(&mut client, r#"["2","2","ask:x","phx_join",{"key":1}]"#);
    say(&mut client, r#"["2","3","ask:x","msg",{"a":1}]"#);
    say(&mut client, r#"["2","4","ask:x","phx_leave",{}]"#);
    say(&mut client, r#"["5","5","rpc:x","phx_join",{}]"#);
    say(&mut client, r#"["5","6","rpc:x","sum",{"a":[1,2]}]"#);
    let mut of_ask = Vec::new();
    let mut of_rpc = Vec::new();
    loop {
        match client.read().expect("a message") {
            Message::Text(text) if text.contains("ask:x") => of_ask.push(text.to_string()),
            Message::Text(text) => of_rpc.push(text.to_string()),
            Message::Close(frame) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(4600));
                break;
            }
            other => panic!("{other:?}"),
        }
        let has_left = of_ask.last().is_some_and(|text| text.contains("phx_close"));
        if of_rpc.len() == 2 && (has_left || of_ask.len() >= 5) {
            say(&mut client, r#"["5","7","rpc:x","bye",{"why":"enough"}]"#);
        }
    }
    let ok = |refs: &str, response: &str| {
        format!(r#"[{refs},"rpc:x","phx_reply",{{"status":"ok","response":{response}}}]"#)
    };
    assert_eq!(of_rpc[0], ok(r#""5","5""#, "{}"));
    assert_eq!(of_rpc[1], ok(r#""5","6""#, r#"{"by":"ann","got":{"a":[1,2]}}"#));
    assert!(of_rpc[2].contains("enough"), "{of_rpc:?}");
    let replies: Vec<&str> =
        of_ask.iter().map(|text| &text[..text.find(",\"ask").unwrap_or(0)]).collect();
    assert!(of_ask[0].contains("a key, please"), "{of_ask:?}");
    assert!(replies.starts_with(&[r#"["1","1""#, r#"["2","2""#]), "{of_ask:?}");
}

/// Rules that need calls need a URL, and a URL that cannot have paths below needs one for each call.
#[test]
fn settings_fit_together() {
    let run = |flags: &[&str]| {
        let output = murre().arg("serve").args(flags).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    for (flags, named) in [
        (&["--namespace=a,subscribe=backend"][..], "'a' has subscribe=backend"),
        (&["--namespace=a,phoenix-push=backend"], "--backend-rpc"),
        (
            &["--backend=http://h/", "--backend-publish=off", "--namespace=a,publish=backend"],
            "publish",
        ),
        (&["--backend=http://h/?x=1"], "it has a query"),
        (&["--backend=ftp://h/"], "it is http://"),
        (&["--backend=http://h:70000/"], "it is http://"),
        (&["--backend-connect=on"], "or off"),
        (&["--backend=http://h/", "--backend-header=host"], "none of the message itself"),
        (
            &["--backend=http://h/", "--backend-header=Accept-Encoding"],
            "none of the message itself",
        ),
    ] {
        let (code, text) = run(flags);
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(text.contains(named), "{flags:?}: {text}");
    }
}
