//! Nodes whose NATS servers are three, which keep each publication three times, while servers fail.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::history::{hear, publish};
use super::nats_cluster::{NatsCluster, connected_to};
use crate::client::Client;
use crate::guarded::Guarded;
use crate::presence::{View, enter, user};
use crate::reader::Position;

const KEPT: &str = "--namespace=kept,publish=anyone,history-size=1000,history-ttl=600";
const HERE: &str = "--namespace=here,presence=members,presence-grace=0,presence-interval=0.1";

/// Starts a node that may use the NATS servers of these addresses. Returns it, and the server that it is connected to.
fn node(addresses: &str, name: &str) -> (Guarded, usize) {
    let nats = format!("--cluster-nats={addresses}");
    let name = format!("--cluster-node={name}");
    let replicas = "--cluster-replicas=3";
    let node = Guarded::start(&["--shards=2", &nats, &name, replicas, KEPT, HERE]);
    let lines = node.server.log_until("connected to NATS");
    let server = connected_to(lines.last().expect("a line"));
    (node, server)
}

/// The leader of the stream stands still for some seconds, is killed and comes back, and then another server is killed
/// to which a node is connected: all that was answered `published` is heard on all nodes, once and in order, and a
/// client recovers.
#[test]
fn servers_of_a_cluster_are_killed() {
    let mut cluster = NatsCluster::start();
    let addresses = cluster.addresses();
    let nodes = ["a", "b", "c"].map(|name| node(&addresses, name));
    let mut publisher = Client::of(&nodes[0].0.server);
    let mut subscribers = nodes.each_ref().map(|(node, _)| Client::of(&node.server));
    let before =
        subscribers.each_mut().map(|subscriber| Position::of(&subscriber.subscribe("kept:x")));
    let mut next = 0;
    let mut publish_some = || {
        for _ in 0..50 {
            publish(&mut publisher, "kept:x", next);
            next += 1;
        }
    };
    publish_some();
    let leader = cluster.leader(0);
    cluster.servers[leader].signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(4));
    cluster.servers[leader].signal(Signal::SIGCONT);
    publish_some();
    let leader = cluster.leader(0);
    cluster.servers[leader].kill();
    publish_some();
    cluster.servers[leader].restart();
    cluster.leader(leader);
    let used = nodes[0].1;
    cluster.servers[used].kill();
    publish_some();
    for subscriber in &mut subscribers {
        hear(subscriber, 0, next - 1);
        subscriber.silent();
    }
    let mut late = Client::of(&nodes[1].0.server);
    assert!(late.recover("kept:x", before[0]));
    hear(&mut late, 0, next - 1);
}

/// Whether a view has these users, in any order.
fn is_of(view: &View, users: &[String]) -> bool {
    view.members.len() == users.len()
        && users.iter().all(|user| view.users().contains(&user.as_str()))
}

/// A server is cut off from the others, with the node that is connected to it. That node refuses publications and
/// keeps its connections, the other nodes go on. When the server is there again, the node hears what it has missed,
/// though nothing more is published, and members are known on all nodes, also of those who came and went meanwhile.
#[test]
fn a_cluster_is_parted() {
    let cluster = NatsCluster::start();
    let addresses = cluster.servers.each_ref().map(|server| server.address());
    let nodes = [0, 1, 2].map(|server| node(&addresses[server], &format!("node-{server}")).0);
    let mut subscribers = nodes.each_ref().map(|node| Client::of(&node.server));
    for subscriber in &mut subscribers {
        subscriber.subscribe("kept:x");
    }
    let member = |server: usize, name: &str| {
        let mut member = user(&nodes[server], name);
        enter(&mut member, "here:a", json!({}));
        member
    };
    let mut members = [0, 1, 2].map(|server| Some(member(server, &server.to_string())));
    let mut watchers = nodes.each_ref().map(|node| (Client::of(&node.server), View::default()));
    for (watcher, view) in &mut watchers {
        enter(watcher, "here:a", json!({"presence": "members"}));
        view.until(watcher, |view| view.members.len() == 3);
    }
    let mut publishers = nodes.each_ref().map(|node| Client::of(&node.server));
    publish(&mut publishers[0], "kept:x", 0);

    let alone = cluster.leader(0);
    let together = (alone + 1) % 3;
    cluster.cut(alone, true);
    let refused = json!({"action": "publish", "identifier": "kept:x", "data": {"refused": true}});
    assert_eq!(publishers[alone].error(refused), "overloaded");
    for number in 1..20 {
        publish(&mut publishers[together], "kept:x", number);
    }
    // On both sides some come and some go.
    members[alone] = None;
    members[together] = None;
    let _new = [member(alone, "alone"), member(together, "together")];
    let other = (alone + 2) % 3;
    let of_both = ["alone".to_owned(), "together".to_owned(), other.to_string()];
    for (server, there) in [(alone, &of_both[..1]), (together, &of_both[1..])] {
        let (watcher, view) = &mut watchers[server];
        view.until(watcher, |view| is_of(view, there));
    }
    subscribers[alone].send(json!({"action": "ping"}));

    cluster.cut(alone, false);
    for (watcher, view) in &mut watchers {
        view.until(watcher, |view| is_of(view, &of_both));
    }
    for subscriber in &mut subscribers {
        // The refused one may have been stored.
        let heard = |message: &Value| {
            message["type"] == "publication" && message["data"]["refused"].is_null()
        };
        let mut next = 0;
        while next < 20 {
            let message = subscriber.receive();
            assert_ne!(message["type"], "error", "{message}");
            if heard(&message) {
                let number = message["data"]["number"].as_u64().expect("a number");
                assert!(number == next || number + 1 == next, "{next} is missing: {message}");
                next = next.max(number + 1);
            }
        }
    }
}
