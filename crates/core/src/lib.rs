//! A server of HTTP/1.1 and WebSocket connections on io_uring, to build other servers on.
//!
//! ```text
//!            completions                 bytes                items             messages
//!   [ring] ─────────────▶ [shard::Shard] ──────▶ [serve::Serve] ──────▶ murre_codec ──────▶ Handler
//!      ▲     operations          │   ▲                                                        │
//!      └─────────────────────────┘   └──────── Outbox: queue, close, set timers ◀─────────────┘
//! ```
//!
//! A program implements [`Handler`], and a [`Server`] runs it: on N shards, each with a thread, an
//! io_uring (or epoll, where that is refused) and connections of its own, which accept from the same
//! [`Listener`]s.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//!
//! use murre_core::codec::http::{Request, Response};
//! use murre_core::{Answer, ConnId, Handler, Listener, Outbox, Server, ServerConfig};
//!
//! struct Greeter;
//!
//! impl Handler for Greeter {
//!     type Session = ();
//!     type Mail = ();
//!
//!     fn request(&mut self, _: ConnId, request: &Request<'_, '_>, _: &mut Outbox) -> Answer<()> {
//!         Answer::Now(Response::text(200, format!("hello, {}\n", request.path())))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
//! let address = listener.address()?;
//! // With `Some(Signals::block()?)` in place of `None` SIGTERM drains the server.
//! let mut server = Server::start(ServerConfig::new(listener)?, None, |_shard| Greeter)?;
//!
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"GET /you HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
//! assert!(answer.ends_with("hello, /you\n"));
//!
//! // A program that serves until a signal calls `server.run()` instead.
//! server.drain()?;
//! # Ok(())
//! # }
//! ```
//!
//! # WebSockets, sessions and timers
//!
//! A handshake is accepted by [`Handler::open`], which makes the session: what the program remembers
//! of the WebSocket until [`Handler::close`]. Whatever is sent goes through the [`Outbox`], which
//! queues it and never blocks. Here each message is returned, and a peer that has said nothing for
//! 50 ms is told so.
//!
//! ```
//! # use std::io::{Read, Write};
//! # use std::net::TcpStream;
//! use std::time::Duration;
//!
//! use murre_core::codec::Kind;
//! use murre_core::codec::handshake::Upgrade;
//! use murre_core::codec::http::{Request, Response};
//! # use murre_core::{Listener, Server, ServerConfig};
//! use murre_core::{ConnId, Handler, Message, Opened, Outbox};
//!
//! const SILENCE_MAX: Duration = Duration::from_millis(50);
//!
//! struct Echo;
//!
//! struct Session {
//!     messages: u32,
//! }
//!
//! impl Handler for Echo {
//!     type Session = Session;
//!     type Mail = ();
//!
//!     fn open(
//!         &mut self,
//!         _: ConnId,
//!         _: &Request<'_, '_>,
//!         _: &Upgrade<'_>,
//!         _: &mut Outbox,
//!     ) -> Result<Opened<Session>, Response> {
//!         Ok(Opened::new(Session { messages: 0 }))
//!     }
//!
//!     fn message(&mut self, conn: ConnId, session: &mut Session, message: Message<'_>, out: &mut Outbox) {
//!         session.messages += 1;
//!         // The shard closes a peer that does not read: there is nothing to do about it here.
//!         let _ = out.message(conn, message.kind, message.bytes);
//!         out.set_session_timer(conn, SILENCE_MAX);
//!     }
//!
//!     fn timer(&mut self, conn: ConnId, session: &mut Session, out: &mut Outbox) {
//!         let text = format!("{} so far", session.messages);
//!         let _ = out.message(conn, Kind::Text, text.as_bytes());
//!     }
//! }
//! #
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
//! # let address = listener.address()?;
//! # let mut server = Server::start(ServerConfig::new(listener)?, None, |_shard| Echo)?;
//! # let mut client = TcpStream::connect(address)?;
//! # client.write_all(
//! #     b"GET / HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
//! #       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
//! #       \x81\x82\0\0\0\0hi",
//! # )?;
//! # let mut heard = Vec::new();
//! # while !heard.ends_with(b"\x81\x02hi\x81\x081 so far") {
//! #     let mut byte = [0];
//! #     client.read_exact(&mut byte)?;
//! #     heard.extend(byte);
//! # }
//! # drop(client);
//! # server.drain()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Other threads
//!
//! A handler belongs to its shard's thread and needs no locks. Other threads, those of the other
//! shards among them, post to the shard's [`Mailbox`] ([`Server::shards`]), and [`Handler::mail`]
//! gets what they have posted. The examples `chat`, a room over all shards, and `computed`, HTTP
//! answers that another thread computes, are complete programs.
//!
//! # Below the server
//!
//! A [`Shard`] runs one [`Protocol`] on one [`ring::Ring`], on one thread. It owns everything it
//! touches; other threads reach it through its [`Mailbox`] only. [`Serve`] is the protocol of a
//! server; a load generator has others. An idle connection holds one one-shot poll in the kernel, half
//! a cache line here, and what the protocol remembers of it.
#![deny(unsafe_code)]

// The kernel's rules are kept by hand here, and only here.
#[allow(unsafe_code)]
pub mod ring;

mod pool;
mod retry;

mod addresses;
mod admission;
mod byte_stage;
mod conn;
mod counters;
mod listener;
mod mailbox;
mod notice;
mod outbox;
mod peers;
mod protocol;
mod shard;
mod token_bucket;

pub mod host;
pub mod serve;
pub mod server;

pub use addresses::{AddressLimits, Addresses, Excess};
pub use admission::{Admission, Gate};
pub use byte_stage::{ByteStage, Plain, Unsealed};
pub use conn::id::ConnId;
pub use conn::timers::TIMER_BYTES;
pub use conn::{CONN_BYTES, CloseReason};
pub use counters::{Counter, Counters};
pub use listener::{InheritedListener, Listener};
pub use mailbox::Mailbox;
pub use notice::Notice;
pub use outbox::{Outbox, Queued};
pub use peers::{GlobalConnId, LOG_TARGET, LOG_TEXT_BYTES_MAX, ShownPeer};
pub use pool::Pool;
pub use protocol::Protocol;
pub use serve::{
    Answer, DateClock, Handler, Message, Opened, Origin, Origins, Proxies, RequestKind, Serve,
    ServeCounters, ServeLimits, ServeMail,
};
pub use server::{
    Pin, Placement, Server, ServerConfig, ServerError, ServerHandle, ShardHandle, Signals,
};
pub use shard::{Grouped, Held, Shard, ShardConfig, run_together};
pub use token_bucket::{BucketState, RateDecision, TokenBucket};

/// Frames that are encoded once and shared by their receivers.
pub use bytes::Bytes;
/// Frames, requests and responses: `murre_codec`.
pub use murre_codec as codec;
