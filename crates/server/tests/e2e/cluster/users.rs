//! Where a user is connected, on all nodes.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::nats::Nats;
use crate::guarded::Guarded;
use crate::presence::user;

/// The answer of a node, when all nodes have answered it.
fn find(node: &Guarded, name: &str) -> Value {
    loop {
        let (status, found) = node.get(&format!("/api/users/{name}"));
        assert_eq!(status, 200, "{found}");
        // A node that is slow for a second is left out: then the question is asked again.
        if found["unanswered"] == json!([]) {
            return found;
        }
    }
}

/// Each node says where a user is connected, by node. A node that does not answer is named.
#[test]
fn a_user_is_found_on_all_nodes() {
    let nats = Nats::start();
    let address = format!("--cluster-nats={}", nats.address());
    let nodes: [Guarded; 3] = std::array::from_fn(|at| {
        let name = format!("--cluster-node=node-{at}");
        Guarded::start(&["--shards=2", &address, &name])
    });
    for node in &nodes {
        node.server.wait_until("known", |stats| stats["nodes"]["nodes"] == 2);
    }
    let mut anns = [user(&nodes[1], "ann"), user(&nodes[1], "ann"), user(&nodes[2], "ann")];
    let _bob = user(&nodes[0], "bob");
    let names = anns.each_mut().map(|ann| ann.name());
    let mut second: Vec<_> = names[..2].to_vec();
    second.sort();
    let of = |node: &str, connections: &[String]| json!({"node": node, "connections": connections});
    for (at, node) in nodes.iter().enumerate() {
        let mut found = find(node, "ann");
        let all = found["nodes"].as_array_mut().expect("nodes");
        all.sort_by_key(|node| node["node"].to_string());
        for node in all.iter_mut() {
            let connections = node["connections"].as_array_mut().expect("names");
            connections.sort_by_key(Value::to_string);
        }
        assert_eq!(found["nodes"], json!([of("node-1", &second), of("node-2", &names[2..])]));
        let here = found["connections"].as_array().map(Vec::len);
        assert_eq!((&found["online"], here), (&json!(true), Some([0, 2, 1][at])), "{found}");
    }
    let nobody = find(&nodes[0], "eve");
    assert_eq!((&nobody["online"], &nobody["nodes"]), (&json!(false), &json!([])));
    nodes[2].server.signal(Signal::SIGSTOP);
    let (_, found) = nodes[0].get("/api/users/ann");
    // Otherwise the node is dead already, because this took so long.
    if nodes[0].server.stats()["nodes"]["nodes_gone"] == 0 {
        assert_eq!(found["unanswered"], json!(["node-2"]), "{found}");
        assert_eq!(found["nodes"].as_array().map(Vec::len), Some(1), "{found}");
    }
    nodes[2].server.signal(Signal::SIGCONT);
}
