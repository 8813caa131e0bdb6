//! The hub: where sessions and the router meet. It knows no wire format and no socket.
//!
//! ```text
//!   protocol            hub                         router                      transports
//!   bytes ──▶ Command ──▶ handle: may it, how fast ──▶ channels, services
//!                        events ◀─────────────────────┘
//!                        Reply, Push, Disconnect ─────────────────────────────▶ Outlet ──▶ bytes
//!                        drained: pull publications ◀────────────────────────────┘
//! ```
//!
//! Each shard has one [`Hub`]. Commands come in as values ([`command`]), are checked against the rules
//! ([`rights`], [`rules`], [`auth`], [`limits`], the rate) and handed to the router ([`commands`]). The answers of
//! the router go out as values ([`output`]), at once or later ([`events`]). Publications are handed to
//! subscribers as far as their connections take them ([`delivery`]). Once a turn the router's messages
//! for other shards are posted to them ([`links`]).

mod answers;
#[allow(clippy::arithmetic_side_effects, reason = "sizes of what is kept, and counts")]
pub(crate) mod auth;
mod calls;
pub(crate) mod command;
mod commands;
pub(crate) mod config;
pub(crate) mod consult;
pub(crate) mod control;
mod control_plane;
mod counters;
mod delivery;
mod drain;
pub(crate) mod encodings;
pub(crate) mod error;
pub(crate) mod event;
mod events;
mod expiry;
pub(crate) mod limits;
pub(crate) mod links;
mod mail;
mod member_info;
pub(crate) mod member_names;
mod observers;
pub(crate) mod orders;
pub(crate) mod output;
pub(crate) mod pending;
pub(crate) mod presence;
mod rights;
pub(crate) mod rules;
pub(crate) mod session;
mod session_log;
mod subscription_tokens;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use murre_core::{ConnId, GlobalConnId};
#[cfg(any(test, feature = "fuzzing"))]
use murre_router::channels;
use murre_router::channels::{
    Backplane, ChannelInfo, Channels, Cursor, Origin, Payload, Retention,
};
use murre_router::presence::Presence;
use murre_router::services::Services;
use murre_router::{Member, Shard, Ticket};

use crate::backplane::nats::{FromNats, ServicesOverNats};
use auth::{User, Verdict, Verifier};
use calls::Calls;
use consult::Admitted;
use encodings::Encodings;
use links::{Links, Mailboxes};
use member_names::MemberChoices;
use observers::Observers;
use orders::Orders;
use output::DisconnectReason;
use pending::Pending;
use rules::Rules;
use session::Sessions;
use subscription_tokens::SubscriptionTokens;

pub(crate) use command::{Audience, Command, Flow, RequestId};
pub(crate) use config::HubConfig;
pub(crate) use counters::HubCounters;
pub(crate) use error::{About, Error, ErrorCode};
pub(crate) use mail::HubMail;
pub(crate) use output::{Disconnect, Outlet, Page, Push, Reply};
pub(crate) use presence::PresenceOptions;
pub(crate) use session::{Session, Wire};

/// One shard's sessions, and its part of the router.
pub(crate) struct Hub {
    config: Arc<HubConfig>,
    shard: Shard,
    channels: Channels<Encodings>,
    services: Services<Payload>,
    presence: Presence<Encodings>,
    sessions: Sessions,
    subscription_tokens: SubscriptionTokens,
    member_choices: MemberChoices,
    /// Calls of the backend, and what waits for them.
    calls: Calls,
    /// By slot: what calls of a session need that the backend has admitted.
    admitted: HashMap<u32, Box<Admitted>>,
    /// The same of the session that is opened next.
    admits_next: Option<Admitted>,
    /// The data of the connect answer of the session that was opened last, which it has yet to be told.
    greeting: Option<(ConnId, Payload)>,
    /// Requests whose calls are all answered.
    answered_requests: Vec<ConnId>,
    /// Connections with a command that has waited for the backend, and waits for the next turn.
    retried: Vec<ConnId>,
    verifier: Verifier,
    pending: Pending,
    orders: Orders,
    /// By slot: the ticket of the page of history that the session waits for.
    reading_history: HashMap<u32, Ticket>,
    /// Members to pull for, within one call of `dispatch`.
    readable: Vec<Member>,
    /// Connections that have taken everything queued for them; their sessions are handed more in this
    /// turn.
    drained: Vec<ConnId>,
    links: Links,
    /// What webhooks are told of; `None` without any.
    observers: Option<Observers>,
    counters: Arc<HubCounters>,
    /// The time of the next turn that is needed even if nothing happens.
    wake: Option<Instant>,
    /// Whether anything has happened since the last turn.
    active: bool,
    /// The time of this turn, in milliseconds since [`HubConfig::began`].
    now: u64,
    /// Whether this shard has reported that it has no connections any more.
    is_empty: bool,
}

/// The pause before messages are posted again to a shard whose mailbox was full.
const RETRY_MAIL: Duration = Duration::from_millis(1);

/// The longest time, in milliseconds, that a request of another node may have, as of a client.
const REQUEST_TIME_MAX: u32 = 60_000;

/// Sessions, and subscriptions, that end in one turn because of their tokens: about 0.1 ms.
const EXPIRED_PER_TURN: usize = 256;

impl Hub {
    /// The hub of `shard`, without sessions.
    pub(crate) fn new(
        config: Arc<HubConfig>,
        shard: Shard,
        backplane: Box<dyn Backplane + Send>,
    ) -> Self {
        let rules = Arc::clone(&config);
        let retention = move |channel: &str| retention(rules.namespaces.rules(channel));
        let (shards, seed) = (config.shards, config.seed);
        let of_presence = Arc::clone(&config);
        let presence =
            move |channel: &str| presence::presence_rules(of_presence.namespaces.rules(channel));
        let messages_max = config.channels.messages_max;
        let observers = Observers::new(&config);
        let backplane = match &observers {
            Some(observers) => observers.of_channels(backplane),
            None => backplane,
        };
        let presence = Presence::new(shard, shards, seed, presence, messages_max);
        let presence = match &config.nodes {
            Some(nodes) => presence.with_backplane(nodes.of_shard(shard)),
            None => presence,
        };
        let services = Services::new(shard, shards, seed, config.services);
        Hub {
            channels: Channels::new(shard, shards, seed, retention, config.channels)
                .with_backplane(backplane),
            services: match &config.nats {
                Some(nats) => services.with_backplane(Box::new(ServicesOverNats::new(
                    Arc::clone(nats),
                    shard,
                    config.began,
                ))),
                None => services,
            },
            presence: match &observers {
                Some(observers) => presence.with_observer(observers.of_members()),
                None => presence,
            },
            shard,
            sessions: Sessions::new(config.channels.members_expected),
            subscription_tokens: SubscriptionTokens::default(),
            member_choices: MemberChoices::default(),
            calls: Calls::default(),
            admitted: HashMap::new(),
            admits_next: None,
            greeting: None,
            retried: Vec::new(),
            answered_requests: Vec::new(),
            verifier: Verifier::new(
                config.keys.clone(),
                config.required.clone(),
                config.max_bad_tokens_per_second,
            )
            .asking(config.keys_wanted.clone()),
            pending: Pending::default(),
            orders: Orders::default(),
            reading_history: HashMap::new(),
            readable: Vec::new(),
            drained: Vec::new(),
            links: Links::new(usize::from(shard)),
            observers,
            counters: Arc::default(),
            wake: None,
            active: false,
            now: 0,
            is_empty: false,
            config,
        }
    }

    /// The counters of this hub.
    pub(crate) fn counters(&self) -> Arc<HubCounters> {
        Arc::clone(&self.counters)
    }

    /// The configuration of all hubs.
    pub(crate) fn config(&self) -> &HubConfig {
        &self.config
    }

    /// Checks a token that `conn` has presented.
    pub(crate) fn verify(&mut self, token: &str, conn: ConnId, out: &impl Outlet) -> Verdict {
        let since = self.since(out);
        // The counters of checks are updated at the end of a turn, also if no session begins.
        self.active = true;
        self.verifier.check(token, out.address(conn), since, unix_seconds())
    }

    /// Begins the session of a connection, of a user or anonymous. The connection must have none.
    pub(crate) fn open(&mut self, session: Session, user: Option<User>) {
        self.sessions.open(session, user);
        self.admitted(session.conn);
        self.observe_open(session);
        self.log_session_begin(session);
        // Its token may expire before the session sends anything.
        self.active = true;
    }

    /// The session of a connection, if it has one.
    pub(crate) fn session(&self, conn: ConnId) -> Option<Session> {
        self.sessions.of(conn)
    }

    /// The user of a connection's session, if it has authenticated.
    pub(crate) fn user(&self, conn: ConnId) -> Option<&User> {
        self.sessions.user(conn.index())
    }

    /// Ends the session of a connection, if it has one. No reply or push reaches it afterwards, and none
    /// of its replies reaches the connection's next session.
    pub(crate) fn close(&mut self, conn: ConnId, out: &mut impl Outlet) {
        let Some(session) = self.sessions.of(conn) else { return };
        self.observe_close(session);
        self.log_session_end(session);
        self.sessions.close(conn);
        self.active = true;
        // Events for this session must not wait until the connection has another one.
        self.dispatch(out);
        let slot = conn.index();
        if let Some(ticket) = self.reading_history.remove(&slot) {
            self.pending.cancel(ticket);
        }
        self.subscription_tokens.forget(slot);
        self.calls.forget(conn);
        if self.admitted.remove(&slot).is_some() && self.admitted.is_empty() {
            self.admitted.shrink_to_fit();
        }
        self.lose_presence(conn);
        let mut forget = |ticket| _ = self.pending.take(ticket);
        self.channels.leave(slot, &mut forget);
        self.services.leave(slot, &mut forget);
        if self.reading_history.is_empty() {
            self.reading_history.shrink_to_fit();
        }
    }

    /// Ends a session because the server is being drained.
    pub(crate) fn drain(&self, session: Session, out: &mut impl Outlet) {
        out.end(session, DisconnectReason::Draining.into());
    }

    /// Whether a drained shard without connections may end: no shard has connections any more.
    pub(crate) fn may_end(&mut self) -> bool {
        if !std::mem::replace(&mut self.is_empty, true) {
            self.config.drain_barrier.shard_is_empty();
        }
        self.config.drain_barrier.all_empty()
    }

    /// At most `limit` of the channels that this shard owns, and the cursor of the next page if there is
    /// one.
    pub(crate) fn channels(
        &self,
        from: Cursor,
        limit: usize,
    ) -> (Vec<ChannelInfo>, Option<Cursor>) {
        self.channels.channels(from, limit)
    }

    /// Number of deliveries that wait on this shard.
    pub(crate) fn deliveries_waiting(&self) -> u64 {
        self.channels.stats().deliveries_waiting
    }

    /// Connects this hub to the mailboxes of all shards, which have started.
    pub(crate) fn join(&mut self, boxes: Arc<dyn Mailboxes>) {
        // Sessions may have begun before.
        self.active = true;
        self.links.join(boxes);
    }

    /// The id of a connection, unique among all shards.
    pub(crate) fn connection_id(&self, conn: ConnId) -> GlobalConnId {
        GlobalConnId::new(self.shard, conn)
    }

    /// Handles mail from another shard or from the control plane.
    pub(crate) fn mail(&mut self, mail: HubMail, out: &mut impl Outlet) {
        self.refresh_clock(out);
        match mail {
            HubMail::Messages { from, channels, services, presence } => {
                let now = self.now;
                channels.into_iter().for_each(|message| self.channels.receive(from, message, now));
                services.into_iter().for_each(|message| self.services.receive(from, message));
                presence.into_iter().for_each(|message| self.presence.receive(from, message, now));
                self.dispatch(out);
            }
            HubMail::Control(control) => {
                self.control(control, out);
                self.dispatch(out);
            }
            HubMail::Answer(id, answer) => {
                self.backend_answers(id, answer, out);
                self.dispatch(out);
            }
            HubMail::FromNats(since, news) => {
                let since = self.time_of(since);
                news.into_iter().for_each(|news| self.hear_nats(news, since));
                self.dispatch(out);
            }
            HubMail::FromNodes(news) => {
                news.into_iter().for_each(|news| self.hear_nodes(news, out));
                self.dispatch(out);
            }
            HubMail::Keys(keys) => self.verifier.replace_keys(keys),
        }
    }

    /// A time of another thread, in milliseconds of `now`.
    fn time_of(&self, instant: Instant) -> u64 {
        let ago = u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now.saturating_sub(ago)
    }

    /// Hands news of NATS to the channels and services. It has taken publications since the time `since`.
    fn hear_nats(&mut self, news: FromNats, since: u64) {
        let now = self.now;
        match news {
            FromNats::Appended { id, outcome } => self.channels.appended(id, outcome),
            FromNats::Arrived { channel, arrived } => {
                self.channels.arrived(&channel, arrived, since, now);
            }
            FromNats::Opened { channel, head } => self.channels.opened(&channel, head, now),
            FromNats::Unopened { channel } => self.channels.unopened(&channel, now),
            FromNats::Lost { channel, since } => {
                let since = self.time_of(since);
                self.channels.lost(channel.as_deref(), since);
            }
            FromNats::Fetched { id, outcome } => self.channels.fetched(id, outcome, now),
            FromNats::Requested { request, service, payload, left } => {
                let deadline = now.saturating_add(left.min(REQUEST_TIME_MAX).into());
                self.services.requested(request, service, payload, deadline);
            }
            FromNats::Outcome { waiting, answer } => self.services.outcome(waiting, answer),
        }
    }

    /// Begins a turn, which has time for signature checks again.
    pub(crate) fn begin_turn(&mut self, out: &impl Outlet) {
        self.verifier.begin_turn(self.since(out));
    }

    /// The hub's work at the end of a turn: expiries, deliveries, messages to other shards.
    pub(crate) fn turn(&mut self, out: &mut impl Outlet) {
        let due = self.wake.is_some_and(|wake| wake <= out.now());
        if !due && !self.active {
            return;
        }
        self.refresh_clock(out);
        self.pull_drained(out);
        self.channels.expire(self.now);
        self.services.expire(self.now);
        self.presence.expire(self.now);
        self.fail_overdue_calls(out);
        self.expire_sessions(out);
        self.expire_subscriptions(out);
        let retried = self.proceed_retried(out).then_some(Duration::ZERO);
        let orders = self.execute_orders(out).then_some(Duration::ZERO);
        self.dispatch(out);
        let news = self.deliver_presence(out).then_some(Duration::ZERO);
        let more = self.deliver(out).then_some(Duration::ZERO).into_iter().chain(news).min();
        // Before the messages that make other shards record what follows from it.
        self.observers.iter().for_each(Observers::flush);
        let full = self.hand_over().then_some(RETRY_MAIL);
        let again = more.into_iter().chain(full).chain(orders).chain(retried).min();
        self.active = false;
        self.wake = self.next_wake(again, out.now());
        self.tell_counters();
    }

    /// Ends sessions whose tokens have expired, at most [`EXPIRED_PER_TURN`]. For more, `next_expiry` asks for
    /// another turn.
    fn expire_sessions(&mut self, out: &mut impl Outlet) {
        for _ in 0..EXPIRED_PER_TURN {
            let Some(session) = self.sessions.take_expired(unix_seconds()) else { return };
            if self.ask_to_refresh(session, out) {
                continue;
            }
            self.counters.refused.add(1);
            out.end(session, DisconnectReason::TokenExpired.into());
        }
    }

    /// The latest time of the next turn: at once if anything has happened since the last one, because
    /// there may be messages for other shards.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        if self.active { Some(self.config.began) } else { self.wake }
    }

    fn next_wake(&mut self, again: Option<Duration>, now: Instant) -> Option<Instant> {
        let moments =
            [self.channels.next_expiry(), self.services.next_expiry(), self.presence.next_expiry()];
        let moment = |ms| self.config.began.checked_add(Duration::from_millis(ms));
        let expiries = [self.sessions.next_expiry(), self.subscription_tokens.next_expiry()];
        let expiry = expiries.into_iter().flatten().min().and_then(|expires| {
            now.checked_add(Duration::from_secs(expires.saturating_sub(unix_seconds())))
        });
        let again = again.and_then(|after| now.checked_add(after));
        let moments = moments.into_iter().flatten().filter_map(moment);
        moments.chain(expiry).chain(again).chain(self.calls.next_deadline()).min()
    }

    /// Posts the router's messages for other shards. Returns whether a mailbox was full.
    fn hand_over(&mut self) -> bool {
        let mut full = false;
        for other in self.links.others() {
            let to = other as Shard;
            let (channels, services) = (self.channels.messages(to), self.services.messages(to));
            let presence = self.presence.messages(to);
            if channels.is_empty() && services.is_empty() && presence.is_empty() {
                continue;
            }
            let mail = HubMail::Messages {
                from: self.shard,
                channels: std::mem::take(channels),
                services: std::mem::take(services),
                presence: std::mem::take(presence),
            };
            if let Err(HubMail::Messages { channels, services, presence, .. }) =
                self.links.post(other, mail)
            {
                *self.channels.messages(to) = channels;
                *self.services.messages(to) = services;
                *self.presence.messages(to) = presence;
                full = true;
            }
        }
        full
    }

    /// The router's statistics of channels.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn channel_stats(&self) -> channels::Stats {
        self.channels.stats()
    }

    /// The largest numbers of commands that wait for the backend for one connection, and of their bytes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn most_waiting(&self) -> (usize, usize) {
        self.calls.most_waiting()
    }

    /// The collections that are not empty, by name. There are none once all sessions have ended and time
    /// has passed.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn left(&self) -> Vec<String> {
        let channels = channels::Stats { evicted: 0, ..self.channels.stats() };
        let services = self.services.stats();
        let presence = self.presence.stats();
        let counts = [
            ("users", self.sessions.users() as usize),
            ("expiries", self.sessions.expiries()),
            ("subscription tokens", self.subscription_tokens.len()),
            ("choices of members", self.member_choices.len()),
            ("pending", self.pending.len() as usize),
            ("orders", self.orders.len()),
            ("sessions with pending commands", self.pending.sessions()),
            ("reading_history", self.reading_history.len()),
            ("calls of the backend", self.calls.len()),
            ("sessions that the backend has admitted", self.admitted.len()),
            ("answered requests", self.answered_requests.len()),
            ("retried", self.retried.len()),
            ("tokens", self.verifier.kept()),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let mut left: Vec<String> = counts.map(|(name, count)| format!("{count} {name}")).collect();
        if channels != channels::Stats::default() {
            left.push(format!("{channels:?}"));
        }
        if presence != murre_router::presence::Stats::default() {
            left.push(format!("{presence:?}"));
        }
        if services != murre_router::services::Stats::default() {
            left.push(format!("{services:?}"));
        }
        left
    }

    fn tell_counters(&self) {
        let (channels, services) = (self.channels.stats(), self.services.stats());
        self.counters.tell(&channels, &services, &self.presence.stats());
        self.counters.authenticated.set(self.sessions.users().into());
        self.counters.expiries.set(self.sessions.expiries() as u64);
        self.counters.pending.set(self.pending.len().into());
        self.counters.backend_waiting.set(self.calls.out() as u64);
        self.counters.tell_checks(self.verifier.counts());
        self.counters.tokens_kept.set(self.verifier.kept() as u64);
    }

    /// Records that something happens, and updates `now` to the time of this turn.
    fn refresh_clock(&mut self, out: &impl Outlet) {
        self.active = true;
        self.now = self.since(out).as_millis() as u64;
    }

    /// The time since all shards began, of this turn.
    fn since(&self, out: &impl Outlet) -> Duration {
        out.now().saturating_duration_since(self.config.began)
    }

    /// The session of a connection, encoded for the router.
    fn origin(&self, conn: ConnId) -> Origin {
        origin(self.shard, conn)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.observers.iter().for_each(Observers::flush);
    }
}

/// A session as the router carries it: 16 bits of the shard, 24 of the slot, 24 of its generation.
fn origin(shard: Shard, conn: ConnId) -> Origin {
    let (slot, generation) = (u64::from(conn.index()), u64::from(conn.generation()));
    debug_assert!(slot < 1 << 24 && generation < 1 << 24);
    Origin(u64::from(shard) << 48 | slot << 24 | generation)
}

/// The slot of a session's connection.
fn slot_of(origin: Origin) -> u32 {
    (origin.0 >> 24) as u32 & 0xFF_FFFF
}

/// The origin of the server's own publications.
const SERVER: Origin = Origin(u64::MAX);

/// Seconds since 1970, as tokens count.
pub(crate) fn unix_seconds() -> u64 {
    #[cfg(any(test, feature = "fuzzing"))]
    if let Some(seconds) = SIMULATED_UNIX_SECONDS.get() {
        return seconds;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

#[cfg(any(test, feature = "fuzzing"))]
thread_local! {
    /// The wall clock of a simulation on this thread.
    pub(crate) static SIMULATED_UNIX_SECONDS: std::cell::Cell<Option<u64>> =
        const { std::cell::Cell::new(None) };
}

/// The retention of a channel, by the rules of its namespace.
fn retention(rules: &Rules) -> Option<Retention> {
    let ttl_ms = rules.history_ttl.as_millis() as u64;
    (rules.history_size > 0).then_some(Retention { size: rules.history_size, ttl_ms })
}
