//! Runs that happen too seldom by chance.

use std::time::Duration;

use murre_router::channels;
use serde_json::json;

use super::choices::Choices;
use super::client::{Client, Memory, Transport};
use super::operations::connect;
use super::setup::{CHANNELS, Setup};
use super::world::World;

fn setup() -> Setup {
    let setup = Setup::draw(&mut Choices::new(&[]));
    Setup { shards: 2, deliveries_per_turn: 2, max_conns: 1, ..setup }
}

/// A channel without history that the shard owns.
fn owned_by(shard: u16, setup: &Setup) -> &'static str {
    let owned = |channel: &&&str| channels::owner(channel, 2, setup.seed) == shard;
    CHANNELS.iter().filter(|channel| channel.starts_with(['d', 'o', 'l'])).find(owned).expect("one")
}

/// A client with an open WebSocket on the shard, for which only this shard turns.
fn connect(world: &mut World, number: usize, shard: usize) {
    let peer = world.nodes[shard].net.connect().expect("it listens");
    let mut client = Client::new(shard, peer, Transport::WebSocket, Memory::default());
    client.write(connect::request("/ws", None, connect::UPGRADE).as_bytes());
    world.clients[number] = Some(client);
    while world.clients[number].as_ref().is_some_and(|client| !client.opened) {
        world.turn(shard, Duration::ZERO);
        world.turn_clients();
    }
}

fn send(world: &mut World, number: usize, message: &serde_json::Value) {
    world.clients[number].as_mut().expect("it is connected").send(message);
}

/// The answer to a publication that comes after its publisher has left is not told to the connection
/// that has its slot then.
#[test]
fn the_next_connection_in_a_slot_hears_nothing_of_the_last() {
    let setup = setup();
    let channel = owned_by(1, &setup);
    let mut world = World::new(&setup);
    (0..10).for_each(|_| _ = world.round(Duration::ZERO));
    connect(&mut world, 0, 0);
    let number = world.model.hand_in(0, None);
    let data = format!("{number}:");
    let publish = json!({"action": "publish", "identifier": channel, "data": data, "id": 7});
    send(&mut world, 0, &publish);
    for _ in 0..10 {
        world.turn_clients();
        world.turn(0, Duration::ZERO);
    }
    assert_eq!(world.nodes[0].net.stats(world.clients[0].as_ref().expect("here").peer).unread, 0);
    let first = world.clients[0].take().expect("it is connected");
    world.nodes[0].net.reset(first.peer);
    connect(&mut world, 1, 0);
    let story = |peer| world.nodes[0].net.stats(peer).id.expect("it was accepted");
    let second = world.clients[1].as_ref().expect("it is connected").peer;
    assert_eq!(story(first.peer).index(), story(second).index(), "it has the same slot");
    // The client panics if it hears an answer that it has not asked for.
    world.pass(Duration::from_secs(1));
    assert!(world.model.is_taken(0), "the owner took it");
    assert!(world.clients[1].as_ref().is_some_and(Client::is_there));
}
