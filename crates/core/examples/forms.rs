//! Compares the forms of a ring: echoes per second of the server's CPU time on 64 connections, with the
//! server on one core and the client on another, all forms in turn, in several rounds.
//!
//! `cargo run --release --example forms [ROUNDS]` prints one JSON line a run.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use murre_core::host::{Descriptors, Io};
use murre_core::ring::{KernelRing, Receive, RingConfig};
use murre_core::{CloseReason, ConnId, Listener, Outbox, Protocol, Shard, ShardConfig};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

const CONNS: usize = 64;
const BYTES: usize = 32;
const SPAN: Duration = Duration::from_secs(3);

/// Sends back the bytes that arrive. The client does the same, after a first message.
struct Echo {
    /// The address to connect to, for the client.
    connect: Option<SocketAddr>,
    /// The end of the measurement, for the client.
    ends: Option<Instant>,
}

impl Protocol for Echo {
    type State = ();
    type Mail = ();

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) {
        if self.ends.is_some() {
            let _ = out.write(id, |bytes| bytes.extend_from_slice(&[7; BYTES]));
        }
    }

    fn received(&mut self, id: ConnId, (): &mut (), input: &mut [u8], out: &mut Outbox) -> usize {
        let _ = out.write(id, |bytes| bytes.extend_from_slice(input));
        input.len()
    }

    fn expired(&mut self, _id: ConnId, (): &mut (), _out: &mut Outbox) {}

    fn closed(&mut self, _id: ConnId, (): (), _reason: CloseReason, _out: &mut Outbox) {}

    fn mail(&mut self, (): (), out: &mut Outbox) {
        out.stop();
    }

    fn turn(&mut self, out: &mut Outbox) {
        if let Some(to) = self.connect.take() {
            for _ in 0..CONNS {
                out.connect(to, None);
            }
        }
        if self.ends.is_some_and(|ends| out.now() >= ends) {
            out.stop();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.connect.is_some() { Some(Instant::now()) } else { self.ends }
    }
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    // On a machine with one core both ends share it.
    if cores.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

fn measure(io: Io, descriptors: Descriptors, receive: Receive) -> io::Result<String> {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
    let to = listener.address()?;
    let config =
        move || RingConfig { io, descriptors, receive, max_conns: 256, ..Default::default() };
    let (tell, told) = mpsc::channel();
    let server = thread::spawn(move || -> io::Result<Duration> {
        pin(0);
        let ring = KernelRing::new(RingConfig { listeners: vec![listener], ..config() })?;
        let mut shard =
            Shard::new(ring, Echo { connect: None, ends: None }, &ShardConfig::default());
        // The receiver is gone only when the whole run has failed.
        let _ = tell.send((shard.mailbox(), shard.counters()));
        shard.run()?;
        Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
    });
    let (mailbox, counters) = told.recv().map_err(io::Error::other)?;
    pin(1);
    let client = Echo { connect: Some(to), ends: Some(Instant::now() + SPAN) };
    let config = RingConfig { io, descriptors, max_conns: 256, ..Default::default() };
    Shard::new(KernelRing::new(config)?, client, &ShardConfig::default()).run()?;
    // A full mailbox contains a stop already.
    let _ = mailbox.post(());
    let cpu = server.join().expect("the server does not panic")?.as_secs_f64();
    let echoes = counters.bytes_in.get() as f64 / BYTES as f64;
    Ok(format!(
        "{{\"form\":\"{} {} {receive:?}\",\"echoes_per_second\":{:.0},\
         \"echoes_per_cpu_second\":{:.0},\"turns_per_echo\":{:.3}}}",
        io.name(),
        descriptors.name(),
        echoes / SPAN.as_secs_f64(),
        echoes / cpu,
        counters.turns.get() as f64 / echoes,
    ))
}

fn main() -> io::Result<()> {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    for _ in 0..rounds {
        println!("{}", measure(Io::Uring, Descriptors::Normal, Receive::Plain)?);
        println!("{}", measure(Io::Uring, Descriptors::Normal, Receive::Registered)?);
        println!("{}", measure(Io::Uring, Descriptors::Direct, Receive::Plain)?);
        println!("{}", measure(Io::Uring, Descriptors::Direct, Receive::Registered)?);
        println!("{}", measure(Io::UringPlain, Descriptors::Normal, Receive::Plain)?);
    }
    Ok(())
}
