//! Directed cases: what the broker does, step by step, and what one subscriber hears.

use murre_router::channels::{
    Arrived, ChannelError, ChannelLimits, Channels, Event, Fetched, FetchedPublication, Head,
    Place, Position, Recovery, Start,
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
        node.channels.opened(CHANNEL, Head { epoch: 5, newest }, 0);
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
        self.channels.arrived(CHANNEL, arrived, 0);
    }

    /// The offset after which the broker was asked, if it was.
    fn asked(&self) -> Option<u64> {
        match self.commands.next()?.1 {
            Command::Fetch(_, _, after, _) => Some(after),
            command => panic!("{command:?}"),
        }
    }

    fn answer(&mut self, offsets: &[u64], is_complete: bool) {
        self.answer_at(0, offsets, is_complete);
    }

    fn answer_at(&mut self, id: u32, offsets: &[u64], is_complete: bool) {
        let fetched = offsets.iter().map(|&offset| FetchedPublication {
            offset,
            age_ms: 0,
            payload: payload(offset as u32),
        });
        let fetched = Fetched { epoch: 5, publications: fetched.collect(), is_complete };
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
    node.channels.opened(CHANNEL, Head { epoch: 5, newest: 20 }, 0);
    assert_eq!((node.heard(), node.asked()), (vec![], None));
}

/// After a loss a publication without a previous one proves nothing: the broker is asked, and readers are told
/// if it cannot say.
#[test]
fn after_a_loss_nothing_proves_nothing() {
    for is_complete in [true, false] {
        let mut node = Node::open(3);
        node.channels.lost(if is_complete { None } else { Some(CHANNEL) });
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
    node.channels.opened(CHANNEL, Head { epoch: 5, newest: 9 }, 0);
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

/// When the broker counts anew, readers are told once, and hear what it has now.
#[test]
fn another_epoch() {
    let mut node = Node::open(3);
    node.channels.lost(None);
    node.channels.opened(CHANNEL, Head { epoch: 6, newest: 1 }, 0);
    assert_eq!(node.asked(), Some(0));
    // It was on its way.
    node.arrive(4, 3);
    let publications = vec![FetchedPublication { offset: 1, age_ms: 0, payload: payload(1) }];
    let fetched = Fetched { epoch: 6, publications, is_complete: false };
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
