//! What other nodes of a cluster say about the channels that a shard owns.

use std::sync::Arc;

use super::backplane::RemoteEvent;
use super::member::{Departure, HERE, Node, PresentMember};
use super::owner::Owner;
use crate::channels::ChannelName;

impl Owner {
    /// Takes what another node says. Only channels with watchers have members of other nodes.
    pub(super) fn remote(&mut self, event: RemoteEvent, now: u64) {
        match event {
            RemoteEvent::Changes { node, channel, changes } => {
                let Some((name, key)) = self.watched(node, &channel) else { return };
                self.forget_count(key, node);
                for PresentMember { origin, .. } in &changes.leaves {
                    let joins = &changes.joins;
                    if !joins.iter().any(|join| join.origin == *origin) {
                        self.leave(&name, (node, *origin), Departure::Left, now);
                    }
                }
                for PresentMember { origin, user, meta, .. } in changes.joins {
                    self.join(&name, (node, origin), &user, meta, now);
                }
            }
            RemoteEvent::Members { node, channel, members } => {
                let Some((name, key)) = self.watched(node, &channel) else { return };
                self.forget_count(key, node);
                let known = self.channels.value(key).members.iter();
                let gone: Vec<_> = known
                    .filter(|(_, record)| record.node == node)
                    .map(|(_, record)| record.origin)
                    .filter(|origin| !members.iter().any(|member| member.origin == *origin))
                    .collect();
                for PresentMember { origin, user, meta, .. } in members {
                    self.join(&name, (node, origin), &user, meta, now);
                }
                for origin in gone {
                    self.leave(&name, (node, origin), Departure::Left, now);
                }
            }
            RemoteEvent::Count { node, channel, count } => {
                let Some((_, key)) = self.watched(node, &channel) else { return };
                self.remove_foreign(key, |of| of == node);
                self.channels.value_mut(key).foreign.push((node, count));
                self.settle(key, now);
            }
            RemoteEvent::Gone { node } => {
                for key in 0..self.channels.keys_end() {
                    if self.channels.get(key).is_some() {
                        self.remove_foreign(key, |of| of == node);
                        self.settle(key, now);
                    }
                }
            }
        }
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
