//! Rights in channels: one table over all ways in, all sessions and all rules.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::application::{Application, Do};
use crate::client::Client;
use crate::guarded::{Guarded, now, signed, token};
use crate::server::{Answer, Server};

/// A namespace for each word of a right, one with channels for users, and one that a token names.
const NAMESPACES: [&str; 8] = [
    "anyone,subscribe=anyone,publish=anyone,history=anyone,serve=anyone,request=anyone",
    "authenticated,subscribe=authenticated,publish=authenticated,history=authenticated,\
     serve=authenticated,request=authenticated",
    "subscriber,subscribe=anyone,publish=subscriber,history=subscriber",
    "token,subscribe=token,publish=token,history=token",
    "nobody,subscribe=nobody,publish=nobody,history=nobody,serve=nobody,request=nobody",
    "limited,subscribe=token,publish=authenticated,history=authenticated,user-limited=true",
    "backend,subscribe=backend,publish=backend,request=backend",
    "default",
];

/// How a command reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Subscribe,
    SubscribeInBatch,
    Stream,
    Poll,
    Publish,
    PublishInBatch,
    PublishBinary,
    PublishSubscribed,
    History,
    HistorySubscribed,
    Serve,
    Request,
}

const WAYS: [Way; 12] = [
    Way::Subscribe,
    Way::SubscribeInBatch,
    Way::Stream,
    Way::Poll,
    Way::Publish,
    Way::PublishInBatch,
    Way::PublishBinary,
    Way::PublishSubscribed,
    Way::History,
    Way::HistorySubscribed,
    Way::Serve,
    Way::Request,
];

/// Who asks, with the claims of the token: nobody in particular, users without grants, and users whose
/// tokens grant everything, reading, or nothing.
fn sessions() -> [(&'static str, Option<Value>); 6] {
    let all = json!(["subscribe", "publish", "presence", "history"]);
    [
        ("nobody", None),
        ("ann", Some(json!({"sub": "ann"}))),
        ("bob", Some(json!({"sub": "bob"}))),
        ("all", Some(json!({"sub": "ann", "channels": {"*": all}}))),
        ("reader", Some(json!({"sub": "ann", "channels": ["*"]}))),
        ("none", Some(json!({"sub": "ann", "channels": []}))),
    ]
}

/// Whether the rules allow it, as the documentation says it.
fn allowed(way: Way, namespace: &str, who: &str) -> bool {
    let right = match way {
        Way::Subscribe | Way::SubscribeInBatch | Way::Stream | Way::Poll => "subscribe",
        Way::Publish | Way::PublishInBatch | Way::PublishBinary | Way::PublishSubscribed => {
            "publish"
        }
        Way::History | Way::HistorySubscribed => "history",
        // No token grants rights in services. In the other namespaces the defaults hold.
        Way::Serve | Way::Request => {
            return match namespace {
                "anyone" => true,
                "authenticated" => who != "nobody",
                "nobody" => false,
                "backend" if way == Way::Request => consents(who),
                _ => way == Way::Request || who != "nobody",
            };
        }
    };
    // Who could not subscribe before is no subscriber.
    let is_subscribed = matches!(way, Way::PublishSubscribed | Way::HistorySubscribed)
        && allowed(Way::Subscribe, namespace, who);
    match (namespace, who) {
        // It is asked about what a token does not grant.
        ("backend", who) if right != "history" => consents(who),
        ("backend", "ann" | "bob" | "nobody") => is_subscribed,
        ("nobody", _) | (_, "none") => false,
        // The channel is `limited:x#ann,carl`.
        ("limited", "nobody" | "bob") => false,
        (_, "all") => true,
        (_, "reader") => right != "publish",
        ("limited", "ann") => true,
        ("anyone", _) => true,
        ("authenticated", who) => who != "nobody",
        ("subscriber", _) => right == "subscribe" || is_subscribed,
        ("token", _) => false,
        other => panic!("{other:?}"),
    }
}

/// Whether the application consents to what a session asks: it does to whatever ann wants.
fn consents(who: &str) -> bool {
    !matches!(who, "nobody" | "bob")
}

fn connect(server: &Server, claims: Option<&Value>) -> Client {
    match claims {
        None => Client::of(server),
        Some(claims) => Client::at(server, &format!("/ws?token={}", token(claims))),
    }
}

/// What the server says to a command: whether it was allowed.
fn outcome(answer: &Value) -> bool {
    match answer["type"].as_str() {
        Some("error") => {
            assert_eq!(answer["code"], "not_allowed", "{answer}");
            false
        }
        _ => true,
    }
}

fn get(server: &Server, path: &str, claims: Option<&Value>) -> bool {
    let token = claims.map_or(String::new(), |claims| format!("&token={}", token(claims)));
    let mut connection = server.connect();
    let head = format!("HEAD {path}{token} HTTP/1.1\r\nHost: m\r\n\r\n");
    connection.send(head.as_bytes());
    let head = connection.answer_to("HEAD").status;
    let Answer { status, body, .. } = match path.starts_with("/sse") {
        // A stream has no length: the status of HEAD is that of GET, which is tested elsewhere.
        true => Answer { status: head, headers: Vec::new(), body: Vec::new() },
        false => server.connect().get(&format!("{path}{token}")),
    };
    assert_eq!(status, head);
    assert!(matches!(status, 200 | 403), "{status} {}", String::from_utf8_lossy(&body));
    status == 200
}

fn try_it(way: Way, namespace: &str, server: &Server, claims: Option<&Value>) -> bool {
    let channel = match namespace {
        "limited" => "limited:x#ann,carl".to_owned(),
        other => format!("{other}:x"),
    };
    let mut client = connect(server, claims);
    let in_path = channel.replace('#', "%23");
    let subscribe = json!({"action": "subscribe", "identifier": channel});
    let publish = json!({"action": "publish", "identifier": channel, "data": 1});
    let history = json!({"action": "history", "identifier": channel});
    let ask_subscribed = |mut client: Client, command: Value| {
        client.ask(subscribe.clone());
        client.send(json!([{"action": "ping"}, with_id(&command)]));
        loop {
            let answer = client.receive();
            if answer["id"] == 77 {
                return outcome(&answer);
            }
        }
    };
    match way {
        Way::Subscribe => outcome(&client.ask(subscribe)),
        Way::SubscribeInBatch => in_batch(&mut client, &subscribe),
        Way::Stream => get(server, &format!("/sse?channel={in_path}"), claims),
        Way::Poll => get(server, &format!("/poll?channel={in_path}"), claims),
        Way::Publish => outcome(&client.ask(publish)),
        Way::PublishInBatch => in_batch(&mut client, &publish),
        Way::PublishBinary => {
            let frame = [&[1, channel.len() as u8], channel.as_bytes(), b"x"].concat();
            client.0.send(Message::binary(frame)).expect("sent");
            // Only a refusal is answered, before a later command of the channel.
            client.send(with_id(&publish));
            let first = client.receive();
            assert_eq!(first["type"] == "error", first["id"] != 77, "{first}");
            outcome(&first)
        }
        Way::PublishSubscribed => ask_subscribed(client, publish),
        Way::History => outcome(&client.ask(history)),
        Way::HistorySubscribed => ask_subscribed(client, history),
        Way::Serve => outcome(&client.ask(json!({"action": "serve", "service": channel}))),
        Way::Request => {
            let request = json!({"action": "request", "service": channel, "data": 1});
            let answer = client.ask(request);
            answer["code"] != "not_allowed"
        }
    }
}

fn with_id(command: &Value) -> Value {
    let mut command = command.clone();
    command["id"] = json!(77);
    command
}

fn in_batch(client: &mut Client, command: &Value) -> bool {
    client.send(json!([{"action": "ping"}, with_id(command), {"action": "ping"}]));
    loop {
        let answer = client.receive();
        if answer["id"] == 77 {
            return outcome(&answer);
        }
    }
}

/// Every way in obeys the same rules, for every session and every word of a rule.
#[test]
fn every_way_obeys_the_rules() {
    let namespaces = NAMESPACES.map(|rules| format!("--namespace={rules},history-size=5"));
    let flags: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let application = Application::start(|call| {
        Do::Say(match call.body["user"].as_str() {
            Some("ann") => json!({"result": {}}),
            _ => json!({"error": {"code": 103, "message": "permission denied"}}),
        })
    });
    let application = application.flag();
    let backend = ["--shards=2", &application, "--backend-connect=off"];
    let guarded = Guarded::start(&[&backend, &flags[..]].concat());
    let namespaces =
        ["anyone", "authenticated", "subscriber", "token", "nobody", "limited", "backend"];
    for way in WAYS {
        for namespace in namespaces {
            for (who, claims) in sessions() {
                let expected = allowed(way, namespace, who);
                let found = try_it(way, namespace, &guarded.server, claims.as_ref());
                assert_eq!(found, expected, "{way:?} in {namespace} by {who}");
            }
        }
    }
    // The API has a key of its own and is asked by no rule.
    for namespace in ["anyone", "token", "nobody", "limited"] {
        let body = json!({"identifier": format!("{namespace}:x#ann"), "data": 1}).to_string();
        assert_eq!(guarded.post("/api/publish", body).0, 200, "{namespace}");
    }
    let stats = guarded.server.stats();
    assert!(stats["total"]["commands_refused"].as_u64() > Some(0));
}

/// With strict namespaces every way in refuses a prefix that is no namespace, also the API.
#[test]
fn strict_namespaces() {
    let guarded = Guarded::start(&[
        "--strict-namespaces",
        "--namespace=a,publish=anyone,serve=anyone,history-size=1",
        "--namespace=default,publish=anyone,history-size=1",
    ]);
    let mut client = Client::of(&guarded.server);
    for name in ["a:x", "x", "default:x"] {
        client.subscribe(name);
        client.send(json!({"action": "publish", "identifier": name, "data": 1}));
        assert_eq!(client.receive()["type"], "publication");
    }
    for command in [
        json!({"action": "subscribe", "identifier": "b:x"}),
        json!({"action": "subscribe", "identifier": "b:x", "token": "x.y.z"}),
        json!({"action": "publish", "identifier": "b:x", "data": 1}),
        json!({"action": "history", "identifier": ":x"}),
        json!({"action": "serve", "service": "b:x"}),
        json!({"action": "request", "service": "b:x", "data": 1}),
    ] {
        assert_eq!(client.error(command.clone()), "unknown_namespace", "{command}");
    }
    client.0.send(Message::binary(b"\x01\x03b:xdata".to_vec())).expect("sent");
    assert_eq!(client.receive()["code"], "unknown_namespace");
    for path in ["/sse?channel=b:x", "/sse?channel=a:x&channel=b:x", "/poll?channel=b:x"] {
        let answer = guarded.server.connect().get(path);
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, &body["code"]), (400, &json!("unknown_namespace")), "{path}");
    }
    let (status, body) = guarded.post("/api/publish", r#"{"identifier":"b:x","data":1}"#);
    assert_eq!((status, &body["code"]), (400, &json!("unknown_namespace")));
    let (_, body) = guarded.post("/api/broadcast", r#"{"identifiers":["b:x","a:x"],"data":1}"#);
    assert_eq!(body["published"][0]["error"], "unknown_namespace", "{body}");
    assert!(body["published"][1]["position"].is_object(), "{body}");
}

fn for_channel(user: Option<&str>, channel: &str, seconds: i64) -> String {
    let mut claims = json!({"channel": channel, "exp": now() + seconds});
    if let Some(user) = user {
        claims["sub"] = json!(user);
    }
    token(&claims)
}

/// A token for one channel subscribes its user to it where the namespace asks for a token. Tokens for
/// another channel or user, and tokens of connections, do not.
#[test]
fn tokens_for_one_channel() {
    let guarded = Guarded::start(&["--namespace=t,subscribe=token,publish=subscriber"]);
    let ann = token(&json!({"sub": "ann"}));
    let mut client = Client::at(&guarded.server, &format!("/ws?token={ann}"));
    let subscribe = |channel: &str, token: &str| json!({"action": "subscribe", "identifier": channel, "token": token});
    let forged = signed(&json!({"sub": "ann", "channel": "t:a"}), &"x".repeat(32));
    for (token, named) in [
        (for_channel(Some("ann"), "t:b", 60), "another channel"),
        (for_channel(Some("bob"), "t:a", 60), "not the user"),
        (for_channel(None, "t:a", 60), "not the user"),
        (for_channel(Some("ann"), "t:a", -60), "expired"),
        (ann.clone(), "no `channel`"),
        (forged, "not signed"),
        ("x.y.z".into(), "not a signed"),
    ] {
        let answer = client.ask(subscribe("t:a", &token));
        assert_eq!((&answer["code"], &answer["identifier"]), (&json!("bad_token"), &json!("t:a")));
        assert!(answer["message"].as_str().is_some_and(|why| why.contains(named)), "{answer}");
    }
    let wrong = json!({"action": "subscribe", "identifier": "t:a", "token": 7});
    assert_eq!(client.error(wrong), "bad_command");
    let publish = json!({"action": "publish", "identifier": "t:a", "data": 1});
    assert_eq!(client.error(publish.clone()), "not_allowed");
    let good = for_channel(Some("ann"), "t:a", 60);
    assert_eq!(client.ask(subscribe("t:a", &good))["type"], "subscribed");
    client.send(with_id(&publish));
    let both = [client.receive(), client.receive()];
    assert!(both.iter().any(|message| message["type"] == "publication"), "{both:?}");
    // It is no token for a connection.
    assert_eq!(client.error(json!({"action": "auth", "token": good})), "bad_token");
    let answer = guarded.server.connect().get(&format!("/sse?channel=a&token={good}"));
    assert_eq!(answer.status, 401);
    let mut anonymous = Client::of(&guarded.server);
    let own = for_channel(None, "t:a", 60);
    assert_eq!(anonymous.ask(subscribe("t:a", &own))["type"], "subscribed");
    assert_eq!(Client::of(&guarded.server).error(subscribe("t:a", &good)), "bad_token");
}

/// When the token of a subscription expires, the subscription ends and the connection stays. A new token
/// renews it before, and subscribes again after.
#[test]
fn a_subscription_ends_with_its_token() {
    let guarded = Guarded::start(&["--namespace=t,subscribe=token,history-size=3"]);
    let mut client = Client::of(&guarded.server);
    let subscribe = |channel: &str, seconds| {
        let token = for_channel(None, channel, seconds);
        json!({"action": "subscribe", "identifier": channel, "token": token})
    };
    // The leeway is ten seconds: these end in two or three.
    for channel in ["t:a", "t:b", "t:c"] {
        assert_eq!(client.ask(subscribe(channel, -7))["type"], "subscribed");
    }
    let renewed = client.ask(subscribe("t:b", 60));
    assert_eq!((&renewed["type"], &renewed["renewed"]), (&json!("subscribed"), &json!(true)));
    assert_eq!(
        client.ask(json!({"action": "unsubscribe", "identifier": "t:c"}))["type"],
        "unsubscribed"
    );
    let ended = client.receive();
    assert_eq!(
        (&ended["type"], &ended["identifier"], &ended["code"], ended.get("id")),
        (&json!("unsubscribed"), &json!("t:a"), &json!("token_expired"), None)
    );
    let publish = |channel: &str| json!({"identifier": channel, "data": channel}).to_string();
    for channel in ["t:a", "t:b"] {
        assert_eq!(guarded.post("/api/publish", publish(channel)).0, 200);
    }
    assert_eq!(client.receive()["identifier"], "t:b");
    assert_eq!(client.ask(subscribe("t:a", 60))["type"], "subscribed");
    guarded.server.wait_for_subscriptions(2);
}

/// A new token with fewer rights ends the subscriptions that it does not grant; those by a token of
/// their own stay for the same user.
#[test]
fn fewer_rights_end_subscriptions() {
    let guarded = Guarded::start(&["--namespace=t,subscribe=token"]);
    let auth = |claims: Value| json!({"action": "auth", "token": token(&claims)});
    let mut client = Client::of(&guarded.server);
    client.ask(auth(json!({"sub": "ann", "channels": ["t:a", "t:b", "c"]})));
    for channel in ["t:a", "t:b", "c"] {
        client.subscribe(channel);
    }
    let own = for_channel(Some("ann"), "t:own", 60);
    client.ask(json!({"action": "subscribe", "identifier": "t:own", "token": own}));
    // The same rights and the same user end nothing.
    client.ask(auth(json!({"sub": "ann", "channels": ["c", "t:b", "t:a"], "jti": "2"})));
    client.ask(auth(json!({"sub": "ann", "channels": ["t:b"]})));
    let mut ended: Vec<String> = (0..2)
        .map(|_| client.receive())
        .map(|message| {
            assert_eq!(
                (&message["type"], &message["code"]),
                (&json!("unsubscribed"), &json!("not_allowed"))
            );
            message["identifier"].as_str().expect("a name").to_owned()
        })
        .collect();
    ended.sort();
    assert_eq!(ended, ["c", "t:a"]);
    guarded.server.wait_for_subscriptions(2);
    client.ask(auth(json!({"sub": "bob", "channels": ["t:b"]})));
    assert_eq!(client.receive()["identifier"], "t:own");
    assert_eq!(client.ask(json!({"action": "ping"}))["type"], "pong");
}

/// Claims that are too large, of the wrong type or there twice are refused on every way in, and the
/// error names them.
#[test]
fn bad_grants_are_named() {
    let guarded = Guarded::start(&[]);
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    for (claims, named) in [
        (json!({"sub": "ann", "channels": many}), "at most 100 patterns"),
        (
            json!({"sub": "ann", "channels": {"a": ["sing"]}}),
            "subscribe, publish, presence or history",
        ),
        (json!({"sub": "ann", "channels": "a"}), "`channels` in a token is a list"),
        (json!({"sub": "ann", "subs": ["a"]}), "`subs` in a token is an object"),
        (json!({"sub": "ann", "channels": ["a", "a"]}), "once"),
    ] {
        let token = token(&claims);
        let answer = guarded.server.connect().get(&format!("/sse?topic=news&token={token}"));
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 401 && body.contains(named), "{} {body}", answer.status);
        let mut client = Client::of(&guarded.server);
        let answer = client.ask(json!({"action": "auth", "token": token}));
        assert!(answer["message"].as_str().is_some_and(|why| why.contains(named)), "{answer}");
        client.subscribe("news");
    }
}
