//! Runs of many seeds.

use std::panic::catch_unwind;

use super::*;

const CHANNELS: [&str; 4] = ["a", "b", "counts", "grace"];
/// Milliseconds after which all must be known again: two leases, the beat that shows a loss, questions that are
/// repeated, and the marks.
const SETTLING: u64 = 20_000;

/// Whatever happens to nodes and to the bus between them: when all has been calm for some time, every watcher
/// knows exactly the members of the nodes that live. Each kind of trouble is common in the runs.
#[test]
fn watchers_know_the_members_of_all_nodes() {
    let mut sums = [0; 4];
    for seed in 0..seeds() {
        let ran = catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        sums.iter_mut().zip(ran).for_each(|(sum, ran)| *sum += ran);
    }
    assert!(sums.iter().all(|sum| *sum > seeds() / 4), "{sums:?}");
}

/// When the broker was away for all, and each node has connected again within 8 seconds, no node has counted as
/// dead and no watcher was told of a leave. A node that is killed afterwards is dead within 6 seconds.
#[test]
fn an_outage_of_the_broker_buries_nobody() {
    for seed in 0..seeds() {
        catch_unwind(|| outage(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

fn outage(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let nodes = rng.usize(2..5);
    let mut world = World::new(nodes, seed);
    for node in 0..nodes {
        world.join(node, "a", "ann");
        world.watch(node, 0, 1, "a", Watch::Members);
    }
    world.pass(5000);
    for _ in 0..2 {
        let back = world.now + rng.u64(10..12_000);
        for node in &mut world.nodes {
            node.cut_until = back + rng.u64(0..8000);
        }
        // The broker is back at once for one of them.
        world.nodes[rng.usize(..nodes)].cut_until = back;
        world.pass(back - world.now + 10_000);
        world.check().unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(world.sum(|counts| of(&counts.gone)), 0);
        let leaves =
            |life: &Life| life.watchers.iter().map(|watchers| watchers.leaves).sum::<u64>();
        assert!(world.nodes.iter().all(|node| node.life.as_ref().map(leaves) == Some(0)));
        world.pass(rng.u64(0..10_000));
    }
    world.pass(10_000);
    world.kill(0);
    world.pass(6000);
    assert_eq!(world.sum(|counts| of(&counts.gone)), nodes as u64 - 1);
    world.check().unwrap_or_else(|why| panic!("{why}"));
}

fn seeds() -> u64 {
    std::env::var("MURRE_SEEDS").map_or(60, |seeds| seeds.parse().expect("a number"))
}

fn run(seed: u64) -> [u64; 4] {
    let mut rng = Rng::with_seed(seed ^ 0xABCD);
    let mut world = World::new(rng.usize(2..5), seed);
    for _ in 0..rng.usize(1..4) {
        world.repeats = rng.bool();
        for _ in 0..rng.usize(10..150) {
            act(&mut world, &mut rng);
            let pause = [0, 0, 30, 300, 2000][rng.usize(..5)];
            world.pass(rng.u64(0..=pause));
        }
        world.repeats = false;
        calm(&mut world);
        world.check().unwrap_or_else(|why| panic!("{why}"));
        lists(&mut world, &mut rng);
    }
    let counts = |count: fn(&Counts) -> u64| world.sum(count);
    [
        counts(|counts| of(&counts.gone)),
        counts(|counts| of(&counts.gaps)),
        counts(|counts| of(&counts.losses)),
        counts(|counts| of(&counts.told)),
    ]
}

/// The pages of any node have each member of all nodes once, and any node finds the sessions of a user on all.
fn lists(world: &mut World, rng: &mut Rng) {
    let living: Vec<_> =
        (0..world.nodes.len()).filter(|at| world.nodes[*at].life.is_some()).collect();
    let Some(&at) = living.get(rng.usize(..living.len().max(1))) else { return };
    let lives = world.nodes.iter().filter_map(|node| node.life.as_ref());
    let sessions = lives.flat_map(|life| &life.members).filter(|(_, (name, _))| *name == *"ann");
    let mut sessions: Vec<_> = sessions.map(|((_, origin), _)| *origin).collect();
    sessions.sort_unstable();
    assert_eq!(world.find(at, "ann"), sessions);
    for channel in CHANNELS {
        let (listed, count) = world.list(at, channel, rng.u32(1..5));
        let mut listed: Vec<_> = listed.iter().map(|member| member.origin.0).collect();
        listed.sort_unstable();
        let lives = world.nodes.iter().filter_map(|node| node.life.as_ref());
        let members = lives.flat_map(|life| life.members.keys());
        let mut all: Vec<_> =
            members.filter(|(of, _)| *of == channel).map(|(_, origin)| *origin).collect();
        all.sort_unstable();
        assert_eq!((count.clients, listed), (all.len() as u64, all), "{channel}");
    }
}

fn calm(world: &mut World) {
    for node in 0..world.nodes.len() {
        world.nodes[node].stopped_until = 0;
        world.nodes[node].cut_until = 0;
    }
    world.lossy_until.fill(0);
    world.pass(SETTLING);
}

fn act(world: &mut World, rng: &mut Rng) {
    let at = rng.usize(..world.nodes.len());
    if world.nodes[at].life.is_none() {
        if rng.u8(..) < 80 {
            world.start(at);
        }
        return;
    }
    let channel = CHANNELS[rng.usize(..CHANNELS.len())];
    let user = ["ann", "bob", "eve"][rng.usize(..3)];
    let mut members: Vec<_> = world.life(at).members.keys().copied().collect();
    rng.shuffle(&mut members);
    match rng.u8(..100) {
        0..35 => _ = world.join(at, channel, user),
        35..60 => {
            if let Some(&(channel, origin)) = members.first() {
                let how = [Departure::Left, Departure::Lost][rng.usize(..2)];
                world.leave(at, channel, origin, how);
            }
        }
        60..65 => {
            if let Some(&(channel, origin)) = members.first() {
                let (user, _) = world.life(at).members[&(channel, origin)].clone();
                world.update(at, channel, origin, &user, Some(rng.u64(..9)));
            }
        }
        65..78 => {
            let watch = [Watch::Members, Watch::Members, Watch::Counts][rng.usize(..3)];
            world.watch(at, rng.u16(..SHARDS), rng.u32(..2), channel, watch);
        }
        78..86 => {
            let key = world.life(at).watches.keys().next().copied();
            if let Some((shard, slot, channel)) = key {
                world.unwatch(at, shard, slot, channel);
            }
        }
        86..90 => world.nodes[at].cut_until = world.now + rng.u64(10..9000),
        90..93 => {
            world.nodes[at].stopped_until = world.now + rng.u64(10..9000);
            // The server may have given up on it.
            if rng.bool() {
                world.nodes[at].cut_until = world.nodes[at].stopped_until;
                world.nodes[at].was_cut = true;
            }
        }
        93..98 => {
            let wire = world.wire(at, rng.usize(..world.nodes.len()));
            world.lossy_until[wire] = world.now + rng.u64(10..9000);
        }
        _ => world.kill(at),
    }
}
