//! Tests of calls of the backend: an application decides over HTTP, and is slow, dead or wrong.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::application::{Application, Call, Do};
use crate::client::Client;
use crate::costs::{KEY, bad_token};
use crate::guarded::{Guarded, now, token};
use crate::matrix::SERVERS;
use crate::server::{Answer, Server, murre};

/// The backend decides about everything in `ask`; the reply to a push of Phoenix is its data in `rpc`.
const RULES: &str = "--namespace=ask,subscribe=backend,publish=backend,request=backend,history-size=5;\
                     rpc,phoenix-push=backend;default,publish=authenticated,history-size=5";

fn ok() -> Value {
    json!({"result": {}})
}

/// An application that does this for calls of one kind, and consents to all others.
fn that_does(
    kind: &'static str,
    what: impl Fn(&Call) -> Do + Send + Sync + 'static,
) -> Application {
    Application::start(move |call| match call.kind == kind {
        true => what(call),
        false => Do::Say(ok()),
    })
}

fn start(application: &Application, flags: &[&str]) -> Server {
    let application = application.flag();
    let all = [&[&*application, RULES, "--phoenix-path=/socket"], flags].concat();
    Server::start(&all)
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn subscribe(channel: &str) -> Value {
    json!({"action": "subscribe", "identifier": channel})
}

fn publish(channel: &str) -> Value {
    json!({"action": "publish", "identifier": channel, "data": {"n": 1}})
}

/// A connect call says who a client without a token is, over each transport; what the application has
/// returned comes back in later calls.
#[test]
fn connects_have_users() {
    over!(flags in SERVERS => {
        let application = that_does("connect", |call| {
            let user = call.body["data"]["name"].as_str().unwrap_or_default();
            Do::Say(json!({"result": {"user": user, "meta": {"of": user}, "data": "ignored"}}))
        });
        let flags = [&flags[..], &["--backend-header=cookie,x-trace"]].concat();
        let server = start(&application, &flags);
        let mut ann = Client::at(&server, "/ws?name=ann&token_=x");
        ann.publish("news", json!(1));
        ann.subscribe("ask:x");
        let nobody = Client::of(&server).error(publish("news"));
        assert_eq!(nobody, "not_allowed");
        let poll = server.connect().get("/poll?channel=ask:x&name=bob");
        assert_eq!(poll.status, 200, "{}", poll.text());
        let mut stream = server.connect();
        stream.send(b"HEAD /sse?channel=ask:x&name=cid HTTP/1.1\r\nHost: m\r\nCookie: a=b\r\nX-Trace: 1\r\n\r\n");
        assert_eq!(stream.answer_to("HEAD").status, 200);
        let poll = server.connect().get("/socket/longpoll?vsn=2.0.0&name=dan");
        assert_eq!(body(&poll)["status"], 410, "it has begun");
        server.wait_until("both are known", |stats| {
            stats["total"]["connections_authenticated"] == 2
        });
        let connects = application.calls("connect");
        let of = |at: usize, member: &str| connects[at].body[member].clone();
        let transports: Vec<Value> = (0..5).map(|at| of(at, "transport")).collect();
        assert_eq!(transports, ["websocket", "websocket", "long_poll", "sse", "long_poll"]);
        assert_eq!((of(4, "name"), of(4, "data")["name"].take()), (json!("phoenix"), json!("dan")));
        assert_eq!(of(0, "data"), json!({"name": "ann", "token_": "x"}));
        assert_eq!((of(0, "protocol"), of(0, "encoding")), (json!("json"), json!("json")));
        assert_eq!((of(0, "name"), of(0, "user")), (json!("murre.v1"), Value::Null));
        assert_eq!(of(0, "client"), json!(ann.name()));
        assert!(connects[3].head.contains("\r\ncookie: a=b\r\n"), "{}", connects[3].head);
        let subscribes = application.calls("subscribe");
        let of: Vec<(Value, Value)> = subscribes
            .iter()
            .map(|call| (call.body["user"].clone(), call.body["meta"].clone()))
            .collect();
        let expected = ["ann", "bob", "cid"].map(|user| (json!(user), json!({"of": user})));
        assert_eq!(of, expected);
        assert!(subscribes[2].head.contains("\r\nx-trace: 1\r\n"));
        assert_eq!(subscribes[0].body["channel"], "ask:x");
    });
}

/// A token is never asked about; without a token and without a user the client is nobody in particular.
#[test]
fn tokens_need_no_call() {
    let application = that_does("connect", |_| Do::Say(json!({})));
    let guarded = Guarded::start(&[&*application.flag(), RULES]);
    let path = format!("/ws?token={}", token(&json!({"sub": "ann", "channels": ["ask:*"]})));
    let mut ann = Client::at(&guarded.server, &path);
    // The token grants it, and does not grant this.
    ann.subscribe("ask:x");
    ann.publish("ask:x", json!(1));
    assert_eq!(application.calls("connect").len(), 0);
    assert_eq!(application.calls("subscribe").len(), 0);
    assert_eq!(application.calls("publish").len(), 1);
    let answer = guarded.server.connect().get("/poll?channel=news&token=x.y.z");
    assert_eq!((answer.status, application.calls("connect").len()), (401, 0));
    Client::of(&guarded.server).silent();
    assert_eq!(application.calls("connect").len(), 1);
}

/// A refusal of a connect call is an HTTP answer over each transport: the application's 403, and 503 if it
/// cannot be asked. The claims of its rights must be those of tokens.
#[test]
fn connects_are_refused() {
    let error = json!({"error": {"code": 1000, "message": "no such person"}});
    let disconnect = json!({"disconnect": {"code": 4501, "reason": "go away"}});
    let channels = json!({"result": {"user": "ann", "channels": 5}});
    for (answer, status, code, message) in [
        (error, 403, "refused", "no such person"),
        (disconnect, 403, "disconnected", "go away"),
        (channels, 503, "backend_failed", "the application could not be asked"),
        (json!([]), 503, "backend_failed", "the application could not be asked"),
    ] {
        let application = that_does("connect", move |_| Do::Say(answer.clone()));
        let server = start(&application, &[]);
        for path in ["/poll?channel=news", "/sse?channel=news"] {
            let answer = server.connect().get(path);
            let body = body(&answer);
            assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{path}");
            assert!(body["message"].as_str().is_some_and(|text| text.contains(message)), "{body}");
            assert_eq!(answer.header("retry-after").is_some(), status == 503);
        }
        assert_eq!(server.upgrade("/ws").1.status, status);
        assert_eq!(server.upgrade("/socket/websocket?vsn=2.0.0").1.status, 403);
        let poll = server.connect().get("/socket/longpoll?vsn=2.0.0");
        assert_eq!(body(&poll)["status"], 403);
    }
}

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

/// The application decides about subscriptions, publications and requests over every way in; its data takes
/// the place of what was published, and its refusal has its own words.
#[test]
fn the_application_decides() {
    let application = Application::start(|call| {
        let channel = call.body["channel"].as_str().unwrap_or_default();
        let no = json!({"error": {"code": 4242, "message": "not on my watch", "temporary": true}});
        Do::Say(match &*call.kind {
            "connect" => json!({}),
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

/// Commands of a channel wait for its call and keep their order; those of other channels go on, and pings
/// of WebSocket are answered.
#[test]
fn one_channel_waits() {
    let application = that_does("subscribe", |_| Do::SayLater(400, ok()));
    let server = start(&application, &["--shards=2"]);
    let mut client = Client::of(&server);
    let id = |id: u64, mut command: Value| {
        command["id"] = json!(id);
        command
    };
    let unsubscribe = json!({"action": "unsubscribe", "identifier": "ask:x"});
    let history = json!({"action": "history", "identifier": "ask:x"});
    client.send(json!([
        id(1, subscribe("ask:x")),
        id(2, history.clone()),
        id(3, history),
        id(4, unsubscribe),
        id(5, subscribe("news")),
        id(6, json!({"action": "ping"})),
    ]));
    client.0.send(Message::Ping("p".into())).expect("sent");
    let mut order = Vec::new();
    while order.len() < 7 {
        match client.0.read().expect("a message") {
            Message::Text(text) => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                assert_ne!(answer["type"], "error", "{answer}");
                order.push(answer["id"].as_u64().expect("an id"));
            }
            Message::Pong(_) => order.push(0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(order[3..], [1, 2, 3, 4], "{order:?}");
    server.wait_until("left", |stats| stats["total"]["backend_calls_waiting"] == 0);
}

/// A connection has 16 waiting commands, and 64 KiB of them; more are refused, and none is lost.
#[test]
fn waiting_commands_are_bounded() {
    let application = that_does("publish", |_| Do::SayLater(300, ok()));
    let server = start(&application, &["--shards=1", "--backend-timeout=60"]);
    let mut client = Client::of(&server);
    let long = "x".repeat(40_000);
    for (commands, waits) in [(20, 16), (3, 1)] {
        for id in 0..commands {
            let data = if commands == 3 { json!(long) } else { json!(id) };
            let command =
                json!({"action": "publish", "identifier": "ask:x", "data": data, "id": id});
            client.send(command);
        }
        let (mut published, mut refused) = (Vec::new(), 0);
        for _ in 0..commands {
            let answer = client.receive();
            match answer["code"].as_str() {
                None => published.push(answer["id"].as_u64().expect("an id")),
                Some("too_many") => refused += 1,
                Some(other) => panic!("{other}"),
            }
        }
        assert_eq!((published.len(), refused), (waits, commands as usize - waits));
        assert!(published.is_sorted());
    }
}

/// Answers that no application should give, each of them an error and never a consent.
#[test]
fn answers_that_are_wrong() {
    let http = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{\"result\":{}}";
    let fields = format!("HTTP/1.1 200 OK\r\n{}", "X-A: b\r\n".repeat(20_000));
    let answers = [
        http("200 OK", ""),
        http("200 OK", "true"),
        http("200 OK", "{}"),
        http("200 OK", "[{}]"),
        http("200 OK", "{\"result\":{}"),
        http("200 OK", "{\"result\":[]}"),
        http("200 OK", "{\"result\":true}"),
        http("200 OK", "{\"result\":null}"),
        http("200 OK", "{\"result\":{},\"result\":{}}"),
        http("200 OK", "{\"result\":{\"expire_at\":\"soon\"}}"),
        http("200 OK", "{\"result\":{\"expire_at\":-1}}"),
        http("200 OK", "{\"result\":{\"expire_at\":1e400}}"),
        http("200 OK", "{\"result\":{\"user\":7}}"),
        http("200 OK", "{\"result\":{\"b64data\":\"?\"}}"),
        http("200 OK", "{\"error\":{\"code\":\"1\"}}"),
        http("200 OK", "{\"error\":{\"code\":4294967296}}"),
        http("200 OK", "{\"error\":{\"code\":-1}}"),
        http("200 OK", "\u{0}{\"result\":{}}"),
        http("500 Oops", "{\"result\":{}}"),
        http("403 Forbidden", "{\"result\":{}}"),
        http("201 Created", "{\"result\":{}}"),
        http("204 No Content", ""),
        http("302 Found\r\nLocation: /app/other", "{\"result\":{}}"),
        huge.into(),
        fields.into_bytes(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{\"result\":{}}".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        b"".to_vec(),
    ];
    let count = answers.len();
    let application = that_does("publish", move |call| {
        let at = call.body["data"]["n"].as_u64().expect("a number") as usize;
        Do::Write(answers[at].clone())
    });
    let server = start(&application, &[]);
    let mut client = Client::of(&server);
    for at in 0..count {
        let publish = json!({"action": "publish", "identifier": "ask:x", "data": {"n": at}});
        assert_eq!(client.error(publish), "backend_failed", "{at}");
    }
    assert_eq!(application.calls("publish").len(), count);
    let metrics = server.admin("/metrics");
    let failed = |outcome: &str| {
        let line =
            format!("murre_backend_calls_ended_total{{call=\"publish\",outcome=\"{outcome}\"}} ");
        let found = metrics.text().lines().find_map(|text| text.strip_prefix(&line));
        found.expect(outcome).parse::<usize>().expect("a number")
    };
    assert_eq!((failed("result"), failed("nonsense"), failed("status")), (0, 18, 5));
    assert_eq!(failed("broken"), count - 23);
}

/// A backend that is not there, says nothing or goes up and down: commands fail in time, others go on, and
/// after a while calls are not made at all until one of them succeeds.
#[test]
fn a_dead_backend() {
    let application = that_does("publish", |call| match call.body["data"]["n"] {
        Value::Null => Do::Say(ok()),
        _ => Do::Hang,
    });
    let server = start(&application, &["--backend-timeout=0.2"]);
    let mut client = Client::of(&server);
    let mut other = Client::of(&server);
    let begun = Instant::now();
    assert_eq!(client.error(publish("ask:x")), "backend_failed");
    assert!(begun.elapsed() >= Duration::from_millis(190));
    // Several channels at once; the breaker opens on the way.
    for round in 0..3 {
        for id in 0..12 {
            client.send(publish(&format!("ask:{id}")));
        }
        other.silent();
        (0..12).for_each(|_| assert_eq!(client.receive()["code"], "backend_failed", "{round}"));
    }
    let made = application.calls("publish").len();
    assert!((20..37).contains(&made), "{made}");
    // It answers again.
    let good = json!({"action": "publish", "identifier": "ask:x", "data": {}});
    let begun = Instant::now();
    while client.ask(good.clone())["type"] == "error" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not asked again");
        thread::sleep(Duration::from_millis(20));
    }
    client.publish("ask:x", json!({}));
    let log = server.log_until("a call of the backend has failed");
    assert!(log.last().is_some_and(|line| line.contains("timeout")), "{log:?}");
}

/// A kept connection that the application closes is no failure: the call is made again, once.
#[test]
fn a_backend_that_restarts() {
    let application = that_does("publish", |call| match call.body["data"]["n"].as_u64() {
        Some(_) => {
            Do::Write(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}".to_vec())
        }
        None => Do::Say(ok()),
    });
    let server = start(&application, &[]);
    let mut client = Client::of(&server);
    for number in 0..20 {
        let data = if number % 2 == 0 { json!({"n": number}) } else { json!({}) };
        client.publish("ask:x", data);
    }
}

/// A connection that ends while a call is out, and one that draws its subscription back: nothing arrives,
/// and nothing is left.
#[test]
fn connections_end_during_calls() {
    let application = that_does("subscribe", |_| Do::SayLater(300, ok()));
    let server = start(&application, &["--shards=2"]);
    for _ in 0..3 {
        let mut client = Client::of(&server);
        client.send(subscribe("ask:x"));
        client.send(publish("ask:x"));
        drop(client);
        let mut request = server.connect();
        request.send(b"GET /sse?channel=ask:x HTTP/1.1\r\nHost: m\r\n\r\n");
        drop(request);
    }
    application.wait_for("subscribe", 6);
    let mut client = Client::of(&server);
    client.send(subscribe("ask:x"));
    client.send(json!({"action": "unsubscribe", "identifier": "ask:x"}));
    // The owner of the channel may hear of both at once: then the subscription is an error.
    let answers = [client.receive(), client.receive()];
    assert!(answers.iter().any(|answer| answer["type"] == "unsubscribed"), "{answers:?}");
    server.wait_until("left", |stats| {
        let total = &stats["total"];
        total["backend_calls_waiting"] == 0
            && total["subscriptions"] == 0
            && stats["connections"] == 1
    });
    client.silent();
    let metrics = server.admin("/metrics");
    let late = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("murre_backend_answers_late_total "));
    assert!(late.is_some_and(|late| late != "0"), "{late:?}");
}

/// 2,000 clients connect at once to an application that takes 20 ms: none is lost, at most 256 calls are in
/// flight, and the pings of a client that is there are answered.
#[test]
fn a_storm_of_connects() {
    let application =
        that_does("connect", |_| Do::SayLater(20, json!({"result": {"user": "ann"}})));
    let flags =
        ["serve", "--max-conns=5000", "--max-accepts-per-second=100000", "--backend-timeout=30"];
    let server = Server::spawn(murre().args(flags).arg(application.flag()));
    let mut other = Client::of(&server);
    let pings = thread::spawn({
        let stop = Instant::now() + Duration::from_secs(2);
        move || {
            let mut slowest = Duration::ZERO;
            while Instant::now() < stop {
                let begun = Instant::now();
                other.silent();
                slowest = slowest.max(begun.elapsed());
                // It has a rate, too.
                thread::sleep(Duration::from_millis(20));
            }
            (slowest, other)
        }
    });
    let mut clients: Vec<_> = (0..2000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(
            b"GET /ws HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 101);
    }
    let (slowest, _other) = pings.join().expect("all pings are answered");
    eprintln!("the slowest ping took {slowest:?}");
    assert_eq!(server.stats()["total"]["connections_authenticated"], 2001);
    assert!(application.most_at_once() <= 256, "{}", application.most_at_once());
    assert_eq!(application.calls("connect").len(), 2001);
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
    ] {
        let (code, text) = run(flags);
        assert_eq!(code, Some(2), "{flags:?}: {text}");
        assert!(text.contains(named), "{flags:?}: {text}");
    }
}

/// The answer to a connect call is for the request that it was made for: a handshake that is refused anyway
/// is not asked about, and the next request of its connection is asked about by itself.
#[test]
fn an_answer_is_for_one_request() {
    let application = that_does("connect", |call| {
        Do::Say(json!({"result": {"user": call.body["data"]["name"]}}))
    });
    let server = start(&application, &["--shards=1"]);
    let mut client = server.connect();
    let upgrade = |name: &str, version: u32| {
        format!(
            "GET /ws?name={name} HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    client.send(upgrade("mallory", 8).as_bytes());
    assert_eq!(client.answer().status, 426);
    client.send(upgrade("ann", 13).as_bytes());
    assert_eq!(client.answer().status, 101);
    let asked: Vec<Value> =
        application.calls("connect").iter().map(|call| call.body["data"]["name"].clone()).collect();
    assert_eq!(asked, ["ann"]);
}

/// Commands that wait behind a call, and whose tokens take more time than a turn has, go on in later turns.
#[test]
fn waiting_tokens_take_several_turns() {
    let application = that_does("subscribe", |_| Do::SayLater(200, ok()));
    let server = start(&application, &["--shards=1", KEY]);
    let mut client = Client::of(&server);
    for id in 0..12 {
        let mut command = subscribe("ask:x");
        command["id"] = json!(id);
        if id > 0 {
            command["token"] = json!(bad_token(id));
        }
        client.send(command);
    }
    for id in 0..12 {
        let answer = client.receive();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["type"], if id == 0 { "subscribed" } else { "error" }, "{answer}");
    }
    client.silent();
}

/// Messages of a Phoenix client about a topic wait behind a call, keep their order, and lock nothing.
#[test]
fn a_topic_goes_on_after_a_call() {
    let application = that_does("publish", |_| Do::SayLater(300, ok()));
    let server = start(&application, &["--shards=1"]);
    let mut client = server.websocket("/socket/websocket?vsn=2.0.0");
    let mut say = |text: &str| client.send(Message::text(text)).expect("sent");
    say(r#"["1","1","ask:x","phx_join",{}]"#);
    say(r#"["1","2","ask:x","msg",{"a":1}]"#);
    application.wait_for("publish", 1);
    say(r#"["1","3","ask:x","phx_leave",{}]"#);
    say(r#"["4","4","ask:x","phx_join",{}]"#);
    say(r#"["4","5","ask:x","msg",{"a":2}]"#);
    let mut replies = Vec::new();
    while replies.len() < 5 {
        let Message::Text(text) = client.read().expect("a message") else { continue };
        if text.contains("phx_reply") {
            replies.push(text[..text.find(",\"ask").expect("a topic")].to_owned());
        }
    }
    let refs = |join_ref, reference| format!(r#"["{join_ref}","{reference}""#);
    let expected = [refs(1, 1), refs(1, 2), refs(1, 3), refs(4, 4), refs(4, 5)];
    assert_eq!(replies, expected);
}
