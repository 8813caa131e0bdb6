//! Tests of webhooks, with an application that is a real HTTP server: good, slow, dead, and back again.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::knowledge::Application;
use crate::reader::{Events, Position};
use crate::server::{self, PATIENCE, Server};

/// What the application does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Take,
    /// Answers with this status.
    Refuse(u16),
    /// Closes the connection without an answer.
    Close,
    /// Says nothing, and keeps the connection.
    Ignore,
}

/// An application that is told of events.
struct Receiver {
    url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    manner: Manner,
    /// What it does with the next requests, before `manner`.
    next: Vec<Manner>,
    requests: Vec<Request>,
    knows: Application,
    /// The last batch that was applied, by node and number.
    last: Option<(String, u64)>,
    /// Events that it was not told.
    missed: u64,
}

/// A request as it came.
#[derive(Clone, Debug)]
struct Request {
    signature: Option<String>,
    text: Vec<u8>,
    body: Value,
    manner: Manner,
}

impl Receiver {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook?secret=1", listener.local_addr().expect("an address"));
        let state = State {
            manner,
            next: Vec::new(),
            requests: Vec::new(),
            knows: Application::default(),
            last: None,
            missed: 0,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let of_threads = Arc::clone(&shared);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&of_threads);
                thread::spawn(move || while receive(&mut stream, &shared).is_some() {});
            }
        });
        Receiver { url, shared }
    }

    fn flag(&self) -> String {
        format!("--webhook={}", self.url)
    }

    fn set(&self, manner: Manner, next: &[Manner]) {
        let mut state = self.shared.0.lock().expect("no panic");
        (state.manner, state.next) = (manner, next.to_vec());
    }

    /// Waits until something holds, and returns what `is_there` has found.
    fn until<T>(&self, what: &str, mut is_there: impl FnMut(&State) -> Option<T>) -> T {
        let (state, changed) = &*self.shared;
        let (mut state, started) = (state.lock().expect("no panic"), Instant::now());
        loop {
            if let Some(found) = is_there(&state) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "not {what}: {:?}", state.knows);
            state = changed.wait_timeout(state, Duration::from_secs(1)).expect("no panic").0;
        }
    }

    fn requests(&self) -> Vec<Request> {
        self.shared.0.lock().expect("no panic").requests.clone()
    }
}

/// Handles one request. `None` at the end of the connection.
fn receive(stream: &mut TcpStream, shared: &(Mutex<State>, Condvar)) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read(&mut byte).ok()? == 1).then(|| head.push(byte[0]))?;
    }
    let head = String::from_utf8(head).expect("ASCII");
    assert!(head.starts_with("POST /hook?secret=1 HTTP/1.1\r\n"), "{head}");
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    assert_eq!(field("content-type").as_deref(), Some("application/json"));
    let mut text = vec![0; field("content-length")?.parse().expect("a number")];
    stream.read_exact(&mut text).ok()?;
    let body: Value = serde_json::from_slice(&text).expect("JSON");
    let mut state = shared.0.lock().expect("no panic");
    let manner = if state.next.is_empty() { state.manner } else { state.next.remove(0) };
    if manner == Manner::Take {
        state.take(&body);
    }
    state.requests.push(Request { signature: field("murre-signature"), text, body, manner });
    drop(state);
    shared.1.notify_all();
    let status = match manner {
        Manner::Take => 200,
        Manner::Refuse(status) => status,
        Manner::Close => return None,
        Manner::Ignore => {
            // Until the server gives up.
            let _ = stream.read(&mut [0]);
            return None;
        }
    };
    let answer = format!("HTTP/1.1 {status} Any\r\nContent-Length: 2\r\n\r\nok");
    stream.write_all(answer.as_bytes()).ok()
}

impl State {
    /// Applies a batch, which may have been applied before.
    fn take(&mut self, body: &Value) {
        let node = body["node"].as_str().expect("a node").to_owned();
        let sequence = body["sequence"].as_u64().expect("a number");
        let missed = body["missed"].as_u64().expect("a number");
        assert!(body["time"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{body}");
        match &self.last {
            Some((known, last)) if *known == node => {
                if sequence == *last {
                    return;
                }
                assert!(sequence > *last, "{sequence} after {last}");
                assert!(sequence == last + 1 || missed > 0, "a gap that is not told: {body}");
            }
            // Another run of the server, which begins with nothing.
            known => {
                assert!(known.is_none() || sequence == 1 || missed > 0, "{body}");
                self.knows = Application::default();
            }
        }
        self.last = Some((node, sequence));
        self.missed += missed;
        for event in body["events"].as_array().expect("a list") {
            // After a gap the application would have to ask anew; these tests only count.
            if self.missed == 0 {
                self.knows.apply(event);
            }
        }
    }
}

fn user(server: &Server, name: &str) -> Client {
    Client::at(server, &format!("/ws?token={}", token(&json!({"sub": name}))))
}

/// So that no request is repeated because the machine is busy.
const PATIENT: &str = "--webhook-timeout=100";
const SMALL: [&str; 3] = ["--shards=3", "--webhook-batch=7", "--webhook-delay=0.1"];

/// An application that applies all events knows the server's channels, members and connections, whatever clients
/// of all transports have done.
#[test]
fn an_application_knows_what_the_server_knows() {
    let receiver = Receiver::start(Manner::Take);
    let spaces = "--namespace=here,publish=anyone,presence=members,presence-grace=0,history-size=5";
    let guarded = Guarded::start(
        &[&SMALL[..], &[&receiver.flag(), spaces, "--phoenix-path=/p", PATIENT]].concat(),
    );
    let server = &guarded.server;
    let mut random = fastrand::Rng::with_seed(17);
    let channels = ["here:a", "here:b", "plain", "x y/é"];
    // By connection: its user, its channels and its client.
    let mut websockets: Vec<(Client, String, Option<String>, Vec<&str>)> = Vec::new();
    let mut streams: Vec<(Events, Option<String>, &str)> = Vec::new();
    let mut polls = 0;
    for step in 0..300 {
        let name = format!("user {}", random.u32(..4));
        let channel = channels[random.usize(..channels.len())];
        match random.u32(..10) {
            0..3 => {
                let user = random.bool().then_some(name);
                let mut client = match &user {
                    Some(user) => self::user(server, user),
                    None => Client::of(server),
                };
                let connection = client.name();
                websockets.push((client, connection, user, Vec::new()));
            }
            3..6 if !websockets.is_empty() => {
                let at = random.usize(..websockets.len());
                let (client, .., subscribed) = &mut websockets[at];
                match subscribed.iter().position(|known| *known == channel) {
                    Some(at) => {
                        subscribed.swap_remove(at);
                        let leave = json!({"action": "unsubscribe", "identifier": channel});
                        assert_eq!(client.ask(leave)["type"], "unsubscribed");
                    }
                    None => {
                        client.subscribe(channel);
                        subscribed.push(channel);
                    }
                }
            }
            6 if !websockets.is_empty() => {
                websockets.swap_remove(random.usize(..websockets.len()));
            }
            7 if !websockets.is_empty() => {
                let at = random.usize(..websockets.len());
                let (client, _, user, _) = &mut websockets[at];
                let token = token(&json!({"sub": name}));
                let answer = client.ask(json!({"action": "auth", "token": token}));
                assert_eq!(answer["type"], "authenticated");
                *user = Some(name);
            }
            8 => {
                let target =
                    format!("/sse?channel={}", channel.replace(' ', "%20").replace('é', "%C3%A9"));
                let (target, user) = match random.bool() {
                    true => {
                        (format!("{target}&token={}", token(&json!({"sub": name}))), Some(name))
                    }
                    false => (target, None),
                };
                let mut events = Events::open(server, &target, None);
                assert_eq!(events.next().expect("an event").name, "subscribed");
                streams.push((events, user, channel));
            }
            9 if !streams.is_empty() && step % 2 == 0 => {
                streams.swap_remove(random.usize(..streams.len()));
            }
            _ => {
                // A poll that is answered at once is no connection.
                let mut poll = server.connect();
                assert_eq!(poll.get("/poll?channel=here:a").status, 200);
                polls += 1;
            }
        }
    }
    assert!(polls > 0 && !websockets.is_empty() && !streams.is_empty());
    let mut phoenix = server
        .websocket(&format!("/p/websocket?vsn=2.0.0&token={}", token(&json!({"sub": "phoenix"}))));
    let join = r#"["1","1","here:a","phx_join",{}]"#;
    phoenix.send(tungstenite::Message::text(join)).expect("sent");
    assert!(phoenix.read().expect("a reply").to_text().expect("text").contains("ok"));
    let position = Position::now(server, "here:b");
    let mut poll = server.connect();
    let target = format!(
        "/poll?channel=here:b&position={position}&token={}",
        token(&json!({"sub": "poll"}))
    );
    poll.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());

    // What is there, by what the clients did; of the other sessions the server says how they are called.
    let mut connections = BTreeMap::new();
    let mut occupied: Vec<&str> = streams.iter().map(|(.., channel)| *channel).collect();
    for (_, connection, user, subscribed) in &websockets {
        connections.insert(connection.clone(), user.clone());
        occupied.extend(subscribed);
    }
    occupied.extend(["here:a", "here:b"]);
    let members = |channel: &str| -> BTreeMap<(String, String), String> {
        let page = guarded.get(&format!("/api/presence/{channel}?limit=1000")).1;
        let text = |member: &Value, key: &str| member[key].as_str().expect(key).to_owned();
        let members = page["members"].as_array().expect("members").iter();
        members
            .map(|member| {
                let connection = text(member, "connection");
                ((channel.to_owned(), connection), text(member, "user"))
            })
            .collect()
    };
    let count = websockets.len() + streams.len() + 1;
    let occupied = occupied.into_iter().map(str::to_owned).collect();
    let knows = receiver.until("as the server", |state| {
        let knows = &state.knows;
        let all = members("here:a").into_iter().chain(members("here:b"));
        let same_members = knows.members == all.collect();
        let polls = knows.members.values().any(|user| user == "poll");
        let same_counts = knows.connections.len() == count && knows.occupied == occupied;
        (same_counts && same_members && polls).then(|| knows.clone())
    });
    for (connection, user) in &connections {
        assert_eq!(knows.connections[connection], *user, "{connection}");
    }
    let online = guarded.get("/api/users/phoenix").1["connections"][0].clone();
    assert_eq!(knows.connections[online.as_str().expect("a name")].as_deref(), Some("phoenix"));

    drop((websockets, streams, phoenix, poll));
    receiver.until("empty", |state| (state.knows == Application::default()).then_some(()));
    let requests = receiver.requests();
    let sizes =
        requests.iter().map(|request| request.body["events"].as_array().expect("a list").len());
    assert!(sizes.max() <= Some(7));
    let sequences = requests.iter().map(|request| request.body["sequence"].as_u64().expect("one"));
    assert!(sequences.eq(1..=requests.len() as u64));
    server.wait_until("counted", |stats| {
        let total = &stats["webhooks"][0];
        assert_eq!(total["webhook_events_missed"], 0);
        total["webhook_batches"] == requests.len() && total["webhook_queue_bytes"] == 0
    });
    let total = &server.stats()["webhooks"][0];
    let endpoint = receiver.url.split('?').next().expect("a URL");
    assert_eq!(total["endpoint"], endpoint);
    let metrics = server.admin("/metrics");
    assert!(
        metrics.text().contains(&format!("murre_webhook_events_total{{endpoint=\"{endpoint}\"}} "))
    );
}

/// A batch that is refused, ignored or cut off is sent again, the same to the byte, before any other, until it
/// is taken: nothing is lost, and nothing is applied twice.
#[test]
fn failures_are_repeated() {
    let receiver = Receiver::start(Manner::Take);
    let guarded =
        Guarded::start(&[&SMALL[..], &[&receiver.flag(), "--webhook-timeout=2"]].concat());
    let first = receiver.until("told of the start", |state| state.requests.first().cloned());
    assert_eq!((&first.body["sequence"], &first.body["events"]), (&json!(1), &json!([])));
    let bad = [
        Manner::Refuse(500),
        Manner::Close,
        Manner::Refuse(404),
        Manner::Ignore,
        Manner::Refuse(301),
    ];
    receiver.set(Manner::Take, &bad);
    let mut clients: Vec<_> = (0..20).map(|_| user(&guarded.server, "ann")).collect();
    clients.iter_mut().for_each(|client| _ = client.subscribe("a"));
    receiver.until("told of all", |state| {
        let knows = &state.knows;
        (knows.connections.len() == 20 && knows.occupied.len() == 1).then_some(())
    });
    let requests = receiver.requests();
    let tried = &requests[1..];
    let manners: Vec<Manner> = tried.iter().take(6).map(|request| request.manner).collect();
    assert_eq!(manners, [&bad[..], &[Manner::Take]].concat());
    assert!(tried.iter().take(6).all(|request| request.text == tried[0].text));
    assert!(tried[6..].iter().all(|request| request.manner == Manner::Take));
    let sequence = requests.last().expect("some").body["sequence"].as_u64();
    // A kept connection that is closed without a byte is replaced at once, which is no failure.
    let failures = bad.len() as u64 - 1;
    guarded.server.wait_until("counted", |stats| {
        let total = &stats["webhooks"][0];
        assert!(total["webhook_requests_failed"].as_u64() >= Some(failures), "{total}");
        total["webhook_batches"].as_u64() == sequence
    });
}

/// While the application is away, its queue takes so many bytes and no more, and it is tried for so long and
/// no longer. When it is back, it learns how many events it has missed, of those that were dropped first and
/// last.
#[test]
fn what_is_dropped_is_told() {
    let receiver = Receiver::start(Manner::Refuse(503));
    let flags =
        [&receiver.flag(), "--webhook-retry=0.1", "--webhook-queue-bytes=65536", "--shards=2"];
    let server = Server::start(
        &[&flags[..], &["--webhook-batch=100", "--max-commands-per-second=1000000"]].concat(),
    );
    let mut client = Client::of(&server);
    let name = |number: u32| format!("{number} {}", "x".repeat(200));
    for number in 0..1000 {
        client.subscribe(&name(number));
        client.ask(json!({"action": "unsubscribe", "identifier": name(number)}));
    }
    server.wait_until("dropped both ways", |stats| {
        let total = &stats["webhooks"][0];
        assert!(total["webhook_queue_bytes"].as_u64() <= Some(65_536), "{total}");
        // The queue has no room for most of them, and each failure drops a hundred.
        total["webhook_events_missed"].as_u64() >= Some(1000)
    });
    receiver.set(Manner::Take, &[]);
    // 1 connection, 1000 channels twice.
    let told = receiver.until("told of all", |state| {
        let events = |request: &Request| match request.manner {
            Manner::Take => request.body["events"].as_array().expect("a list").len() as u64,
            _ => 0,
        };
        let told: u64 = state.requests.iter().map(events).sum();
        (told + state.missed == 2001).then_some(told)
    });
    server.wait_until("counted", |stats| {
        let total = &stats["webhooks"][0];
        total["webhook_events"] == told && total["webhook_events_missed"] == 2001 - told
    });
    // From here on nothing is missed.
    let missed = receiver.until("told", |state| Some(state.missed));
    client.subscribe("the last");
    let is_last = |event: &Value| event["channel"] == "the last";
    receiver.until("told of the last", |state| {
        let last = state.requests.last()?.body["events"].as_array()?.last()?;
        is_last(last).then(|| assert_eq!(state.missed, missed))
    });
}

/// All that happens in the drain is delivered before the process ends, also by an endpoint that fails at first.
/// The next run has another name, and begins with 1.
#[test]
fn a_restart() {
    let receiver = Receiver::start(Manner::Take);
    let flags = [&receiver.flag(), "--webhook-delay=3600", "--drain-timeout=0.5", "--shards=2"];
    let run = || {
        let guarded = Guarded::start(&flags);
        let mut clients: Vec<_> = (0..10).map(|_| user(&guarded.server, "ann")).collect();
        clients.iter_mut().for_each(|client| _ = client.subscribe("a"));
        receiver.until("told of the start", |state| {
            let last = state.requests.last()?;
            (last.body["sequence"] == 1).then_some(())
        });
        receiver.set(Manner::Take, &[Manner::Refuse(500), Manner::Close]);
        guarded.server.signal(Signal::SIGTERM);
        let readers = clients
            .into_iter()
            .map(|mut client| thread::spawn(move || while client.0.read().is_ok() {}));
        let readers = readers.collect::<Vec<_>>();
        let (status, log) = guarded.end();
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        assert_eq!(status.code(), Some(0));
        assert!(log.iter().all(|line| !line.contains("events of a webhook are lost")), "{log:?}");
        receiver.until("told", |state| {
            assert_eq!(state.knows, Application::default(), "{log:?} {:?}", state.requests);
            let last = state.requests.last().expect("some");
            let told: usize = state
                .requests
                .iter()
                .filter(|one| one.manner == Manner::Take && one.body["node"] == last.body["node"])
                .map(|one| one.body["events"].as_array().expect("a list").len())
                .sum();
            assert_eq!(
                (last.manner, told),
                (Manner::Take, 22),
                "10 connections and a channel, twice"
            );
            Some(last.body["node"].clone())
        })
    };
    let first = run();
    assert_ne!(run(), first);
}

/// An endpoint that is dead does not keep the process from ending, and the log says what is lost.
#[test]
fn a_dead_endpoint_at_the_end() {
    let nobody =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let webhook = format!("--webhook=http://{nobody}/");
    let server = Server::start(&[&webhook, "--drain-timeout=0.1"]);
    let _client = Client::of(&server);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("events of a webhook are lost")), "{log:?}");
}

/// Each endpoint gets the kinds of events and the namespaces that its filter names.
#[test]
fn filters() {
    let receivers = [(); 3].map(|()| Receiver::start(Manner::Take));
    let filters = ["", ",events=channels+members,namespaces=here", ",events=connections"];
    let flag: Vec<String> = receivers
        .iter()
        .zip(filters)
        .map(|(receiver, filter)| receiver.url.clone() + filter)
        .collect();
    let flag = format!("--webhook={}", flag.join(";"));
    let here = "--namespace=here,presence=members,presence-grace=0";
    let guarded = Guarded::start(&[&flag, here, "--webhook-delay=0.1"]);
    let mut ann = user(&guarded.server, "ann");
    for channel in ["here:a", "a", "there:a"] {
        ann.subscribe(channel);
    }
    drop(ann);
    receivers[0].until("told", |state| {
        let events: usize = state
            .requests
            .iter()
            .map(|one| one.body["events"].as_array().expect("a list").len())
            .sum();
        (events == 10).then_some(())
    });
    for (receiver, expected) in [
        (
            &receivers[1],
            ["joined here:a", "left here:a", "occupied here:a", "vacated here:a"].as_slice(),
        ),
        (&receivers[2], &["connected ", "disconnected "]),
    ] {
        let told = receiver.until("told", |state| {
            let events = state
                .requests
                .iter()
                .flat_map(|one| one.body["events"].as_array().expect("a list"));
            let text =
                |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let mut told: Vec<_> = events
                .map(|event| format!("{} {}", text(event, "event"), text(event, "channel")))
                .collect();
            told.sort();
            (told.len() >= expected.len()).then_some(told)
        });
        assert_eq!(told, expected);
    }
}

/// A file that is removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("murre-hook-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("there is room for a file");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const KEYS: [&str; 3] = [
    "the first key, of more than 32 bytes",
    "the second key, of more than 32 bytes",
    "the third key, which is longer than a block of SHA-256, that is more than 64 bytes",
];

/// Each body is signed by all keys, as the functions of the documentation in Python and in JavaScript verify it.
/// SIGHUP reads the keys again; a key that cannot be read changes nothing.
#[test]
fn signatures() {
    let receiver = Receiver::start(Manner::Take);
    let files = [
        File::new("one", &format!("{}\n", KEYS[0])),
        File::new("two", &format!("{}\r\n", KEYS[1])),
    ];
    let keys = format!("--webhook-key-file={},{}", files[0].0.display(), files[1].0.display());
    let server = Server::start(&[&receiver.flag(), &keys, "--webhook-delay=0.1"]);
    let mut signed: Vec<(Request, [bool; 3])> = Vec::new();
    let mut visit = |keys: [bool; 3]| {
        drop(Client::of(&server));
        let is_gone = |request: &Request| {
            request.body["events"]
                .as_array()?
                .iter()
                .find(|event| event["event"] == "disconnected")
                .map(drop)
        };
        receiver.until("told", |state| {
            let new = state.requests.iter().skip(signed.len());
            new.filter_map(is_gone).next()
        });
        let new = receiver.requests().into_iter().skip(signed.len()).collect::<Vec<_>>();
        signed.extend(new.into_iter().map(|request| (request, keys)));
    };
    visit([true, true, false]);
    std::fs::write(&files[0].0, "short").expect("written");
    server.signal(Signal::SIGHUP);
    server.log_until("keys of webhooks are not read again");
    visit([true, true, false]);
    std::fs::write(&files[0].0, KEYS[2]).expect("written");
    server.signal(Signal::SIGHUP);
    server.log_until("keys of webhooks are read again");
    visit([false, true, true]);
    let requests = [signed.swap_remove(0), signed.pop().expect("the last")];
    for (language, program, argument) in [("python", "python3", "-c"), ("js", "node", "--eval")] {
        let script = script(language);
        for (at, (request, keys)) in requests.iter().enumerate() {
            let signature = request.signature.as_deref().expect("signed");
            let time: i64 = signature[2..]
                .split(',')
                .next()
                .and_then(|time| time.parse().ok())
                .expect(signature);
            assert!((time - crate::guarded::now()).abs() < 120, "{signature}");
            let body = str::from_utf8(&request.text).expect("text");
            let verify = |key: &str, signature: &str, body: &str, now: i64| {
                let now = now.to_string();
                let output = Command::new(program)
                    .args([argument, &script])
                    .envs([("KEY", key), ("SIGNATURE", signature), ("BODY", body), ("NOW", &now)])
                    .output();
                let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
                match str::from_utf8(&output.stdout).expect("text").trim() {
                    "true" => true,
                    "false" => false,
                    other => panic!("{other} {}", String::from_utf8_lossy(&output.stderr)),
                }
            };
            for (key, signs) in KEYS.iter().zip(keys) {
                assert_eq!(
                    verify(key, signature, body, time),
                    *signs,
                    "{language} {key} {signature}"
                );
            }
            if at > 0 {
                continue;
            }
            let key = KEYS[1];
            for (signature, body, now) in [
                (signature, &*format!("{body} "), time),
                (signature, body, time + 301),
                (signature, body, time - 301),
                (&signature.replace(&format!("t={time}"), &format!("t={}", time + 1)), body, time),
                (&format!("{signature},t={time}"), body, time),
                (&signature.replace("v1=", "v2="), body, time),
                (&signature.to_uppercase(), body, time),
                (&format!("t={time},v1="), body, time),
                ("t=,v1=00", body, time),
                ("nonsense", body, time),
                ("", body, time),
            ] {
                assert!(!verify(key, signature, body, now), "{language} {signature}");
            }
            assert!(verify(key, signature, body, time + 299));
        }
    }
}

/// The function `verify` of the documentation, and a call of it.
fn script(language: &str) -> String {
    let text = include_str!("../../../../docs/webhooks.md");
    let (_, code) = text.split_once(&format!("```{language}\n")).expect("a block of code");
    let (code, _) = code.split_once("```").expect("its end");
    match language {
        "python" => format!(
            "{code}\nimport os\nenv = os.environb\nprint('true' if verify([env[b'KEY']], os.environ['SIGNATURE'], \
             env[b'BODY'], now=int(os.environ['NOW'])) else 'false')"
        ),
        _ => {
            let code = code.replace(
                "import { createHmac, timingSafeEqual } from 'node:crypto'",
                "const { createHmac, timingSafeEqual } = require('node:crypto')",
            );
            let code = code.replace("export function", "function");
            format!(
                "{code}\nconst {{ KEY, SIGNATURE, BODY, NOW }} = process.env\n\
                 console.log(verify([KEY], SIGNATURE, Buffer.from(BODY), Number(NOW)))"
            )
        }
    }
}

/// Settings that cannot work end the process with one line that says what to do.
#[test]
fn bad_settings() {
    let short = File::new("short", "short");
    let key = format!("--webhook-key-file={}", short.0.display());
    for (flags, code, text) in [
        (&["--webhook=app/hook"][..], 2, "http://HOST/PATH"),
        (&["--webhook=http://a/,events=all"], 2, "there are no `all`"),
        (&["--webhook=http://a/,namespaces=chat"], 2, "no '--namespace'"),
        (&["--webhook-batch=0"], 2, "--webhook-batch"),
        (&["--webhook=http://a/", &key], 1, "shorter than 32 bytes"),
        (&["--webhook=http://a/", "--webhook-key-file=/nowhere"], 1, "check the path"),
    ] {
        let output = server::murre()
            .args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"])
            .args(flags)
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {error}");
        assert!(error.contains(text), "{flags:?}: {error}");
    }
    let server = Server::start(&[]);
    assert_eq!(server.stats()["webhooks"], json!([]));
    assert!(!server.admin("/metrics").text().contains("webhook"));
}
