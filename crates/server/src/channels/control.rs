//! What the control plane asks of a shard's channels. Each question carries the way its answer goes.

use murre_codec::CloseCode;
use murre_core::{CloseReason, ConnId, Outbox};
use murre_router::topics::{Cursor, Payload, Position, TopicInfo};
use tokio::sync::oneshot::Sender;

use super::code::Code;
use super::tickets::Asker;
use super::{Channels, Speaks};
use crate::hub::auth::UnixSeconds;

/// A question or an order. Where nobody waits for the answer any more it goes nowhere.
pub(crate) enum Control {
    /// Publish to a channel, whatever its namespace says.
    Publish { topic: Box<str>, payload: Payload, answer: Sender<Published> },
    /// Channels that this shard owns, and where to go on, if there are more.
    Topics { from: Cursor, limit: usize, answer: Sender<(Vec<TopicInfo>, Option<Cursor>)> },
    /// One channel, if this shard owns it and it is there.
    Topic { name: Box<str>, answer: Sender<Option<TopicInfo>> },
    /// What is known of a connection of this shard.
    Connection { id: ConnId, answer: Sender<Option<ConnectionInfo>> },
    /// End a connection of this shard, if it uses channels. Gives how many were ended.
    Disconnect { id: ConnId, answer: Sender<u32> },
    /// End all connections of a user on this shard.
    DisconnectUser { user: Box<str>, answer: Sender<u32> },
}

/// What became of a publication.
pub(crate) type Published = Result<Option<Position>, Code>;

/// What the control plane is told of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    pub(crate) user: Option<String>,
    /// When its token expires, in Unix seconds.
    pub(crate) expires: Option<u64>,
    pub(crate) subscriptions: Vec<String>,
    /// Bytes that are queued for it.
    pub(crate) queued: u32,
}

impl Channels {
    pub(super) fn control(&mut self, control: Control, out: &mut Outbox) {
        match control {
            Control::Publish { topic, payload, answer } => {
                let ticket = self.tickets.issue(&topic, Asker::Control(answer));
                if let Err(why) = self.topics.publish(&topic, payload, Some(ticket), self.now) {
                    self.published(ticket, Err(why), out);
                }
            }
            Control::Topics { from, limit, answer } => {
                let _ = answer.send(self.topics.topics(from, limit));
            }
            Control::Topic { name, answer } => {
                let _ = answer.send(self.topics.topic(&name));
            }
            Control::Connection { id, answer } => {
                let _ = answer.send(self.connection(id, out));
            }
            Control::Disconnect { id, answer } => {
                let _ = answer.send(u32::from(self.disconnect(id, out)));
            }
            Control::DisconnectUser { user, answer } => {
                let slots = self.clients.of_user(&user);
                let ids = slots.into_iter().filter_map(|slot| out.at(slot)).collect::<Vec<_>>();
                let ended = ids.into_iter().filter(|&id| self.disconnect(id, out)).count();
                let _ = answer.send(ended as u32);
            }
        }
    }

    fn connection(&self, id: ConnId, out: &Outbox) -> Option<ConnectionInfo> {
        let slot = id.index();
        if !out.is_open(id) || self.clients.speaks(slot) == Speaks::Nothing {
            return None;
        }
        let user = self.clients.user(slot);
        Some(ConnectionInfo {
            user: user.map(|user| user.name.to_string()),
            expires: user.and_then(|user| user.expires).map(UnixSeconds::get),
            subscriptions: self.topics.subscriptions(slot).map(str::to_owned).collect(),
            queued: out.queued(id),
        })
    }

    fn disconnect(&self, id: ConnId, out: &mut Outbox) -> bool {
        if !out.is_open(id) {
            return false;
        }
        match self.clients.speaks(id.index()) {
            Speaks::Nothing => return false,
            Speaks::WebSocket => {
                let why = "an administrator ended this connection";
                out.close_websocket(id, CloseCode::from(ENDED), why, CloseReason::Finished);
            }
            Speaks::Events | Speaks::MixedEvents | Speaks::Poll => {
                out.close(id, CloseReason::Finished);
            }
        }
        true
    }
}

/// The close code of a connection that an administrator ended.
const ENDED: u16 = 4000;
