//! Several shards with services, and the messages on their way between them.

use std::collections::VecDeque;

use murre_router::services::{ByteLen, ServiceLimits, ServiceMessage, Services};

use super::choices::Choices;

/// The ticket of the request, and in an answer the person that answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Payload(pub(super) Ticket, pub(super) Person);

impl ByteLen for Payload {
    fn byte_len(&self) -> usize {
        1 + self.0 as usize % 6
    }
}

pub(super) type Ticket = u32;
/// One use of a member's number.
pub(super) type Person = usize;

pub(super) const NAMES: [&str; 3] = ["one", "two", "three"];
pub(super) const MEMBERS: u32 = 4;

/// The shards and the ways between them.
pub(super) struct World {
    pub(super) choices: Choices,
    pub(super) limits: ServiceLimits,
    pub(super) shards: Vec<Services<Payload>>,
    /// By sender and receiver.
    pub(super) ways: Vec<Vec<VecDeque<ServiceMessage<Payload>>>>,
}

impl World {
    pub(super) fn new(bytes: &[u8], limits: ServiceLimits) -> Self {
        let mut choices = Choices::new(bytes);
        let count = 1 + choices.number(4) as u16;
        let hash_seed = u64::from(choices.number(256));
        let shards =
            (0..count).map(|shard| Services::new(shard, count, hash_seed, limits)).collect();
        let ways = (0..count).map(|_| (0..count).map(|_| VecDeque::new()).collect()).collect();
        World { choices, limits, shards, ways }
    }

    /// A shard.
    pub(super) fn any(&mut self) -> usize {
        self.choices.index(self.shards.len())
    }

    pub(super) fn hand_over(&mut self, from: usize, to: usize) {
        self.ways[from][to].extend(self.shards[from].messages(to as u16).drain(..));
    }

    /// Some of the messages on one way arrive.
    pub(super) fn arrive(&mut self, from: usize, to: usize, at_most: usize) -> bool {
        let count = at_most.min(self.ways[from][to].len());
        for message in self.ways[from][to].drain(..count) {
            self.shards[to].receive(from as u16, message);
        }
        count > 0
    }

    /// Everything arrives, and everything that comes of it.
    pub(super) fn calm_down(&mut self) {
        let count = self.shards.len();
        let mut moved = true;
        while moved {
            moved = false;
            for way in 0..count * count {
                let (from, to) = (way / count, way % count);
                self.hand_over(from, to);
                moved |= self.arrive(from, to, usize::MAX);
            }
        }
    }

    pub(super) fn has_full_messages(&mut self, shard: usize) -> bool {
        let (count, most) = (self.shards.len() as u16, self.limits.messages_max);
        (0..count).any(|to| self.shards[shard].messages(to).len() >= most)
    }
}
