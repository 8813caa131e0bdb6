//! Deliveries: publications go to subscribers as far as their connections take them.
//!
//! A subscriber whose connection is congested is handed nothing more. The router keeps its place and
//! continues from there once everything queued for it has been sent ([`Hub::drained`]), so a burst never
//! ends a connection. For a subscriber whose next publication the router has dropped, the `slow` rule of
//! the channel's namespace decides.

use std::sync::Arc;

use murre_core::ConnId;
use murre_router::channels::{Overrun, Publication, Subscribers, Taken};
use murre_router::{Member, Shard};

use super::encodings::Encodings;
use super::output::DisconnectReason;
use super::rules::Slow;
use super::session::Sessions;
use super::{Hub, HubConfig, HubCounters, Outlet, Push, Session, origin};

impl Hub {
    /// Records that everything queued for a connection has been sent. Its session is handed more at the
    /// end of the turn, after its input: otherwise the commands of a session that is far behind would
    /// never be read.
    pub(crate) fn drained(&mut self, conn: ConnId) {
        if !self.nobody_waits() {
            self.drained.push(conn);
            self.active = true;
        }
    }

    /// Whether no session waits for its connection to send what is queued. O(1).
    pub(crate) fn nobody_waits(&self) -> bool {
        self.channels.nobody_behind()
            && self.services.nobody_congested()
            && self.presence.nobody_behind()
    }

    /// Resumes the sessions whose connections have taken everything in this turn.
    pub(super) fn pull_drained(&mut self, out: &mut impl Outlet) {
        for conn in std::mem::take(&mut self.drained) {
            if out.at(conn.index()) == Some(conn) {
                self.services.resume(conn.index());
                self.presence.resume(conn.index(), self.now);
                self.dispatch(out);
                self.pull(conn.index(), out);
            }
        }
    }

    /// Hands a member that is behind the publications that its connection takes now.
    pub(super) fn pull(&mut self, member: Member, out: &mut impl Outlet) {
        if !self.channels.is_behind(member) {
            return;
        }
        let Some(conn) = out.at(member) else { return };
        if out.congested(conn) {
            return;
        }
        let Hub { channels, sessions, config, counters, shard, now, .. } = self;
        let mut subscribers =
            SessionSubscribers { sessions, config, counters, shard: *shard, delivered: 0, out };
        // The rest follows when the connection has taken these, or with `Event::Readable`.
        let _ = channels.pull(member, *now, &mut subscribers);
        counters.delivered.add(subscribers.delivered);
    }

    /// Makes the deliveries of a turn to this shard's subscribers. Returns whether some are left.
    pub(super) fn deliver(&mut self, out: &mut impl Outlet) -> bool {
        let Hub { channels, sessions, config, counters, shard, .. } = self;
        let mut subscribers =
            SessionSubscribers { sessions, config, counters, shard: *shard, delivered: 0, out };
        let are_left = channels.deliver(config.deliveries_per_turn, self.now, &mut subscribers);
        counters.delivered.add(subscribers.delivered);
        are_left
    }
}

/// The sessions of a shard, to which the router hands publications.
struct SessionSubscribers<'h, O> {
    sessions: &'h Sessions,
    config: &'h HubConfig,
    counters: &'h HubCounters,
    shard: Shard,
    /// Publications that were handed to subscribers, to be counted together.
    delivered: u64,
    out: &'h mut O,
}

impl<O: Outlet> SessionSubscribers<'_, O> {
    fn session(&self, member: Member) -> Option<Session> {
        self.out.at(member).and_then(|conn| self.sessions.of(conn))
    }
}

impl<O: Outlet> Subscribers<Encodings> for SessionSubscribers<'_, O> {
    fn offer(
        &mut self,
        member: Member,
        publication: &Publication,
        encodings: &mut Encodings,
    ) -> Taken {
        let Some(session) = self.session(member) else { return Taken::Gone };
        if publication.except.is_some_and(|except| except == origin(self.shard, session.conn)) {
            return Taken::Gone;
        }
        if self.out.congested(session.conn) {
            return Taken::Full;
        }
        self.out.push(session, Push::Publication { publication, encodings });
        self.delivered = self.delivered.saturating_add(1);
        Taken::Yes
    }

    fn overrun(&mut self, member: Member, channel: &Arc<str>) -> Overrun {
        match self.config.namespaces.rules(channel).slow {
            Slow::DropOldest => Overrun::SkipToOldest,
            Slow::LatestOnly => Overrun::SkipToNewest,
            Slow::Disconnect => {
                // A session that is behind in several channels ends once.
                if let Some(session) = self.session(member)
                    && self.out.is_open(session.conn)
                {
                    self.counters.disconnected.add(1);
                    self.out.end(session, DisconnectReason::Slow.into());
                }
                Overrun::End
            }
        }
    }

    fn dropped(&mut self, member: Member, channel: &Arc<str>, count: u64) {
        self.counters.dropped.add(count);
        if let Some(session) = self.session(member) {
            self.out.push(session, Push::Dropped { channel, count });
        }
    }

    fn conflates(&self, channel: &str) -> bool {
        self.config.namespaces.rules(channel).slow == Slow::LatestOnly
    }
}
