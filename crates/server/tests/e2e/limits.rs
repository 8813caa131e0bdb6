//! Clients that want more than their part.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::server::{Server, murre};

/// A server with these flags at an address that is not loopback, whose clients have that address too.
fn at_an_address(flags: &[&str]) -> Option<Server> {
    let addresses = getifaddrs().expect("a list").filter_map(|interface| interface.address);
    let mut v4 = addresses.filter_map(|address| Some(IpAddr::V4(address.as_sockaddr_in()?.ip())));
    let ip = v4.find(|ip| !ip.is_loopback());
    if ip.is_none() {
        eprintln!("not here: this machine has no address but loopback");
    }
    Some(Server::spawn_at(ip?, murre().args(["serve", "--max-conns=1000"]).args(flags)))
}

/// An address has as many connections as it may, and the next is told so before it has said
/// anything; who leaves makes room.
#[test]
fn connections_per_address() {
    let Some(server) = at_an_address(&["--max-conns-per-address=2"]) else { return };
    let mut served = [(); 2].map(|()| server.connect());
    for client in &mut served {
        assert_eq!(client.get("/healthz").status, 200);
    }
    let mut refused = server.connect();
    let answer = refused.answer();
    assert_eq!((answer.status, answer.header("connection")), (429, Some("close")));
    assert!(refused.rest().is_empty());
    drop(refused);
    server.wait_until("closed", |stats| stats["closed"]["refused"] == 1);
    assert_eq!(server.stats()["total"]["connections_refused_address_full"], 1);
    let metrics = server.admin("/metrics");
    assert!(metrics.text().contains("murre_connections_refused_address_full_total"));
    let [first, mut second] = served;
    drop(first);
    server.wait_until("one is left", |stats| stats["connections"] == 1);
    assert_eq!(server.connect().get("/healthz").status, 200);
    assert_eq!(second.get("/healthz").status, 200);
}

/// What ten seconds allow may come at once, whatever becomes of it; the rest is to come back later.
#[test]
fn handshakes_per_second() {
    let Some(server) = at_an_address(&["--max-handshakes-per-second=1"]) else { return };
    let mut answers = (0..1000).map(|_| server.connect().get("/healthz"));
    let refused = answers.position(|answer| {
        let told = answer.header("retry-after").is_some();
        assert!(answer.status == if told { 429 } else { 200 }, "{answer:?}");
        told
    });
    // More where the machine takes a second for them.
    assert!(refused.is_some_and(|served| served >= 10), "{refused:?}");
    assert_eq!(server.stats()["total"]["connections_refused_too_fast"], 1);
}

/// Zero is no limit, and programs of this machine have none.
#[test]
fn who_is_not_counted() {
    let few = ["--max-conns-per-address=1", "--max-handshakes-per-second=1"];
    let none = ["--max-conns-per-address=0", "--max-handshakes-per-second=0"];
    let here = Server::start(&few);
    for server in [Some(here), at_an_address(&none)].into_iter().flatten() {
        let mut clients = [(); 20].map(|()| server.connect());
        for client in &mut clients {
            assert_eq!(client.get("/healthz").status, 200);
        }
    }
}
