//! The common part of the reference servers, so that they differ only in the runtime, which the
//! comparison measures.
//!
//! Each is a WebSocket server on one thread that accepts a WebSocket on any path. All but the
//! publishing server send every text and binary message back. SIGTERM ends each of them by its
//! default action: a peer has nothing to drain.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use nix::sys::socket::{self, Backlog};

/// Listens on `address`, and prints one line with the port, which the kernel chooses if `address`
/// has port 0.
///
/// # Errors
/// The error of the system call.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library sets an accept queue of 128; a second `listen` only makes the queue
    // longer.
    socket::listen(&listener, Backlog::new(ACCEPT_QUEUE)?)?;
    listener.set_nonblocking(true)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}

/// The number of connections that the kernel may complete before the server accepts them: enough
/// for a burst of connects.
const ACCEPT_QUEUE: i32 = 4096;
