//! New connections of a shard.

use std::net::{Ipv6Addr, TcpListener};

use crate::echo::Echo;
use crate::world::{Setup, World, everywhere, real};

/// Connections that arrive together are distinguished by their addresses.
fn addresses_are_told(world: &mut World<Echo>) {
    for round in 1..=3 {
        let peers: Vec<_> = (0..20).map(|_| world.connect()).collect();
        world.until("all are accepted", |world| world.protocol().opened == 20 * round);
        let mut told = world.protocol().peers[20 * (round as usize - 1)..].to_vec();
        let mut expected: Vec<_> = peers.iter().map(|&peer| world.net.address(peer)).collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
    }
}

/// A protocol gets the address and the port of every accepted connection.
#[test]
fn whoever_connects_has_an_address() {
    everywhere(&Setup::default(), Echo::default, addresses_are_told);
}

/// The same for IPv6.
#[test]
fn ipv6_addresses_are_told() {
    let address = Ipv6Addr::LOCALHOST.into();
    match TcpListener::bind((address, 0)) {
        Ok(_) => real(&Setup { address, ..Setup::default() }, Echo::default, addresses_are_told),
        Err(error) => eprintln!("not here: IPv6: {error}"),
    }
}
