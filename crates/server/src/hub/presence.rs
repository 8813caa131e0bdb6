//! Presence: sessions of users are members of the channels that they subscribe to, and watchers are told.

use std::sync::Arc;
use std::time::Duration;

use murre_router::channels::{Channels, Origin, Taken};
use murre_router::presence::{
    Departure, HERE, Meta, News, Node, PresenceEvent, PresencePage, PresenceQuery, PresenceRules,
    UserName, Watch, Watching,
};
use murre_router::{Member, Ticket};

use crate::backplane::presence::{CONNECTIONS_MAX, FoundHere, ToShard};

use super::auth::Right;
use super::encodings::Encodings;
use super::member_names::{MemberChoice, MemberName};
use super::pending::Recipient;
use super::rules::{PresenceKey, PresenceMode, Rules};
use super::session::Sessions;
use super::{
    About, Error, ErrorCode, Hub, HubConfig, HubCounters, Outlet, Push, Reply, RequestId, Session,
};

/// What a subscription asks of presence. Nothing, by default: then a user is a member without metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresenceOptions {
    /// What the session is told of the members.
    pub(crate) watch: Option<Watch>,
    /// The member's metadata, as JSON.
    pub(crate) meta: Option<Meta>,
    /// Whether the session is no member until it changes its metadata.
    pub(crate) is_hidden: bool,
    /// The key of the member, in a namespace where clients choose it.
    pub(crate) key: Option<Arc<str>>,
}

impl HubConfig {
    /// Whether a channel has presence.
    pub(crate) fn has_presence(&self, channel: &str) -> bool {
        self.namespaces.rules(channel).presence != PresenceMode::Off
    }
}

/// The rules of presence in a channel, by those of its namespace.
pub(super) fn presence_rules(rules: &Rules) -> Option<PresenceRules> {
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    (rules.presence != PresenceMode::Off).then(|| PresenceRules {
        lists: rules.presence == PresenceMode::Members,
        push_max: rules.presence_push_max,
        interval_ms: ms(rules.presence_interval),
        grace_ms: ms(rules.presence_grace),
    })
}

impl Hub {
    /// Checks what a subscription asks of presence.
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace`, `NoPresence`, `NotAllowed`, `BadPublication` and `Overloaded`.
    pub(super) fn check_presence<'c>(
        &self,
        slot: u32,
        channel: &'c str,
        options: &PresenceOptions,
    ) -> Result<(), Error<'c>> {
        let refused = |code: ErrorCode| Error::from(code).about(About::Channel(channel));
        let rules = self.config.rules(channel)?;
        let asks = options.watch.is_some() || options.meta.is_some();
        if rules.presence == PresenceMode::Off {
            return if asks { Err(refused(ErrorCode::NoPresence)) } else { Ok(()) };
        }
        if let Some(meta) = &options.meta {
            self.check_meta(rules, meta).map_err(|error| error.about(About::Channel(channel)))?;
            if rules.presence_key == PresenceKey::User && self.sessions.user(slot).is_none() {
                return Err(refused(ErrorCode::NotAllowed));
            }
        }
        // The session will be subscribed.
        let user = self.sessions.user(slot);
        if options.watch.is_some() && !rules.allow(Right::Presence, channel, user, || true) {
            return Err(refused(ErrorCode::NotAllowed));
        }
        match self.presence.is_overloaded(channel) {
            true => Err(refused(ErrorCode::Overloaded)),
            false => Ok(()),
        }
    }

    fn check_meta(&self, rules: &Rules, meta: &Meta) -> Result<(), Error<'static>> {
        let fits = meta.bytes().len() <= rules.presence_meta_max as usize;
        fits.then_some(()).ok_or(Error {
            detail: Some("`meta` is longer than the namespace's presence-meta-max; send less"),
            ..ErrorCode::BadPublication.into()
        })
    }

    /// What a session that subscribes to a channel may be told of its members: all, where the server
    /// knows them and the session may, too.
    pub(crate) fn presence_watch(&self, session: Session, channel: &str) -> Option<Watch> {
        let rules = self.config.namespaces.rules(channel);
        let user = self.sessions.user(session.conn.index());
        let may = rules.presence == PresenceMode::Members
            && rules.allow(Right::Presence, channel, user, || true);
        may.then_some(Watch::Members)
    }

    /// Tells a session of the members of a channel from now on, if it may know them and is not told already.
    pub(crate) fn watch_members(&mut self, session: Session, channel: &str) {
        let slot = session.conn.index();
        if let Some(watch) = self.presence_watch(session, channel)
            && !self.presence.watches(slot, channel)
        {
            // With too many messages for the owner, the next change of its metadata tries again.
            let _ = self.presence.watch(slot, channel, watch, self.now);
        }
    }

    /// Makes a session that has subscribed, or renewed its subscription, a member and a watcher, as it
    /// asks for. `info` is the application's. The caller has checked that messages can be taken.
    pub(super) fn begin_presence(
        &mut self,
        session: Session,
        channel: &str,
        PresenceOptions { watch, meta, is_hidden, key }: PresenceOptions,
        info: Option<Vec<u8>>,
        renews: bool,
    ) {
        let slot = session.conn.index();
        // A subscription that is renewed keeps the metadata and the choice that it does not replace.
        if !renews || meta.is_some() {
            if self.config.has_presence(channel) {
                let before = self.member_choices.get(slot, channel).filter(|_| renews);
                let before = before.and_then(|choice| choice.info.clone());
                let info = info.as_deref().map(Meta::new).or(before);
                self.member_choices.set(slot, channel, MemberChoice { is_hidden, key, info });
            }
            self.join_presence(session, channel, meta);
        }
        if let Some(watch) = watch {
            let _ = self.presence.watch(slot, channel, watch, self.now);
        }
    }

    /// Makes a session that has subscribed a member, if it can be one, or changes its metadata.
    pub(super) fn join_presence(&mut self, session: Session, channel: &str, meta: Option<Meta>) {
        if let Some(name) = self.member_name(session, channel) {
            let origin = self.origin(session.conn);
            let meta = self.with_info(session, channel, meta);
            // The caller has checked that messages can be taken.
            let _ = self.presence.join(channel, origin, &name, meta, self.now);
        }
    }

    /// The name under which a session is a member of a channel, as the router has it; `None` if it is
    /// none.
    fn member_name(&self, session: Session, channel: &str) -> Option<UserName> {
        let slot = session.conn.index();
        let rules = self.config.namespaces.rules(channel);
        let choice = self.member_choices.get(slot, channel);
        if rules.presence == PresenceMode::Off || choice.is_some_and(|choice| choice.is_hidden) {
            return None;
        }
        let user = self.sessions.user(slot).map(|user| &user.name);
        if rules.presence_key == PresenceKey::User {
            return user.cloned();
        }
        let connection;
        let key = match (choice.and_then(|choice| choice.key.as_deref()), user) {
            (Some(key), _) => key,
            (None, Some(user)) => &**user,
            (None, None) => {
                connection = self.connection_id(session.conn).to_string();
                &*connection
            }
        };
        Some(MemberName::Key(key).text().into())
    }

    /// Ends what a session is in the presence of a channel.
    pub(super) fn leave_presence(&mut self, session: Session, channel: &str) {
        if self.config.has_presence(channel) {
            self.member_choices.remove(session.conn.index(), channel);
            let origin = self.origin(session.conn);
            self.presence.leave(channel, origin, Departure::Left, self.now);
            self.presence.unwatch(session.conn.index(), channel, self.now);
        }
    }

    /// Ends what a session whose connection is lost is in the presence of its channels. Its user may come
    /// back within the grace of each.
    pub(super) fn lose_presence(&mut self, conn: murre_core::ConnId) {
        if !self.config.namespaces.have_presence() {
            return;
        }
        let origin = self.origin(conn);
        self.member_choices.forget(conn.index());
        let Hub { channels, presence, config, now, .. } = self;
        for channel in channels.subscriptions(conn.index()) {
            if config.has_presence(channel) {
                presence.leave(channel, origin, Departure::Lost, *now);
                presence.unwatch(conn.index(), channel, *now);
            }
        }
    }

    /// Makes the members of a session those of its user, which it has anew. They have no metadata.
    pub(super) fn rename_in_presence(&mut self, session: Session) {
        let slot = session.conn.index();
        if !self.config.namespaces.have_presence() {
            return;
        }
        let origin = self.origin(session.conn);
        let mut names = Vec::new();
        for channel in self.channels.subscriptions(slot) {
            // A key that the client has chosen does not depend on the user.
            let choice = self.member_choices.get(slot, channel);
            let has_key = choice.is_some_and(|choice| choice.key.is_some())
                && self.config.namespaces.rules(channel).presence_key == PresenceKey::Client;
            let name = self.member_name(session, channel).filter(|_| !has_key);
            names.extend(name.map(|name| (Arc::<str>::from(channel), name)));
        }
        for (channel, name) in names {
            // With too many messages for the owner, the member keeps its name until it subscribes again.
            let _ = self.presence.join(&channel, origin, &name, None, self.now);
        }
    }

    /// Ends the membership of a session in a channel, until it changes its metadata.
    ///
    /// # Errors
    /// `NotSubscribed` and `NoPresence`.
    pub(super) fn hide_presence<'c>(
        &mut self,
        session: Session,
        channel: &'c str,
    ) -> Result<(), Error<'c>> {
        let slot = session.conn.index();
        let refused = |code: ErrorCode| Error::from(code).about(About::Channel(channel));
        if !self.channels.is_subscribed(slot, channel) {
            return Err(refused(ErrorCode::NotSubscribed));
        }
        if !self.config.has_presence(channel) {
            return Err(refused(ErrorCode::NoPresence));
        }
        self.member_choices.set_hidden(slot, channel, true);
        self.presence.leave(channel, self.origin(session.conn), Departure::Left, self.now);
        Ok(())
    }

    /// Changes the metadata of a member.
    ///
    /// # Errors
    /// `NoPresence`, `NotSubscribed`, `NotAllowed`, `BadPublication` and `Overloaded`.
    pub(super) fn update_presence<'c>(
        &mut self,
        session: Session,
        channel: &'c str,
        meta: Option<Meta>,
    ) -> Result<(), Error<'c>> {
        let slot = session.conn.index();
        if !self.channels.is_subscribed(slot, channel) {
            return Err(Error::from(ErrorCode::NotSubscribed).about(About::Channel(channel)));
        }
        let asked = meta.clone().or(Some(Meta::new(b"")));
        let options = PresenceOptions { meta: asked, ..PresenceOptions::default() };
        self.check_presence(slot, channel, &options)?;
        self.member_choices.set_hidden(slot, channel, false);
        self.join_presence(session, channel, meta);
        Ok(())
    }

    /// Asks for a page of the members of a channel; with a limit of 0, for the counts alone.
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace`, `NoPresence`, `NotAllowed` and `Overloaded`.
    pub(super) fn read_presence<'c>(
        &mut self,
        session: Session,
        request: RequestId,
        channel: &'c str,
        query: Option<PresenceQuery>,
    ) -> Result<(), Error<'c>> {
        let slot = session.conn.index();
        let needed = if query.is_some() { PresenceMode::Members } else { PresenceMode::Count };
        if self.config.rules(channel)?.presence < needed {
            return Err(Error::from(ErrorCode::NoPresence).about(About::Channel(channel)));
        }
        self.allow_channel(slot, channel, Right::Presence)?;
        let recipient = match query {
            Some(_) => Recipient::Session(session, request),
            None => Recipient::Counts(session, request),
        };
        let query = query.unwrap_or(PresenceQuery { from: 0, limit: 0, bytes_max: 0 });
        let ticket = self.pending.issue(channel, recipient);
        if let Some(nodes) = &self.config.nodes {
            nodes.read(self.shard, ticket, channel, query);
        } else if let Err(why) = self.presence.read(channel, query, ticket, self.now) {
            self.pending.take(ticket);
            return Err(Error::from(ErrorCode::from(why)).about(About::Channel(channel)));
        }
        // Like a page of history, a page of members may be large.
        let before = self.reading_history.insert(slot, ticket);
        assert!(before.is_none(), "the session's input waits for the page before");
        Ok(())
    }

    /// Passes the pages of members that have arrived on to sessions.
    pub(super) fn dispatch_presence(&mut self, out: &mut impl Outlet) {
        while let Some(PresenceEvent::Page { ticket, page }) = self.presence.event() {
            self.give_page(ticket, &page, out);
        }
    }

    /// Passes a page of members on to the session that waits for it.
    fn give_page(&mut self, ticket: Ticket, page: &PresencePage, out: &mut impl Outlet) {
        let command = self.pending.take(ticket);
        let (Recipient::Session(session, request) | Recipient::Counts(session, request)) =
            &command.recipient
        else {
            return;
        };
        self.reading_history.remove(&session.conn.index());
        if self.is_there(*session, out) {
            let channel = &command.name;
            let reply = match command.recipient {
                Recipient::Counts(..) => Reply::PresenceStats { channel, page },
                _ => Reply::Presence { channel, page },
            };
            out.reply(*session, request, reply);
            out.resume(*session);
        }
    }

    /// Hands news of other nodes to the presence of this shard.
    pub(super) fn hear_nodes(&mut self, news: ToShard, out: &mut impl Outlet) {
        match news {
            ToShard::Remote(event) => self.presence.remote(event, self.now),
            ToShard::Tell(channel) => self.presence.tell(&channel),
            ToShard::Read { to, id, channel, query } => {
                if let Some(nodes) = &self.config.nodes {
                    nodes.answer(to, id, self.presence.page(&channel, query));
                }
            }
            ToShard::Find { to, id, user } => self.find_here(to, id, &user, out),
            ToShard::Page { ticket, page } => self.give_page(ticket, &page, out),
        }
    }

    /// Tells a node the connections of a user on this shard.
    fn find_here(&self, to: u64, id: u64, user: &str, out: &impl Outlet) {
        let Some(nodes) = &self.config.nodes else { return };
        let slots = self.sessions.of_user(user).into_iter();
        let conns = slots.filter_map(|slot| out.at(slot)).map(|conn| self.origin(conn));
        let connections = conns.take(CONNECTIONS_MAX).collect();
        let (shard, shards) = (self.shard, self.config.shards);
        nodes.found(to, id, FoundHere { shard, shards, connections });
    }

    /// A page of the members of a channel that this shard owns.
    pub(super) fn presence_page(&self, channel: &str, query: PresenceQuery) -> PresencePage {
        self.presence.page(channel, query)
    }

    /// Hands news of members to watchers. Returns whether some are left.
    pub(super) fn deliver_presence(&mut self, out: &mut impl Outlet) -> bool {
        let Hub { channels, presence, sessions, config, counters, now, .. } = self;
        let mut watchers = SessionWatchers { channels, sessions, counters, out };
        presence.deliver(config.deliveries_per_turn, *now, &mut watchers)
    }
}

/// The sessions of a shard, to which news of members are handed.
struct SessionWatchers<'h, O> {
    channels: &'h Channels<Encodings>,
    sessions: &'h Sessions,
    counters: &'h HubCounters,
    out: &'h mut O,
}

impl<O: Outlet> Watching<Encodings> for SessionWatchers<'_, O> {
    fn offer(
        &mut self,
        member: Member,
        channel: &Arc<str>,
        news: &News,
        encodings: &mut Encodings,
    ) -> Taken {
        let session = self.out.at(member).and_then(|conn| self.sessions.of(conn));
        let Some(session) = session else { return Taken::Gone };
        if self.out.congested(session.conn) {
            return Taken::Full;
        }
        let subscription = match news {
            News::Members(_) => self.channels.subscription(member, channel),
            News::Changes(_) | News::Count(_) => None,
        };
        let subscription = subscription.map(|subscription| subscription.channel);
        self.out.push(session, Push::Presence { channel, subscription, news, encodings });
        self.counters.presence_news.add(1);
        Taken::Yes
    }
}

/// The name of the connection of a member. That of another node has the number of the node behind it, as nodes
/// name their connections alike.
pub(crate) fn connection_of(node: Node, Origin(bits): Origin) -> String {
    let (shard, slot, generation) = (bits >> 48, bits >> 24 & 0xFF_FFFF, bits & 0xFF_FFFF);
    match node {
        HERE => format!("{shard}-{slot}-{generation}"),
        _ => format!("{shard}-{slot}-{generation}@{node}"),
    }
}

#[cfg(test)]
mod tests {
    use murre_core::GlobalConnId;

    use super::*;

    /// A member's connection has the name that `pong` gives to it.
    #[test]
    fn connections_have_one_name() {
        for text in ["0-0", "5-7", "16777215-16777215"] {
            let conn = text.parse().expect("an id");
            let origin = super::super::origin(1023, conn);
            let name = GlobalConnId::new(1023, conn).to_string();
            assert_eq!(connection_of(HERE, origin), name);
            assert_eq!(connection_of(7, origin), format!("{name}@7"));
        }
    }
}
