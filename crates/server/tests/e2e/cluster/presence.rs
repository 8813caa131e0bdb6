//! Presence over several nodes.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::nats::Nats;
use crate::client::Client;
use crate::guarded::Guarded;
use crate::phoenix_client::Phoenix;
use crate::presence::{View, enter, user};

/// Nodes with presence that know each other.
fn nodes<const N: usize>(nats: &Nats) -> [Guarded; N] {
    let nats = format!("--cluster-nats={}", nats.address());
    let nodes: [Guarded; N] = std::array::from_fn(|at| {
        let name = format!("--cluster-node=node-{at}");
        let here = "--namespace=here,presence=members,presence-push-max=4,presence-grace=60,\
                    presence-interval=0.1";
        Guarded::start(&["--shards=2", here, &nats, &name, "--phoenix-path=/socket"])
    });
    nodes.iter().for_each(|node| knows(node, N - 1));
    nodes
}

/// Waits until a node knows so many others.
fn knows(node: &Guarded, others: usize) {
    node.server.wait_until("known", |stats| stats["nodes"]["nodes"] == others);
}

fn watcher(node: &Guarded) -> Client {
    let mut watcher = Client::of(&node.server);
    enter(&mut watcher, "here:a", json!({"presence": "members"}));
    watcher
}

fn member(node: &Guarded, name: &str) -> Client {
    let mut member = user(node, name);
    enter(&mut member, "here:a", json!({"meta": {"name": name}}));
    member
}

/// A watcher is told of the members of all nodes, of their metadata and of those who leave, whether they joined
/// before it or later. Connections that have one name on two nodes are told apart.
#[test]
fn members_of_all_nodes() {
    let nats = Nats::start();
    let [first, second, third] = nodes(&nats);
    let mut before = member(&second, "ann");
    let mut watcher = watcher(&first);
    let mut view = View::default();
    view.until(&mut watcher, |view| view.users() == ["ann"]);
    let _later = [member(&third, "bob"), member(&first, "eve")];
    view.until(&mut watcher, |view| view.users() == ["ann", "bob", "eve"]);
    let metas: Vec<_> = view.members.values().map(|(user, meta)| (user, &meta["name"])).collect();
    assert!(metas.iter().all(|(user, name)| *name == user.as_str()), "{metas:?}");
    let update = json!({"action": "presence_update", "identifier": "here:a", "meta": "away"});
    assert_eq!(before.ask(update)["type"], "presence_updated");
    view.until(&mut watcher, |view| view.members.values().any(|(_, meta)| meta == "away"));
    let leave = json!({"action": "presence_leave", "identifier": "here:a"});
    assert_eq!(before.ask(leave)["type"], "presence_left");
    view.until(&mut watcher, |view| view.users() == ["bob", "eve"]);
}

/// Pages and numbers are of all nodes, also on a node where nobody watches the channel. A node that does not answer is
/// named.
#[test]
fn pages_over_nodes() {
    let nats = Nats::start();
    let [first, second, third] = nodes(&nats);
    let mut client = Client::of(&third.server);
    let command = |action, rest: Value| {
        let mut command = json!({"action": action, "identifier": "here:a"});
        command.as_object_mut().expect("an object").extend(rest.as_object().expect("one").clone());
        command
    };
    client.subscribe("here:a");
    let _members: Vec<_> = ["1", "2", "3"]
        .iter()
        .flat_map(|name| [member(&first, name), member(&second, name)])
        .collect();
    // A node that is slow for a second is left out: then the question is asked again.
    let mut ask = |question: Value| loop {
        let answer = client.ask(question.clone());
        if answer["unanswered"].is_null() {
            return answer;
        }
    };
    let counts = ask(command("presence_stats", json!({})));
    assert_eq!(counts["clients"], 6, "{counts}");
    let (mut connections, mut from) = (Vec::new(), json!(0));
    while !from.is_null() {
        let page = ask(command("presence", json!({"limit": 2, "from": from})));
        assert_eq!(page["clients"], 6, "{page}");
        let members = page["members"].as_array().expect("members");
        connections.extend(members.iter().map(|member| member["connection"].to_string()));
        from = page["next"].clone();
    }
    connections.sort();
    connections.dedup();
    assert_eq!(connections.len(), 6);
    let page = loop {
        let (_, page) = first.get("/api/presence/here:a");
        if page["unanswered"] == json!([]) {
            break page;
        }
    };
    assert_eq!(page["members"].as_array().map(Vec::len), Some(6), "{page}");
    assert_eq!(page["next"], json!(null));

    second.server.signal(Signal::SIGSTOP);
    let (_, page) = first.get("/api/presence/here:a");
    // Otherwise the node is dead already, because this took so long.
    if first.server.stats()["nodes"]["nodes_gone"] == 0 {
        assert_eq!(
            (&page["clients"], &page["unanswered"]),
            (&json!(3), &json!(["node-1"])),
            "{page}"
        );
    }
    second.server.signal(Signal::SIGCONT);
}

/// With more members on all nodes than are pushed, watchers get their number, and all of them again when few are
/// left.
#[test]
fn a_large_channel_over_nodes() {
    let nats = Nats::start();
    let [first, second] = nodes(&nats);
    let mut watcher = watcher(&first);
    let mut view = View::default();
    let mut others: Vec<_> = ["1", "2", "3"]
        .iter()
        .flat_map(|name| [member(&first, name), member(&second, name)])
        .collect();
    view.until(&mut watcher, |view| view.count.is_some_and(|(clients, _)| clients == 6));
    for other in &mut others[1..] {
        let leave = json!({"action": "unsubscribe", "identifier": "here:a"});
        assert_eq!(other.ask(leave)["type"], "unsubscribed");
    }
    view.until(&mut watcher, |view| view.users() == ["1"]);
}

/// The members of a node that is killed are gone when its lease is over, and a Phoenix client is told as well. The
/// node comes back with other members.
#[test]
fn a_node_is_killed() {
    let nats = Nats::start();
    let [first, second] = nodes(&nats);
    let mut watcher = watcher(&first);
    let mut view = View::default();
    let _members = [member(&first, "ann"), member(&second, "bob")];
    view.until(&mut watcher, |view| view.users() == ["ann", "bob"]);
    let mut phoenix = Phoenix::of(&first.server);
    phoenix.join("here:a", "1");
    while !phoenix.receive().contains("\"bob\"") {}
    second.server.signal(Signal::SIGKILL);
    let killed = Instant::now();
    view.until(&mut watcher, |view| view.users() == ["ann"]);
    eprintln!("the members of a killed node were gone after {:?}", killed.elapsed());
    // Five seconds after the last beat that was heard, which may have been some time before.
    assert!(killed.elapsed() > Duration::from_secs(1), "a short silence is no death");
    while !phoenix.receive().contains("\"leaves\":{\"bob\"") {}
}

/// A node that stood still for longer than its lease has its members again afterwards, and knows those of others.
#[test]
fn a_node_stands_still() {
    let nats = Nats::start();
    let [first, second] = nodes(&nats);
    let (mut watcher, mut other) = (watcher(&first), watcher(&second));
    let (mut view, mut other_view) = (View::default(), View::default());
    let _members = [member(&first, "ann"), member(&second, "bob")];
    for (watcher, view) in [(&mut watcher, &mut view), (&mut other, &mut other_view)] {
        view.until(watcher, |view| view.users() == ["ann", "bob"]);
    }
    second.server.signal(Signal::SIGSTOP);
    let _late = member(&first, "eve");
    view.until(&mut watcher, |view| view.users() == ["ann", "eve"]);
    second.server.signal(Signal::SIGCONT);
    for (watcher, view) in [(&mut watcher, &mut view), (&mut other, &mut other_view)] {
        view.until(watcher, |view| view.users() == ["ann", "bob", "eve"]);
    }
}

/// Nodes of one name are told apart: each has its members, and the log says that the name is used twice.
#[test]
fn nodes_of_one_name() {
    let nats = Nats::start();
    let address = format!("--cluster-nats={}", nats.address());
    let here = "--namespace=here,presence=members";
    let nodes = [(); 2].map(|()| Guarded::start(&[here, &address, "--cluster-node=same"]));
    nodes.iter().for_each(|node| knows(node, 1));
    nodes[0].server.log_until("give each its own with --cluster-node");
    let _members = [member(&nodes[0], "ann"), member(&nodes[1], "ann")];
    for node in &nodes {
        let mut view = View::default();
        view.until(&mut watcher(node), |view| view.users() == ["ann", "ann"]);
    }
}

/// A node that is drained says that it ends: its members are gone, though their grace is not over.
#[test]
fn a_node_ends() {
    let nats = Nats::start();
    let [first, second] = nodes(&nats);
    let mut watcher = watcher(&first);
    let mut view = View::default();
    let bob = member(&second, "bob");
    view.until(&mut watcher, |view| view.users() == ["bob"]);
    second.server.signal(Signal::SIGTERM);
    drop(bob);
    let (status, _) = second.end();
    assert!(status.success(), "{status}");
    first.server.log_until("another node has ended");
    view.until(&mut watcher, |view| view.users().is_empty());
}

/// While NATS is away nobody counts as gone. Afterwards members are told again, and those who joined or left in the
/// meantime are known.
#[test]
fn nats_is_away() {
    let mut nats = Nats::start();
    let [first, second] = nodes(&nats);
    let mut watcher = watcher(&first);
    let mut view = View::default();
    let [ann, _bob] = ["ann", "bob"].map(|name| member(&second, name));
    view.until(&mut watcher, |view| view.users() == ["ann", "bob"]);
    nats.kill();
    let mut ann = ann;
    let leave = json!({"action": "presence_leave", "identifier": "here:a"});
    assert_eq!(ann.ask(leave)["type"], "presence_left");
    let _eve = member(&second, "eve");
    // Longer than a lease.
    std::thread::sleep(Duration::from_secs(6));
    nats.restart();
    view.until(&mut watcher, |view| {
        assert!(view.users().contains(&"bob"), "he has not left");
        view.users() == ["bob", "eve"]
    });
    assert_eq!(first.server.stats()["nodes"]["nodes_gone"], 0);
}
