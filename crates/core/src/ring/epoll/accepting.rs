//! Accepting from a listener that several rings share.

use std::io;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Epoll, LISTENER};
use crate::ring::operation::Lent;

impl Epoll {
    /// Watches the listener while there are accepts in flight.
    ///
    /// Of the rings that watch one listener the kernel wakes only one for a connection
    /// (`EPOLLEXCLUSIVE`, since 4.5): the first of those that sleep. Each ring joins the end of that
    /// queue again when it has accepted something, which spreads connections evenly. A ring that has
    /// no accepts left is not in the queue, so the kernel cannot wake it in place of another.
    pub(super) fn watch_listener(&mut self) {
        let Some(acceptor) = &self.acceptor else { return };
        if self.listening || self.accepts.is_empty() {
            return;
        }
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        match self.watched.add(acceptor, EpollEvent::new(events, LISTENER)) {
            Ok(()) => self.listening = true,
            Err(errno) => {
                while let Some(token) = self.accepts.pop_front() {
                    self.complete(token, Err(errno), Lent::Nothing);
                }
            }
        }
    }

    /// Accepts as many connections as are waiting, up to the number of accepts in flight.
    pub(super) fn accept(&mut self) {
        let acceptor: TcpListener = self.acceptor.take().expect("it is watched");
        while let Some(&token) = self.accepts.front() {
            let accepted = match acceptor.accept() {
                // Another ring was faster, or no more connections are waiting.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                accepted => {
                    accepted.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
                }
            };
            self.accepts.pop_front();
            let watched = accepted.and_then(|(stream, peer)| {
                self.watch(&stream, token.id)?;
                Ok((stream.into_raw_fd() as u32, peer))
            });
            match watched {
                Ok((socket, peer)) => self.complete(token, Ok(socket), Lent::Peer(peer)),
                Err(errno) => self.complete(token, Err(errno), Lent::Nothing),
            }
        }
        self.listening = self.watched.delete(&acceptor).is_err();
        self.acceptor = Some(acceptor);
    }
}
