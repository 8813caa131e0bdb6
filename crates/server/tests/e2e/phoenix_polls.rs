//! Tests of Phoenix Channels over long polls: the behaviours of Phoenix's own integration tests
//! (`test/phoenix/integration/long_poll_channels_test.exs`), and answers byte by byte.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::Client as Murre;
use crate::guarded::{Guarded, expiring};
use crate::limits::at_an_address;
use crate::matrix::SERVERS;
use crate::server::{Answer, Client, Server};

const OPEN: &str = "--namespace=default,publish=anyone;kept,publish=anyone,history-size=10";
const PATH: &str = "/socket/longpoll?vsn=2.0.0";
const MOUNT: &str = "--phoenix-path=/socket";
const LINES: &str = "application/x-ndjson";

/// A client that polls on one connection and posts on another.
struct Poller {
    path: String,
    token: String,
    polls: Client,
    posts: Client,
}

/// The body of an answer of the protocol.
fn body(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn request(method: &str, target: &str, fields: &str, text: &str) -> Vec<u8> {
    let length = text.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: m\r\n{fields}Content-Length: {length}\r\n\r\n{text}"
    )
    .into_bytes()
}

fn post(client: &mut Client, target: &str, kind: &str, text: &str) -> Value {
    client.send(&request("POST", target, &format!("Content-Type: {kind}\r\n"), text));
    body(&client.answer())
}

/// Begins a session. Returns its token.
fn begin(client: &mut Client, target: &str, fields: &str) -> String {
    client.send(&request("GET", target, fields, ""));
    let begun = body(&client.answer());
    assert_eq!((&begun["status"], &begun["messages"]), (&json!(410), &json!([])), "{begun}");
    begun["token"].as_str().expect("a token").to_owned()
}

impl Poller {
    fn of(server: &Server, path: &str) -> Self {
        let mut polls = server.connect();
        // The first request of the client ends in an empty parameter.
        let token = begin(&mut polls, &format!("{path}&"), "");
        Poller { path: path.to_owned(), token, polls, posts: server.connect() }
    }

    fn target(&self) -> String {
        format!("{}&token={}", self.path, self.token)
    }

    fn get(&mut self) -> Value {
        let target = self.target();
        body(&self.polls.get(&target))
    }

    /// Sends a GET whose answer comes later.
    fn wait(&mut self) {
        let target = self.target();
        self.polls.send(&request("GET", &target, "", ""));
    }

    fn post(&mut self, lines: &str) -> Value {
        let target = self.target();
        post(&mut self.posts, &target, LINES, lines)
    }

    /// Posts messages, which must be taken.
    fn say(&mut self, lines: &str) {
        assert_eq!(self.post(lines), json!({"status": 200}));
    }

    /// Polls until there are as many messages, and checks them.
    fn hears(&mut self, expected: &[&str]) {
        assert_eq!(self.messages(expected.len()), expected);
    }

    /// Polls until there are this many messages.
    fn messages(&mut self, count: usize) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let answer = self.get();
            assert!([200, 204].map(|status| json!(status)).contains(&answer["status"]), "{answer}");
            assert_eq!(answer["token"], *self.token);
            let messages = answer["messages"].as_array().expect("an array");
            heard.extend(messages.iter().map(|text| text.as_str().expect("a text").to_owned()));
        }
        heard
    }

    fn join(&mut self, topic: &str) {
        self.say(&json!(["1", "1", topic, "phx_join", {}]).to_string());
        assert!(self.messages(1)[0].contains("\"status\":\"ok\""));
    }
}

/// A session takes messages by POST and hands out replies and publications by GET, on whatever shard its
/// requests arrive: pushes, a topic that is not joined, a leave.
#[test]
fn a_conversation() {
    over!(flags in SERVERS => {
        let server = Server::start(&[MOUNT, OPEN, flags[0], flags[1]]);
        for round in 0..8 {
            let mut client = Poller::of(&server, &format!("{PATH}&user[id]=7"));
            let topic = format!("room:{round}");
            client.say(&format!(
                "[\"1\",\"1\",\"{topic}\",\"phx_join\",{{}}]\r\n[\"1\",\"2\",\"{topic}\",\"e\",{{\"n\":1}}]\n"
            ));
            client.hears(&[
                &format!(r#"["1","1","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#),
                &format!(r#"["1","2","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#),
                &format!(r#"[null,null,"{topic}","e",{{"n":1}}]"#),
            ]);
            // A GET that waits, on a new connection, is answered when there is something.
            client.polls = server.connect();
            client.wait();
            Murre::of(&server).publish(&topic, json!({"event": "other", "payload": {}}));
            let answer = body(&client.polls.answer());
            let other = format!(r#"[null,null,"{topic}","other",{{}}]"#);
            assert_eq!(answer["messages"], json!([other]));
            // Binary messages are base64 in a POST, and texts in a GET.
            let head = [0, 1, 1, topic.len() as u8, 1];
            let push = [&head[..], format!("13{topic}b").as_bytes(), b"\xff"].concat();
            client.say(&STANDARD.encode(push));
            client.hears(&[
                &format!(r#"["1","3","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#),
                &format!(r#"[null,null,"{topic}","b",{{"binary":"/w=="}}]"#),
            ]);
            client.say(r#"["9","4","private","e",{}]"#);
            client.hears(&[
                r#"[null,"4","private","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
            ]);
            client.say(&format!(r#"["1","5","{topic}","phx_leave",{{}}]"#));
            client.hears(&[
                &format!(r#"["1","5","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#),
                &format!(r#"["1","1","{topic}","phx_close",{{}}]"#),
            ]);
        }
    });
}

/// Clients before Phoenix 1.7 post one message as the whole body, in version 1 or 2, several at a time.
#[test]
fn old_clients() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=2"]);
    for (path, join, reply) in [
        (
            "/socket/longpoll",
            r#"{"topic":"a","event":"phx_join","payload":{},"ref":"1"}"#,
            r#"{"topic":"a","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}"#,
        ),
        (
            PATH,
            r#"["1","1","a","phx_join",{}]"#,
            r#"["1","1","a","phx_reply",{"status":"ok","response":{}}]"#,
        ),
    ] {
        let path = if path.contains('?') { path.to_owned() } else { format!("{path}?a=b") };
        let mut client = Poller::of(&server, &path);
        let target = client.target();
        assert_eq!(post(&mut client.posts, &target, "application/json", join)["status"], 200);
        client.hears(&[reply]);
        assert_eq!(post(&mut client.posts, &target, "application/json", "")["status"], 200);
        let mut others: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        for (number, other) in others.iter_mut().enumerate() {
            let text = match path == *PATH {
                true => format!(r#"["1","{number}","a","e",{{}}]"#),
                false => format!(r#"{{"topic":"a","event":"e","payload":{{}},"ref":"{number}"}}"#),
            };
            other.send(&request("POST", &target, "", &text));
        }
        for other in &mut others {
            assert_eq!(body(&other.answer()), json!({"status": 200}));
        }
        // A reply and a publication each.
        assert_eq!(client.messages(10).len(), 10);
    }
}

/// A client names its session by a header field or by the last parameter, and its user by a header field
/// or by another parameter.
#[test]
fn tokens_of_sessions_and_users() {
    let guarded =
        Guarded::start(&[MOUNT, "--shards=2", "--namespace=default,subscribe=authenticated"]);
    let server = &guarded.server;
    let user = expiring(60);
    let of_user = format!("{PATH}&token={user}");
    for (path, fields) in
        [(&*of_user, String::new()), (PATH, format!("X-Phoenix-AuthToken: {user}\r\n"))]
    {
        let mut client = server.connect();
        let token = begin(&mut client, &format!("{path}&"), &fields);
        let join = r#"["1","1","a","phx_join",{}]"#;
        let by_field = format!("X-Phoenix-LongPoll-Token: {token}\r\nContent-Type: {LINES}\r\n");
        client.send(&request("POST", path, &by_field, join));
        assert_eq!(body(&client.answer()), json!({"status": 200}));
        client.send(&request("GET", &format!("{path}&token=x"), &by_field, ""));
        let reply = r#"["1","1","a","phx_reply",{"status":"ok","response":{}}]"#;
        assert_eq!(body(&client.answer())["messages"], json!([reply]));
        assert_eq!(post(&mut client, &format!("{path}&token={token}"), LINES, "")["status"], 200);
    }
    // Tokens of sessions of other servers begin a session of nobody.
    for foreign in ["SFMyNTY.g2gDaAJhAnQ.abc", "phx.x"] {
        begin(&mut server.connect(), &format!("{PATH}&token={foreign}"), "");
    }
}

/// The status of what is refused is in the body; requests that are none of the protocol get 400.
#[test]
fn refusals() {
    let guarded = Guarded::start(&[MOUNT, "--shards=2"]);
    let server = &guarded.server;
    let mut client = server.connect();
    for (target, fields) in [
        ("/socket/longpoll?vsn=9.0.0", ""),
        ("/socket/longpoll?vsn[]=2.0.0", ""),
        ("/socket/longpoll?vsn=2.0.0&token=forged&", ""),
        (PATH, "Origin: https://other.example\r\n"),
        (PATH, "X-Phoenix-AuthToken: forged\r\n"),
    ] {
        client.send(&request("GET", target, fields, ""));
        assert_eq!(body(&client.answer())["status"], 403, "{target} {fields}");
    }
    let mut one = Poller::of(server, PATH);
    let gone = json!({"status": 410, "token": null, "messages": []});
    let unavailable = json!({"status": 500, "token": null, "messages": []});
    let zeros = "0".repeat(32);
    for token in [
        "bad".to_owned(),
        format!("phx.0.1.{zeros}"),
        format!("phx.1.1.{zeros}"),
        format!("phx.9.1.{zeros}"),
        format!("{}0", one.token),
        one.token.chars().rev().collect(),
    ] {
        let answer = post(&mut client, &format!("{PATH}&token={token}"), LINES, "");
        assert_eq!(answer, gone, "{token}");
    }
    for token in [format!("phx.1.1.{zeros}"), format!("phx.9.1.{zeros}")] {
        assert_eq!(body(&client.get(&format!("{PATH}&token={token}"))), unavailable);
    }
    assert_eq!(post(&mut client, PATH, LINES, ""), gone);
    // Without a session it does not matter what is posted.
    assert_eq!(post(&mut client, PATH, LINES, "!"), gone);
    client.send(&request("POST", &one.target(), "Origin: https://other.example\r\n", "[]"));
    assert_eq!(body(&client.answer())["status"], 403);
    for method in ["PUT", "HEAD", "DELETE"] {
        client.send(&request(method, PATH, "", ""));
        assert_eq!(client.answer_to(method).status, 400, "{method}");
    }
    client.send(&request("POST", &one.target(), &format!("Content-Type: {LINES}\r\n"), "!"));
    assert_eq!(client.answer().status, 400);
    let fields = "Origin: http://a\r\nAccess-Control-Request-Headers: x-a, x-b\r\n";
    client.send(&request("OPTIONS", PATH, fields, ""));
    let answer = client.answer();
    let header = |name| answer.header(name).expect(name).to_owned();
    assert_eq!((answer.status, header("access-control-allow-origin")), (200, "*".into()));
    assert_eq!(header("access-control-allow-headers"), "x-a, x-b");
    assert_eq!(header("access-control-allow-methods"), "get, post, options");
    assert_eq!(header("access-control-max-age"), "3600");
    // A message that cannot be read ends the session, and the GET that waits.
    one.wait();
    assert_eq!(one.post("{}"), gone);
    assert_eq!(body(&one.polls.answer())["status"], 500);
    assert_eq!(one.get(), unavailable);
    server.wait_until("it is forgotten", |stats| stats["total"]["phoenix_polls"] == 0);
}

/// The number of sessions has a limit, and each counts as a connection of its address. A session that does
/// not take its messages gets no more than its queue holds, and the rest when it takes them.
#[test]
fn limits() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=1", "--max-phoenix-polls=2"]);
    let mut clients = [(); 2].map(|()| Poller::of(&server, PATH));
    let mut client = server.connect();
    assert_eq!(body(&client.get(PATH))["status"], 500);
    let refused = |stats: &Value| stats["total"]["phoenix_polls_refused"] == 1;
    server.wait_until("counted", refused);
    let one = &mut clients[0];
    one.join("kept:a");
    let mut publisher = Murre::of(&server);
    let long = "x".repeat(60_000);
    for number in 0..5 {
        publisher.publish("kept:a", json!({"n": number, "long": long}));
    }
    let total =
        |name: &'static str| move |stats: &Value| stats["total"][name].as_u64().unwrap_or(0);
    server.wait_until("behind", |stats| total("connections_lagging")(stats) == 1);
    let queued = total("phoenix_polls_bytes")(&server.stats());
    assert!((60_000..130_000).contains(&queued), "{queued}");
    let heard = one.messages(5);
    for (number, text) in heard.iter().enumerate() {
        assert!(text.ends_with(&format!(r#""n":{number}}}}}]"#)), "{number}: {}", &text[..80]);
    }
    server.wait_until("all taken", |stats| total("phoenix_polls_bytes")(stats) == 0);
}

/// The POSTs of a client that does not take the answers wait, up to a limit, and go on when it takes them.
#[test]
fn posts_that_wait() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=1", "--max-send-bytes=100000"]);
    let mut client = Poller::of(&server, PATH);
    client.join("a");
    let long = "x".repeat(60_000);
    // Each comes back as a publication: two fill the queue, and two may wait.
    let mut posts: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    let target = client.target();
    for (number, post) in posts.iter_mut().enumerate() {
        let text = json!([null, number.to_string(), "a", "e", {"long": long}]).to_string();
        post.send(&request("POST", &target, "", &text));
        server.wait_until("asked", |stats| {
            stats["total"]["http_requests"].as_u64() >= Some(4 + number as u64)
        });
    }
    for post in &mut posts[4..] {
        assert_eq!(body(&post.answer()), json!({"status": 408}));
    }
    // A reply and a publication each.
    let heard = client.messages(8);
    assert_eq!(heard.iter().filter(|text| text.len() > 60_000).count(), 4);
    for post in &mut posts[..4] {
        assert_eq!(body(&post.answer()), json!({"status": 200}));
    }
}

/// A POST with more messages than one may have is refused, however short they are.
#[test]
fn messages_of_one_post() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=1"]);
    let mut client = Poller::of(&server, PATH);
    let heartbeat = "[null,\"1\",\"phoenix\",\"heartbeat\",{}]\n";
    client.say(&heartbeat.repeat(200));
    client.messages(200);
    let target = client.target();
    let fields = format!("Content-Type: {LINES}\r\n");
    let mut poster = server.connect();
    poster.send(&request("POST", &target, &fields, &"[\n".repeat(4097)));
    assert_eq!(poster.answer().status, 400);
    client.say(heartbeat);
    client.messages(1);
}

/// A POST holds what a WebSocket takes: the longest push as text and in base64, and many of them at once.
#[test]
fn long_posts() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=2"]);
    let mut client = Poller::of(&server, PATH);
    client.join("a");
    let long = "x".repeat(65_000);
    let push = |n: u32| json!([null, n.to_string(), "a", "e", {"n": n, "long": long}]).to_string();
    let binary = [&[0, 0, 2, 1, 1][..], b"15ab", long.as_bytes()].concat();
    let mut lines: Vec<String> = (0..14).map(push).collect();
    lines.push(STANDARD.encode(binary));
    // The POST is answered when its client has taken the answers and publications that it leads to.
    let target = client.target();
    let fields = format!("Content-Type: {LINES}\r\n");
    client.posts.send(&request("POST", &target, &fields, &lines.join("\n")));
    let heard = client.messages(30);
    let all = heard.iter().filter(|text| text.len() > 65_000);
    assert_eq!(all.count(), 15);
    assert!(heard[29].starts_with(r#"[null,null,"a","b",{"binary":"eHh4"#), "{}", &heard[29][..80]);
    assert_eq!(body(&client.posts.answer()), json!({"status": 200}));
}

/// A session that has more messages than its queue may hold ends as a slow connection does, and the log
/// says so.
#[test]
fn a_session_that_takes_nothing() {
    let guarded = Guarded::start(&[
        MOUNT,
        OPEN,
        "--shards=1",
        "--max-send-bytes=1024",
        "--log-filter=info,murre::connections=debug",
    ]);
    let server = &guarded.server;
    let mut client = Poller::of(server, &format!("{PATH}&token={}", expiring(60)));
    client.join("a");
    client.join("b");
    let bytes = |count: u64| {
        move |stats: &Value| stats["total"]["phoenix_polls_bytes"].as_u64() >= Some(count)
    };
    Murre::of(server).publish("a", json!({"long": "x".repeat(2000)}));
    server.wait_until("more than the limit", bytes(2000));
    let ended = guarded.post("/api/unsubscribe", r#"{"user":"ann","identifier":"b"}"#).1;
    assert_eq!(ended["unsubscribed"], 1, "{ended}");
    server.wait_until("it has ended", |stats| stats["total"]["phoenix_polls"] == 0);
    assert_eq!(server.stats()["total"]["slow_consumers_disconnected"], 1);
    server.signal(Signal::SIGTERM);
    let (_, log) = guarded.end();
    let told = log.iter().filter(|line| line.contains("session ended by the server"));
    assert!(told.clone().count() == 1 && told.clone().all(|line| line.contains("Slow")), "{log:?}");
}

/// A session counts as a connection of its client's address, whose limit it observes.
#[test]
fn sessions_of_an_address() {
    let flags = [MOUNT, OPEN, "--shards=1", "--max-conns-per-address=4"];
    let Some(server) = at_an_address(&flags) else { return };
    let mut client = server.connect();
    let mut begun = 0;
    while body(&client.get(PATH))["status"] == 410 {
        begun += 1;
    }
    assert_eq!(begun, 3, "one connection and three sessions are four");
}

/// A GET without messages is answered when its time is over, and a session without requests ends.
#[test]
fn time_passes() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=2", "--phoenix-poll-window=0.5"]);
    let mut client = Poller::of(&server, PATH);
    client.say(r#"["1","1","a","phx_join",{}]"#);
    // On a machine that stands still the session may have ended before this GET.
    let begun = Instant::now();
    let statuses: Vec<u64> =
        (0..3).map(|_| client.get()["status"].as_u64().expect("a number")).collect();
    if statuses == [200, 204, 204] {
        assert!(begun.elapsed() >= Duration::from_millis(1000), "{:?}", begun.elapsed());
    } else {
        assert!(statuses.iter().all(|status| [200, 204, 500].contains(status)), "{statuses:?}");
    }
    server.wait_until("it has ended", |stats| {
        stats["total"]["subscriptions"] == 0 && stats["total"]["phoenix_polls"] == 0
    });
    assert_eq!(client.get()["status"], 500);
    assert_eq!(client.post("")["status"], 410);
}

/// The messages of a GET whose connection has closed wait for the next one, and a second GET takes the
/// place of the first.
#[test]
fn connections_end() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=1"]);
    let mut client = Poller::of(&server, PATH);
    client.join("a");
    client.wait();
    let open = |count: u64| move |stats: &Value| stats["total"]["connections_open"] == count;
    client.polls = server.connect();
    server.wait_until("closed", open(2));
    Murre::of(&server).publish("a", json!({"event": "e", "payload": {}}));
    client.hears(&[r#"[null,null,"a","e",{}]"#]);
    client.wait();
    let mut first = std::mem::replace(&mut client.polls, server.connect());
    let requests = server.stats()["total"]["http_requests"].as_u64().expect("a number");
    client.wait();
    assert_eq!(body(&first.answer())["status"], 204);
    server.wait_until("asked", |stats| stats["total"]["http_requests"].as_u64() > Some(requests));
    Murre::of(&server).publish("a", json!({"event": "f", "payload": {}}));
    let answer = body(&client.polls.answer());
    assert_eq!(answer["messages"], json!([r#"[null,null,"a","f",{}]"#]));
}

/// A join with a position recovers history over polls.
#[test]
fn history_is_recovered() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=3"]);
    let mut client = Poller::of(&server, PATH);
    client.say(r#"["1","1","kept:r","phx_join",{}]"#);
    let reply: Value = serde_json::from_str(&client.messages(1)[0]).expect("JSON");
    let position = &reply[4]["response"]["position"];
    let mut publisher = Murre::of(&server);
    for n in 0..3 {
        publisher.publish("kept:r", json!({"event": "e", "payload": {"n": n}}));
    }
    let mut late = Poller::of(&server, PATH);
    late.say(&json!(["1", "1", "kept:r", "phx_join", {"position": position}]).to_string());
    let heard = late.messages(4);
    assert!(heard[0].contains(r#""recovered":true"#), "{heard:?}");
    for n in 0..3 {
        assert_eq!(heard[n + 1], format!(r#"[null,null,"kept:r","e",{{"n":{n}}}]"#));
    }
}

/// Clients that poll are members, and are told of others.
#[test]
fn presence() {
    let rules = "--namespace=here,presence=members,presence-key=client";
    let server = Server::start(&[MOUNT, rules, "--shards=2"]);
    let join = |key: &str| {
        let mut client = Poller::of(&server, PATH);
        let params = json!({"presence_key": key, "presence": {"name": key}});
        client.say(&json!(["7", "1", "here:a", "phx_join", params]).to_string());
        let heard = client.messages(2);
        assert!(heard[0].contains(r#""status":"ok""#), "{heard:?}");
        let state: Value = serde_json::from_str(&heard[1]).expect("JSON");
        assert_eq!((&state[0], &state[3]), (&json!("7"), &json!("presence_state")), "{state}");
        (client, state)
    };
    let (mut ann, _) = join("ann");
    let (_bob, state) = join("bob");
    assert_eq!(state[4]["ann"]["metas"][0]["name"], "ann", "{state}");
    let mut seen = Vec::new();
    while !seen.iter().any(|text: &String| text.contains(r#""joins":{"bob""#)) {
        seen.extend(ann.messages(1));
    }
}

/// A drain ends the sessions and the GET that waits: the client begins another session elsewhere.
#[test]
fn a_drain_ends_polls() {
    let server = Server::start(&[MOUNT, OPEN, "--shards=2"]);
    let _resting = Poller::of(&server, PATH);
    let mut client = Poller::of(&server, PATH);
    client.wait();
    server.wait_until("it waits", |stats| stats["total"]["http_requests"] == 3);
    server.signal(Signal::SIGTERM);
    let answer = client.polls.answer();
    assert_eq!(body(&answer)["status"], 500);
    assert_eq!(answer.header("connection"), Some("close"));
    drop(client);
    assert_eq!(server.end().0.code(), Some(0));
}

/// An administrator ends the session of a user, and its GET that waits.
#[test]
fn sessions_are_ended() {
    let guarded = Guarded::start(&[MOUNT, "--shards=2"]);
    let mut client = Poller::of(&guarded.server, &format!("{PATH}&token={}", expiring(60)));
    client.wait();
    assert_eq!(guarded.post("/api/disconnect", r#"{"user":"ann"}"#).1["disconnected"], 1);
    assert_eq!(body(&client.polls.answer())["status"], 500);
    assert_eq!(client.get()["status"], 500);
}
