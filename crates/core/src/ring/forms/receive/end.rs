//! One end of all connections: an echo server, or its client.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::SPAN;
use crate::buffers::{BUFFER_BYTES, Buffers, GROUP};
use crate::setup::{self, cpu_time};

const ANSWER_BYTES: usize = 1024;
const ZERO: Timespec = Timespec::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One-shot poll, then `RECV` of what is there into a leased buffer.
    PollThenRecv,
    /// One-shot poll, then `READ_FIXED` of what is there into a leased buffer, registered.
    PollThenReadFixed,
    /// One-shot poll, then `RECV` of what is there into a buffer that the kernel chooses.
    PollThenRecvProvided,
    /// `RECV` that tries at once and then waits, holding a buffer.
    Armed,
    /// `RECV` that waits before it tries, holding a buffer.
    ArmedPollFirst,
    /// `RECV` that waits before it tries, with a buffer that the kernel chooses when it is there.
    ArmedProvided,
    /// One `RECV` for all that arrives, with buffers that the kernel chooses.
    Multishot,
}

impl Form {
    fn is_provided(self) -> bool {
        matches!(self, Form::PollThenRecvProvided | Form::ArmedProvided | Form::Multishot)
    }
}

/// One end of all connections.
pub(crate) struct End {
    /// First, so that it is closed before memory that the kernel may access is freed.
    ring: IoUring,
    form: Form,
    sockets: Vec<TcpStream>,
    /// Whether something is in flight that leads to a receive; by connection.
    armed: Vec<bool>,
    buffers: Buffers,
    /// The buffer of the receive in flight, where it is ours to choose; by connection.
    leased: Vec<u16>,
    /// What was received last, to be sent back; by connection.
    answers: Vec<[u8; ANSWER_BYTES]>,
    /// Sends that were pushed since the last enter: they do not wait, and nobody waits for them.
    sends: usize,
    enters: u64,
}

// As the ring of a shard has them.
const SQ_ENTRIES: u32 = 1024;
const CQ_ENTRIES: u32 = 4096;
const FLUSH: usize = 1024;

/// `IORING_RECVSEND_POLL_FIRST`.
const POLL_FIRST: u16 = 1;
/// `RWF_NOWAIT`.
const RWF_NOWAIT: i32 = 8;

// What `user_data` holds above the connection.
const POLL: u64 = 0;
const RECV: u64 = 1;
const SEND: u64 = 2;
const CANCEL: u64 = 3;

impl End {
    /// For the calling thread.
    pub(crate) fn new(form: Form, sockets: Vec<TcpStream>) -> io::Result<Self> {
        let ring = setup::ring(SQ_ENTRIES, CQ_ENTRIES)?;
        let count = sockets.len();
        let mut buffers = Buffers::new(count.next_power_of_two() as u16);
        match form {
            Form::PollThenReadFixed => buffers.register(&ring)?,
            form if form.is_provided() => buffers.provide_all(&ring)?,
            _ => {}
        }
        Ok(End {
            ring,
            form,
            sockets,
            armed: vec![false; count],
            buffers,
            leased: vec![0; count],
            answers: vec![[7; ANSWER_BYTES]; count],
            sends: 0,
            enters: 0,
        })
    }

    /// Answers until every connection is closed. Gives the echoes, the enters and the CPU time.
    pub(crate) fn echo(mut self) -> io::Result<(u64, u64, Duration)> {
        self.arm_all();
        let begin = cpu_time()?;
        let (mut echoes, mut open) = (0, self.sockets.len());
        while open > 0 {
            self.enter()?;
            while let Some((conn, len)) = self.received() {
                if len == 0 {
                    open -= 1;
                } else {
                    echoes += 1;
                    self.send(conn, len);
                    self.arm(conn);
                }
            }
        }
        Ok((echoes, self.enters, cpu_time()? - begin))
    }

    /// Asks for a while: on each connection as soon as it is answered or, at a rate, on the next
    /// when it is time. Gives the questions, each of which was answered, and how long it took.
    pub(crate) fn ask(mut self, payload: usize, rate: Option<u32>) -> io::Result<(u64, Duration)> {
        self.arm_all();
        let mut idle: VecDeque<usize> = (0..self.sockets.len()).collect();
        let (begin, mut asked) = (Instant::now(), 0);
        loop {
            let span = begin.elapsed();
            let due = match rate {
                _ if span >= SPAN && idle.len() == self.sockets.len() => break,
                _ if span >= SPAN => 0,
                None => u64::MAX,
                Some(rate) => (f64::from(rate) * span.as_secs_f64()) as u64,
            };
            while asked < due
                && let Some(conn) = idle.pop_front()
            {
                self.send(conn, payload);
                asked += 1;
            }
            match rate {
                None => self.enter()?,
                // It never sleeps, to be on time.
                Some(_) => self.enter_without_waiting()?,
            }
            while let Some((conn, len)) = self.received() {
                assert_eq!(len, payload, "an answer is received whole");
                self.arm(conn);
                idle.push_back(conn);
            }
        }
        let span = begin.elapsed();
        // The server closes when it has seen the end of all, which ends every receive here.
        for socket in &self.sockets {
            socket.shutdown(Shutdown::Write)?;
        }
        let mut open = self.sockets.len();
        while open > 0 {
            self.enter()?;
            while let Some((_, len)) = self.received() {
                assert_eq!(len, 0, "no answer is left");
                open -= 1;
            }
        }
        Ok((asked, span))
    }

    /// Arms every connection. Nothing arrives on any.
    pub(crate) fn arm_idle(&mut self) -> io::Result<()> {
        self.arm_all();
        self.ring.submit()?;
        Ok(())
    }

    /// Ends what [`End::arm_idle`] has begun.
    pub(crate) fn disarm(&mut self) -> io::Result<()> {
        self.push(CANCEL, 0, opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        let mut in_flight = self.sockets.len() + 1;
        while in_flight > 0 {
            self.ring.submit_and_wait(1)?;
            in_flight -= self.ring.completion().count();
        }
        self.armed.fill(false);
        Ok(())
    }

    pub(crate) fn into_sockets(mut self) -> Vec<TcpStream> {
        mem::take(&mut self.sockets)
    }

    fn push(&mut self, kind: u64, conn: usize, entry: Entry) {
        if self.ring.submission().is_full() {
            self.ring.submit().expect("the kernel takes what is pushed");
        }
        let entry = entry.user_data(kind << 32 | conn as u64);
        // SAFETY: a buffer is given back when its receive has completed, and all of them outlive
        // the ring, or are leaked (see `drop`). An answer is read only while it is submitted.
        unsafe { self.ring.submission().push(&entry) }.expect("there is room");
    }

    /// Submits what was pushed, and returns when there are completions beside those of the sends.
    fn enter(&mut self) -> io::Result<()> {
        self.enters += 1;
        self.ring.submit_and_wait(1 + mem::take(&mut self.sends))?;
        if self.ring.submission().taskrun() {
            self.enters += 1;
            let args = SubmitArgs::new();
            // Only time can be up.
            let _ = self.ring.submitter().submit_with_args(FLUSH, &args.timespec(&ZERO));
        }
        Ok(())
    }

    fn enter_without_waiting(&mut self) -> io::Result<()> {
        self.sends = 0;
        let submission = self.ring.submission();
        if !submission.is_empty() || submission.taskrun() {
            drop(submission);
            self.ring.submit()?;
        }
        Ok(())
    }

    fn arm_all(&mut self) {
        for conn in 0..self.sockets.len() {
            self.arm(conn);
        }
    }

    /// Leads to a receive, where nothing in flight does.
    fn arm(&mut self, conn: usize) {
        if mem::replace(&mut self.armed[conn], true) {
            return;
        }
        let file = Fd(self.sockets[conn].as_raw_fd());
        let (kind, entry) = match self.form {
            Form::PollThenRecv | Form::PollThenReadFixed | Form::PollThenRecvProvided => {
                let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
                (POLL, opcode::PollAdd::new(file, events).build())
            }
            Form::Armed => (RECV, self.recv_leased(conn).build()),
            Form::ArmedPollFirst => (RECV, self.recv_leased(conn).ioprio(POLL_FIRST).build()),
            Form::ArmedProvided => {
                let recv = recv_provided(file).ioprio(POLL_FIRST);
                (RECV, recv.build().flags(Flags::BUFFER_SELECT))
            }
            Form::Multishot => (RECV, opcode::RecvMulti::new(file, GROUP).build()),
        };
        self.push(kind, conn, entry);
    }

    /// Receives what a poll has found.
    fn receive(&mut self, conn: usize) {
        let file = Fd(self.sockets[conn].as_raw_fd());
        let entry = match self.form {
            Form::PollThenReadFixed => {
                let (start, len) = self.lease(conn);
                opcode::ReadFixed::new(file, start, len, 0).rw_flags(RWF_NOWAIT).build()
            }
            Form::PollThenRecvProvided => {
                let recv = recv_provided(file).flags(libc::MSG_DONTWAIT);
                recv.build().flags(Flags::BUFFER_SELECT)
            }
            _ => self.recv_leased(conn).flags(libc::MSG_DONTWAIT).build(),
        };
        self.push(RECV, conn, entry);
    }

    fn recv_leased(&mut self, conn: usize) -> opcode::Recv {
        let (start, len) = self.lease(conn);
        opcode::Recv::new(Fd(self.sockets[conn].as_raw_fd()), start, len)
    }

    fn lease(&mut self, conn: usize) -> (*mut u8, u32) {
        let id = self.buffers.free.pop().expect("one for each connection");
        self.leased[conn] = id;
        (self.buffers.place(id), BUFFER_BYTES as u32)
    }

    fn send(&mut self, conn: usize, len: usize) {
        let (file, answer) = (Fd(self.sockets[conn].as_raw_fd()), &self.answers[conn][..len]);
        let send = opcode::Send::new(file, answer.as_ptr(), len as u32);
        let entry = send.flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).build();
        self.push(SEND, conn, entry);
        self.sends += 1;
    }

    /// The next connection on which something was received, and how much.
    fn received(&mut self) -> Option<(usize, usize)> {
        loop {
            let cqe = self.ring.completion().next()?;
            let (kind, conn) = (cqe.user_data() >> 32, cqe.user_data() as u32 as usize);
            let result = cqe.result();
            if kind == RECV {
                self.armed[conn] = cqueue::more(cqe.flags());
                let id = match self.form.is_provided() {
                    true => cqueue::buffer_select(cqe.flags()),
                    false => Some(self.leased[conn]),
                };
                let len = usize::try_from(result).expect("a receive gets something, or the end");
                if let Some(id) = id {
                    self.answers[conn][..len].copy_from_slice(self.buffers.bytes(id, len));
                    match self.form.is_provided() {
                        true => self.buffers.provide(id),
                        false => self.buffers.free.push(id),
                    }
                }
                return Some((conn, len));
            }
            assert!(result > 0, "there is something to read, and room for an answer: {result}");
            if kind == POLL {
                self.receive(conn);
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // After a failure: the kernel lets go of what it may write to at a time of its own.
        if self.armed.contains(&true) {
            mem::forget(mem::take(&mut self.buffers));
        }
    }
}

fn recv_provided(file: Fd) -> opcode::Recv {
    opcode::Recv::new(file, null_mut(), BUFFER_BYTES as u32).buf_group(GROUP)
}
