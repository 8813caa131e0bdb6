//! Requests of the control plane to a shard's hub. Each carries the sender for its answer.

use murre_core::ConnId;
use murre_router::channels::{ChannelInfo, Cursor, Payload, Publisher};
use tokio::sync::oneshot::Sender;

use super::auth::UnixSeconds;
use super::output::DisconnectReason;
use super::pending::{Published, Recipient};
use super::{Hub, Outlet, SERVER};

/// A request of the control plane. An answer that nobody waits for any more is dropped.
pub(crate) enum Control {
    /// Publish to a channel, regardless of the rights that its namespace gives sessions.
    Publish { channel: Box<str>, payload: Payload, answer: Sender<Published> },
    /// List channels that this shard owns. The answer has the cursor of the next page if there is one.
    Channels { from: Cursor, limit: usize, answer: Sender<(Vec<ChannelInfo>, Option<Cursor>)> },
    /// Describe one channel, if this shard owns it and it exists.
    Channel { name: Box<str>, answer: Sender<Option<ChannelInfo>> },
    /// Describe a session of this shard.
    Connection { conn: ConnId, answer: Sender<Option<ConnectionInfo>> },
    /// End the session of a connection of this shard. The answer is the number of ended sessions.
    Disconnect { conn: ConnId, answer: Sender<u32> },
    /// End all sessions of a user on this shard. The answer is the number of ended sessions.
    DisconnectUser { user: Box<str>, answer: Sender<u32> },
}

/// The description of a session for the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    pub(crate) user: Option<String>,
    /// When its token expires, in Unix seconds.
    pub(crate) expires: Option<u64>,
    pub(crate) subscriptions: Vec<String>,
    /// Bytes that are queued for its connection.
    pub(crate) queued: u32,
}

impl Hub {
    pub(super) fn control(&mut self, control: Control, out: &mut impl Outlet) {
        match control {
            Control::Publish { channel, payload, answer } => {
                self.publish_for_control(&channel, payload, answer);
            }
            Control::Channels { from, limit, answer } => {
                let _ = answer.send(self.channels.channels(from, limit));
            }
            Control::Channel { name, answer } => {
                let _ = answer.send(self.channels.channel(&name));
            }
            Control::Connection { conn, answer } => {
                let _ = answer.send(self.connection(conn, out));
            }
            Control::Disconnect { conn, answer } => {
                let _ = answer.send(u32::from(self.disconnect(conn, out)));
            }
            Control::DisconnectUser { user, answer } => {
                let slots = self.sessions.of_user(&user);
                let conns = slots.into_iter().filter_map(|slot| out.at(slot)).collect::<Vec<_>>();
                let ended = conns.into_iter().filter(|&conn| self.disconnect(conn, out)).count();
                let _ = answer.send(ended as u32);
            }
        }
    }

    fn publish_for_control(&mut self, channel: &str, payload: Payload, answer: Sender<Published>) {
        // A refusal needs the sender of the answer, so the checks come before the ticket takes it.
        let limits = &self.config.limits;
        if let Err(code) = limits.name(channel).and_then(|_| limits.payload(&payload)) {
            let _ = answer.send(Err(code));
            return;
        }
        let ticket = self.pending.issue(channel, Recipient::Control(answer));
        let publisher = Publisher { origin: SERVER, ticket: Some(ticket), except: false };
        if let Err(why) = self.channels.publish(channel, payload, publisher, self.now)
            && let Recipient::Control(answer) = self.pending.take(ticket).recipient
        {
            let _ = answer.send(Err(why.into()));
        }
    }

    fn connection(&self, conn: ConnId, out: &impl Outlet) -> Option<ConnectionInfo> {
        let slot = conn.index();
        self.sessions.of(conn).filter(|_| out.at(slot) == Some(conn))?;
        let user = self.sessions.user(slot);
        Some(ConnectionInfo {
            user: user.map(|user| user.name.to_string()),
            expires: user.and_then(|user| user.expires).map(UnixSeconds::get),
            subscriptions: self.channels.subscriptions(slot).map(str::to_owned).collect(),
            queued: out.queued(conn),
        })
    }

    fn disconnect(&self, conn: ConnId, out: &mut impl Outlet) -> bool {
        let session = self.sessions.of(conn).filter(|_| out.at(conn.index()) == Some(conn));
        if let Some(session) = session {
            out.end(session, DisconnectReason::Administrator.into());
        }
        session.is_some()
    }
}
