//! Single cases.

use super::*;

const DOUBLE: &str = SERVICES[0];

/// Nodes that are connected, with an asker on the first one.
fn nodes(count: usize) -> (World, Person) {
    let mut world = World::new(count, 1);
    world.pass(100);
    let asker = world.person(0, 0);
    (world, asker)
}

/// A member of a node that offers a service.
fn worker(world: &mut World, node: usize) -> Person {
    let person = world.person(node, 1);
    world.serve(person, DOUBLE);
    world.pass(100);
    person
}

/// Answers all that members have been asked.
fn answer_all(world: &mut World) {
    for node in 0..world.nodes.len() {
        let Some(life) = &world.nodes[node] else { continue };
        for (person, request, number) in life.open.clone() {
            world.reply(person, request, number, true);
        }
    }
    world.pass(100);
}

fn served(world: &mut World, node: usize) -> u64 {
    world.life(node).shared.counts.requests_served.load(Relaxed)
}

/// A request reaches a responder on another node, and its answer the requester.
#[test]
fn there_and_back() {
    let (mut world, asker) = nodes(2);
    worker(&mut world, 1);
    let request = world.ask(asker, DOUBLE, 0, 1000).expect("room");
    world.pass(100);
    answer_all(&mut world);
    assert_eq!(world.outcome(request), Some(&Ok(())));
    world.end();
}

/// Without a responder on any node the requester hears so at once.
#[test]
fn no_responder_anywhere() {
    let (mut world, asker) = nodes(3);
    let request = world.ask(asker, DOUBLE, 0, 1000).expect("room");
    world.pass(2 * DELAY + 2);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::NoResponders)));
    world.end();
}

/// A responder of the same node gets all requests, and NATS none.
#[test]
fn responders_of_the_same_node_come_first() {
    let (mut world, asker) = nodes(2);
    let here = worker(&mut world, 0);
    worker(&mut world, 1);
    for _ in 0..20 {
        let request = world.ask(asker, DOUBLE, 0, 1000).expect("room");
        world.pass(1);
        assert_eq!(world.asked[request as usize].seen_by, Some(here));
        answer_all(&mut world);
    }
    assert_eq!((served(&mut world, 0), served(&mut world, 1)), (0, 0));
    world.end();
}

/// Nodes with responders get requests of a node without any alike.
#[test]
fn nodes_share_requests() {
    let (mut world, asker) = nodes(3);
    let _ = (worker(&mut world, 1), worker(&mut world, 2));
    for _ in 0..100 {
        world.ask(asker, DOUBLE, 0, 1000).expect("room");
        world.pass(100);
        answer_all(&mut world);
    }
    let (first, second) = (served(&mut world, 1), served(&mut world, 2));
    assert!(first + second == 100 && (30..=70).contains(&first), "{first} and {second}");
    world.end();
}

/// When all responders of a node have enough to do, or one is congested, other nodes are asked.
#[test]
fn other_nodes_take_what_is_too_much() {
    let (mut world, asker) = nodes(2);
    let here = worker(&mut world, 0);
    let asks: Vec<_> = (0..4).map(|_| world.ask(asker, DOUBLE, 0, 5000).expect("room")).collect();
    world.pass(100);
    assert!(asks.iter().all(|ask| world.asked[*ask as usize].seen_by == Some(here)));
    let there = worker(&mut world, 1);
    // NATS chooses between both nodes; the first one is full.
    let asks: Vec<_> = (0..4).map(|_| world.ask(asker, DOUBLE, 0, 5000).expect("room")).collect();
    world.pass(100);
    for ask in asks {
        match world.asked[ask as usize].seen_by {
            Some(person) => assert_eq!(person, there),
            None => assert_eq!(world.outcome(ask), Some(&Err(RequestError::Overloaded))),
        }
    }
    assert!(served(&mut world, 1) > 0);
    answer_all(&mut world);
    world.end();
}

/// A request on its way to a node whose responder has just left goes to another node: nobody hears that there is
/// none.
#[test]
fn another_node_takes_over() {
    for seed in 0..50 {
        let mut world = World::new(3, seed);
        world.pass(100);
        let asker = world.person(0, 0);
        let leaves = worker(&mut world, 1);
        let stays = worker(&mut world, 2);
        let asks: Vec<_> =
            (0..3).map(|_| world.ask(asker, DOUBLE, 0, 5000).expect("room")).collect();
        world.pass(world.now % 7 + 3);
        world.unserve(leaves, DOUBLE);
        world.pass(200);
        for ask in asks {
            let seen_by = world.asked[ask as usize].seen_by;
            assert!(seen_by == Some(stays) || seen_by == Some(leaves), "{:?}", world.outcome(ask));
        }
        answer_all(&mut world);
        world.end();
    }
}

/// A responder that leaves fails what it has seen, on the node of the requester as well.
#[test]
fn the_responder_leaves() {
    let (mut world, asker) = nodes(2);
    let there = worker(&mut world, 1);
    let request = world.ask(asker, DOUBLE, 0, 5000).expect("room");
    world.pass(100);
    world.leave(there);
    world.pass(100);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::ResponderGone)));
    world.end();
}

/// The requester hears the timeout of a request whose node has died, and the next one has no responders.
#[test]
fn the_node_of_the_responder_dies() {
    let (mut world, asker) = nodes(2);
    worker(&mut world, 1);
    let request = world.ask(asker, DOUBLE, 0, 500).expect("room");
    world.pass(100);
    assert!(world.asked[request as usize].seen_by.is_some());
    world.kill(1);
    world.pass(300);
    assert_eq!(world.outcome(request), None);
    world.pass(200);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::Timeout)));
    let request = world.ask(asker, DOUBLE, 0, 500).expect("room");
    world.pass(100);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::NoResponders)));
    world.end();
}

/// A requester that has left hears nothing, and its request holds nothing when its time is over.
#[test]
fn the_requester_leaves() {
    let (mut world, asker) = nodes(2);
    worker(&mut world, 1);
    world.ask(asker, DOUBLE, 0, 500).expect("room");
    world.pass(100);
    world.leave(asker);
    answer_all(&mut world);
    assert!(world.life(0).services.sent.is_empty(), "the answer has come");
    let other = world.person(0, 0);
    let request = world.ask(other, DOUBLE, 0, 500).expect("room");
    world.pass(100);
    world.leave(other);
    world.pass(500);
    assert_eq!(world.outcome(request), None);
    assert!(world.life(0).services.sent.is_empty(), "its time is over");
    world.end();
}

/// While NATS is away a responder of the same node answers, also one that is congested, and other requests are refused
/// at once. Afterwards all is as before.
#[test]
fn nats_is_away() {
    let (mut world, asker) = nodes(2);
    let here = worker(&mut world, 0);
    let other = world.person(1, 0);
    (0..2).for_each(|node| world.cut(node, 1000));
    let [near, far] = [asker, other].map(|by| world.ask(by, DOUBLE, 0, 5000).expect("room"));
    world.pass(5);
    assert_eq!(world.asked[near as usize].seen_by, Some(here));
    assert_eq!(world.outcome(far), Some(&Err(RequestError::Overloaded)));
    answer_all(&mut world);
    world.life(0).congested.insert(here);
    let parked = [(); 2].map(|()| world.ask(asker, DOUBLE, 0, 5000).expect("room"));
    world.pass(5);
    world.life(0).congested.clear();
    world.life(0).shards[here.shard].resume(here.member);
    world.pass(5);
    for request in parked {
        assert_eq!(world.asked[request as usize].seen_by, Some(here));
    }
    world.pass(1000);
    let far = world.ask(other, DOUBLE, 0, 5000).expect("room");
    world.pass(100);
    assert_eq!(world.asked[far as usize].seen_by, Some(here));
    answer_all(&mut world);
    world.end();
}

/// A request, and an answer, that are longer than NATS takes end with an error that says so. Nothing else breaks.
#[test]
fn too_large() {
    let (mut world, asker) = nodes(2);
    worker(&mut world, 1);
    let request = world.ask(asker, DOUBLE, MAX_PAYLOAD as usize, 1000).expect("room");
    world.pass(5);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::TooLarge)));
    let request = world.ask(asker, DOUBLE, 0, 1000).expect("room");
    world.pass(100);
    let (person, id, _) = world.life(1).open.pop().expect("it is asked");
    let long = "x".repeat(MAX_PAYLOAD as usize).into();
    world.life(1).shards[person.shard].reply(person.member, id, Err(long)).expect("it has it");
    world.pass(100);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::TooLarge)));
    world.end();
}

/// Requests without an answer are bounded. What is refused is counted, and what ends makes room.
#[test]
fn requests_on_their_way_are_bounded() {
    let (mut world, _) = nodes(2);
    worker(&mut world, 1);
    let now = world.at(world.now);
    let Life { services, link, mail, shared, .. } = world.life(0);
    let request = |size| super::super::Outgoing {
        shard: 0,
        waiting: murre_router::services::Key { index: 0, generation: 0 },
        service: DOUBLE.into(),
        deadline: now + Duration::from_millis(100),
        message: vec![0; size],
    };
    for _ in 0..super::super::SENT_MAX {
        services.request(request(5), link, mail, now);
        link.out().clear();
    }
    assert_eq!(shared.counts.requests_refused.load(Relaxed), 0);
    services.request(request(5), link, mail, now);
    assert_eq!(shared.counts.requests_refused.load(Relaxed), 1);
    services.tick(now + Duration::from_millis(100));
    assert_eq!((services.sent.len(), services.bytes), (0, 0));
    let fit = super::super::SENT_BYTES_MAX / 4096;
    for _ in 0..fit + 1 {
        services.request(request(4096), link, mail, now);
        link.out().clear();
    }
    assert_eq!((services.sent.len(), shared.counts.requests_refused.load(Relaxed)), (fit, 2));
}

/// Messages that no node has sent are counted and ignored; an answer that cannot be read fails its request.
#[test]
fn bad_bytes() {
    let (mut world, asker) = nodes(2);
    worker(&mut world, 1);
    let subject = world.life(1).services.names.service(DOUBLE);
    let now = world.now;
    for (reply, payload) in
        [("", "junk"), ("x.y ", "junk"), ("murre.c.a.0000000000000001.0 ", "junk")]
    {
        let text = format!("PUB {subject} {reply}{}\r\n{payload}\r\n", payload.len());
        world.broker.send(0, text.as_bytes(), now);
    }
    let request = world.ask(asker, DOUBLE, 0, 1000).expect("room");
    world.pass(1);
    world.broker.send(1, b"PUB murre.c.a.0000000000000001.0 4\r\njunk\r\n", now);
    world.broker.send(1, b"PUB murre.c.a.0000000000000001.7 4\r\njunk\r\n", now);
    world.pass(100);
    assert_eq!(world.outcome(request), Some(&Err(RequestError::Overloaded)));
    let malformed =
        |world: &mut World, node| world.life(node).shared.counts.malformed.load(Relaxed);
    assert_eq!((malformed(&mut world, 0), malformed(&mut world, 1)), (1, 3));
}
