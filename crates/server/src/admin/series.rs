//! The numbers of a shard, by their names in `/metrics` and `/stats`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use murre_core::{CloseReason, Counters, Excess, ServeCounters};
use serde_json::{Map, Value, json};

use crate::backplane::{nats, presence};
use crate::control::Sampler;
use crate::hub::HubCounters;
use crate::webhooks::EndpointNumbers;

/// The counters of one shard, which other threads can read.
#[derive(Clone, Debug)]
pub(crate) struct ShardCounters {
    pub(crate) transport: Arc<Counters>,
    pub(crate) serve: Arc<ServeCounters>,
    pub(crate) hub: Arc<HubCounters>,
}

/// One number among those of `V`.
pub(crate) struct Series<V> {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) value: fn(&V) -> u64,
}

/// The numbers of the session log.
#[rustfmt::skip]
pub(crate) const SESSION_LOG_SERIES: [Series<murre_session_log::Counts>; 10] = [
    now("session_log_open", "Users that are there, or have left within the gap", |counts| counts.open),
    total("session_log_written", "Sessions of users that have ended and were written", |counts| counts.written),
    now("session_log_waiting", "Sessions of users that have ended and wait to be written", |counts| counts.waiting),
    total("session_log_dropped", "Sessions of users that were dropped because the database failed for too long", |counts| counts.dropped),
    total("session_log_batches_failed", "Batches of the session log that failed; each is written again", |counts| counts.failed),
    total("session_log_rows", "Rows of the session log that were written: sessions that have begun, changed or ended", |counts| counts.rows),
    now("session_log_spooled", "Sessions of users that have ended and wait in the spool", |counts| counts.spooled),
    now("session_log_spool_bytes", "Bytes of the spool of the session log", |counts| counts.spool_bytes),
    total("session_log_nodes_cleaned", "Dead servers whose sessions of users this one has ended", |counts| counts.cleaned),
    total("session_log_fenced", "Times that all open sessions were written anew, as others took this server for dead or the database was away at the start", |counts| counts.fenced),
];

/// The numbers of the exchange of presence with other nodes.
#[rustfmt::skip]
pub(crate) const NODES_SERIES: [Series<presence::Counts>; 10] = [
    now("nodes", "Other nodes of the cluster whose beats are heard", |counts| counts.nodes.load(Relaxed)),
    total("nodes_gone", "Other nodes that have ended, or whose beats were not heard for 5 seconds", |counts| counts.gone.load(Relaxed)),
    total("nodes_presence_told", "Messages to other nodes about members of this one", |counts| counts.told.load(Relaxed)),
    total("nodes_presence_heard", "Messages of other nodes about members in channels that are watched here", |counts| counts.heard.load(Relaxed)),
    total("nodes_presence_gaps", "Messages about members before which another one was missing, so that the node was asked for all", |counts| counts.gaps.load(Relaxed)),
    total("nodes_presence_losses", "Times that messages may have been lost, so that all watched channels were asked for: a new connection to NATS, a missing beat, a node that stood still", |counts| counts.losses.load(Relaxed)),
    total("nodes_presence_asked", "Channels for which other nodes were asked", |counts| counts.asked.load(Relaxed)),
    total("nodes_presence_malformed", "Messages of other nodes about members that could not be read", |counts| counts.malformed.load(Relaxed)),
    now("nodes_presence_channels_told", "Channels with members here of which other nodes were told", |counts| counts.told_channels.load(Relaxed)),
    now("nodes_presence_channels_watched", "Channels whose members on other nodes this one follows", |counts| counts.watched_channels.load(Relaxed)),
];

/// The numbers of the connection to NATS.
#[rustfmt::skip]
pub(crate) const NATS_SERIES: [Series<nats::Counts>; 14] = [
    now("nats_up", "Whether there is a connection to NATS: 1 or 0", |counts| counts.up.load(Relaxed).into()),
    total("nats_reconnects", "Connections to NATS that have broken", |counts| counts.reconnects.load(Relaxed)),
    total("nats_received", "Messages that NATS has sent", |counts| counts.received.load(Relaxed)),
    total("nats_reads", "Reads of streams: gaps that are filled, recoveries, pages of history", |counts| counts.reads.load(Relaxed)),
    total("nats_malformed", "Messages on the subjects of channels and services that no node has published; they are ignored", |counts| counts.malformed.load(Relaxed)),
    now("nats_channels", "Channels to which this node is subscribed in NATS", |counts| counts.channels.load(Relaxed)),
    now("nats_publishes_waiting", "Publications that wait for NATS to take them", |counts| counts.publishes_waiting.load(Relaxed)),
    total("nats_requests", "Requests to services that were given to NATS, as no responder of this node took them", |counts| counts.requests.load(Relaxed)),
    total("nats_requests_refused", "Requests that NATS was not given, as it was away, too much waited for it, or they were too long", |counts| counts.requests_refused.load(Relaxed)),
    now("nats_requests_waiting", "Requests that were given to NATS and have no answer yet", |counts| counts.requests_waiting.load(Relaxed)),
    total("nats_requests_served", "Requests to services of this node that came from NATS", |counts| counts.requests_served.load(Relaxed)),
    total("nats_repeated", "Publications that were sent to NATS again, because no acknowledgement came", |counts| counts.repeated.load(Relaxed)),
    total("nats_paused", "Times that NATS was not read because a shard did not take more", |counts| counts.paused.load(Relaxed)),
    total("nats_dropped", "Messages to other nodes that were dropped, because NATS was away or did not take more", |counts| counts.dropped.load(Relaxed)),
];

/// The numbers of each webhook.
#[rustfmt::skip]
pub(crate) const WEBHOOK_SERIES: [Series<EndpointNumbers>; 5] = [
    total("webhook_events", "Events that a webhook has taken", |numbers| numbers.delivered),
    total("webhook_events_missed", "Events dropped because a webhook failed for too long or its queue was full", |numbers| numbers.missed),
    total("webhook_batches", "Requests that a webhook has taken", |numbers| numbers.batches),
    total("webhook_requests_failed", "Requests that a webhook has not taken", |numbers| numbers.failed),
    now("webhook_queue_bytes", "Bytes of events that wait for a webhook", |numbers| numbers.bytes),
];

/// The numbers by their names.
pub(super) fn by_name<V>(series: &[Series<V>], of: &V) -> Map<String, Value> {
    series.iter().map(|series| (series.name.into(), (series.value)(of).into())).collect()
}

/// The kind of a number: a total or a current value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number that only grows, so it has a rate.
    Total,
    /// A number that grows and shrinks.
    Now,
}

impl ShardCounters {
    /// The number of connections that were refused for `excess`.
    fn refused(&self, excess: Excess) -> u64 {
        self.transport.refused[excess as usize].get()
    }

    /// The number of connections that ended for `reason`.
    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.transport.closed[reason as usize].get()
    }
}

const fn total<V>(name: &'static str, help: &'static str, value: fn(&V) -> u64) -> Series<V> {
    Series { name, help, kind: Kind::Total, value }
}

const fn now<V>(name: &'static str, help: &'static str, value: fn(&V) -> u64) -> Series<V> {
    Series { name, help, kind: Kind::Now, value }
}

/// The total over `shards` of each series that has a rate, in the order of [`SERIES`].
pub(crate) fn totals(shards: &[ShardCounters]) -> Vec<u64> {
    with_rates().map(|series| shards.iter().map(series.value).sum()).collect()
}

/// The rates of [`totals`] by name.
pub(super) fn rates(sampler: &Sampler) -> Map<String, Value> {
    let rates = with_rates().zip(sampler.rates());
    rates.map(|(series, rate)| (series.name.into(), json!(rate))).collect()
}

fn with_rates() -> impl Iterator<Item = &'static Series<ShardCounters>> {
    SERIES.iter().filter(|series| series.kind == Kind::Total)
}

/// Every series except the closed connections, which have a label for the reason.
#[rustfmt::skip]
pub(crate) const SERIES: &[Series<ShardCounters>] = &[
    now("connections_open", "Connections that are open", |s| s.transport.open.get()),
    total("connections_accepted", "Connections accepted", |s| s.transport.accepted.get()),
    total("connections_refused_address_full", "Connections refused because their address had max-conns-per-address open", |s| s.refused(Excess::Connections)),
    total("connections_refused_too_fast", "Connections refused because their address exceeded max-handshakes-per-second", |s| s.refused(Excess::Handshakes)),
    total("connections_refused_flood", "Connections dropped without an answer because their address had too many refused ones", |s| s.refused(Excess::Flood)),
    total("accepts_failed", "Accepts that failed because descriptors or memory ran out", |s| s.transport.accept_failed.get()),
    total("accepts_paced", "Pauses of accepting because of max-accepts-per-second", |s| s.transport.accepts_paced.get()),
    total("bytes_received", "Bytes received", |s| s.transport.bytes_in.get()),
    total("bytes_sent", "Bytes sent", |s| s.transport.bytes_out.get()),
    total("receives", "Receives that returned bytes", |s| s.transport.receives.get()),
    total("sends", "Completed sends", |s| s.transport.sends.get()),
    total("sends_short", "Sends that wrote only a part", |s| s.transport.sends_short.get()),
    total("receives_starved", "Times that a connection waited for a receive buffer", |s| s.transport.starved.get()),
    total("receives_paused", "Times that a connection was not read because too much was queued for it", |s| s.transport.paused.get()),
    now("buffers_lent", "Receive buffers in use", |s| s.transport.lent.get()),
    now("sends_waiting", "Queued pieces of output", |s| s.transport.pieces.get()),
    now("inputs_waiting", "Incomplete inputs that are stored", |s| s.transport.tails.get()),
    total("turns", "Turns of the event loop", |s| s.transport.turns.get()),
    total("completions", "Completions handled", |s| s.transport.completions.get()),
    now("websockets_open", "WebSockets that are open", |s| s.serve.websockets_open.get()),
    total("websockets_opened", "WebSockets opened", |s| s.serve.websockets.get()),
    total("upgrades_refused", "WebSocket handshakes refused", |s| s.serve.upgrades_refused.get()),
    total("proxy_headers_bad", "Connections of trusted proxies without a valid PROXY header", |s| s.serve.proxy_headers_bad.get()),
    total("upgrades_refused_origin", "WebSocket handshakes refused because of allow-origin", |s| s.serve.origins_refused.get()),
    total("http_requests", "HTTP requests answered, including upgrades", |s| s.serve.requests.get()),
    total("http_requests_bad", "HTTP requests that broke a rule or a limit", |s| s.serve.requests_bad.get()),
    total("messages_received", "WebSocket messages received", |s| s.serve.messages.get()),
    total("pings_sent", "Pings sent to silent clients", |s| s.serve.pings.get()),
    total("commands", "Commands of the channels' protocol", |s| s.hub.commands.get()),
    total("commands_refused", "Commands answered with an error", |s| s.hub.refused.get()),
    total("publications", "Publications by clients", |s| s.hub.published.get()),
    total("deliveries", "Publications queued to subscribers", |s| s.hub.delivered.get()),
    total("deliveries_dropped", "Publications dropped for slow connections", |s| s.hub.dropped.get()),
    total("slow_consumers_disconnected", "Slow connections that were closed", |s| s.hub.disconnected.get()),
    now("connections_authenticated", "Connections with a valid token", |s| s.hub.authenticated.get()),
    now("connections_lagging", "Connections that are behind in a channel", |s| s.hub.members_behind.get()),
    now("subscriptions_lagging", "Subscriptions whose reader is behind", |s| s.hub.readers_behind.get()),
    now("log_publications", "Publications that wait for subscribers", |s| s.hub.log_publications.get()),
    now("log_bytes", "Bytes of those publications", |s| s.hub.log_bytes.get()),
    now("channels", "Channels with subscribers, counted once a shard", |s| s.hub.channels.get()),
    now("subscriptions", "Subscriptions", |s| s.hub.subscriptions.get()),
    now("channels_owned", "Channels with subscribers or history", |s| s.hub.channels_owned.get()),
    now("history_publications", "Publications in history", |s| s.hub.history_kept.get()),
    now("history_bytes", "Bytes of history", |s| s.hub.history_bytes.get()),
    total("history_evicted", "Publications evicted from history because of max-history-bytes", |s| s.hub.history_evicted.get()),
    now("broker_fetches_waiting", "Reads of NATS without an answer: gaps, recoveries, pages of history", |s| s.hub.broker_fetches_waiting.get()),
    now("broker_joins_waiting", "Subscriptions that wait for NATS", |s| s.hub.broker_joins_waiting.get()),
    now("broker_held_bytes", "Bytes of publications that wait for those before them", |s| s.hub.broker_held_bytes.get()),
    total("broker_dropped", "Publications without history from NATS that were dropped because a shard was behind", |s| s.hub.broker_dropped.get()),
    total("broker_losses", "Times that publications with history were lost before this node; readers were told", |s| s.hub.broker_losses.get()),
    now("messages_waiting", "Messages that wait for other shards", |s| s.hub.messages_waiting.get()),
    now("deliveries_waiting", "Deliveries queued for a later turn", |s| s.hub.deliveries_waiting.get()),
    now("presence_channels", "Channels with members or watchers", |s| s.hub.presence_channels.get()),
    now("presence_members", "Members of channels, counted by the owners of the channels", |s| s.hub.presence_members.get()),
    now("presence_leaving", "Members whose connection is lost and whose grace runs", |s| s.hub.presence_leaving.get()),
    now("presence_watchers", "Subscriptions that are told of members or counts", |s| s.hub.presence_watchers.get()),
    total("presence_news", "Messages about members queued to watchers", |s| s.hub.presence_news.get()),
    now("phoenix_polls", "Sessions of Phoenix clients that poll", |s| s.hub.phoenix_polls.get()),
    now("phoenix_polls_bytes", "Bytes that wait for the next polls of those clients", |s| s.hub.phoenix_polls_bytes.get()),
    total("phoenix_polls_refused", "Polls of Phoenix clients that began no session because of a limit", |s| s.hub.phoenix_polls_refused.get()),
    now("services", "Services offered", |s| s.hub.services.get()),
    now("requests_waiting", "Requests without a reply yet", |s| s.hub.requests_waiting.get()),
    now("requests_parked_bytes", "Bytes of requests and responses that wait for connections to take them", |s| s.hub.parked_bytes.get()),
    now("commands_waiting", "Commands whose answers come from other shards", |s| s.hub.pending.get()),
    total("backend_calls", "Calls of the backend", |s| s.hub.backend_calls.get()),
    now("backend_calls_waiting", "Calls of the backend without an answer yet", |s| s.hub.backend_waiting.get()),
    now("tokens_expiring", "Connections whose tokens expire", |s| s.hub.expiries.get()),
    total("signature_checks", "Signature checks of tokens", |s| s.hub.signature_checks.get()),
    total("signature_checks_put_off", "Signature checks put off to a later turn", |s| s.hub.signature_checks_put_off.get()),
    total("tokens_cached", "Tokens known to be good without a check", |s| s.hub.tokens_cached.get()),
    now("tokens_kept", "Good tokens and addresses with bad ones that are kept for a while", |s| s.hub.tokens_kept.get()),
    total("tokens_refused_unchecked", "Tokens refused without a check because their address sent too many bad ones", |s| s.hub.tokens_refused.get()),
];
