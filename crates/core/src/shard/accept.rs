//! Connections that arrive, and connections that the protocol asks for.

use std::mem;
use std::net::SocketAddr;

use nix::errno::Errno;

use super::Shard;
use crate::byte_stage::ByteStage;
use crate::conn::id::ConnId;
use crate::conn::{Flag, State};
use crate::notice::Notice;
use crate::outbox::Connect;
use crate::peers::LOG_TARGET;
use crate::protocol::Protocol;
use crate::ring::{Op, OpKind, Ring, Socket};

/// Connections that a turn begins at most: the kernel makes them one after the other, and where it is
/// not preempted no other thread gets the core meanwhile.
const CONNECTS_MAX: usize = 64;

impl<R: Ring, P: Protocol, B: ByteStage> Shard<R, P, B> {
    /// Keeps accepts armed while there are free slots, as fast as the rate allows.
    pub(super) fn accept(&mut self) {
        let now = self.out.now;
        self.accepts.refund(mem::take(&mut self.out.turned_away));
        if !self.accepts.may_arm(&self.out.gate, now) {
            return;
        }
        while self.accepts.wants_more(self.out.conns.used()) {
            if !self.accepts.is_in_rate(now) {
                self.out.counters.accepts_paced.add(1);
                // While accepts are armed nobody waits: they are armed at this rate, too.
                if self.accepts.armed == 0 {
                    warn_of_pace();
                }
                return;
            }
            let Some(conn) = self.out.conns.reserve() else {
                if self.accepts.is_newly_full() {
                    warn_of_full_shard(self.out.conns.used());
                }
                return;
            };
            self.accepts.arm(now);
            self.push(conn, OpKind::Accept, Op::Accept);
        }
    }

    pub(super) fn accepted(
        &mut self,
        conn: ConnId,
        result: Result<u32, i32>,
        peer: Option<SocketAddr>,
    ) {
        self.accepts.armed -= 1;
        match result {
            Ok(socket) => {
                self.out.conns[conn].socket = Socket(socket);
                self.out.counters.accepted.add(1);
                self.opened(conn, peer);
            }
            Err(errno) => {
                self.out.conns.free(conn);
                self.accept_failed(errno);
            }
        }
    }

    fn accept_failed(&mut self, errno: i32) {
        match Errno::from_raw(errno) {
            // The connection was gone or was refused: accept passes on errors that are pending on
            // the new socket (accept(2), "Error handling"). They do not concern the next one.
            Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::EAGAIN
            | Errno::EINTR => {}
            // The listener is shut down.
            Errno::EINVAL | Errno::EBADF | Errno::ECANCELED => self.accepts.listening = false,
            // No descriptors or memory: connections stay in the backlog for a while.
            errno => {
                self.out.counters.accept_failed.add(1);
                warn_of_failed_accept(errno);
                self.accepts.pause(self.out.now);
            }
        }
    }

    /// Begins the connections that the protocol has asked for.
    pub(super) fn connect(&mut self) {
        for _ in 0..CONNECTS_MAX {
            let Some(Connect { conn, to, from }) = self.out.connects.pop_front() else { break };
            match self.ring.open(conn, to, from) {
                Ok(socket) => {
                    self.out.conns[conn].socket = socket;
                    self.push(conn, OpKind::Connect, Op::Connect(socket, to));
                }
                Err(errno) => {
                    self.out.conns.free(conn);
                    self.protocol.refused(conn, errno, &mut self.out);
                }
            }
        }
        self.out.connects.shrink_to(CONNECTS_MAX);
    }

    pub(super) fn connected(&mut self, conn: ConnId, result: Result<u32, i32>) {
        match result {
            Ok(_) => {
                self.out.counters.connected.add(1);
                self.opened(conn, None);
            }
            Err(errno) => {
                self.out.conns[conn].state = State::Terminating;
                self.out.schedule_flush(conn);
                self.protocol.refused(conn, errno, &mut self.out);
            }
        }
    }

    fn opened(&mut self, conn: ConnId, peer: Option<SocketAddr>) {
        let slot = &mut self.out.conns[conn];
        slot.state = State::Open;
        slot.flags.set(Flag::Progressed);
        self.out.counters.open.add(1);
        self.stage.opened(conn);
        let state = self.protocol.opened(conn, peer, &mut self.out);
        self.states.insert(conn, state);
        self.wait(conn);
        // The accept was in flight when the drain began.
        if self.drain.is_some() {
            self.leave(conn);
        }
    }
}

fn warn_of_pace() {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        tracing::warn!(
            target: LOG_TARGET,
            times,
            flag = "--max-accepts-per-second",
            "new connections wait in the backlog: they come faster than the flag allows"
        );
    }
}

fn warn_of_full_shard(conns: u32) {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        tracing::warn!(
            target: LOG_TARGET,
            times,
            conns,
            flag = "--max-conns",
            "new connections wait in the backlog: a shard has no room for more; raise the flag, and \
             the limit of open files (ulimit -n) if it is what the flag follows from"
        );
    }
}

fn warn_of_failed_accept(errno: Errno) {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        tracing::warn!(
            target: LOG_TARGET,
            times,
            error = errno.desc(),
            flag = "--max-conns",
            "new connections wait in the backlog: the kernel cannot accept them; raise the limit of \
             open files (ulimit -n), give the machine more memory, or lower the flag"
        );
    }
}
