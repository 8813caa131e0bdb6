//! Directed cases: what the broker does, step by step, and what one subscriber hears.

use murre_router::channels::{
    Arrived, ChannelError, ChannelLimits, Channels, Event, FetchReason, Fetched,
    FetchedPublication, Head, Place, Position, Recovery, Start,
};

use super::broker::{Command, Commands};
use super::{payload, rules};
use crate::oracles::number;

const CHANNEL: &str = "long:oldest";

/// One shard with its commands to the broker.
struct Node {
    channels: Channels,
    commands: Commands,
}

/// What a member hears: numbers, and 0 for a loss.
#[derive(Default)]
struct Ear(Vec<u32>);

impl murre_router::channels::Subscribers<()> for Ear {
    fn offer(
        &mut self,
        _: u32,
        publication: &murre_router::channels::Publication,
        (): &mut (),
    ) -> murre_router::channels::Taken {
        self.0.push(number(&publication.payload));
        murre_router::channels::Taken::Yes
    }

    fn overrun(&mut self, _: u32, _: &std::sync::Arc<str>) -> murre_router::channels::Overrun {
        murre_router::channels::Overrun::SkipToOldest
    }

    fn dropped(&mut self, _: u32, _: &std::sync::Arc<str>, _: u64) {
        self.0.push(0);
    }
}

/// The newest publication of the channel, which the broker keeps.
fn head(epoch: u32, newest: u64) -> Head {
    Head { epoch, newest, is_kept: true }
}

/// Publications with their offsets as their numbers.
fn publications(offsets: &[u64]) -> Vec<FetchedPublication> {
    let publication =
        |&offset: &u64| FetchedPublication { offset, age_ms: 0, payload: payload(offset as u32) };
    offsets.iter().map(publication).collect()
}

/// An answer after an offset that is not a part.
fn fetched_in(
    epoch: u32,
    after: u64,
    publications: Vec<FetchedPublication>,
    is_complete: bool,
) -> Fetched {
    let reached = publications.last().map_or(after, |last| last.offset);
    Fetched { epoch, publications, reached, has_more: false, is_complete }
}

impl Node {
    fn new() -> Self {
        let commands = Commands::default();
        let channels = Channels::new(0, 1, 1, rules, ChannelLimits::default());
        let channels = channels.with_backplane(commands.of_shard(0));
        Node { channels, commands }
    }

    /// With a member 1 that is subscribed from the head at this offset on.
    fn open(newest: u64) -> Self {
        let mut node = Node::new();
        node.subscribe(1, Start::Head);
        assert_eq!(node.begun(), None, "it waits for the broker");
        node.channels.opened(CHANNEL, head(5, newest), 0);
        let position = Position { epoch: 5, offset: newest };
        assert_eq!(node.begun(), Some(Recovery { position, recovered: None }));
        while node.commands.next().is_some() {}
        node
    }

    fn subscribe(&mut self, member: u32, start: Start) {
        assert_eq!(self.channels.subscribe(member, CHANNEL, start, member, 0), Ok(()));
    }

    fn begun(&mut self) -> Option<Recovery> {
        match self.channels.event()? {
            Event::Subscribed { recovery, .. } => recovery,
            event => panic!("{event:?}"),
        }
    }

    /// The publication with its offset as its number arrives.
    fn arrive(&mut self, offset: u64, previous: u64) {
        let place = Place { position: Position { epoch: 5, offset }, previous };
        let arrived = Arrived { payload: payload(offset as u32), except: None, place: Some(place) };
        self.channels.arrived(CHANNEL, arrived, 0, 0);
    }

    /// The offset after which the broker was asked, if it was.
    fn asked(&self) -> Option<u64> {
        match self.commands.next()?.1 {
            Command::Fetch(_, _, (after, _), ..) => Some(after),
            command => panic!("{command:?}"),
        }
    }

    /// For how long publications may have been missed, of the next request.
    fn missed_ms(&self) -> u64 {
        match self.commands.next() {
            Some((_, Command::Fetch(.., FetchReason::Gap { missed_ms }, _))) => missed_ms,
            command => panic!("{command:?}"),
        }
    }

    /// Answers with a part.
    fn part(&mut self, offsets: &[u64]) {
        let publications = publications(offsets);
        let fetched = Fetched { has_more: true, ..fetched_in(5, 0, publications, true) };
        self.channels.fetched(murre_router::channels::FetchId(0), Ok(fetched), 0);
    }

    fn answer(&mut self, offsets: &[u64], is_complete: bool) {
        self.answer_at(0, offsets, is_complete);
    }

    fn answer_at(&mut self, id: u32, offsets: &[u64], is_complete: bool) {
        let fetched = fetched_in(5, 0, publications(offsets), is_complete);
        self.channels.fetched(murre_router::channels::FetchId(id), Ok(fetched), 0);
    }

    fn heard(&mut self) -> Vec<u32> {
        let mut ear = Ear::default();
        while self.channels.deliver(9, 0, &mut ear) {}
        for member in 1..5 {
            self.channels.pull(member, 0, &mut ear);
        }
        ear.0
    }
}

/// Publications come once and in order: what comes again, after a reconnection for instance, is left out. A
/// publication without a previous one follows as long as nothing was lost.
#[test]
fn repeats_and_expired_publications() {
    let mut node = Node::open(3);
    for (offset, previous) in [(3, 0), (7, 3), (7, 3), (3, 0), (9, 7), (20, 0)] {
        node.arrive(offset, previous);
    }
    assert_eq!((node.heard(), node.asked()), (vec![7, 9, 20], None));
    node.channels.opened(CHANNEL, head(5, 20), 0);
    assert_eq!((node.heard(), node.asked()), (vec![], None));
}

/// After a loss a publication without a previous one proves nothing: the broker is asked, and readers are told
/// if it cannot say.
#[test]
fn after_a_loss_nothing_proves_nothing() {
    for is_complete in [true, false] {
        let mut node = Node::open(3);
        node.channels.lost(if is_complete { None } else { Some(CHANNEL) }, 0);
        node.arrive(9, 0);
        assert_eq!((node.heard(), node.asked()), (vec![], Some(3)));
        node.answer(&[9], is_complete);
        assert_eq!(node.heard(), if is_complete { vec![9] } else { vec![0, 9] });
        assert_eq!(node.channels.stats().gaps, 0);
    }
}

/// A gap is filled before anything later is delivered. What is there follows without a word; a reader is told
/// once of what is not. Then what was held back follows.
#[test]
fn gaps_are_filled_in_order() {
    for is_complete in [true, false] {
        let mut node = Node::open(3);
        node.arrive(8, 6);
        node.arrive(9, 8);
        assert_eq!((node.heard(), node.asked(), node.asked()), (vec![], Some(3), None));
        node.arrive(12, 9);
        node.answer(&[6, 8], is_complete);
        let expected = [6, 8, 9, 12];
        let heard = node.heard();
        assert_eq!(
            heard,
            if is_complete { expected.to_vec() } else { [&[0], &expected[..]].concat() }
        );
        assert_eq!((node.asked(), node.channels.stats().held_back_bytes), (None, 0));
    }
}

/// The broker's answer may be older than what it has sent. It is asked again, some times.
#[test]
fn a_stale_answer_is_asked_again() {
    let mut node = Node::open(3);
    node.arrive(9, 8);
    for now in 1..=3 {
        assert_eq!(node.asked(), Some(3));
        node.answer(&[], true);
        assert_eq!(node.heard(), []);
        node.channels.expire(now * 1000);
    }
    assert_eq!(node.asked(), Some(3));
    node.answer(&[], true);
    assert_eq!((node.heard(), node.channels.stats().gaps), (vec![0, 9], 0));
}

/// An error of the broker is not the end: the gap is fetched again, and a join that needs it is refused.
#[test]
fn errors_are_tried_again() {
    let mut node = Node::open(3);
    node.subscribe(2, Start::After(Position { epoch: 5, offset: 4 }));
    assert_eq!((node.begun(), node.asked()), (None, Some(3)));
    let id = murre_router::channels::FetchId(0);
    node.channels.fetched(id, Err(ChannelError::Overloaded), 0);
    let refused = Event::Refused { member: Some(2), ticket: 2, error: ChannelError::Overloaded };
    assert_eq!(node.channels.event(), Some(refused));
    assert!(!node.channels.is_subscribed(2, CHANNEL));
    node.channels.expire(1000);
    assert_eq!(node.asked(), Some(3));
    node.answer(&[4], true);
    assert_eq!(node.heard(), [4]);
}

/// Joins that need older publications wait for one answer, and get what they have missed; those whose position
/// the broker does not know any more do not. Joins of a newer position than this process has wait, too.
#[test]
fn joins_wait_for_the_broker() {
    let mut node = Node::open(8);
    node.arrive(9, 8);
    let after = |offset| Start::After(Position { epoch: 5, offset });
    for (member, offset) in [(2, 6), (3, 5), (4, 8)] {
        node.subscribe(member, after(offset));
    }
    assert_eq!((node.asked(), node.asked()), (Some(6), None));
    assert_eq!(node.begun().and_then(|recovery| recovery.recovered), Some(true), "it is here");
    node.answer(&[7, 8, 9], true);
    assert_eq!(node.begun().and_then(|recovery| recovery.recovered), Some(true));
    assert_eq!((node.begun(), node.asked()), (None, Some(5)));
    node.answer(&[7, 8, 9], false);
    assert_eq!(node.begun().and_then(|recovery| recovery.recovered), Some(false));
    let mut heard = node.heard();
    heard.sort_unstable();
    assert_eq!(heard, [7, 8, 9, 9, 9]);
}

/// Numbers from outside are any numbers: nothing overflows, and the greatest asks for nothing.
#[test]
fn the_greatest_numbers() {
    let mut node = Node::open(u64::MAX - 1);
    node.arrive(u64::MAX, u64::MAX - 1);
    let after = |epoch, offset| Start::After(Position { epoch, offset });
    node.subscribe(2, after(5, u64::MAX));
    assert_eq!(node.begun().and_then(|recovery| recovery.recovered), Some(true));
    node.subscribe(3, Start::AfterOffset(u64::MAX));
    node.subscribe(4, after(u32::MAX, u64::MAX));
    (0..2).for_each(|_| _ = node.begun());
    assert_eq!((node.asked(), node.heard()), (None, vec![u32::MAX]));
    let mut node = Node::open(3);
    node.subscribe(2, after(5, u64::MAX));
    assert_eq!(node.begun().and_then(|recovery| recovery.recovered), Some(false));
    assert_eq!(node.asked(), None);
}

/// An answer that comes after everybody has left, or after the channel was opened again, changes nothing.
#[test]
fn answers_after_everybody_has_left() {
    let mut node = Node::open(3);
    node.arrive(9, 8);
    assert_eq!(node.asked(), Some(3));
    node.channels.leave(1, |_| ());
    assert_eq!(node.channels.stats().owned, 0);
    node.commands.next();
    node.subscribe(2, Start::Head);
    node.answer(&[8, 9], false);
    node.channels.opened(CHANNEL, head(5, 9), 0);
    assert_eq!(node.begun().map(|recovery| recovery.position.offset), Some(9));
    assert_eq!((node.heard(), node.channels.stats().losses), (vec![], 0));
}

/// What waits behind a gap is bounded: the rest is fetched again.
#[test]
fn what_waits_is_bounded() {
    let mut node = Node::open(3);
    node.arrive(10, 9);
    (11..9000).for_each(|offset| node.arrive(offset, offset - 1));
    assert!(node.channels.stats().held_back_bytes <= 64 << 10);
    assert_eq!((node.asked(), node.asked()), (Some(3), None));
    node.answer(&[9, 10], true);
    let heard = node.heard();
    let last = u64::from(*heard.last().expect("some were held"));
    assert_eq!((node.asked(), last < 8999), (Some(last), true));
    node.answer(&(last + 1..9000).collect::<Vec<_>>(), true);
    assert_eq!(node.heard().last(), Some(&8999));
    assert_eq!(node.channels.stats().held_back_bytes, 0);
}

/// A gap that is too large for one answer is filled in parts, each from the last one on: nothing is read twice, and what
/// was held back follows the last part.
#[test]
fn a_gap_comes_in_parts() {
    let mut node = Node::open(3);
    node.arrive(90, 80);
    assert_eq!(node.asked(), Some(3));
    for (offset, asked) in [(10, 10), (20, 20)] {
        node.part(&[offset]);
        assert_eq!((node.heard(), node.asked()), (vec![offset as u32], Some(asked)));
    }
    // One that cannot be had is asked for again.
    let id = murre_router::channels::FetchId(0);
    node.channels.fetched(id, Err(ChannelError::Overloaded), 0);
    node.channels.expire(1000);
    assert_eq!(node.asked(), Some(20));
    node.answer(&[80, 90], true);
    assert_eq!((node.heard(), node.asked()), (vec![80, 90], None));
    assert_eq!((node.channels.stats().gaps, node.channels.stats().losses), (0, 0));
}

/// The broker is told for how long publications may have been missed: since the first loss that was not repaired, or
/// since the gap began.
#[test]
fn the_broker_is_told_since_when_publications_are_missing() {
    let mut node = Node::open(3);
    node.channels.lost(None, 100);
    node.channels.lost(None, 5000);
    node.channels.opened(CHANNEL, head(5, 4), 6000);
    assert_eq!(node.missed_ms(), 5900);
    let id = murre_router::channels::FetchId(0);
    node.channels.fetched(id, Err(ChannelError::Overloaded), 7000);
    node.channels.expire(80_000);
    assert_eq!(node.missed_ms(), 79_900, "it is still missing");
    node.answer(&[4], true);
    assert_eq!(node.heard(), [4]);
    node.channels.lost(Some(CHANNEL), 85_000);
    node.channels.opened(CHANNEL, head(5, 5), 90_000);
    assert_eq!(node.missed_ms(), 5000, "what was before is repaired");
    node.answer(&[5], true);
    let place = Place { position: Position { epoch: 5, offset: 9 }, previous: 8 };
    let arrived = Arrived { payload: payload(9), except: None, place: Some(place) };
    node.channels.arrived(CHANNEL, arrived, 89_000, 90_000);
    assert_eq!(node.missed_ms(), 1000, "it was on its way for a second");
    node.channels.fetched(id, Err(ChannelError::Overloaded), 91_000);
    node.channels.expire(95_000);
    assert_eq!(node.missed_ms(), 6000);
}

/// The newest publication is known to be there, but the answer of a replica that is behind has it not: it is asked for
/// again, and does not wait for the next publication.
#[test]
fn a_replica_that_is_behind_is_asked_again() {
    let mut node = Node::open(3);
    node.channels.lost(None, 0);
    node.channels.opened(CHANNEL, head(5, 9), 0);
    assert_eq!(node.asked(), Some(3));
    node.answer(&[7], true);
    assert_eq!((node.heard(), node.asked()), (vec![7], None));
    node.channels.expire(1000);
    assert_eq!(node.asked(), Some(7));
    node.answer(&[9], true);
    assert_eq!((node.heard(), node.channels.stats().gaps), (vec![9], 0));
    // The last of those that had no room, too.
    node.arrive(20, 15);
    (21..9000).for_each(|offset| node.arrive(offset, offset - 1));
    assert_eq!(node.asked(), Some(9));
    node.answer(&[15, 20], true);
    let last = u64::from(*node.heard().last().expect("some were held"));
    assert_eq!(node.asked(), Some(last));
    node.answer(&(last + 1..8999).collect::<Vec<_>>(), true);
    assert_eq!((node.heard().last(), node.asked()), (Some(&8998), None));
    node.channels.expire(2000);
    assert_eq!(node.asked(), Some(8998));
    node.answer(&[8999], true);
    assert_eq!((node.heard(), node.channels.stats().losses), (vec![8999], 0));
}

/// While a shard does not take more, the broker is not asked for what could not be passed on.
#[test]
fn gaps_wait_for_room() {
    let mut node = Node::new();
    let limits = ChannelLimits { deliveries_max: 4, ..ChannelLimits::default() };
    let channels = Channels::new(0, 1, 1, rules, limits);
    node.channels = channels.with_backplane(node.commands.of_shard(0));
    node.subscribe(1, Start::Head);
    node.channels.opened(CHANNEL, head(5, 0), 0);
    node.begun();
    while node.commands.next().is_some() {}
    (1..=4).for_each(|offset| node.arrive(offset, offset - 1));
    node.arrive(9, 8);
    node.channels.expire(1000);
    assert_eq!(node.asked(), None, "there is no room");
    assert_eq!(node.heard(), [1, 2, 3, 4]);
    node.channels.expire(2000);
    assert_eq!(node.asked(), Some(4));
    node.answer(&[8, 9], true);
    assert_eq!(node.heard(), [8, 9]);
}

/// When the broker counts anew, readers are told once, and hear what it has now.
#[test]
fn another_epoch() {
    let mut node = Node::open(3);
    node.channels.lost(None, 0);
    node.channels.opened(CHANNEL, head(6, 1), 0);
    assert_eq!(node.asked(), Some(0));
    // It was on its way.
    node.arrive(4, 3);
    let publications = vec![FetchedPublication { offset: 1, age_ms: 0, payload: payload(1) }];
    let fetched = fetched_in(6, 0, publications, false);
    node.channels.fetched(murre_router::channels::FetchId(0), Ok(fetched), 0);
    assert_eq!(node.heard(), [0, 1]);
}

/// A channel that cannot be opened refuses its joins, and forgets them.
#[test]
fn unopened_channels_refuse() {
    let mut node = Node::new();
    (1..3).for_each(|member| node.subscribe(member, Start::Head));
    node.channels.unopened(CHANNEL, 0);
    for member in 1..3 {
        let (member, ticket) = (Some(member), member);
        let error = ChannelError::Overloaded;
        assert_eq!(node.channels.event(), Some(Event::Refused { member, ticket, error }));
    }
    assert_eq!(node.channels.stats(), murre_router::channels::Stats::default());
}
