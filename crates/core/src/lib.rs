//! Sockets, rings, connections and send queues: one shard, and the server side of HTTP/1.1 and
//! WebSocket on it.
//!
//! ```text
//!            completions                 bytes                items             messages
//!   [ring] ─────────────▶ [shard::Shard] ──────▶ [serve::Serve] ──────▶ murre_codec ──────▶ Handler
//!      ▲     operations          │   ▲                                                        │
//!      └─────────────────────────┘   └──────── Outbox: queue, close, set timers ◀─────────────┘
//! ```
//!
//! A [`Shard`] runs one [`Protocol`] on one [`ring::Ring`], on one thread. It owns everything it
//! touches; other threads reach it through its [`Mailbox`] only. [`Serve`] is the protocol of a
//! server, and a [`Handler`] is what an embedding program implements.
//!
//! An idle connection holds one one-shot poll in the kernel, half a cache line here, and what the
//! protocol remembers of it.
#![deny(unsafe_code)]

// The kernel's rules are kept by hand here, and only here.
#[allow(unsafe_code)]
pub mod ring;

mod pool;

mod addresses;
mod admission;
mod conn;
mod counters;
mod listener;
mod mailbox;
mod outbox;
mod protocol;
mod shard;

pub mod host;
pub mod serve;
pub mod server;

pub use addresses::{AddressLimits, Addresses, Excess};
pub use admission::{Admission, Gate};
pub use conn::id::ConnId;
pub use conn::timers::TIMER_BYTES;
pub use conn::{CONN_BYTES, CloseReason};
pub use counters::{Counter, Counters};
pub use listener::{InheritedListener, Listener};
pub use mailbox::Mailbox;
pub use outbox::{Outbox, Queued};
pub use pool::Pool;
pub use protocol::Protocol;
pub use serve::{
    Answer, DateClock, Handler, Message, Opened, Origin, Origins, Proxies, Serve, ServeCounters,
    ServeLimits, ServeMail,
};
pub use server::{
    Pin, Placement, Server, ServerConfig, ServerError, ServerHandle, ShardHandle, Signals,
};
pub use shard::{Held, Shard, ShardConfig};
