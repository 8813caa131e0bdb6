//! Accepting from listeners that several rings share.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Epoll, LISTENER};
use crate::listener::Listener;
use crate::ring::operation::Lent;

/// A listener of one ring.
pub(super) struct Acceptor {
    socket: ListeningSocket,
    /// Whether it is watched, which it is only while there are accepts.
    pub(super) watched: bool,
}

enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    pub(super) fn new(listener: &Listener) -> io::Result<Self> {
        let fd = listener.as_fd().try_clone_to_owned()?;
        let socket = match listener.path() {
            None => ListeningSocket::Tcp(fd.into()),
            Some(_) => ListeningSocket::Unix(fd.into()),
        };
        // Another ring may have accepted the connection that this one was woken for.
        match &socket {
            ListeningSocket::Tcp(socket) => socket.set_nonblocking(true)?,
            ListeningSocket::Unix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(Acceptor { socket, watched: false })
    }

    /// The connection, and the address of its peer over TCP.
    fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                socket.accept().map(|(stream, peer)| (stream.into(), Some(peer)))
            }
            ListeningSocket::Unix(socket) => {
                socket.accept().map(|(stream, _)| (stream.into(), None))
            }
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Epoll {
    /// Watches the listeners while there are accepts in flight.
    ///
    /// Of the rings that watch one listener the kernel wakes only one for a connection
    /// (`EPOLLEXCLUSIVE`, since 4.5): the first of those that sleep. Each ring joins the end of that
    /// queue again when it has accepted something, which spreads connections evenly. A ring that has
    /// no accepts left is not in the queue, so the kernel cannot wake it in place of another.
    pub(super) fn watch_listeners(&mut self) {
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].watched || self.accepts.is_empty() {
                continue;
            }
            let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            let event = EpollEvent::new(events, LISTENER | index as u64);
            match self.watched.add(&self.acceptors[index], event) {
                Ok(()) => self.acceptors[index].watched = true,
                Err(errno) => self.fail_accepts(errno),
            }
        }
    }

    /// Accepts as many connections as are waiting at a listener, up to the number of accepts in
    /// flight.
    pub(super) fn accept(&mut self, index: usize) {
        while let Some(&token) = self.accepts.front() {
            let accepted = match self.acceptors[index].accept() {
                // Another ring was faster, or no more connections are waiting.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                accepted => {
                    accepted.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
                }
            };
            self.accepts.pop_front();
            let watched = accepted.and_then(|(socket, peer)| {
                self.watch(&socket, token.id)?;
                Ok((socket.into_raw_fd() as u32, peer))
            });
            match watched {
                Ok((socket, peer)) => {
                    self.complete(token, Ok(socket), peer.map_or(Lent::Nothing, Lent::Peer));
                }
                Err(errno) => self.complete(token, Err(errno), Lent::Nothing),
            }
        }
        let all = self.accepts.is_empty();
        for (at, acceptor) in self.acceptors.iter_mut().enumerate() {
            if acceptor.watched && (all || at == index) {
                acceptor.watched = self.watched.delete(&*acceptor).is_err();
            }
        }
    }

    /// Ends accepts that the end of listening does not: those on inherited listeners.
    pub(in crate::ring) fn stop_accepting(&mut self) {
        if self.common.listeners.iter().any(Listener::is_inherited) {
            self.fail_accepts(Errno::ECANCELED);
        }
    }

    fn fail_accepts(&mut self, errno: Errno) {
        while let Some(token) = self.accepts.pop_front() {
            self.complete(token, Err(errno), Lent::Nothing);
        }
    }
}
