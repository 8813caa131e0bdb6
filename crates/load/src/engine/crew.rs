//! The shards' threads: started, told what to do, read while they work, and collected.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use murre_core::host::Plan;
use murre_core::ring::{KernelRing, RingConfig};
use murre_core::{Counters, Mailbox, Protocol, Shard, ShardConfig};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::engine::bell::Bells;
use crate::engine::fleet::{Event, Order, Share};
use crate::engine::score::{Fault, Score, Tally, Times};

/// All shards of a run.
pub(crate) struct Crew {
    hands: Vec<Hand>,
    pub(crate) events: Receiver<Event>,
}

/// What the main thread has of one shard.
struct Hand {
    mailbox: Arc<Mailbox<Order>>,
    tally: Arc<Tally>,
    counters: Arc<Counters>,
    thread: JoinHandle<Times>,
}

/// What a shard's thread is made with, whatever its clients say.
#[derive(Clone)]
pub(crate) struct Berth {
    pub(crate) plan: Plan,
    pub(crate) cpu: Option<usize>,
    pub(crate) share: Share,
    pub(crate) epoch: Instant,
    /// Bytes queued for one connection at most.
    pub(crate) send_bytes_max: u32,
    /// The unit of the connections' timers.
    pub(crate) tick: Duration,
    pub(crate) events: Sender<Event>,
}

/// All shards' counts together, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) ready: u64,
    pub(crate) answered: u64,
    pub(crate) owed: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) response_us: u64,
    pub(crate) message_bytes: u64,
    pub(crate) faults: [u64; Fault::ALL.len()],
    pub(crate) missed: [u64; Fault::ALL.len()],
}

impl Totals {
    pub(crate) fn missed_all(&self) -> u64 {
        self.missed.iter().sum()
    }

    pub(crate) fn faults_all(&self) -> u64 {
        self.faults.iter().sum()
    }

    pub(crate) fn faults(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }
}

impl Crew {
    /// Starts a thread per berth. They connect when they are told to.
    pub(crate) fn new(
        berths: Vec<Berth>,
        events: Receiver<Event>,
        bells: &Bells,
        start: impl Fn(Berth) -> Starting,
    ) -> anyhow::Result<Crew> {
        let starting: Vec<Starting> = berths.into_iter().map(start).collect();
        let hands: anyhow::Result<Vec<Hand>> = starting.into_iter().map(Starting::up).collect();
        let hands = hands?;
        bells.hang(hands.iter().map(|hand| Arc::clone(&hand.mailbox)).collect());
        Ok(Crew { hands, events })
    }

    pub(crate) fn tell(&self, order: Order) {
        for hand in &self.hands {
            // A run's few orders fit every mailbox.
            assert!(hand.mailbox.post(order).is_ok(), "a mailbox has room for a run's orders");
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.hands.len()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for Hand { tally, counters, .. } in &self.hands {
            totals.ready += tally.ready();
            totals.answered += tally.answered();
            // Who owes may be another shard than who is owed: only the sum is a number of answers.
            totals.owed = totals.owed.wrapping_add(tally.owed());
            totals.response_us += tally.response_us();
            totals.message_bytes += tally.message_bytes();
            totals.bytes_in += counters.bytes_in.get();
            totals.bytes_out += counters.bytes_out.get();
            for fault in Fault::ALL {
                totals.faults[fault as usize] += tally.faults(fault);
                totals.missed[fault as usize] += tally.missed(fault);
            }
        }
        totals
    }

    pub(crate) fn first_fault(&self) -> Option<String> {
        self.hands.iter().find_map(|hand| hand.tally.first_fault()).map(str::to_owned)
    }

    /// Ends the shards, each within `over` and what its last connections need, and gives all
    /// times together.
    pub(crate) fn leave(self, over: Duration) -> Times {
        self.tell(Order::Leave { over });
        let mut times = Times::none();
        for hand in self.hands {
            // A thread that panicked has said so on stderr and has failed the run by its event.
            if let Ok(own) = hand.thread.join() {
                times.add(&own);
            }
        }
        times
    }
}

/// What a shard's thread gives of itself once its ring works.
type Up = (Arc<Mailbox<Order>>, Arc<Counters>);

/// A thread that may not have set up its ring yet.
pub(crate) struct Starting {
    tally: Arc<Tally>,
    up: Receiver<io::Result<Up>>,
    thread: JoinHandle<Times>,
}

impl Starting {
    fn up(self) -> anyhow::Result<Hand> {
        let Starting { tally, up, thread } = self;
        let (mailbox, counters) = up
            .recv()
            .map_err(|_| anyhow!("a shard's thread panicked"))?
            .context("cannot set up a ring (ENOMEM: raise the limit on locked memory)")?;
        Ok(Hand { mailbox, tally, counters, thread })
    }
}

/// What a shard of the load generator speaks.
pub(crate) trait Scored: Protocol<Mail = Order> {
    /// What it has seen.
    fn score(&self) -> &Score;
}

/// What it is made with.
pub(crate) type Kit = (Score, Share, Sender<Event>);

/// Starts one thread with the clients that `make` makes.
pub(crate) fn start<P: Scored>(
    berth: Berth,
    make: impl FnOnce(Kit) -> P + Send + 'static,
) -> Starting {
    let score = Score::new(berth.epoch);
    let tally = Arc::clone(score.tally());
    let (sender, up) = mpsc::channel();
    let thread = thread::spawn(move || {
        let events = berth.events.clone();
        let mut shard = match set_up(berth, make, score) {
            Ok(shard) => shard,
            Err(error) => {
                // The main thread waits for this word.
                let _ = sender.send(Err(error));
                return Times::none();
            }
        };
        let _ = sender.send(Ok((shard.mailbox(), shard.counters())));
        let _alarm = Alarm(events.clone());
        if let Err(error) = shard.run() {
            // The main thread is gone: nobody minds.
            let _ = events.send(Event::Died(error));
        }
        shard.protocol().score().times().clone()
    });
    Starting { tally, up, thread }
}

fn set_up<P: Scored>(
    berth: Berth,
    make: impl FnOnce(Kit) -> P,
    score: Score,
) -> io::Result<Shard<KernelRing, P>> {
    if let Some(cpu) = berth.cpu {
        pin(&[cpu])?;
    }
    let Berth { plan, share, send_bytes_max, tick, events, .. } = berth;
    let conns_max = share.conns.max(1);
    let ring = KernelRing::new(RingConfig {
        io: plan.io,
        descriptors: plan.descriptors,
        conns_max,
        reset_on_close: true,
        ..RingConfig::default()
    })?;
    let config = ShardConfig {
        conns_max,
        send_bytes_max,
        tick,
        slices: (tick.as_millis() as u32 / SLICE_MILLIS).max(1),
        ..ShardConfig::default()
    };
    Ok(Shard::new(ring, make((score, share, events)), &config))
}

/// How often timers are looked at, in each part of a tick some.
const SLICE_MILLIS: u32 = 5;

/// Tells the main thread when the shard's thread panics.
struct Alarm(Sender<Event>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Event::Died(io::Error::other("the thread panicked")));
        }
    }
}

/// Binds the calling thread to some cores.
pub(crate) fn pin(list: &[usize]) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    for &cpu in list {
        cpus.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    Ok(())
}
