//! Tests of presence: clients, streams and polls as members, and what their watchers are told.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::reader::Events;

const HERE: &str = "--namespace=here,presence=members,presence-grace=0,presence-interval=0.1";

fn start(namespace: &str) -> Guarded {
    Guarded::start(&["--shards=3", namespace])
}

pub(crate) fn user(guarded: &Guarded, name: &str) -> Client {
    Client::at(&guarded.server, &format!("/ws?token={}", token(&json!({"sub": name}))))
}

pub(crate) fn enter(client: &mut Client, channel: &str, members: Value) {
    let mut command = json!({"action": "subscribe", "identifier": channel});
    command
        .as_object_mut()
        .expect("an object")
        .append(&mut members.as_object().expect("one").clone());
    assert_eq!(client.ask(command)["type"], "subscribed");
}

/// What a watcher knows: user and metadata by connection, or the counts.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) members: BTreeMap<String, (String, Value)>,
    pub(crate) count: Option<(u64, u64)>,
}

impl View {
    pub(crate) fn apply(&mut self, message: &Value) {
        let list = |key: &str| message[key].as_array().expect(key).clone();
        let text = |member: &Value, key: &str| member[key].as_str().expect(key).to_owned();
        match message["type"].as_str() {
            Some("presence_state") => {
                (self.members, self.count) = (BTreeMap::new(), None);
                self.join(list("members"));
            }
            Some("presence_diff") => {
                assert_eq!(self.count, None, "a small channel");
                for gone in list("leaves") {
                    self.members.remove(&text(&gone, "connection"));
                }
                self.join(list("joins"));
            }
            Some("presence_count") => {
                let number = |key: &str| message[key].as_u64().expect(key);
                (self.members, self.count) =
                    (BTreeMap::new(), Some((number("clients"), number("users"))));
            }
            other => panic!("{other:?}: {message}"),
        }
    }

    fn join(&mut self, members: Vec<Value>) {
        for member in members {
            let [user, connection] =
                ["user", "connection"].map(|key| member[key].as_str().expect(key).to_owned());
            self.members.insert(connection, (user, member["meta"].clone()));
        }
    }

    /// Listens until the view is as it should be.
    pub(crate) fn until(&mut self, client: &mut Client, is_right: impl Fn(&View) -> bool) {
        while !is_right(self) {
            self.apply(&client.receive());
        }
    }

    pub(crate) fn users(&self) -> Vec<&str> {
        let mut users: Vec<&str> = self.members.values().map(|(user, _)| &**user).collect();
        users.sort_unstable();
        users
    }
}

/// A watcher learns of all who join, leave and change their metadata, whatever their names are. Anonymous
/// subscribers are no members, and who does not watch is told nothing.
#[test]
fn joins_leaves_and_updates() {
    let guarded = start(HERE);
    let long = "é".repeat(127);
    let mut watcher = Client::of(&guarded.server);
    enter(&mut watcher, "here:a", json!({"presence": "members"}));
    let mut view = View::default();
    let mut others = Vec::new();
    for name in ["__proto__", "ann", &long] {
        let mut other = user(&guarded, name);
        enter(&mut other, "here:a", json!({"meta": {"name" : name, "n" : [1, 2.50]}}));
        others.push(other);
    }
    view.until(&mut watcher, |view| view.users() == ["__proto__", "ann", &long]);
    let name = others[0].name();
    let expected = ("__proto__".to_owned(), json!({"name": "__proto__", "n": [1, 2.5]}));
    assert_eq!(view.members[&name], expected);
    let update = json!({"action": "presence_update", "identifier": "here:a", "meta": "away"});
    assert_eq!(others[0].ask(update)["type"], "presence_updated");
    view.until(&mut watcher, |view| view.members[&name].1 == "away");
    assert_eq!(view.users().len(), 3);
    let leave = json!({"action": "unsubscribe", "identifier": "here:a"});
    assert_eq!(others[0].ask(leave)["type"], "unsubscribed");
    drop(others.pop());
    view.until(&mut watcher, |view| view.users() == ["ann"]);
    others[1].silent();
    others[0].silent();
    drop((others, watcher));
    guarded.server.wait_until("nobody is left", |stats| {
        let total = &stats["total"];
        total["presence_channels"] == 0 && total["presence_watchers"] == 0
    });
}

/// Many join and leave at once, on all shards. Every watcher has the same members in the end.
#[test]
fn all_watchers_agree() {
    let guarded = start(HERE);
    let mut clients: Vec<Client> =
        (0..12).map(|n| user(&guarded, &format!("user{}", n % 5))).collect();
    let names: Vec<String> = clients.iter_mut().map(Client::name).collect();
    let subscribe = json!({"action": "subscribe", "identifier": "here:b", "presence": "members"});
    for (number, client) in clients.iter_mut().enumerate() {
        for round in 0..number {
            client.send(subscribe.clone());
            client
                .send(json!({"action": "presence_update", "identifier": "here:b", "meta": round}));
            client.send(json!({"action": "unsubscribe", "identifier": "here:b"}));
        }
        client.send(subscribe.clone());
        client.send(json!({"action": "presence_update", "identifier": "here:b", "meta": number}));
    }
    for client in &mut clients {
        let mut view = View::default();
        let is_right = |view: &View| {
            let mut all = names.iter().enumerate();
            view.members.len() == 12
                && all.all(|(number, name)| {
                    let expected = (format!("user{}", number % 5), json!(number));
                    view.members.get(name) == Some(&expected)
                })
        };
        while !is_right(&view) {
            let message = client.receive();
            match message["type"].as_str() {
                Some("subscribed" | "unsubscribed" | "presence_updated") => {}
                // A subscription that was withdrawn before it began.
                Some("error") => assert_eq!(message["code"], "not_subscribed"),
                _ => view.apply(&message),
            }
        }
    }
}

/// A user whose connection is lost and who comes back within the grace has not left: no watcher ever sees
/// the channel without the user.
#[test]
fn coming_back() {
    let guarded = start("--namespace=here,presence=members,presence-grace=3600");
    let mut watcher = Client::of(&guarded.server);
    enter(&mut watcher, "here:a", json!({"presence": "members"}));
    let mut view = View::default();
    let mut ann = user(&guarded, "ann");
    enter(&mut ann, "here:a", json!({}));
    view.until(&mut watcher, |view| view.users() == ["ann"]);
    let mut name = ann.name();
    for _ in 0..3 {
        drop(ann);
        guarded.server.wait_until("lost", |stats| stats["total"]["presence_leaving"] == 1);
        ann = user(&guarded, "ann");
        enter(&mut ann, "here:a", json!({}));
        let now = ann.name();
        view.apply(&watcher.receive());
        assert_eq!((view.users(), view.members.contains_key(&now)), (vec!["ann"], true));
        assert_ne!(std::mem::replace(&mut name, now), name);
    }
    // Who unsubscribes leaves at once.
    ann.ask(json!({"action": "unsubscribe", "identifier": "here:a"}));
    view.until(&mut watcher, |view| view.members.is_empty());
}

/// A channel with more members than `presence-push-max` has counts, and the list of members again when
/// less than half of them are left.
#[test]
fn large_channels() {
    let guarded = start(
        "--namespace=here,presence=members,presence-grace=0,presence-push-max=4,presence-interval=0.1",
    );
    let [mut watcher, mut counter] = [(); 2].map(|()| Client::of(&guarded.server));
    enter(&mut watcher, "here:a", json!({"presence": "members"}));
    enter(&mut counter, "here:a", json!({"presence": "counts"}));
    let (mut view, mut counts) = (View::default(), View::default());
    let mut members: Vec<Client> = Vec::new();
    for number in 0..9 {
        let mut member = user(&guarded, &format!("user{}", number % 6));
        enter(&mut member, "here:a", json!({}));
        members.push(member);
    }
    view.until(&mut watcher, |view| view.count == Some((9, 6)));
    counts.until(&mut counter, |view| view.count == Some((9, 6)));
    members.truncate(1);
    view.until(&mut watcher, |view| view.users() == ["user0"]);
    counts.until(&mut counter, |view| view.count == Some((1, 1)));
}

/// Members by pages, and their number, for those who have the right.
#[test]
fn questions() {
    let guarded = Guarded::start(&[
        "--shards=3",
        "--namespace=here,presence=members,presence-meta-max=10",
        "--namespace=count,presence=count",
        "--namespace=secret,presence=members,presence-access=nobody",
    ]);
    let mut members: Vec<Client> = (0..7).map(|n| user(&guarded, &format!("user{n}"))).collect();
    for member in &mut members {
        for channel in ["here:a", "count:a", "secret:a"] {
            enter(member, channel, json!({}));
        }
    }
    let mut client = Client::of(&guarded.server);
    let ask = |action: &str, channel: &str| json!({"action": action, "identifier": channel});
    let (mut found, mut from) = (Vec::new(), Value::Null);
    loop {
        let mut page = ask("presence", "here:a");
        (page["limit"], page["from"]) = (json!(3), from);
        let page = client.ask(page);
        assert_eq!((&page["clients"], &page["users"]), (&json!(7), &json!(7)), "{page}");
        let members = page["members"].as_array().expect("an array");
        found.extend(
            members.iter().map(|member| member["user"].as_str().expect("a user").to_owned()),
        );
        from = page["next"].clone();
        if from.is_null() {
            break;
        }
    }
    found.sort();
    assert_eq!(found, (0..7).map(|n| format!("user{n}")).collect::<Vec<_>>());
    for (channel, expected) in [("here:a", 7), ("count:a", 7), ("here:nothing", 0)] {
        let stats = client.ask(ask("presence_stats", channel));
        assert_eq!(
            (&stats["type"], &stats["clients"]),
            (&json!("presence_stats"), &json!(expected))
        );
    }
    let with = |mut command: Value, key: &str, value: Value| {
        command[key] = value;
        command
    };
    for (command, code) in [
        (ask("presence", "count:a"), "no_presence"),
        (ask("presence", "off"), "no_presence"),
        (ask("presence_stats", "off"), "no_presence"),
        (ask("presence", "secret:a"), "not_allowed"),
        (ask("presence_stats", "secret:a"), "not_allowed"),
        (with(ask("subscribe", "secret:a"), "presence", json!("counts")), "not_allowed"),
        (with(ask("subscribe", "off"), "presence", json!("members")), "no_presence"),
        (with(ask("subscribe", "here:a"), "presence", json!("all")), "bad_command"),
        (with(ask("subscribe", "here:a"), "meta", json!(1)), "not_allowed"),
        (with(ask("presence_update", "here:a"), "meta", json!(1)), "not_subscribed"),
        (with(ask("presence", "here:a"), "limit", json!(1001)), "bad_command"),
        (with(ask("presence", "here:a"), "limit", json!(-1)), "bad_command"),
        (with(ask("presence", "here:a"), "from", json!(-1)), "bad_command"),
        (ask("presence", ""), "bad_identifier"),
    ] {
        assert_eq!(client.error(command.clone()), code, "{command}");
    }
    let update = ask("presence_update", "here:a");
    assert_eq!(
        members[0].error(with(update.clone(), "meta", json!("123456789"))),
        "bad_publication"
    );
    let answer = members[0].ask(with(update, "meta", json!("12345678")));
    assert_eq!(answer["type"], "presence_updated");
    let last = with(ask("presence", "here:a"), "from", json!(u32::MAX));
    assert_eq!(client.ask(last)["members"], json!([]));
    let none = with(ask("presence", "here:a"), "limit", json!(0));
    assert_eq!(client.ask(none)["members"], json!([]));
}

/// Streams and waiting polls of users are members, and a stream can watch.
#[test]
fn streams_and_polls_are_members() {
    let guarded = start("--namespace=here,presence=members,presence-grace=3600,history-size=5");
    let mut stream = guarded.server.connect();
    let ann = token(&json!({"sub": "ann"}));
    let target = format!("/sse?channel=here:a&presence=members&token={ann}");
    stream.send(format!("GET {target} HTTP/1.1\r\nHost: m\r\n\r\n").as_bytes());
    let mut events = Events::read(stream);
    assert_eq!(events.next().expect("an event").name, "subscribed");
    let mut view = View::default();
    let mut listen = |users: &[&str]| {
        while view.users() != users {
            let event = events.next().expect("an event");
            if event.name.is_empty() {
                continue;
            }
            assert_eq!(event.data["type"], event.name);
            view.apply(&event.data);
        }
    };
    listen(&["ann"]);
    let target = format!("/poll?channel=here:a&token={}", token(&json!({"sub": "bob"})));
    let mut poll = guarded.server.connect();
    let answer: Value = serde_json::from_slice(&poll.get(&target).body).expect("JSON");
    let [epoch, offset] = ["epoch", "offset"].map(|part| &answer["position"][part]);
    let wait = format!("GET {target}&position={epoch}-{offset} HTTP/1.1\r\nHost: m\r\n\r\n");
    poll.send(wait.as_bytes());
    listen(&["ann", "bob"]);
    // Between two polls the user is still there.
    user(&guarded, "carl").ask(json!({"action": "publish", "identifier": "here:a", "data": 1}));
    assert_eq!(poll.answer().status, 200);
    let mut asking = Client::of(&guarded.server);
    let stats = asking.ask(json!({"action": "presence_stats", "identifier": "here:a"}));
    assert_eq!((&stats["clients"], &stats["users"]), (&json!(2), &json!(2)));
    for wrong in ["presence=all", "presence=members&presence=counts"] {
        let answer = guarded.server.connect().get(&format!("/sse?channel=here:a&{wrong}"));
        assert_eq!(answer.status, 400);
    }
    assert_eq!(guarded.server.connect().get("/sse?channel=a&presence=members").status, 400);
}

/// The API lists members, counts them, and says whether a user is connected.
#[test]
fn the_api() {
    let guarded = Guarded::start(&["--shards=3", HERE, "--namespace=count,presence=count"]);
    let mut members: Vec<Client> =
        (0..5).map(|n| user(&guarded, &format!("u/{}", n % 4))).collect();
    for member in &mut members {
        enter(member, "here:a b", json!({"meta": 1}));
        enter(member, "count:a", json!({}));
    }
    let (mut found, mut from) = (0, String::new());
    loop {
        let (status, page) = guarded.get(&format!("/api/presence/here:a%20b?limit=2{from}"));
        assert_eq!((status, &page["clients"], &page["users"]), (200, &json!(5), &json!(4)));
        assert_eq!(page["members"][0]["meta"], 1);
        found += page["members"].as_array().expect("an array").len();
        let Some(next) = page["next"].as_u64() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(found, 5);
    let (status, counts) = guarded.get("/api/presence/count:a");
    assert_eq!((status, &counts["users"], &counts["members"]), (200, &json!(4), &json!([])));
    for (path, code) in [
        ("/api/presence/off", "no_presence"),
        ("/api/presence/here:a?from=-1", "bad_query"),
        ("/api/presence/%00", "bad_identifier"),
    ] {
        let (status, error) = guarded.get(path);
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{path}");
    }
    let (status, online) = guarded.get("/api/users/u%2F0");
    let mut expected = [members[0].name(), members[4].name()];
    expected.sort();
    assert_eq!((status, &online["user"], &online["online"]), (200, &json!("u/0"), &json!(true)));
    let mut connections = online["connections"].as_array().expect("an array").clone();
    connections.sort_by_key(Value::to_string);
    assert_eq!(json!(connections), json!(expected));
    let (status, offline) = guarded.get("/api/users/nobody");
    assert_eq!((status, &offline["online"]), (200, &json!(false)));
}

/// A session that takes the token of another user is a member with the new name, and one that was
/// anonymous becomes a member.
#[test]
fn another_user() {
    let guarded = start(HERE);
    let [mut watcher, mut client] = [(); 2].map(|()| Client::of(&guarded.server));
    enter(&mut watcher, "here:a", json!({"presence": "members"}));
    enter(&mut client, "here:a", json!({}));
    let mut view = View::default();
    for name in ["ann", "bob"] {
        client.ask(json!({"action": "auth", "token": token(&json!({"sub": name}))}));
        view.until(&mut watcher, |view| view.users() == [name]);
    }
}

/// A watcher that reads nothing for a while costs nothing more than a mark, and gets all members when it
/// reads again.
#[test]
fn a_watcher_that_does_not_read() {
    let guarded = Guarded::start(&["--shards=2", HERE, "--max-publication-bytes=200000"]);
    let mut watcher = Client::of(&guarded.server);
    enter(&mut watcher, "here:a", json!({"presence": "members"}));
    let ann = std::cell::RefCell::new(user(&guarded, "ann"));
    // The watcher's socket is full of publications that it does not read.
    watcher
        .0
        .send(Message::text(r#"{"action":"subscribe","identifier":"here:full"}"#))
        .expect("sent");
    guarded.server.wait_for_subscriptions(2);
    let full = json!({"action": "publish", "identifier": "here:full", "data": "x".repeat(100_000)});
    guarded.server.wait_until("behind", |stats| {
        for _ in 0..10 {
            ann.borrow_mut().ask(full.clone());
        }
        stats["total"]["connections_lagging"] == 1
    });
    let mut ann = ann.into_inner();
    for meta in 0..100 {
        if meta == 0 {
            enter(&mut ann, "here:a", json!({}));
        }
        ann.ask(json!({"action": "presence_update", "identifier": "here:a", "meta": meta}));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let name = ann.name();
    let mut view = View::default();
    while view.members.get(&name).is_none_or(|(_, meta)| *meta != 99) {
        let message = watcher.receive();
        if message["type"].as_str().is_some_and(|kind| kind.starts_with("presence_")) {
            view.apply(&message);
        }
    }
    assert_eq!(view.users(), ["ann"]);
}
