//! The answers of a hub to the requests of the control plane.

use murre_core::ConnId;
use murre_router::channels::{Payload, Publisher};
use tokio::sync::oneshot::Sender;

use super::auth::UnixSeconds;
use super::control::{ConnectionInfo, Control};
use super::pending::{Published, Recipient};
use super::{Hub, Outlet, SERVER};

impl Hub {
    pub(super) fn control(&mut self, control: Control, out: &impl Outlet) {
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
            Control::Presence { channel, query, answer } => {
                let _ = answer.send(self.presence_page(&channel, query));
            }
            Control::ConnectionsOf { user, answer } => {
                let slots = self.sessions.of_user(&user);
                let conns = slots.into_iter().filter_map(|slot| out.at(slot));
                let _ = answer.send(conns.map(|conn| self.connection_id(conn)).collect());
            }
            Control::Connection { conn, answer } => {
                let _ = answer.send(self.connection(conn, out));
            }
            Control::Order(order) => self.take_order(order),
        }
    }

    fn publish_for_control(&mut self, channel: &str, payload: Payload, answer: Sender<Published>) {
        // A refusal needs the sender of the answer, so the checks come before the ticket takes it.
        let known = self.config.rules(channel);
        if let Err(code) = known.and_then(|_| self.config.limits.payload(&payload)) {
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
}
