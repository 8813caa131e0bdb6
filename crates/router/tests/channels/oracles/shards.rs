//! Runs of several shards: from random steps to rest, and what must be true then.

use std::collections::VecDeque;

use murre_router::channels::{ChannelLimits, Cursor, Stats};

use super::CHANNELS;
use super::world::{Kinds, MEMBERS, NEVER, World};

/// Within this number of rounds all messages are handed over, delivered and answered.
const ROUNDS: usize = 2000;

impl World {
    /// Runs until no message is on its way and every member that reads has caught up.
    fn settle(&mut self) {
        let shards = self.shards.len();
        for _ in 0..ROUNDS {
            for from in 0..shards {
                for to in 0..shards {
                    self.hand_over(from, to, usize::MAX);
                    self.receive(from, to, usize::MAX);
                }
                while self.deliver(from, 3) {}
                for member in 0..MEMBERS {
                    if !self.sockets[from][member as usize].waits {
                        self.drain(from, member);
                    }
                }
            }
            for (shard, member, _) in self.ending.clone() {
                self.leave(shard, member);
                self.count("ended");
            }
            let waiting = self.shards.iter().enumerate().map(|(shard, channels)| {
                let Stats { messages_waiting, deliveries_waiting, .. } = channels.stats();
                let reads = (0..MEMBERS).filter(|member| self.reads(*member));
                let behind = reads.filter(|member| self.shards[shard].is_behind(*member));
                messages_waiting + deliveries_waiting + behind.count() as u64
            });
            if waiting.sum::<u64>() == 0 && self.links.iter().flatten().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("shards have always something to do");
    }

    /// Lets the members that read nothing become slow, or has them leave.
    fn outlast_idlers(&mut self) {
        if self.is_patient() {
            (0..self.shards.len()).for_each(|shard| self.leave(shard, NEVER));
        }
        self.now += 100;
        // As many turns as are needed for that.
        (0..3).for_each(|_| self.settle());
        self.now += 20;
        (0..self.shards.len()).for_each(|shard| self.expire(shard));
        self.settle();
    }

    /// Checks that every publication is accepted, when no member is left that could hold it up.
    fn check_that_nothing_is_refused(&mut self) {
        for (channel, name) in CHANNELS.iter().enumerate() {
            for shard in 0..self.shards.len() {
                self.outlast_idlers();
                let number = self.publish_to(shard, 0, channel, true, false);
                self.settle();
                assert!(!self.oracle.is_refused(number), "{name} is refused");
            }
        }
    }

    /// Checks the bounds of the logs.
    fn check_bounds(&self) {
        // The newest publication of each channel stays.
        let newest = 64 + 4 + 160;
        let ChannelLimits { log_bytes_max, logs_bytes_max, .. } = self.limits;
        let logs = CHANNELS.len() as u64 * log_bytes_max.max(newest);
        for channels in &self.shards {
            let bytes = channels.stats().log_bytes;
            assert!(bytes <= logs.min(logs_bytes_max.max(newest)), "{bytes} bytes");
        }
    }

    /// Checks that every shard knows its subscribers, and every owner their number.
    fn check_subscriptions(&self) {
        for (shard, channels) in self.shards.iter().enumerate() {
            for member in 0..MEMBERS {
                let live = self.oracle.live.range((shard, member, 0)..(shard, member + 1, 0));
                let mut live: Vec<&str> =
                    live.map(|((_, _, channel), _)| CHANNELS[*channel]).collect();
                let mut subscriptions: Vec<&str> = channels.subscriptions(member).collect();
                live.sort_unstable();
                subscriptions.sort_unstable();
                assert_eq!(subscriptions, live);
            }
            let (listed, more) = channels.channels(Cursor::default(), 1000);
            assert!(more.is_none() && listed.len() as u64 == channels.stats().owned);
            for info in listed {
                assert_eq!(usize::from(channels.owner(&info.name)), shard);
                let live = self.oracle.live.keys().filter(|key| *CHANNELS[key.2] == *info.name);
                // Reports are put off while too many messages wait.
                assert!(self.tight || live.count() as u64 == info.subscribers);
            }
        }
    }
}

/// However late messages between shards are: no publication is lost or comes twice, or the member is told
/// how many are missing; all subscribers get the owner's order, recovery is exact, a member gets nothing
/// after it has left, publishers do not wait for ever, logs are bounded, and all memory is given back.
pub(crate) fn several(bytes: &[u8]) -> Kinds {
    let mut world = World::new(bytes);
    while world.choices.has_more() {
        world.step();
    }
    world.settle();
    world.check_subscriptions();
    let reads = |world: &World| {
        let has_idlers = world.has_idlers;
        move |member| !has_idlers || member != NEVER
    };
    world.oracle.check(reads(&world));

    world.check_that_nothing_is_refused();
    world.outlast_idlers();
    world.check_bounds();
    world.oracle.check(reads(&world));

    for shard in 0..world.shards.len() {
        (0..MEMBERS).for_each(|member| world.leave(shard, member));
    }
    world.settle();
    world.oracle.check(reads(&world));
    let held: u64 = world.shards.iter().map(|channels| channels.stats().holds).sum();
    assert_eq!(held, 0, "nobody is left for whom history is held");
    world.now += 200;
    for shard in 0..world.shards.len() {
        world.expire(shard);
        assert_eq!(world.shards[shard].stats(), Stats::default(), "something is not given back");
    }
    let (dropped, recovered) = world.oracle.kinds();
    *world.kinds.entry("dropped").or_default() += dropped;
    *world.kinds.entry("recovered").or_default() += recovered;
    world.kinds
}
