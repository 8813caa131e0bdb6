//! What each form of receiving costs: a measurement, run by hand.
//!
//! `cargo test --release -p murre-core receive_forms -- --ignored --nocapture`
//!
//! An echo server that is nothing but a ring, on one core; its client on another, the same for all
//! forms. What arrives is copied out, as a shard does, and its buffer is free again before the
//! answer is submitted. At full load completions come in batches, at a fixed rate each wakes the
//! server on its own. Root is also told what the kernel keeps for a connection on which nothing
//! arrives. Needs Linux 6.0.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::mem;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::probe::Tier;

const ROUNDS: usize = 9;
const SPAN: Duration = Duration::from_secs(1);
const CONNS: usize = 64;
/// Connections to count the kernel's memory with: two descriptors each within the usual limits.
const IDLE_CONNS: usize = 4000;
const PAYLOADS: [usize; 2] = [32, 1024];
const ANSWER_BYTES: usize = 1024;
const ZERO: Timespec = Timespec::new();
/// Echoes per second: as many as there can be, and so few that the server sleeps between them.
const RATES: [Option<u32>; 2] = [None, Some(40_000)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
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

const FORMS: [Form; 7] = [
    Form::PollThenRecv,
    Form::PollThenReadFixed,
    Form::PollThenRecvProvided,
    Form::Armed,
    Form::ArmedPollFirst,
    Form::ArmedProvided,
    Form::Multishot,
];

impl Form {
    fn is_provided(self) -> bool {
        matches!(self, Form::PollThenRecvProvided | Form::ArmedProvided | Form::Multishot)
    }
}

/// Prints what an echo and what an idle connection costs, for each form in turn.
#[test]
#[ignore = "a measurement"]
fn receive_forms() -> io::Result<()> {
    for _ in 0..ROUNDS {
        for (payload, rate) in PAYLOADS.into_iter().flat_map(|size| RATES.map(|rate| (size, rate)))
        {
            for form in FORMS {
                println!("{}", measure(form, payload, rate)?);
            }
        }
    }
    if slab_bytes().is_err() {
        return Ok(());
    }
    let (sockets, _peers) = connect(IDLE_CONNS)?;
    let mut sockets = Some(sockets);
    for form in FORMS {
        let mut end = End::new(form, sockets.take().expect("given back"))?;
        let kernel = end.idle_bytes()? as f64 / IDLE_CONNS as f64;
        sockets = Some(mem::take(&mut end.sockets));
        println!("{{\"idle_receive\":\"{form:?}\",\"kernel_bytes_per_connection\":{kernel:.0}}}");
    }
    Ok(())
}

fn measure(form: Form, payload: usize, rate: Option<u32>) -> io::Result<String> {
    let (near, far) = connect(CONNS)?;
    let server = thread::spawn(move || {
        pin(0);
        End::new(form, near)?.echo()
    });
    let client = thread::spawn(move || {
        pin(1);
        End::new(Form::Multishot, far)?.ask(payload, rate)
    });
    let (asked, span) = client.join().expect("no panic")?;
    let (echoes, enters, cpu) = server.join().expect("no panic")?;
    assert_eq!(asked, echoes, "each message is received whole");
    let rate = rate.map_or("null".to_owned(), |rate| rate.to_string());
    let echoes = echoes as f64;
    Ok(format!(
        "{{\"receive\":\"{form:?}\",\"payload\":{payload},\"rate\":{rate},\
         \"echoes_per_second\":{:.0},\"echoes_per_cpu_second\":{:.0},\"enters_per_echo\":{:.3}}}",
        echoes / span.as_secs_f64(),
        echoes / cpu.as_secs_f64(),
        enters as f64 / echoes,
    ))
}

fn connect(count: usize) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let mut ends = (Vec::new(), Vec::new());
    for _ in 0..count {
        let far = TcpStream::connect(address)?;
        let (near, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        ends.0.push(near);
        ends.1.push(far);
    }
    Ok(ends)
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    // On a machine with one core both ends share it.
    if cores.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// One end of all connections.
struct End {
    /// First, so that it is closed before what the kernel may point to is freed.
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
    fn new(form: Form, sockets: Vec<TcpStream>) -> io::Result<Self> {
        let ring = Tier::best()?.build(SQ_ENTRIES, CQ_ENTRIES)?;
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
    fn echo(mut self) -> io::Result<(u64, u64, Duration)> {
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
    fn ask(mut self, payload: usize, rate: Option<u32>) -> io::Result<(u64, Duration)> {
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

    /// Arms every connection, and disarms it. Gives the bytes of kernel memory that were held.
    fn idle_bytes(&mut self) -> io::Result<i64> {
        // What the ring before has left behind is freed meanwhile.
        thread::sleep(SPAN);
        let before = slab_bytes()?;
        self.arm_all();
        self.ring.submit()?;
        let after = slab_bytes()?;
        self.push(CANCEL, 0, opcode::AsyncCancel2::new(CancelBuilder::any()).build());
        let mut in_flight = self.sockets.len() + 1;
        while in_flight > 0 {
            self.ring.submit_and_wait(1)?;
            in_flight -= self.ring.completion().count();
        }
        self.armed.fill(false);
        Ok(after - before)
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

/// Receive buffers, and the ring by which the kernel gets those that it may choose from.
#[derive(Default)]
struct Buffers {
    block: Vec<Buffer>,
    free: Vec<u16>,
    /// Memory for as many entries as there are buffers.
    entries: Vec<Buffer>,
    tail: u16,
}

#[derive(Clone)]
#[repr(align(4096))]
struct Buffer([u8; BUFFER_BYTES]);

/// As in a shard's arena.
const BUFFER_BYTES: usize = 8192;
/// Which ring of buffers: there is one.
const GROUP: u16 = 0;

impl Buffers {
    /// `count` buffers, a power of two.
    fn new(count: u16) -> Self {
        let entry_bytes = usize::from(count) * size_of::<BufRingEntry>();
        Buffers {
            block: vec![Buffer([0; BUFFER_BYTES]); count.into()],
            free: (0..count).rev().collect(),
            entries: vec![Buffer([0; BUFFER_BYTES]); entry_bytes.div_ceil(BUFFER_BYTES)],
            tail: 0,
        }
    }

    fn count(&self) -> u16 {
        self.block.len() as u16
    }

    /// Where the buffer is, for the kernel.
    fn place(&mut self, id: u16) -> *mut u8 {
        self.block[usize::from(id)].0.as_mut_ptr()
    }

    /// What a receive that has completed has left in a buffer.
    fn bytes(&self, id: u16, len: usize) -> &[u8] {
        &self.block[usize::from(id)].0[..len]
    }

    fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        let len = self.block.len() * BUFFER_BYTES;
        let block = libc::iovec { iov_base: self.block.as_mut_ptr().cast(), iov_len: len };
        // SAFETY: the block is freed after the ring is closed.
        unsafe { ring.submitter().register_buffers(&[block]) }
    }

    fn provide_all(&mut self, ring: &IoUring) -> io::Result<()> {
        let entries = self.entries.as_mut_ptr() as u64;
        // SAFETY: there are so many entries, and they are freed after the ring is closed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries, self.count(), GROUP, 0)?;
        }
        for id in 0..self.count() {
            self.provide(id);
        }
        Ok(())
    }

    /// Gives a buffer to the kernel.
    fn provide(&mut self, id: u16) {
        let (start, entries) = (self.place(id), self.entries.as_mut_ptr().cast::<BufRingEntry>());
        let at = usize::from(self.tail % self.count());
        // SAFETY: within the entries, page-aligned zeros at first; the kernel reads only those
        // before the tail, and there are no more buffers than entries.
        let entry = unsafe { &mut *entries.add(at) };
        entry.set_addr(start as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned, and the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// The bytes of all objects in the kernel's caches, which only root may see.
fn slab_bytes() -> io::Result<i64> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let object_bytes = |line: &str| -> Option<i64> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let active: i64 = fields.next()?.parse().ok()?;
        let size: i64 = fields.nth(1)?.parse().ok()?;
        Some(active * size)
    };
    Ok(text.lines().filter_map(object_bytes).sum())
}
