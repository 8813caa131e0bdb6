//! Connections that arrive, and those that the protocol asks for.

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;

use super::Shard;
use crate::admission::Admission;
use crate::conn::id::ConnId;
use crate::conn::{Mark, State};
use crate::notice::Notice;
use crate::outbox::Connect;
use crate::peers::LOG_TARGET;
use crate::protocol::Protocol;
use crate::ring::{Op, OpKind, Ring, Socket};

/// Enough for several connections a turn; few, because the shards' accepts are woken in the order
/// they were armed, so that neighbours in time go to one shard in blocks of so many.
const ACCEPTS_MAX: u32 = 8;
/// Connections that a turn begins at most: the kernel makes them one after the other, and lets nobody
/// else have the core meanwhile where it is not preempted.
const CONNECTS_MAX: usize = 64;
/// How long to leave the backlog alone when the machine has nothing left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<R: Ring, P: Protocol> Shard<R, P> {
    /// Keeps accepts armed while there are slots for what they give, as fast as is allowed.
    pub(super) fn accept(&mut self) {
        let now = self.out.now;
        let turned_away = mem::take(&mut self.out.turned_away);
        if turned_away > 0 {
            self.accepts.pace.give_back(turned_away);
            self.accepts.paced_until = None;
        }
        if self.accepts.not_before().is_some_and(|time| now < time) {
            return;
        }
        (self.accepts.paused_until, self.accepts.paced_until) = (None, None);
        if self.accepts.listening && self.out.gate.admission() == Admission::Wait {
            self.accepts.paused_until = Some(now + ACCEPT_PAUSE);
            return;
        }
        while self.accepts.listening && self.accepts.armed < ACCEPTS_MAX {
            if let Some(next) = self.accepts.pace.wait(now) {
                self.out.counters.accepts_paced.add(1);
                // While accepts are armed nobody waits: they are armed at this pace, too.
                if self.accepts.armed == 0 {
                    warn_of_pace();
                }
                self.accepts.paced_until = Some(next);
                return;
            }
            let Some(id) = self.out.conns.reserve() else {
                if self.accepts.armed == 0 && !mem::replace(&mut self.accepts.full, true) {
                    warn_of_full_shard(self.out.conns.used());
                }
                return;
            };
            self.accepts.full = false;
            self.accepts.pace.spend(now);
            self.accepts.armed += 1;
            self.push(id, OpKind::Accept, Op::Accept);
        }
    }

    pub(super) fn accepted(
        &mut self,
        id: ConnId,
        result: Result<u32, i32>,
        peer: Option<SocketAddr>,
    ) {
        self.accepts.armed -= 1;
        match result {
            Ok(socket) => {
                self.out.conns.get_mut(id).expect("reserved").socket = Socket(socket);
                self.out.counters.accepted.add(1);
                self.opened(id, peer);
            }
            Err(errno) => {
                self.out.conns.free(id);
                self.accept_failed(errno);
            }
        }
    }

    fn accept_failed(&mut self, errno: i32) {
        match Errno::from_raw(errno) {
            // It had gone before we came to it, or was not let in: errors that were pending on it
            // are passed on (accept(2), "Error handling"), and say nothing of the next one.
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
            // Nothing to accept with: what waits stays in the backlog.
            errno => {
                self.out.counters.accept_failed.add(1);
                warn_of_failed_accept(errno);
                self.accepts.paused_until = Some(self.out.now + ACCEPT_PAUSE);
            }
        }
    }

    pub(super) fn connect(&mut self) {
        for _ in 0..CONNECTS_MAX {
            let Some(Connect { id, to, from }) = self.out.connects.pop_front() else { break };
            match self.ring.open(id, to, from) {
                Ok(socket) => {
                    self.out.conns.get_mut(id).expect("reserved").socket = socket;
                    self.push(id, OpKind::Connect, Op::Connect(socket, to));
                }
                Err(errno) => {
                    self.out.conns.free(id);
                    self.protocol.refused(id, errno, &mut self.out);
                }
            }
        }
        self.out.connects.shrink_to(CONNECTS_MAX);
    }

    pub(super) fn connected(&mut self, id: ConnId, result: Result<u32, i32>) {
        match result {
            Ok(_) => {
                self.out.counters.connected.add(1);
                self.opened(id, None);
            }
            Err(errno) => {
                let conn = self.out.conns.get_mut(id).expect("reserved");
                conn.state = State::Terminating;
                self.protocol.refused(id, errno, &mut self.out);
            }
        }
    }

    fn opened(&mut self, id: ConnId, peer: Option<SocketAddr>) {
        let conn = self.out.conns.get_mut(id).expect("reserved");
        conn.state = State::Open;
        conn.marks.set(Mark::Took);
        self.out.counters.open.add(1);
        let state = self.protocol.opened(id, peer, &mut self.out);
        let index = id.index() as usize;
        if self.states.len() <= index {
            self.states.resize_with(index + 1, || None);
        }
        self.states[index] = Some(state);
        self.wait(id);
        // It was on its way when the drain began.
        if self.drain.is_some() {
            self.leave(id);
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
