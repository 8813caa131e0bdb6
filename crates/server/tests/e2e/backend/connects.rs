//! Tests of connect calls: who the client of a request is.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{RULES, body, ok, publish, start, that_does};
use crate::application::Do;
use crate::client::Client;
use crate::guarded::{Guarded, now, token};
use crate::matrix::SERVERS;
use crate::server::{Server, murre};

/// A connect call says who a client without a token is, over each transport; what the application has
/// returned comes back in later calls.
#[test]
fn connects_have_users() {
    over!(flags in SERVERS => {
        let application = that_does("connect", |call| {
            let user = call.body["data"]["name"].as_str().unwrap_or_default();
            Do::Say(json!({"result": {"user": user, "meta": {"of": user}}}))
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
    let application = that_does("connect", |_| Do::Say(json!({"result": {}})));
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
/// cannot be asked or says neither yes nor no. The claims of its rights must be those of tokens, and of a user.
#[test]
fn connects_are_refused() {
    let error = json!({"error": {"code": 1000, "message": "no such person"}});
    let disconnect = json!({"disconnect": {"code": 4501, "reason": "go away"}});
    let channels = json!({"result": {"user": "ann", "channels": 5}});
    let nobody = json!({"result": {"user": "", "expire_at": now() + 60}});
    for (answer, status, code, message) in [
        (error, 403, "refused", "no such person"),
        (disconnect, 403, "disconnected", "go away"),
        (channels, 503, "backend_failed", "the application could not be asked"),
        (json!({}), 503, "backend_failed", "the application could not be asked"),
        (nobody, 503, "backend_failed", "the application could not be asked"),
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

/// A handshake that is refused anyway is not asked about, and is the last request of its connection: the next
/// one is asked about by itself.
#[test]
fn an_answer_is_for_one_request() {
    let application = that_does("connect", |call| {
        Do::Say(json!({"result": {"user": call.body["data"]["name"]}}))
    });
    let server = start(&application, &["--shards=1"]);
    let upgrade = |name: &str, version: u32| {
        format!(
            "GET /ws?name={name} HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let mut client = server.connect();
    client.send((upgrade("mallory", 8) + &upgrade("ann", 13)).as_bytes());
    assert_eq!(client.answer().status, 426);
    assert!(client.rest().is_empty());
    let mut client = server.connect();
    client.send(upgrade("ann", 13).as_bytes());
    assert_eq!(client.answer().status, 101);
    let asked: Vec<Value> =
        application.calls("connect").iter().map(|call| call.body["data"]["name"].clone()).collect();
    assert_eq!(asked, ["ann"]);
}

/// One address cannot take all the places of calls: when half of them are taken, others are asked about before
/// it is.
#[test]
fn an_address_leaves_places_for_others() {
    let others = Arc::new((Mutex::new(0), Condvar::new()));
    let told = Arc::clone(&others);
    let application = that_does("connect", move |_| {
        let waits = told.0.lock().expect("no panic");
        drop(told.1.wait_while(waits, |others| *others == 0).expect("no panic"));
        Do::Say(ok())
    });
    let flags = ["--shards=1", "--trusted-proxy=127.0.0.1", "--backend-timeout=60"];
    let server = start(&application, &flags);
    let connect = |address: &str| {
        let mut client = server.connect();
        let get = format!(
            "GET /poll?channel=ask:x HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: {address}\r\n\r\n"
        );
        client.send(get.as_bytes());
        client
    };
    let waiting = |count: usize| {
        let wait = |stats: &Value| stats["total"]["backend_calls_waiting"] == count;
        server.wait_until("they wait", wait);
        // Those behind them have been read by now, and do not.
        assert_eq!(server.connect().get("/healthz").status, 200);
        assert!(wait(&server.stats()), "{count}");
    };
    let mut clients: Vec<_> = (0..700).map(|_| connect("203.0.113.1")).collect();
    waiting(640);
    clients.extend((0..70).map(|_| connect("203.0.113.2")));
    waiting(704);
    *others.0.lock().expect("no panic") = 1;
    others.1.notify_all();
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
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
