//! `GET /stats`: one JSON object with the facts, counters, rates and memory of the server.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use murre_core::{CloseReason, Protocol, Serve};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::series::{
    NATS_SERIES, NODES_SERIES, SERIES, SESSION_LOG_SERIES, ShardCounters, WEBHOOK_SERIES, by_name,
};
use crate::backplane::{nats, presence};
use crate::control::memory::Seen;
use crate::routes::App;
use crate::webhooks::Webhooks;
use murre_session_log::SessionLog;

/// Facts that do not change while the server runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) version: &'static str,
    /// The addresses of the data port, separated by commas.
    pub(crate) listen: String,
    pub(crate) admin: SocketAddr,
    pub(crate) io: Choice,
    pub(crate) descriptors: Choice,
    /// The bytes of one connection in a ring of this kind.
    pub(crate) ring_bytes: usize,
    /// The core to which each shard is pinned; `null` for a shard that is not pinned.
    pub(crate) cores: Vec<Option<usize>>,
    /// Every limit in force, by the name of its setting.
    pub(crate) limits: Map<String, Value>,
}

/// A choice and its reason.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Choice {
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
}

/// Current values that are not counters of the shards.
pub(crate) struct Now {
    pub(crate) uptime: Duration,
    pub(crate) draining: bool,
    pub(crate) admission: Seen,
    /// The growth rates of totals, by name.
    pub(crate) rates: Map<String, Value>,
    /// The numbers of each webhook.
    pub(crate) webhooks: Vec<Value>,
    /// The numbers of the session log.
    pub(crate) session_log: Option<Map<String, Value>>,
    /// The numbers of the connection to NATS.
    pub(crate) nats: Option<Map<String, Value>>,
    /// The numbers of the exchange of presence with other nodes.
    pub(crate) nodes: Option<Map<String, Value>>,
    /// Memory of the process when it was ready.
    pub(crate) at_start: Memory,
}

/// The answer as JSON.
pub(crate) fn stats(facts: &Facts, shards: &[ShardCounters], now: &Now) -> Value {
    let open = shards.iter().map(|shard| shard.transport.open.get()).sum();
    json!({
        "version": facts.version,
        "uptime_seconds": now.uptime.as_secs_f64(),
        "draining": now.draining,
        "admission": now.admission,
        "listen": facts.listen,
        "admin": facts.admin,
        "io": facts.io,
        "descriptors": facts.descriptors,
        "limits": facts.limits,
        "connections": open,
        "total": counters(shards),
        "closed": closed(shards),
        "rates": now.rates,
        "webhooks": now.webhooks,
        "session_log": now.session_log,
        "nats": now.nats,
        "nodes": now.nodes,
        "shards": facts.cores.iter().zip(shards).enumerate().map(|(shard, (core, counted))| json!({
            "shard": shard,
            "core": core,
            "counters": counters(std::slice::from_ref(counted)),
        })).collect::<Vec<_>>(),
        "memory": memory(facts, now.at_start, open),
    })
}

/// The numbers of each webhook, by the names of its metrics.
pub(crate) fn webhooks(webhooks: &Webhooks) -> Vec<Value> {
    let numbers = webhooks.numbers().map(|(endpoint, numbers)| {
        let mut object = by_name(&WEBHOOK_SERIES, &numbers);
        object.insert("endpoint".into(), endpoint.into());
        Value::Object(object)
    });
    numbers.collect()
}

/// The numbers of the session log, by the names of its metrics.
pub(crate) fn session_log(log: &SessionLog) -> Map<String, Value> {
    by_name(&SESSION_LOG_SERIES, &log.counts())
}

/// The numbers of the connection to NATS, by the names of its metrics.
pub(crate) fn nats(counts: &nats::Counts) -> Map<String, Value> {
    by_name(&NATS_SERIES, counts)
}

/// The numbers of the exchange of presence with other nodes, by the names of its metrics.
pub(crate) fn nodes(counts: &presence::Counts) -> Map<String, Value> {
    by_name(&NODES_SERIES, counts)
}

fn counters(shards: &[ShardCounters]) -> Map<String, Value> {
    let total = |value: fn(&ShardCounters) -> u64| shards.iter().map(value).sum::<u64>();
    SERIES.iter().map(|series| (series.name.into(), total(series.value).into())).collect()
}

fn closed(shards: &[ShardCounters]) -> Map<String, Value> {
    let total = |reason| shards.iter().map(|shard| shard.closed(reason)).sum::<u64>();
    CloseReason::ALL
        .map(|reason| (reason.name().into(), total(reason).into()))
        .into_iter()
        .collect()
}

/// The cost of a connection by the sizes of its parts, and the memory of the process.
fn memory(facts: &Facts, at_start: Memory, open: u64) -> Value {
    let now = Memory::now();
    let per_open = |bytes: u64| (open > 0).then(|| bytes as f64 / open as f64);
    let protocol = size_of::<Option<<Serve<App> as Protocol>::State>>();
    let parts = [murre_core::CONN_BYTES, murre_core::TIMER_BYTES, facts.ring_bytes, protocol];
    let sum: usize = parts.iter().sum();
    json!({
        "bytes_per_connection": {
            "conn": murre_core::CONN_BYTES,
            "timer": murre_core::TIMER_BYTES,
            "ring": facts.ring_bytes,
            "protocol": protocol,
            "sum": sum,
        },
        "process": now,
        "process_at_start": at_start,
        "pss_bytes_per_open": per_open(now.pss_bytes),
        // Pages of the binary do not count, because they are loaded when code first runs and not
        // for connections.
        "growth_bytes_per_open": per_open(now.anonymous_bytes.saturating_sub(at_start.anonymous_bytes)),
    })
}

/// Physical memory of this process; 0 where the kernel does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Proportional set size in bytes: shared pages count in part.
    pss_bytes: u64,
    /// The bytes that do not belong to files: stacks, heaps and buffers.
    anonymous_bytes: u64,
}

impl Memory {
    /// Reads the current memory of the process.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        Memory::of(&text).unwrap_or_default()
    }

    fn of(smaps_rollup: &str) -> Option<Self> {
        let bytes = |name| {
            let value = smaps_rollup.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Memory { pss_bytes: bytes("Pss:")?, anonymous_bytes: bytes("Pss_Anon:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right lines are found among similar ones, and the process of the test has a size.
    #[test]
    fn memory_is_read() {
        let text = "00400000-7ffd5000 ---p 00000000 00:00 0    [rollup]\n\
                    Rss:                1234 kB\nPss:                 567 kB\n\
                    Pss_Dirty:            89 kB\nPss_Anon:            56 kB\n";
        let memory = Memory { pss_bytes: 567 * 1024, anonymous_bytes: 56 * 1024 };
        assert_eq!(Memory::of(text), Some(memory));
        assert_eq!(Memory::of("Pss: 1 kB\n"), None);
        assert!(Memory::now().anonymous_bytes > 0);
    }
}
