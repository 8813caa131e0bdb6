//! What other nodes of a cluster say about the channels that a shard owns.

use std::collections::HashSet;
use std::sync::Arc;

use super::backplane::RemoteEvent;
use super::member::{Departure, HERE, Node, PresentMember};
use super::owner::Owner;
use crate::channels::{ChannelName, Origin};

/// The visit of all channels when another node is dead: a bounded number of them in each call.
pub(super) struct Sweep {
    node: Node,
    /// The keys of the channels that are left to visit: from the first, and less than the second.
    keys: (u32, u32),
    /// Channels among these of which the node has said something since, because it is back: they have only
    /// its new members.
    ahead: HashSet<u32>,
}

/// Channels that a call visits at most, and members of which it removes about so many.
const CHANNELS_PER_CALL: usize = 1024;
const LEAVES_PER_CALL: usize = 1024;

impl Owner {
    /// Takes what another node says. Only channels with watchers have members of other nodes.
    pub(super) fn remote(&mut self, event: RemoteEvent, now: u64) {
        self.sweep_ahead(&event, now);
        match event {
            RemoteEvent::Changes { node, channel, changes } => {
                let Some((name, key)) = self.watched(node, &channel) else { return };
                self.forget_count(key, node);
                let stays = origins(&changes.joins);
                for PresentMember { origin, .. } in &changes.leaves {
                    if !stays.contains(origin) {
                        self.leave(&name, (node, *origin), Departure::Left, now);
                    }
                }
                for PresentMember { origin, user, meta, .. } in changes.joins {
                    self.join(&name, (node, origin), &user, meta, now);
                }
                self.settle(key, now);
            }
            RemoteEvent::Members { node, channel, members } => {
                let Some((name, key)) = self.watched(node, &channel) else { return };
                self.forget_count(key, node);
                let stays = origins(&members);
                let known = self.channels.value(key).members.iter();
                let gone: Vec<_> = known
                    .filter(|(_, record)| record.node == node)
                    .map(|(_, record)| record.origin)
                    .filter(|origin| !stays.contains(origin))
                    .collect();
                for PresentMember { origin, user, meta, .. } in members {
                    self.join(&name, (node, origin), &user, meta, now);
                }
                for origin in gone {
                    self.leave(&name, (node, origin), Departure::Left, now);
                }
                self.settle(key, now);
            }
            RemoteEvent::Count { node, channel, count } => {
                let Some((_, key)) = self.watched(node, &channel) else { return };
                self.remove_foreign(key, |of| of == node);
                if count.clients > 0 {
                    self.channels.value_mut(key).foreign.push((node, count));
                }
                self.settle(key, now);
            }
            RemoteEvent::Gone { node } => {
                self.sweeps.retain(|sweep| sweep.node != node);
                let keys = (0, self.channels.keys_end());
                self.sweeps.push(Sweep { node, keys, ahead: HashSet::new() });
                self.sweep(now);
            }
        }
    }

    /// Removes what a node that is dead has said of a channel before the node says something new of it.
    fn sweep_ahead(&mut self, event: &RemoteEvent, now: u64) {
        let (RemoteEvent::Changes { node, channel, .. }
        | RemoteEvent::Members { node, channel, .. }
        | RemoteEvent::Count { node, channel, .. }) = event
        else {
            return;
        };
        let Some(at) = self.sweeps.iter().position(|sweep| sweep.node == *node) else { return };
        let Some((_, key)) = self.watched(*node, channel) else { return };
        let Sweep { keys: (next, end), ahead, .. } = &mut self.sweeps[at];
        if (*next..*end).contains(&key) && ahead.insert(key) {
            self.sweep_channel(key, *node, now);
        }
    }

    /// Removes members of dead nodes from some channels.
    pub(super) fn sweep(&mut self, now: u64) {
        let mut left = LEAVES_PER_CALL;
        for _ in 0..CHANNELS_PER_CALL {
            let Some(sweep) = self.sweeps.first_mut() else { return };
            let (key, end) = sweep.keys;
            if key >= end {
                self.sweeps.remove(0);
                continue;
            }
            sweep.keys.0 += 1;
            if sweep.ahead.contains(&key) || self.channels.get(key).is_none() {
                continue;
            }
            let (node, before) = (sweep.node, self.members);
            self.sweep_channel(key, node, now);
            left = left.saturating_sub((before - self.members) as usize);
            if left == 0 {
                return;
            }
        }
    }

    fn sweep_channel(&mut self, key: u32, node: Node, now: u64) {
        self.remove_foreign(key, |of| of == node);
        self.settle(key, now);
    }

    /// The channel of this name, if this node watches it and the other node is another one.
    fn watched(&self, node: Node, channel: &Arc<str>) -> Option<(ChannelName, u32)> {
        let hash = self.hashing.hash(channel.as_bytes());
        let key = self.channels.find(hash, channel)?;
        let is_watched = node != HERE && !self.channels.value(key).interests.is_empty();
        is_watched.then(|| (self.channels.name(key).clone(), key))
    }

    fn forget_count(&mut self, key: u32, node: Node) {
        self.channels.value_mut(key).foreign.retain(|(of, _)| *of != node);
    }
}

fn origins(members: &[PresentMember]) -> HashSet<Origin> {
    members.iter().map(|member| member.origin).collect()
}
