//! What the tests share: shards, the messages between them, and connections that take publications.

use std::collections::BTreeMap;
use std::sync::Arc;

use murre_router::Member;
use murre_router::channels::{
    ChannelError, ChannelLimits, Channels, Event, Overrun, Payload, Publication, Start,
    Subscribers, Taken,
};

use crate::oracles::{number, payload, publisher, rules};

pub(super) type Shard = Channels<Option<u32>>;

/// So many shards, all with these limits.
pub(super) fn shards<const N: usize>(limits: ChannelLimits) -> [Shard; N] {
    std::array::from_fn(|shard| Channels::new(shard as u16, N as u16, 1, rules, limits))
}

/// A channel of this namespace that the shard owns.
pub(super) fn owned_by(channels: &Shard, shard: u16, namespace: &str) -> String {
    let mut names = (0..).map(|number| format!("{namespace}:{number}"));
    names.find(|name| channels.owner(name) == shard).expect("every shard owns some")
}

/// Carries all messages until there are none; returns how many there were to each shard.
pub(super) fn carry<const N: usize>(shards: &mut [Shard; N]) -> [usize; N] {
    let mut carried = [0; N];
    while shards.iter().any(|channels| channels.stats().messages_waiting > 0) {
        for from in 0..N {
            for to in 0..N {
                for message in std::mem::take(shards[from].messages(to as u16)) {
                    shards[to].receive(from as u16, message, 0);
                    carried[to] += 1;
                }
            }
        }
    }
    carried
}

pub(super) fn events(channels: &mut Shard) -> Vec<Event> {
    std::iter::from_fn(|| channels.event()).collect()
}

pub(super) fn subscribe(channels: &mut Shard, member: Member, channel: &str) {
    assert_eq!(channels.subscribe(member, channel, Start::Head, 0, 0), Ok(()));
}

pub(super) fn publish(
    channels: &mut Shard,
    channel: &str,
    number: u32,
) -> Result<(), ChannelError> {
    channels.publish(channel, payload(number), publisher(None), 0)
}

/// Connections that take as many publications as they have room for.
pub(super) struct Sockets {
    pub(super) room: BTreeMap<Member, usize>,
    pub(super) rule: Overrun,
    pub(super) conflates: bool,
    pub(super) heard: Vec<(Member, Heard)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Heard {
    Number(u32),
    Dropped(u64),
    Overrun,
}
pub(super) use Heard::{Dropped, Number};

impl Sockets {
    /// All have room for whatever comes.
    pub(super) fn new() -> Self {
        let (room, rule) = (BTreeMap::new(), Overrun::SkipToOldest);
        Sockets { room, rule, conflates: false, heard: Vec::new() }
    }

    /// What was heard since it was last asked.
    pub(super) fn heard(&mut self) -> Vec<(Member, Heard)> {
        std::mem::take(&mut self.heard)
    }

    /// The same of the only member.
    pub(super) fn of_one(&mut self) -> Vec<Heard> {
        self.heard().into_iter().map(|(_, heard)| heard).collect()
    }
}

impl Subscribers<Option<u32>> for Sockets {
    fn offer(&mut self, member: Member, publication: &Publication, _: &mut Option<u32>) -> Taken {
        if let Some(room) = self.room.get_mut(&member) {
            let Some(left) = room.checked_sub(1) else { return Taken::Full };
            *room = left;
        }
        self.heard.push((member, Number(number(&publication.payload))));
        Taken::Yes
    }

    fn overrun(&mut self, member: Member, _: &Arc<str>) -> Overrun {
        self.heard.push((member, Heard::Overrun));
        self.rule
    }

    fn dropped(&mut self, member: Member, _: &Arc<str>, count: u64) {
        self.heard.push((member, Dropped(count)));
    }

    fn conflates(&self, _: &str) -> bool {
        self.conflates
    }
}

/// The numbers of the delivered publications with their receivers, in order.
pub(super) fn deliveries(channels: &mut Shard, budget: usize) -> Vec<(u32, u32)> {
    let mut sockets = Sockets::new();
    channels.deliver(budget, 0, &mut sockets);
    let number = |(member, heard)| match heard {
        Number(number) => (number, member),
        heard => panic!("{heard:?}"),
    };
    sockets.heard().into_iter().map(number).collect()
}

/// Two thirds of a log's bound at most.
pub(super) fn large(number: u32) -> Payload {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(240, 0);
    Payload::new(murre_router::channels::Form::Binary, bytes)
}

/// A log of two large publications, and a grace time of 100 ms.
pub(super) const SMALL: fn() -> ChannelLimits =
    || ChannelLimits { log_bytes_max: 900, slow_grace_ms: 100, ..ChannelLimits::default() };

/// Publishes the large one with this number at that time.
pub(super) fn publish_large(
    channels: &mut Shard,
    channel: &str,
    number: u32,
    now: u64,
) -> Result<(), ChannelError> {
    channels.publish(channel, large(number), publisher(None), now)
}

/// Makes `member` fall behind, publishes until its log is full, and lets it become slow. Returns the
/// number of the last publication.
pub(super) fn make_slow(channels: &mut Shard, channel: &str, sockets: &mut Sockets) -> u32 {
    sockets.room.insert(1, 0);
    for number in 1..=3 {
        assert_eq!(publish_large(channels, channel, number, 0), Ok(()));
        channels.deliver(9, 0, sockets);
    }
    assert_eq!(publish_large(channels, channel, 4, 0), Err(ChannelError::Overloaded));
    assert_eq!(channels.next_expiry(), Some(20), "a turn is needed to see who is slow");
    (0..2).for_each(|_| _ = channels.deliver(9, 20, sockets));
    channels.deliver(9, 100, sockets);
    assert_eq!(publish_large(channels, channel, 4, 100), Err(ChannelError::Overloaded));
    channels.deliver(9, 120, sockets);
    assert_eq!(publish_large(channels, channel, 4, 120), Ok(()));
    while channels.deliver(9, 120, sockets) {}
    4
}
