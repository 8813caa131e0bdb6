//! Single cases.

use super::*;

fn known(world: &mut World, node: usize) -> BTreeSet<u64> {
    match &world.life(node).watchers[0].known[&(1, "a".into())] {
        Known::Members(members) => members.values().map(|member| member.origin.0).collect(),
        other => panic!("{other:?}"),
    }
}

/// Two nodes with a member each, and a watcher on the first.
fn two() -> (World, [u64; 2]) {
    let mut world = World::new(2, 1);
    world.watch(0, 0, 1, "a", Watch::Members);
    let members = [world.join(0, "a", "ann"), world.join(1, "a", "bob")];
    world.pass(3000);
    assert_eq!(known(&mut world, 0), BTreeSet::from(members));
    (world, members)
}

/// The members of a node that dies are there until its lease is over, and gone soon after. When it starts again
/// with its members, they are there.
#[test]
fn a_dead_node_has_no_members() {
    let (mut world, [ann, bob]) = two();
    world.kill(1);
    world.pass(3500);
    assert_eq!(known(&mut world, 0), BTreeSet::from([ann, bob]), "its lease is not over");
    world.pass(2000);
    assert_eq!(known(&mut world, 0), BTreeSet::from([ann]));
    world.start(1);
    let eve = world.join(1, "a", "eve");
    world.pass(1500);
    assert_eq!(known(&mut world, 0), BTreeSet::from([ann, eve]));
}

/// A node that says goodbye has no members at once.
#[test]
fn a_node_that_ends_says_so() {
    let (mut world, [ann, _]) = two();
    world.life(1).exchange.end();
    world.step(1);
    world.kill(1);
    world.pass(300);
    assert_eq!(known(&mut world, 0), BTreeSet::from([ann]));
}

/// While the broker is away for all, no node counts as dead, and no member leaves.
#[test]
fn nobody_dies_while_the_broker_is_away() {
    let (mut world, members) = two();
    let until = world.now + 60_000;
    world.nodes.iter_mut().for_each(|node| node.cut_until = until);
    world.pass(60_000);
    let eve = world.join(1, "a", "eve");
    world.pass(3000);
    assert_eq!(known(&mut world, 0), members.into_iter().chain([eve]).collect());
    assert_eq!(world.sum(|counts| of(&counts.gone)), 0);
    assert_eq!(world.life(0).watchers.iter().map(|watchers| watchers.leaves).sum::<u64>(), 0);
}

/// A node that stood still for longer than its lease has its members again, and knows those of others.
#[test]
fn a_node_that_stood_still() {
    for stopped in [0, 1] {
        let (mut world, [ann, bob]) = two();
        world.watch(1, 0, 1, "a", Watch::Members);
        world.nodes[stopped].stopped_until = world.now + 8000;
        world.pass(7500);
        let one = [ann, bob][1 - stopped];
        assert_eq!(known(&mut world, 1 - stopped), BTreeSet::from([one]));
        world.pass(3000);
        for node in [0, 1] {
            assert_eq!(known(&mut world, node), BTreeSet::from([ann, bob]), "{stopped}");
        }
    }
}

/// A statement that is lost, with nothing after it, is noticed by its mark.
#[test]
fn a_mark_shows_the_last_loss() {
    let (mut world, [ann, bob]) = two();
    let wire = world.wire(1, 0);
    // Between two beats.
    while world.wires[wire].is_empty() {
        world.pass(STEP);
    }
    world.pass(100);
    world.lossy_until[wire] = world.now + 500;
    let eve = world.join(1, "a", "eve");
    world.pass(1500);
    assert_eq!(known(&mut world, 0), BTreeSet::from([ann, bob]));
    assert_eq!(world.sum(|counts| of(&counts.losses)), 0, "no beat is lost");
    world.pass(4000);
    assert_eq!(known(&mut world, 0), BTreeSet::from([ann, bob, eve]));
}

/// Members that do not fit into one message come in several, and replace what was known as one.
#[test]
fn members_in_parts() {
    let mut world = World::new(2, 1);
    let text = "x".repeat(1 << 10);
    let users: Vec<String> = (0..700).map(|user| format!("{user}{text}")).collect();
    for user in &users {
        world.join(1, "grace", user);
        world.pass(STEP);
    }
    world.watch(0, 0, 1, "grace", Watch::Members);
    world.pass(3000);
    world.check().unwrap_or_else(|why| panic!("{why:.200}"));
    let leaves = |world: &mut World| {
        world.life(0).watchers.iter().map(|watchers| watchers.leaves).sum::<u64>()
    };
    assert_eq!(leaves(&mut world), 0);
    world.life(0).exchange.lost(0);
    world.pass(3000);
    world.check().unwrap_or_else(|why| panic!("{why:.200}"));
    assert_eq!(leaves(&mut world), 0, "nobody leaves while all are read again");
}

/// A count is told once, also if the numbers of other nodes change, and an idle channel tells nothing.
#[test]
fn counts_do_not_echo() {
    let mut world = World::new(3, 1);
    (0..3).for_each(|node| world.watch(node, 0, 1, "counts", Watch::Counts));
    (0..3).for_each(|node| _ = world.join(node, "counts", "ann"));
    world.pass(5000);
    let before = world.sum(|counts| of(&counts.told));
    world.join(0, "counts", "bob");
    world.pass(10_000);
    assert_eq!(world.sum(|counts| of(&counts.told)) - before, 1);
    world.check().expect("known");
}

/// Bytes that are no message, and messages on a wrong subject, are counted and ignored.
#[test]
fn bad_bytes() {
    let (mut world, members) = two();
    let channel = Some(Arc::from("a"));
    let exchange = &mut world.nodes[0].life.as_mut().expect("it lives").exchange;
    for bytes in [&b""[..], b"\x01", b"{}", &[0xFF; 99]] {
        exchange.hear(None, bytes, 0);
        exchange.hear(channel.as_ref(), bytes, 0);
    }
    let bye = super::super::wire::Message { from: 2, body: super::super::wire::Body::Bye };
    exchange.hear(channel.as_ref(), &bye.encode(), 0);
    world.pass(1000);
    assert_eq!(of(&world.life(0).counts.malformed), 9);
    assert_eq!(known(&mut world, 0), BTreeSet::from(members));
}
