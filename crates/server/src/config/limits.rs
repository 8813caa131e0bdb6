//! The settings that limit the resources of clients. `docs/limits.md` describes each.

use clap::{Args, value_parser};
use serde::Serialize;

use super::values::Seconds;

/// Every limit of `murre serve`. `/stats` shows them as `limits`.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitSettings {
    /// Connections, over all shards [default: the most that the limit of open files allows]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=16_000_000))]
    pub(crate) max_conns: Option<u32>,

    // About half of the rate that one core can accept (56,250: bench-results, 18,000 idle
    // WebSockets). The other half of the core is left for connected clients.
    /// Connections accepted per second, and at once a tenth of that; further ones wait in the
    /// backlog [default: 25,000 for each core]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000_000))]
    pub(crate) max_accepts_per_second: Option<u32>,

    // A connection storm takes 26 MB for each core between two readings, and messages take more.
    /// Bytes of free memory, of the machine and of the control group, below which new connections
    /// are refused; below half of it new connections wait. 0: no floor [default: a twentieth of the
    /// memory, from 64 MiB to 512 MiB; a quarter of a bound below 256 MiB]
    #[arg(long, value_name = "N")]
    pub(crate) memory_floor_bytes: Option<u64>,

    // The pressure of a machine with enough memory is 0; the pressure of one that swaps all the
    // time is near 100.
    /// Percent of the last ten seconds in which all tasks waited for memory, above which new
    /// connections are refused; 100: no limit
    #[arg(long, value_name = "PERCENT")]
    #[arg(default_value_t = 20, value_parser = value_parser!(u8).range(1..=100))]
    pub(crate) max_memory_pressure: u8,

    // A carrier's NAT has some hundred people behind one address, an office a few thousand at most.
    // The limit stops one host that takes all connections, but not these networks. After a restart
    // all of their clients may connect again at once.
    /// Connections of one address (of IPv6: a /64; loopback is not counted); 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) max_conns_per_address: u32,

    /// Connections that one address may open per second, and at once ten times as many; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_handshakes_per_second: u32,

    // A signature check takes up to 0.7 ms of a shard's time (RS256; ES256: 0.23 ms).
    /// Bad tokens per second of one address, and at once twice as many; further tokens are refused
    /// without a check; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max_bad_tokens_per_second: u32,

    /// Seconds in which a request's head must arrive; for the first request since the connection
    /// was accepted
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) handshake_timeout: Seconds,

    // The slowest uplink in use, GPRS, has 2,500 bytes per second.
    /// Bytes per second at which bodies and messages must arrive, after the handshake timeout
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 1000, value_parser = value_parser!(u32).range(1..))]
    pub(crate) min_bytes_per_second: u32,

    /// Longest request head, in bytes
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 32 << 10, value_parser = value_parser!(u32).range(256..=1 << 16))]
    pub(crate) max_head_bytes: u32,

    // The target of an event stream of 32 channels of 255 bytes, each byte as %XX, has 24,773
    // bytes.
    /// Longest request target (path and query), in bytes
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 28 << 10, value_parser = value_parser!(u32).range(64..=1 << 16))]
    pub(crate) max_target_bytes: u32,

    /// Header fields of a request
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 100, value_parser = value_parser!(u16).range(8..=256))]
    pub(crate) max_header_fields: u16,

    // As long as a message of a WebSocket: a Phoenix client that polls sends the same messages in bodies.
    /// Longest request body, in bytes
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 1 << 20, value_parser = value_parser!(u32).range(0..=1 << 30))]
    pub(crate) max_body_bytes: u32,

    /// Longest WebSocket message from a client, in bytes
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 1 << 20, value_parser = value_parser!(u32).range(1..=1 << 30))]
    pub(crate) max_message_bytes: u32,

    /// Frames of one WebSocket message
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 4096, value_parser = value_parser!(u32).range(1..))]
    pub(crate) max_fragments: u32,

    /// Pings and pongs that a WebSocket may send per second; 255: no limit
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 50, value_parser = value_parser!(u8).range(1..))]
    pub(crate) max_pings_per_second: u8,

    /// Seconds for which an HTTP connection may be idle between two requests
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    pub(crate) http_idle_timeout: Seconds,

    /// Seconds of silence after which a WebSocket is pinged
    #[arg(long, value_name = "SECONDS", default_value = "25")]
    pub(crate) ping_interval: Seconds,

    // Clients send a heartbeat every 30 seconds, and every 25 with supabase.
    /// Seconds of silence after which a Phoenix WebSocket is pinged. Its clients send heartbeats more
    /// often
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub(crate) phoenix_ping_interval: Seconds,

    /// Seconds after a ping in which the client must send any bytes
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) pong_timeout: Seconds,

    /// Bytes that may be queued for one connection; a client that reads too slowly for this is
    /// disconnected
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 1 << 20, value_parser = value_parser!(u32).range(1024..=1 << 30))]
    pub(crate) max_send_bytes: u32,

    /// Seconds after which a connection is closed if its client reads none of the queued bytes
    #[arg(long, value_name = "SECONDS", default_value = "25")]
    pub(crate) slow_timeout: Seconds,

    /// Seconds without reading a byte after which a client counts as slow: if it falls out of a
    /// channel's log, the namespace's rule `slow` applies
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    pub(crate) slow_grace: Seconds,

    /// Bytes of publications that a shard keeps for the readers of one channel that are behind
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 8 << 20, value_parser = value_parser!(u64).range(1024..=LOG_BYTES_MAX))]
    pub(crate) max_log_bytes: u64,

    /// Bytes of publications kept for readers that are behind, of all channels over all shards
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 64 << 20, value_parser = value_parser!(u64).range(1024..=LOG_BYTES_MAX))]
    pub(crate) max_logs_bytes: u64,

    /// Commands that one connection may send per second, and at once twice as many
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 100, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_commands_per_second: u32,

    /// Channels to which one connection may subscribe
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 1000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_channels: u32,

    /// Topics that one Phoenix connection may have joined
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 100, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_phoenix_topics: u32,

    /// Sessions of Phoenix clients that poll, over all shards
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 10_000, value_parser = value_parser!(u32).range(0..=1_000_000))]
    pub(crate) max_phoenix_polls: u32,

    /// Seconds that a poll of a Phoenix client waits for messages. A session without a poll ends after half
    /// as long again. Clients give up after 20
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) phoenix_poll_window: Seconds,

    /// Longest name of a channel or a service, in bytes
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 255, value_parser = value_parser!(u8).range(1..))]
    pub(crate) max_name_bytes: u8,

    /// Longest data of a publication, a request or a reply, in bytes
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 65_536, value_parser = value_parser!(u32).range(1..=1 << 30))]
    pub(crate) max_publication_bytes: u32,

    /// Bytes of memory for the history of all channels
    #[arg(long, value_name = "N", default_value_t = 1 << 30)]
    pub(crate) max_history_bytes: u64,

    /// Bytes of memory for the files of --files
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 64 << 20, value_parser = value_parser!(u32).range(0..=1 << 30))]
    pub(crate) max_files_bytes: u32,
}

/// 1 TiB: more memory than a machine can spare for logs.
const LOG_BYTES_MAX: u64 = 1 << 40;
