//! What the reference servers share, so that they differ only in what is measured: the runtime.
//!
//! Each is a WebSocket server on one thread that accepts a WebSocket on any path. All but the one that
//! publishes send every
//! text and binary message back; all end on SIGTERM by its default action: a peer has nothing to
//! drain.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use nix::sys::socket::{self, Backlog};

/// Listens on `address`, and says so in one line that names the port chosen where it was 0.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The standard library asks for a queue of 128; asking again only makes the queue longer.
    socket::listen(&listener, Backlog::new(ACCEPT_QUEUE)?)?;
    listener.set_nonblocking(true)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}

/// Connections the kernel may complete before they are accepted: a burst of connects fits.
const ACCEPT_QUEUE: i32 = 4096;
