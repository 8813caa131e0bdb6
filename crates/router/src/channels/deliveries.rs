//! All that waits for subscribers of a shard, handed out by turns.

use std::collections::VecDeque;

use slab::Slab;

use super::Publication;
use super::fanout::Fanout;
use super::name::ByName;
use super::channel::{NONE, Subscriber, Channel};

/// The fan-outs of a shard. Channels take turns, so that a large fan-out does not hold up small ones.
pub(super) struct Deliveries<F> {
    /// Each is listed once in `turns`, and goes when its turn finds nothing in it.
    fanouts: Slab<Fanout<F>>,
    turns: VecDeque<u32>,
    /// The room of fan-outs that are over, for the next ones.
    spare: Vec<Fanout<F>>,
    waiting: u64,
}

/// Deliveries of one channel before it is another's turn.
const TURN: usize = 256;
/// As many fan-outs that are over keep their room.
const SPARE: usize = 32;
/// With nothing waiting, room for this many channels is kept.
const KEPT: usize = 128;

impl<F: Default> Deliveries<F> {
    pub(super) fn new() -> Self {
        let (turns, spare) = (VecDeque::new(), Vec::new());
        Deliveries { fanouts: Slab::new(), turns, spare, waiting: 0 }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// A publication for all who are subscribed now.
    pub(super) fn push(&mut self, key: u32, channel: &mut Channel, publication: Publication) {
        let subscribers = channel.subscribers.len();
        if subscribers == 0 {
            return;
        }
        if channel.fanout == NONE {
            let mut fanout = self.spare.pop().unwrap_or_else(Fanout::new);
            fanout.channel = Some(key);
            channel.fanout = self.fanouts.insert(fanout) as u32;
            self.turns.push_back(channel.fanout);
        }
        self.fanouts[channel.fanout as usize].push(publication, subscribers as u32);
        self.waiting += subscribers as u64;
    }

    /// Closes the gap that one of `len` subscribers leaves: `moved(from, to)` moves another one. Only
    /// while something waits for the channel is there more than one to move.
    pub(super) fn close_gap(
        &mut self,
        fanout: u32,
        gap: u32,
        len: u32,
        mut moved: impl FnMut(u32, u32),
    ) {
        match self.fanouts.get_mut(fanout as usize) {
            Some(fanout) => self.waiting -= fanout.close_gap(gap, len, moved),
            None if gap < len - 1 => moved(len - 1, gap),
            None => {}
        }
    }

    /// The channel has lost its last subscriber here, and will be forgotten.
    pub(super) fn forget(&mut self, channel: &Channel) {
        if channel.fanout != NONE {
            self.fanouts[channel.fanout as usize].channel = None;
        }
    }

    /// Hands out at most `budget`. Returns whether something is left.
    pub(super) fn deliver(
        &mut self,
        channels: &mut ByName<Channel>,
        budget: usize,
        mut each: impl FnMut(&Publication, &mut F, &[Subscriber]),
    ) -> bool {
        let mut left = budget;
        while left > 0
            && let Some(key) = self.turns.pop_front()
        {
            let fanout = &mut self.fanouts[key as usize];
            let mut turn = left.min(TURN);
            left -= turn;
            while turn > 0
                && let Some(channel) = fanout.channel
                && let Some((waiting, places)) = fanout.next(turn)
            {
                let deliveries = places.len();
                let subscribers = &channels.value(channel).subscribers[places];
                each(&waiting.publication, &mut waiting.form, subscribers);
                fanout.delivered(deliveries);
                self.waiting -= deliveries as u64;
                turn -= deliveries;
            }
            left += turn;
            match fanout.is_empty() {
                true => self.end(channels, key),
                false => self.turns.push_back(key),
            }
        }
        !self.turns.is_empty()
    }

    fn end(&mut self, channels: &mut ByName<Channel>, key: u32) {
        let mut fanout = self.fanouts.remove(key as usize);
        if let Some(channel) = fanout.channel.take() {
            channels.value_mut(channel).fanout = NONE;
        }
        if self.spare.len() < SPARE && !fanout.is_large() {
            self.spare.push(fanout);
        }
        if self.turns.is_empty() && self.turns.capacity() > KEPT {
            self.turns = VecDeque::new();
            self.fanouts = Slab::new();
        }
    }
}
