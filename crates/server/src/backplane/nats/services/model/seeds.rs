//! Runs of many seeds.

use std::panic::catch_unwind;

use super::*;

/// Whatever members, nodes and connections do, what is promised holds, and each kind of outcome is common.
#[test]
fn every_request_has_one_outcome() {
    let mut sums = BTreeMap::<_, u64>::new();
    for seed in 0..seeds() {
        let ran = catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        for (what, count) in ran {
            *sums.entry(what).or_default() += count;
        }
    }
    for what in [
        "request",
        "response",
        "no responders",
        "overloaded",
        "responder gone",
        "responder failed",
        "timeout",
    ] {
        assert!(sums.get(what) > Some(&(seeds() / 4)), "{what} is rare in {sums:?}");
    }
}

fn seeds() -> u64 {
    std::env::var("MURRE_SEEDS").map_or(150, |seeds| seeds.parse().expect("a number"))
}

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut rng = Rng::with_seed(seed ^ 0xABCD);
    let mut world = World::new(rng.usize(1..4), seed);
    for _ in 0..rng.usize(1..4) {
        for _ in 0..rng.usize(10..100) {
            act(&mut world, &mut rng);
            let pause = [2, 2, 20, 100][rng.usize(..4)];
            world.pass(rng.u64(0..pause));
        }
        calm(&mut world);
        check(&mut world, &mut rng);
    }
    world.end();
    std::mem::take(&mut world.outcomes)
}

fn act(world: &mut World, rng: &mut Rng) {
    let node = rng.usize(..world.nodes.len());
    if world.nodes[node].is_none() {
        if rng.u8(..) < 80 {
            world.start(node);
        }
        return;
    }
    let service = SERVICES[rng.usize(..2)];
    let mut present: Vec<_> = world.life(node).present.iter().copied().collect();
    rng.shuffle(&mut present);
    let Some(&person) = present.first().filter(|_| rng.u8(..) > 10) else {
        _ = world.person(node, rng.usize(..usize::from(SHARDS)));
        return;
    };
    match rng.u8(..100) {
        0..12 => world.serve(person, service),
        12..18 => world.unserve(person, service),
        18..55 => _ = world.ask(person, service, rng.usize(..40), rng.u64(1..800)),
        55..82 => {
            if let Some(&(person, request, number)) = world.life(node).open.first() {
                world.reply(person, request, number, rng.u8(..) < 200);
            }
        }
        82..88 => world.leave(person),
        88..92 => _ = world.life(node).congested.insert(person),
        92..96 => resume(world, node),
        96..99 => world.cut(node, rng.u64(1..500)),
        _ => world.kill(node),
    }
}

fn resume(world: &mut World, node: usize) {
    let life = world.life(node);
    for person in std::mem::take(&mut life.congested) {
        life.shards[person.shard].resume(person.member);
    }
}

/// All connections are there, and all that was asked has an outcome.
fn calm(world: &mut World) {
    for node in 0..world.nodes.len() {
        if world.nodes[node].is_some() {
            resume(world, node);
        }
    }
    world.pass(2000);
    for asked in &world.asked {
        let life = world.nodes[asked.by.node].as_ref().filter(|life| life.number == asked.by.life);
        let waits = life.is_some_and(|life| life.present.contains(&asked.by));
        assert!(!waits || asked.outcome.is_some(), "{asked:?}");
    }
}

/// A request reaches a responder of its own node, or else one of another node, if there is one.
fn check(world: &mut World, rng: &mut Rng) {
    for node in 0..world.nodes.len() {
        if world.nodes[node].is_none() {
            continue;
        }
        let service = SERVICES[rng.usize(..2)];
        let asker = world.person(node, 0);
        let offers: Vec<_> = world.nodes.iter().flatten().flat_map(|life| &life.offers).collect();
        let nodes: BTreeSet<_> =
            offers.iter().filter(|(_, of)| *of == service).map(|(of, _)| of.node).collect();
        let request = world.ask(asker, service, 0, 1500).expect("room");
        world.pass(100);
        match world.asked[request as usize].seen_by {
            Some(person) if nodes.contains(&node) => assert_eq!(person.node, node),
            Some(person) => assert!(nodes.contains(&person.node)),
            None => {
                assert_eq!(world.outcome(request), Some(&Err(RequestError::NoResponders)));
                assert!(nodes.is_empty(), "{nodes:?} offer {service:?}");
            }
        }
    }
}
