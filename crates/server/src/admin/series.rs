//! The numbers that every shard keeps, under the names that `/metrics` and `/stats` both use.

use std::sync::Arc;

use murre_core::{CloseReason, Counters, ServeCounters};

/// One shard's counters, as other threads see them.
#[derive(Clone, Debug)]
pub(crate) struct ShardCounters {
    pub(crate) transport: Arc<Counters>,
    pub(crate) serve: Arc<ServeCounters>,
}

/// One number of a shard.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) value: fn(&ShardCounters) -> u64,
}

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only up, so that it has a rate.
    Total,
    /// Up and down.
    Now,
}

impl ShardCounters {
    /// How many connections ended for `reason`.
    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.transport.closed[reason as usize].get()
    }
}

const fn total(name: &'static str, help: &'static str, value: fn(&ShardCounters) -> u64) -> Series {
    Series { name, help, kind: Kind::Total, value }
}

const fn now(name: &'static str, help: &'static str, value: fn(&ShardCounters) -> u64) -> Series {
    Series { name, help, kind: Kind::Now, value }
}

/// Every number but the connections closed, which are told apart by reason.
#[rustfmt::skip]
pub(crate) const SERIES: [Series; 19] = [
    now("connections_open", "Connections that are open", |s| s.transport.open.get()),
    total("connections_accepted", "Connections accepted", |s| s.transport.accepted.get()),
    total("accepts_failed", "Accepts that failed for want of descriptors or memory", |s| s.transport.accept_failed.get()),
    total("bytes_received", "Bytes received", |s| s.transport.bytes_in.get()),
    total("bytes_sent", "Bytes sent", |s| s.transport.bytes_out.get()),
    total("receives", "Receives that gave bytes", |s| s.transport.receives.get()),
    total("sends", "Sends that ended", |s| s.transport.sends.get()),
    total("sends_short", "Sends that took only a part", |s| s.transport.sends_short.get()),
    total("receives_starved", "Waits for a receive buffer", |s| s.transport.starved.get()),
    total("receives_paused", "Reads put off because too much was queued to the client", |s| s.transport.paused.get()),
    total("turns", "Turns of the event loop", |s| s.transport.turns.get()),
    total("completions", "Completions dealt with", |s| s.transport.completions.get()),
    now("websockets_open", "WebSockets that are open", |s| s.serve.websockets_open.get()),
    total("websockets_opened", "WebSockets opened", |s| s.serve.websockets.get()),
    total("upgrades_refused", "WebSockets refused", |s| s.serve.upgrades_refused.get()),
    total("http_requests", "HTTP requests answered, upgrades among them", |s| s.serve.requests.get()),
    total("http_requests_bad", "HTTP requests that broke a rule or a limit", |s| s.serve.requests_bad.get()),
    total("messages_received", "WebSocket messages received", |s| s.serve.messages.get()),
    total("pings_sent", "Pings sent to silent clients", |s| s.serve.pings.get()),
];
