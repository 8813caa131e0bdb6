//! Requests to services of other nodes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tungstenite::Message;

use super::nats::Nats;
use super::node_with;
use crate::client::Client;
use crate::server::{PATIENCE, Server};

fn nodes<const N: usize>(nats: &Nats) -> [Server; N] {
    let rules = "--namespace=work,serve=anyone";
    std::array::from_fn(|at| node_with(nats, &format!("node-{at}"), &[rules]))
}

/// A client that offers the service.
fn responder(node: &Server) -> Client {
    let mut responder = Client::of(node);
    let serve = json!({"action": "serve", "service": "work:a"});
    assert_eq!(responder.ask(serve)["type"], "serving");
    responder
}

/// A client that answers all requests with its name. It leaves when dropped.
struct Worker {
    socket: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(node: &Server, name: &'static str) -> Self {
        let mut client = responder(node);
        let socket = client.0.get_ref().try_clone().expect("a descriptor");
        let thread = thread::spawn(move || {
            while let Ok(message) = client.0.read() {
                let Message::Text(text) = message else { continue };
                let asked: Value = serde_json::from_str(&text).expect("JSON");
                let reply = json!({"action": "reply", "request": asked["request"], "data": name});
                // Its connection may be over.
                let _ = client.0.send(Message::text(reply.to_string()));
            }
        });
        Worker { socket, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        self.thread.take().map(JoinHandle::join);
    }
}

fn request(timeout: u32) -> Value {
    json!({"action": "request", "service": "work:a", "data": null, "timeout": timeout, "id": 1})
}

/// The name of the worker that answers a request, or the code of its error.
fn ask(asker: &mut Client, timeout: u32) -> Result<String, String> {
    let outcome = asker.ask(request(timeout));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match outcome["type"] == "response" {
        true => Ok(text(&outcome["data"])),
        false => Err(text(&outcome["code"])),
    }
}

/// Sends requests until this worker has answered one; NATS has to know of it first. Those before may have these errors.
fn until_answered(asker: &mut Client, by: &str, errors: &[&str]) {
    let start = Instant::now();
    loop {
        match ask(asker, 2000) {
            Ok(name) if name == by => return,
            Ok(_) => {}
            Err(code) => assert!(errors.contains(&&*code), "{code}"),
        }
        assert!(start.elapsed() < PATIENCE, "{by} never answers");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The next message of a client, if one comes soon.
fn soon(client: &mut Client) -> Option<Value> {
    let timeout = |client: &mut Client, time| {
        client.0.get_ref().set_read_timeout(Some(time)).expect("a timeout");
    };
    timeout(client, Duration::from_millis(20));
    let message = client.0.read();
    timeout(client, PATIENCE);
    let text = message.ok()?.into_text().ok().filter(|text| !text.is_empty())?;
    Some(serde_json::from_str(&text).expect("JSON"))
}

/// Sends a request until the responder has it; NATS has to know of the responder first. Returns what it gets.
fn until_asked(asker: &mut Client, request: &Value, responder: &mut Client) -> Value {
    let start = Instant::now();
    asker.send(request.clone());
    loop {
        if let Some(asked) = soon(responder) {
            assert_eq!(asked["type"], "request", "{asked}");
            return asked;
        }
        if let Some(outcome) = soon(asker) {
            assert_eq!(outcome["code"], "no_responders", "{outcome}");
            asker.send(request.clone());
        }
        assert!(start.elapsed() < PATIENCE, "never asked");
    }
}

fn reply(asked: &Value, member: &str, answer: Value) -> Value {
    json!({"action": "reply", "request": asked["request"], member: answer})
}

/// A request is answered on another node; its responder may also fail it, or leave. Nobody offers another service, which
/// is said at once.
#[test]
fn answered_from_another_node() {
    let nats = Nats::start();
    let [first, second] = nodes(&nats);
    let mut asker = Client::of(&first);
    assert_eq!(ask(&mut asker, 60_000), Err("no_responders".into()));
    let mut other = responder(&second);
    let asked = until_asked(&mut asker, &request(60_000), &mut other);
    assert_eq!(asked["service"], "work:a");
    other.send(reply(&asked, "data", json!({"ä": [1]})));
    let response = asker.receive();
    assert_eq!((&response["type"], &response["data"]), (&json!("response"), &json!({"ä": [1]})));
    assert_eq!(other.error(reply(&asked, "data", json!(1))), "unknown_request");
    asker.send(request(60_000));
    let asked = other.receive();
    other.send(reply(&asked, "error", json!("out of eggs")));
    let failed = asker.receive();
    assert_eq!(
        (&failed["code"], &failed["message"]),
        (&json!("responder_failed"), &json!("out of eggs"))
    );
    asker.send(request(60_000));
    other.receive();
    drop(other);
    assert_eq!(asker.receive()["code"], "responder_gone");
}

/// Requests of a node without a responder are spread over the nodes that have one. A responder of the same node gets
/// all requests, as soon as there is one. When one leaves, others take over.
#[test]
fn spread_over_nodes_unless_there_is_a_responder_here() {
    let nats = Nats::start();
    let [first, second, third] = nodes(&nats);
    let mut asker = Client::of(&first);
    let workers = [Worker::start(&second, "b"), Worker::start(&third, "c")];
    until_answered(&mut asker, "b", &["no_responders"]);
    until_answered(&mut asker, "c", &[]);
    let mut counts = BTreeMap::new();
    for _ in 0..60 {
        *counts.entry(ask(&mut asker, 60_000)).or_insert(0) += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= 8), "{counts:?}");
    let here = Worker::start(&first, "a");
    until_answered(&mut asker, "a", &[]);
    for _ in 0..60 {
        assert_eq!(ask(&mut asker, 60_000), Ok("a".into()));
    }
    drop(here);
    let [second_worker, _third_worker] = workers;
    // A node notices in its next turn that a responder has left.
    until_answered(&mut asker, "b", &["responder_gone"]);
    drop(second_worker);
    until_answered(&mut asker, "c", &["responder_gone"]);
    second.wait_until("noticed", |stats| stats["total"]["services"] == 0);
    for _ in 0..30 {
        assert_eq!(ask(&mut asker, 60_000), Ok("c".into()));
    }
    let served = |node: &Server| node.stats()["nats"]["nats_requests_served"].as_u64();
    assert_eq!(served(&first), Some(0));
    assert!(served(&second) > Some(0) && served(&third) > Some(0));
}

/// A request that is out when its responder's node is killed ends with its timeout. Later ones go to another node at
/// once.
#[test]
fn the_node_of_a_responder_is_killed() {
    let nats = Nats::start();
    let [first, second, third] = nodes(&nats);
    let (mut asker, mut silent) = (Client::of(&first), responder(&second));
    until_asked(&mut asker, &request(3000), &mut silent);
    second.signal(Signal::SIGKILL);
    let _other = Worker::start(&third, "c");
    assert_eq!(asker.receive()["code"], "timeout");
    until_answered(&mut asker, "c", &["no_responders"]);
    for _ in 0..30 {
        assert_eq!(ask(&mut asker, 60_000), Ok("c".into()));
    }
}

/// While NATS is away, a responder of the same node answers, and requests to other nodes are refused as temporary. When
/// it is back they are answered again.
#[test]
fn nats_is_away() {
    let mut nats = Nats::start();
    let [first, second] = nodes(&nats);
    let (mut near, mut far) = (Client::of(&second), Client::of(&first));
    let _worker = Worker::start(&second, "b");
    until_answered(&mut far, "b", &["no_responders"]);
    nats.kill();
    for node in [&first, &second] {
        node.wait_until("disconnected", |stats| stats["nats"]["nats_up"] == 0);
    }
    assert_eq!(ask(&mut near, 60_000), Ok("b".into()));
    assert_eq!(ask(&mut far, 60_000), Err("overloaded".into()));
    assert_eq!(first.stats()["nats"]["nats_requests_refused"], 1);
    nats.restart();
    until_answered(&mut far, "b", &["overloaded", "no_responders", "timeout"]);
}

/// The longest request, response and error pass to another node, also where NATS takes no longer messages than a node
/// needs. What is longer is refused before.
#[test]
fn long_requests() {
    let folder = std::env::temp_dir().join(format!("murre-nats-long-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("nats.conf");
    // As little as a node needs.
    fs::write(&config, "max_payload: 69632\n").expect("there is room for a file");
    let nats =
        Nats::spawn("nats-server", &["--jetstream", &format!("--config={}", config.display())]);
    let [first, second] = nodes(&nats);
    let (mut asker, mut responder) = (Client::of(&first), responder(&second));
    let mut long = request(60_000);
    long["data"] = json!("x".repeat(65_534));
    let asked = until_asked(&mut asker, &long, &mut responder);
    assert_eq!(asked["data"], long["data"]);
    responder.send(reply(&asked, "data", long["data"].clone()));
    assert_eq!(asker.receive()["data"], long["data"]);
    long["data"] = json!("x".repeat(65_535));
    assert_eq!(asker.error(long), "bad_publication");
    asker.send(request(60_000));
    let asked = responder.receive();
    let text = |bytes| json!("x".repeat(bytes));
    assert_eq!(responder.error(reply(&asked, "error", text(65_537))), "bad_publication");
    responder.send(reply(&asked, "error", text(65_536)));
    assert_eq!(asker.receive()["message"], text(65_536));
    assert_eq!(second.stats()["nats"]["nats_reconnects"], 0);
    fs::remove_dir_all(&folder).expect("it was there");
}
