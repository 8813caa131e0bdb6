//! One address that wants more than its part.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use murre_core::{AddressLimits, Addresses, CloseReason, Excess, ShardConfig};

use crate::app::{Server, get, serve, setup, understand};
use crate::client::Client;
use crate::world::{Setup, World, simulated};

/// The limits are counted over all seeds, as over the shards of a server: each has addresses of its
/// own, and must leave nothing behind.
fn limited(limits: AddressLimits) -> Setup {
    let addresses = Arc::new(Addresses::new(limits));
    Setup { shard: ShardConfig { addresses, ..setup().shard }, ..setup() }
}

/// A public address that no other seed has, as good as certainly.
fn somewhere(world: &mut World<Server>) -> IpAddr {
    Ipv4Addr::from_bits(0x0B00_0000 | world.rng.u32(0..1 << 24)).into()
}

/// So many clients of one address, each with a request.
fn clients(world: &mut World<Server>, ip: IpAddr, count: usize) -> Vec<Client> {
    let connect = |_| Client::of(world.net.connect_from((ip, 7).into()).expect("it listens"));
    let mut clients: Vec<_> = (0..count).map(connect).collect();
    clients.iter_mut().for_each(|client| client.say_bytes(&get(10)));
    clients
}

/// How many have this status for an answer, or none and the end, once everybody has one of them.
fn answered(world: &mut World<Server>, clients: &mut [Client], wanted: Option<u16>) -> usize {
    let status =
        |client: &Client| understand(&client.heard).responses.first().map(|&(status, _)| status);
    world.until("all are answered", |world| {
        clients.iter_mut().for_each(|client| client.step(world));
        clients.iter().all(|client| status(client).is_some() || client.end.is_some())
    });
    clients.iter().filter(|client| status(client) == wanted).count()
}

fn refused(world: &World<Server>, excess: Excess) -> u64 {
    world.shard.counters().refused[excess as usize].get()
}

/// Of the connections of one address so many are served as it may have, some of the rest are told
/// so, and a flood is not; another address is served all the while. Who leaves makes room.
#[test]
fn connections_per_address_are_bounded() {
    let limits = AddressLimits { conns_max: Some(3), ..AddressLimits::default() };
    simulated(&limited(limits), serve, |world| {
        let [ip, other] = [(); 2].map(|()| somewhere(world));
        let mut greedy = clients(world, ip, 25);
        let mut modest = clients(world, other, 1);
        assert_eq!(answered(world, &mut modest, Some(200)), 1);
        assert_eq!(answered(world, &mut greedy, Some(200)), 3);
        assert_eq!(answered(world, &mut greedy, Some(429)), 16);
        assert_eq!(answered(world, &mut greedy, None), 6);
        assert_eq!(refused(world, Excess::Connections), 16);
        assert_eq!(refused(world, Excess::Flood), 6);
        greedy.iter().for_each(|client| world.net.close(client.peer));
        world.until("they are gone", |world| world.protocol().open.len() == 1);
        assert_eq!(world.protocol().closed_for(CloseReason::Refused), 22);
        let mut again = clients(world, ip, 1);
        assert_eq!(answered(world, &mut again, Some(200)), 1);
    });
}

/// An address that opens connections too fast is told when to come back, and is served then.
#[test]
fn connections_are_opened_at_a_rate() {
    let limits = AddressLimits { handshakes_per_second_max: Some(1), ..AddressLimits::default() };
    simulated(&limited(limits), serve, |world| {
        let ip = somewhere(world);
        let mut hasty = clients(world, ip, 12);
        assert_eq!(answered(world, &mut hasty, Some(200)), 10);
        assert_eq!(answered(world, &mut hasty, Some(429)), 2);
        assert_eq!(refused(world, Excess::Handshakes), 2);
        world.pass(Duration::from_secs(3));
        let mut again = clients(world, ip, 5);
        assert_eq!(answered(world, &mut again, Some(200)), 3);
    });
}

/// Whoever comes from this machine is not counted.
#[test]
fn loopback_is_exempt() {
    let limits = AddressLimits { conns_max: Some(1), handshakes_per_second_max: Some(1) };
    simulated(&limited(limits), serve, |world| {
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let mut clients = clients(world, ip.parse().expect("an address"), 12);
            assert_eq!(answered(world, &mut clients, Some(200)), 12, "{ip}");
        }
    });
}
