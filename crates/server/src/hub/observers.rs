//! What webhooks are told of: the sessions of a shard, and the channels and members that it owns.

use std::sync::Arc;

use murre_core::ConnId;
use murre_router::channels::{
    Append, AppendId, Backplane, Fetch, FetchId, Interest, Origin, Outgoing,
};
use murre_router::presence::MemberObserver;

use super::{Hub, HubConfig, Session, Wire, origin};
use crate::webhooks::{ConnectionName, Event, Recorder};

/// A shard's recorder of events, with the namespaces by which endpoints choose.
#[derive(Clone)]
pub(super) struct Observers {
    recorder: Recorder,
    config: Arc<HubConfig>,
}

impl Observers {
    /// The observers of one shard; `None` without webhooks.
    pub(super) fn new(config: &Arc<HubConfig>) -> Option<Self> {
        let recorder = config.webhooks.as_ref()?.recorder();
        Some(Observers { recorder, config: Arc::clone(config) })
    }

    fn record(&self, event: &Event<'_>) {
        self.recorder.record(event, |channel| self.config.namespaces.namespace(channel));
    }

    /// Hands all that is recorded over.
    pub(super) fn flush(&self) {
        self.recorder.flush();
    }

    /// The same backplane, whose interests are recorded.
    pub(super) fn of_channels(
        &self,
        backplane: Box<dyn Backplane + Send>,
    ) -> Box<dyn Backplane + Send> {
        Box::new(ObservedBackplane { backplane, observers: self.clone() })
    }

    /// The observer of members.
    pub(super) fn of_members(&self) -> Box<dyn MemberObserver + Send> {
        Box::new(self.clone())
    }
}

/// A backplane whose interests are recorded: they begin and end with the first and the last subscriber.
struct ObservedBackplane {
    backplane: Box<dyn Backplane + Send>,
    observers: Observers,
}

impl Backplane for ObservedBackplane {
    fn orders(&self) -> bool {
        self.backplane.orders()
    }

    fn append(&mut self, id: AppendId, publication: Outgoing<'_>) -> Append {
        self.backplane.append(id, publication)
    }

    fn interest(&mut self, channel: &str, interest: Interest, keeps_history: bool) {
        self.backplane.interest(channel, interest, keeps_history);
        self.observers.record(&match interest {
            Interest::First => Event::Occupied { channel },
            Interest::Last => Event::Vacated { channel },
        });
    }

    fn fetch(&mut self, id: FetchId, fetch: Fetch<'_>) {
        self.backplane.fetch(id, fetch);
    }
}

impl MemberObserver for Observers {
    fn joined(&mut self, channel: &str, origin: Origin, user: &str) {
        self.record(&Event::Joined { channel, connection: name(origin), user });
    }

    fn left(&mut self, channel: &str, origin: Origin, user: &str) {
        self.record(&Event::Left { channel, connection: name(origin), user });
    }
}

impl Hub {
    /// Records that a session has begun.
    pub(super) fn observe_open(&self, session: Session) {
        self.observe(session, |connection, user| Event::Connected { connection, user });
    }

    /// Records that a session ends. It still has its user.
    pub(super) fn observe_close(&self, session: Session) {
        self.observe(session, |connection, user| Event::Disconnected { connection, user });
    }

    /// Records that a session has another user.
    pub(super) fn observe_user(&self, session: Session) {
        self.observe(session, |connection, user| Event::Authenticated {
            connection,
            user: user.unwrap_or_default(),
        });
    }

    fn observe<'h>(
        &'h self,
        session: Session,
        event: impl FnOnce(ConnectionName, Option<&'h str>) -> Event<'h>,
    ) {
        // A poll is a session of one request, of which nobody can say how long its client is there.
        if let Some(observers) =
            self.observers.as_ref().filter(|_| session.wire != Wire::ONE_REQUEST)
        {
            let user = self.sessions.user(session.conn.index());
            observers.record(&event(self.name_of(session.conn), user.map(|user| &*user.name)));
        }
    }

    fn name_of(&self, conn: ConnId) -> ConnectionName {
        name(origin(self.shard, conn))
    }
}

/// The numbers of a connection's name.
fn name(Origin(bits): Origin) -> ConnectionName {
    let slot_and_generation = [bits >> 24, bits].map(|part| part as u32 & 0xFF_FFFF);
    ConnectionName([(bits >> 48) as u32, slot_and_generation[0], slot_and_generation[1]])
}

#[cfg(test)]
mod tests {
    use super::super::presence::connection_of;
    use super::*;

    /// A connection has the same name in events as in the API.
    #[test]
    fn names_are_those_of_the_api() {
        for text in ["0-0", "5-7", "16777215-16777215"] {
            let origin = origin(1023, text.parse().expect("an id"));
            let ConnectionName(parts) = name(origin);
            assert_eq!(
                parts.map(|part| part.to_string()).join("-"),
                connection_of(murre_router::presence::HERE, origin)
            );
        }
    }
}
