//! Tests of the presence of Phoenix clients: how they become members, and what they are told, beside
//! what the client's class `Presence` makes of it (`assets/js/phoenix/presence.js`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::Client;
use crate::guarded::{Guarded, token};
use crate::phoenix_client::Phoenix;

const HERE: &str = "--namespace=here,publish=anyone,presence=members,presence-grace=0,presence-interval=0.1;\
                    keys,presence=members,presence-grace=0,presence-key=client;count,presence=count;\
                    secret,presence=members,presence-access=nobody";

fn start() -> Guarded {
    Guarded::start(&["--shards=3", "--phoenix-path=/socket", HERE])
}

fn user(guarded: &Guarded, name: &str) -> Phoenix {
    let token = token(&json!({"sub": name}));
    Phoenix::at(&guarded.server, &format!("/socket/websocket?vsn=2.0.0&token={token}"))
}

/// What a client knows of a topic that it has joined: metas by key and reference, or the counts.
#[derive(Debug, Default)]
struct View {
    join_ref: Option<String>,
    members: BTreeMap<String, BTreeMap<String, Value>>,
    count: Option<(u64, u64)>,
}

impl View {
    /// Joins with this join ref and payload. The members come after the reply.
    fn join(client: &mut Phoenix, topic: &str, join_ref: &str, payload: &Value) -> Self {
        client.send(&json!([join_ref, join_ref, topic, "phx_join", payload]).to_string());
        let mut view = View { join_ref: Some(join_ref.to_owned()), ..View::default() };
        let mut replied = false;
        loop {
            let message = client.json();
            match message[3].as_str() {
                Some("phx_reply") => {
                    assert_eq!(message[4], json!({"status": "ok", "response": {}}));
                    replied = true;
                }
                Some("phx_close") => assert!(replied, "{message} before the reply"),
                // Of the join before.
                Some(_) if !replied => assert_ne!(message[0], join_ref, "{message}"),
                _ => {
                    view.apply(&message);
                    return view;
                }
            }
        }
    }

    fn apply(&mut self, message: &Value) {
        match message[3].as_str() {
            Some("presence_state") => {
                assert_eq!(message[0].as_str(), self.join_ref.as_deref(), "{message}");
                (self.members, self.count) = (BTreeMap::new(), None);
                self.enter(&message[4]);
            }
            Some("presence_diff") => {
                assert_eq!((&message[0], self.count), (&Value::Null, None), "{message}");
                let known: Vec<String> = metas(&message[4]["joins"])
                    .filter_map(|(_, meta)| meta["phx_ref_prev"].as_str().map(str::to_owned))
                    .collect();
                for reference in known {
                    let gone = metas(&message[4]["leaves"]);
                    let mut gone = gone.filter(|(_, meta)| meta["phx_ref"] == reference.as_str());
                    assert!(gone.next().is_some(), "an update leaves {reference}: {message}");
                }
                self.enter(&message[4]["joins"]);
                for (key, meta) in metas(&message[4]["leaves"]) {
                    let reference = meta["phx_ref"].as_str().expect("a reference");
                    if let Some(metas) = self.members.get_mut(key) {
                        metas.remove(reference);
                        if metas.is_empty() {
                            self.members.remove(key);
                        }
                    }
                }
            }
            Some("presence_count") => {
                let number = |key: &str| message[4][key].as_u64().expect(key);
                self.members = BTreeMap::new();
                self.count = Some((number("clients"), number("users")));
            }
            _ => panic!("{message} is not about presence"),
        }
    }

    fn enter(&mut self, joins: &Value) {
        for (key, meta) in metas(joins) {
            let reference = meta["phx_ref"].as_str().expect("a reference").to_owned();
            let mut meta = meta.clone();
            let members = meta.as_object_mut().expect("an object");
            members.remove("phx_ref");
            members.remove("phx_ref_prev");
            self.members.entry(key.to_owned()).or_default().insert(reference, meta);
        }
    }

    /// Listens until the members are these, with the metas of each key in any order.
    fn until(&mut self, client: &mut Phoenix, expected: &Value) {
        while self.now() != *expected {
            self.apply(&client.json());
        }
    }

    fn now(&self) -> Value {
        let metas = |metas: &BTreeMap<String, Value>| {
            let mut metas: Vec<String> = metas.values().map(Value::to_string).collect();
            metas.sort();
            Value::from(metas)
        };
        self.members.iter().map(|(key, of)| (key.clone(), metas(of))).collect()
    }
}

fn metas(members: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = members.as_object().expect("an object").iter();
    members.flat_map(|(key, member)| {
        let metas = member["metas"].as_array().expect("metas");
        metas.iter().map(move |meta| (key.as_str(), meta))
    })
}

/// A push of this client, whose reply is ok. What else it hears goes to the view.
fn push(client: &mut Phoenix, view: &mut View, topic: &str, event: &str, payload: &Value) {
    client.send(&json!([view.join_ref, "p", topic, event, payload]).to_string());
    loop {
        let message = client.json();
        if message[3] == "phx_reply" {
            return assert_eq!(message[4], json!({"status": "ok", "response": {}}), "{event}");
        }
        view.apply(&message);
    }
}

/// The reason for which a message is refused.
fn refused(client: &mut Phoenix, message: &Value) -> String {
    client.send(&message.to_string());
    let reply = client.json();
    assert_eq!(reply[4]["status"], "error", "{reply}");
    reply[4]["response"]["reason"].as_str().expect("a reason").to_owned()
}

/// Two tabs of a user and another user join, update, untrack, track and leave. A client that watches
/// from the beginning and one that comes later know the same.
#[test]
fn members_come_and_go() {
    let guarded = start();
    let mut watcher = Phoenix::of(&guarded.server);
    let mut view = View::join(&mut watcher, "here:a", "1", &json!({}));
    assert_eq!(view.now(), json!({}), "an anonymous client is no member");
    let mut tabs: Vec<(Phoenix, View)> = Vec::new();
    for (name, payload) in [
        ("ann", json!({"presence": {"tab": 1, "phx_ref": "forged"}})),
        ("ann", json!({"presence": {"tab" : 2}})),
        ("__proto__", json!({})),
    ] {
        let mut client = user(&guarded, name);
        let view = View::join(&mut client, "here:a", "7", &payload);
        tabs.push((client, view));
    }
    let all = json!({"ann": [r#"{"tab":1}"#, r#"{"tab":2}"#], "\0__proto__": ["{}"]});
    view.until(&mut watcher, &all);
    let (first, own) = &mut tabs[0];
    push(first, own, "here:a", "update", &json!({"tab": 3}));
    let expected = json!({"ann": [r#"{"tab":2}"#, r#"{"tab":3}"#], "\0__proto__": ["{}"]});
    view.until(&mut watcher, &expected);
    own.until(first, &expected);
    push(first, own, "here:a", "untrack", &json!({}));
    push(first, own, "here:a", "untrack", &json!({}));
    let expected = json!({"ann": [r#"{"tab":2}"#], "\0__proto__": ["{}"]});
    view.until(&mut watcher, &expected);
    own.until(first, &expected);
    push(first, own, "here:a", "track", &json!({"tab": 4}));
    let expected = json!({"ann": [r#"{"tab":2}"#, r#"{"tab":4}"#], "\0__proto__": ["{}"]});
    view.until(&mut watcher, &expected);
    // A second join of a topic is a member anew, and gets the state with its own join ref.
    let (second, own) = &mut tabs[1];
    *own = View::join(second, "here:a", "8", &json!({"presence": {"tab": 5}}));
    let expected = json!({"ann": [r#"{"tab":4}"#, r#"{"tab":5}"#], "\0__proto__": ["{}"]});
    view.until(&mut watcher, &expected);
    own.until(second, &expected);
    let late = View::join(&mut Phoenix::of(&guarded.server), "here:a", "\u{e9}", &json!({}));
    assert_eq!(late.now(), expected);
    tabs.remove(0);
    view.until(&mut watcher, &json!({"ann": [r#"{"tab":5}"#], "\0__proto__": ["{}"]}));
    tabs[0].0.send(r#"["8","l","here:a","phx_leave",{}]"#);
    view.until(&mut watcher, &json!({"\0__proto__": ["{}"]}));
    drop((tabs, watcher));
    guarded.server.wait_until("nobody is left", |stats| {
        let total = &stats["total"];
        total["presence_channels"] == 0 && total["presence_watchers"] == 0
    });
}

/// A member that hides itself by its join is none until it tracks, whether its token comes before or
/// after. Clients of `murre.v1` see the same members.
#[test]
fn hidden_members() {
    let guarded = start();
    let mut murre = Client::of(&guarded.server);
    let count = |murre: &mut Client| {
        murre.ask(json!({"action": "presence_stats", "identifier": "here:a"}))["clients"].clone()
    };
    let mut ann = user(&guarded, "ann");
    let mut view = View::join(&mut ann, "here:a", "1", &json!({"presence": false}));
    assert_eq!(count(&mut murre), 0);
    // Another user's token comes with the join of another topic.
    let bob = token(&json!({"sub": "bob"}));
    ann.send(&json!(["2", "2", "off", "phx_join", {"token": bob}]).to_string());
    assert_eq!(ann.json()[4]["status"], "ok");
    assert_eq!(count(&mut murre), 0);
    push(&mut ann, &mut view, "here:a", "track", &json!({"x": 1}));
    view.until(&mut ann, &json!({"bob": [r#"{"x":1}"#]}));
    let members =
        murre.ask(json!({"action": "presence", "identifier": "here:a"}))["members"].take();
    assert_eq!((&members[0]["user"], &members[0]["meta"]), (&json!("bob"), &json!({"x": 1})));
}

/// Where clients choose their keys, anonymous ones are members, too, whatever their keys are; and a key
/// is no user.
#[test]
fn keys_of_clients() {
    let guarded = start();
    let long = "k".repeat(255);
    let mut watcher = user(&guarded, "ann");
    let mut view = View::join(&mut watcher, "keys:a", "1", &json!({"presence": false}));
    let keys = ["__proto__", "constructor", "", "a,b", &long, "ann"];
    let mut clients = Vec::new();
    for key in keys {
        let mut client = Phoenix::of(&guarded.server);
        View::join(&mut client, "keys:a", "1", &json!({"presence_key": key, "presence": {"n": 1}}));
        clients.push(client);
    }
    let shown = ["\0__proto__", "\0constructor", "", "a,b", &long, "ann"];
    let metas = json!([r#"{"n":1}"#]);
    let expected: Value = shown.iter().map(|key| ((*key).to_owned(), metas.clone())).collect();
    view.until(&mut watcher, &expected);
    let mut without = Phoenix::of(&guarded.server);
    let own = View::join(&mut without, "keys:a", "1", &json!({}));
    while view.members.len() < 7 {
        view.apply(&watcher.json());
    }
    drop(own);
    let page = guarded.get("/api/presence/keys%3Aa").1;
    let members = page["members"].as_array().expect("members");
    assert!(members.len() == 7 && members.iter().all(|member| member.get("user").is_none()));
    let mut murre = Client::of(&guarded.server);
    let page = murre.ask(json!({"action": "presence", "identifier": "keys:a"}));
    let found = page["members"].as_array().expect("members");
    assert!(found.iter().any(|member| member["key"] == "ann" && member.get("user").is_none()));
    // Where members are users, a key is ignored.
    let mut bob = user(&guarded, "bob");
    let mut view = View::join(&mut bob, "here:a", "1", &json!({"presence_key": "ann"}));
    view.until(&mut bob, &json!({"bob": ["{}"]}));
}

/// Joins and pushes that are refused have changed nothing.
#[test]
fn refusals() {
    let guarded = start();
    let mut ann = user(&guarded, "ann");
    for (payload, reason) in [
        (json!({"presence": "x"}), "bad_presence"),
        (json!({"presence": []}), "bad_presence"),
        (json!({"presence_key": 7}), "bad_presence"),
        (json!({"presence_key": "k".repeat(256)}), "bad_presence"),
        (json!({"presence": {"long": "x".repeat(1024)}}), "too_long"),
    ] {
        let message = json!(["1", "1", "here:a", "phx_join", payload]);
        assert_eq!(refused(&mut ann, &message), reason, "{payload}");
    }
    let mut view = View::join(&mut ann, "here:a", "1", &json!({}));
    view.until(&mut ann, &json!({"ann": ["{}"]}));
    for (event, payload, reason) in [
        ("track", json!({"long": "x".repeat(1024)}), "too_long"),
        ("track", json!(1), "bad_payload"),
        ("update", json!(null), "bad_payload"),
        ("presence_state", json!({}), "bad_event"),
    ] {
        assert_eq!(refused(&mut ann, &json!(["1", "2", "here:a", event, payload])), reason);
    }
    let mut anonymous = Phoenix::of(&guarded.server);
    let join = json!(["1", "1", "here:a", "phx_join", {"presence": {}}]);
    assert_eq!(refused(&mut anonymous, &join), "not_allowed");
    let mut view = View::join(&mut anonymous, "here:a", "1", &json!({}));
    assert_eq!(view.now(), json!({"ann": ["{}"]}));
    let track = json!(["1", "2", "here:a", "track", {}]);
    assert_eq!(refused(&mut anonymous, &track), "not_allowed");
    push(&mut anonymous, &mut view, "here:a", "untrack", &json!({}));
    // Whoever may not know the members is told nothing of them, and in a topic without presence its
    // events and members of payloads are the application's.
    for topic in ["secret:a", "count:a", "room:a"] {
        ann.send(&json!(["5", "5", topic, "phx_join", {"presence": {}}]).to_string());
        assert_eq!(ann.json()[4], json!({"status": "ok", "response": {}}), "{topic}");
    }
    ann.send(&json!(["6", "6", "room:a", "phx_join", {"presence": "mine"}]).to_string());
    assert_eq!(
        (ann.json()[3].take(), ann.json()[3].take()),
        (json!("phx_reply"), json!("phx_close"))
    );
    ann.send(r#"["6","7","room:a","update",{"n":1}]"#);
    ann.hears(&[
        r#"["6","7","room:a","phx_reply",{"status":"ok","response":{}}]"#,
        r#"[null,null,"room:a","update",{"n":1}]"#,
    ]);
    ann.silent();
}

/// A topic with more members than `presence-push-max` has counts, and its members again when less than
/// half of that are left: for clients of both versions, with the join ref of each.
#[test]
fn large_topics() {
    let guarded = Guarded::start(&[
        "--shards=3",
        "--phoenix-path=/socket",
        "--namespace=here,presence=members,presence-grace=0,presence-push-max=8,presence-interval=0.1",
    ]);
    let mut watchers: Vec<(Phoenix, View)> = Vec::new();
    for join_ref in ["1", "\u{1f680}"] {
        let mut client = Phoenix::of(&guarded.server);
        let view = View::join(&mut client, "here:a", join_ref, &json!({}));
        watchers.push((client, view));
    }
    let mut old = Phoenix::at(&guarded.server, "/socket/websocket");
    old.send(r#"{"topic":"here:a","event":"phx_join","payload":{},"ref":"1"}"#);
    let mut hears = |event: &str| loop {
        let message = old.json();
        if message["event"] == event {
            return message["payload"].clone();
        }
    };
    assert_eq!(hears("presence_state"), json!({}));
    let mut members: Vec<Client> = Vec::new();
    for number in 0..9 {
        let token = token(&json!({"sub": format!("user{}", number % 6)}));
        let mut member = Client::at(&guarded.server, &format!("/ws?token={token}"));
        member.ask(json!({"action": "subscribe", "identifier": "here:a", "meta": number}));
        members.push(member);
    }
    for (client, view) in &mut watchers {
        while view.count != Some((9, 6)) {
            view.apply(&client.json());
        }
    }
    while hears("presence_count") != json!({"clients": 9, "users": 6}) {}
    let (client, view) = &mut watchers[0];
    *view = View::join(client, "here:a", "2", &json!({}));
    assert_eq!(view.count, Some((9, 6)), "a new join gets the counts");
    members.truncate(1);
    for (client, view) in &mut watchers {
        view.until(client, &json!({"user0": [r#"{"data":0}"#]}));
    }
    assert_eq!(hears("presence_state")["user0"]["metas"][0]["data"], 0);
}
