//! Nodes that are connected by NATS.

mod channels;
mod history;
mod nats;
mod nats_cluster;
mod orders;
mod overload;
mod presence;
mod services;
mod start;
mod three_nats;
mod users;

use nats::Nats;

use crate::client::Client;
use crate::server::{PATIENCE, Server, murre};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A node of the cluster, with channels that anybody may publish to: those in `kept` have history.
fn node(nats: &Nats, name: &str) -> Server {
    node_with(nats, name, &[])
}

/// [`node`] with further flags.
fn node_with(nats: &Nats, name: &str, flags: &[&str]) -> Server {
    spawn(&mut command(nats, name, flags))
}

fn spawn(command: &mut Command) -> Server {
    let server = Server::spawn(command);
    server.wait_until("connected", |stats| stats["nats"]["nats_up"] == 1);
    server
}

/// The command that starts a node.
fn command(nats: &Nats, name: &str, flags: &[&str]) -> Command {
    let mut command = murre();
    command.args([
        "serve",
        "--max-conns=1000",
        "--shards=2",
        "--max-commands-per-second=1000000",
        "--namespace=default,publish=anyone",
    ]);
    command.arg("--namespace=kept,publish=anyone,history-size=1000,history-ttl=600");
    command
        .args([&format!("--cluster-nats={}", nats.address()), "--cluster-node", name])
        .args(flags);
    command
}

/// Publishes numbers to a channel without history until `to` hears one, so that the other nodes have its
/// subscription. Returns when all that were published are over.
fn until_heard(from: &mut Client, channel: &str, to: &mut Client) {
    let start = Instant::now();
    let timeout =
        |to: &mut Client, time| to.0.get_ref().set_read_timeout(Some(time)).expect("a timeout");
    timeout(to, Duration::from_millis(100));
    for probe in 0.. {
        from.publish_patiently(channel, json!({"probe": probe}));
        let mut is_heard = false;
        // Earlier ones may come late.
        while !is_heard && let Ok(message) = to.0.read() {
            let tungstenite::Message::Text(text) = message else { continue };
            let heard: Value = serde_json::from_str(&text).expect("JSON");
            is_heard = heard["data"]["probe"] == probe;
        }
        if is_heard {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{channel} is never heard");
    }
    timeout(to, PATIENCE);
}
