//! Clients that outlive their connections: which target each connects to, and when. A client whose
//! connection has ended connects to a target of another node, after a pause that grows with each try until a
//! connection has lasted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// The pauses of clients between the end of a connection and the next one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pauses {
    /// A random part of half a second, which doubles up to 30 s: those of clients/js.
    Doubled,
    /// Those before each try, in milliseconds; the last one is that of all further tries.
    Millis(&'static [u64]),
}

impl Pauses {
    fn pause(self, tries: u32, rng: &mut Rng) -> Duration {
        match self {
            Pauses::Doubled => {
                let longest = PAUSE.saturating_mul(2_u32.saturating_pow(tries)).min(PAUSE_MAX);
                longest.mul_f64(rng.f64())
            }
            Pauses::Millis(steps) => {
                Duration::from_millis(steps[(tries as usize).min(steps.len() - 1)])
            }
        }
    }
}

/// One worker's clients.
pub(crate) struct Failover {
    rng: Rng,
    pauses: Pauses,
    /// The targets of each node: an index into those of the run.
    nodes: Vec<Range<usize>>,
    clients: Vec<Client>,
    /// Clients without a connection, and when they connect.
    waiting: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The client that has a slot's connection.
    by_slot: Vec<u32>,
}

struct Client {
    target: usize,
    tries: u32,
    opened: Option<Instant>,
    /// The server's word in its last close, which clients/js follows: not before so many seconds.
    retry_after: u32,
}

impl Failover {
    /// Clients that connect for the first time at `now`, each to its target.
    pub(crate) fn new(
        nodes: Vec<Range<usize>>,
        targets: impl Iterator<Item = usize>,
        pauses: Pauses,
        now: Instant,
        seed: u64,
    ) -> Failover {
        let client = |target| Client { target, tries: 0, opened: None, retry_after: 0 };
        let clients: Vec<_> = targets.map(client).collect();
        let waiting = (0..clients.len() as u32).map(|client| Reverse((now, client))).collect();
        let (rng, by_slot) = (Rng::with_seed(seed), Vec::new());
        Failover { rng, pauses, nodes, clients, waiting, by_slot }
    }

    /// When the next client connects.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes a client that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u32> {
        self.next_at().filter(|at| *at <= now)?;
        self.waiting.pop().map(|Reverse((_, client))| client)
    }

    /// There was no slot for a client that was due.
    pub(crate) fn wait(&mut self, client: u32, until: Instant) {
        self.waiting.push(Reverse((until, client)));
    }

    /// A client that was due connects in slot `index`.
    pub(crate) fn connects(&mut self, client: u32, index: u32) {
        let index = index as usize;
        if self.by_slot.len() <= index {
            self.by_slot.resize(index + 1, 0);
        }
        self.by_slot[index] = client;
    }

    /// The client whose connection has, or had last, slot `index`.
    pub(crate) fn client(&self, index: u32) -> u32 {
        self.by_slot[index as usize]
    }

    /// The target of a client's connection, or of its next one.
    pub(crate) fn target(&self, client: u32) -> usize {
        self.clients[client as usize].target
    }

    /// The node of that target.
    pub(crate) fn node(&self, client: u32) -> usize {
        let target = self.target(client);
        self.nodes.iter().position(|node| node.contains(&target)).expect("each target has a node")
    }

    /// The connection of slot `index` is made.
    pub(crate) fn opened(&mut self, index: u32, now: Instant) {
        let client = self.client(index);
        self.clients[client as usize].opened = Some(now);
    }

    /// The server closes the connection of slot `index` and names the seconds after which the client may
    /// return.
    pub(crate) fn retry_after(&mut self, index: u32, seconds: u32) {
        let client = self.client(index);
        self.clients[client as usize].retry_after = seconds;
    }

    /// The connection of slot `index` has ended, or was not made.
    pub(crate) fn ended(&mut self, index: u32, now: Instant) {
        let number = self.client(index);
        let client = &mut self.clients[number as usize];
        let opened = client.opened.take();
        if opened.is_some_and(|opened| now.saturating_duration_since(opened) >= STABLE) {
            client.tries = 0;
        }
        let (target, tries) = (client.target, client.tries);
        client.tries = tries.saturating_add(1);
        let retry_after = std::mem::take(&mut client.retry_after);
        let mut pause = self.pauses.pause(tries, &mut self.rng);
        if retry_after > 0 && matches!(self.pauses, Pauses::Doubled) {
            let told = Duration::from_secs(retry_after.into());
            pause = pause.max(told + Duration::from_secs_f64(self.rng.f64()));
        }
        self.clients[number as usize].target = self.another(target, tries);
        self.wait(number, now + pause);
    }

    /// A target of another node: first at random, so that the clients of one node are spread over all others,
    /// then of one node after the other. With one node any of its targets.
    fn another(&mut self, target: usize, tries: u32) -> usize {
        let own = self.nodes.iter().position(|node| node.contains(&target)).unwrap_or_default();
        let others = self.nodes.len() - 1;
        let steps = match (others, tries) {
            (0, _) => 0,
            (_, 0) => 1 + self.rng.usize(..others),
            _ => 1,
        };
        let node = self.nodes[(own + steps) % self.nodes.len()].clone();
        self.rng.usize(node)
    }
}

/// The options `backoffBase`, `backoffMax` and `stableAfter` of clients/js.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
const STABLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Connected clients of nodes with so many targets each.
    fn failover(targets: &[usize], clients: usize, start: Instant) -> Failover {
        let mut all = 0;
        let node = |&count| {
            all += count;
            all - count..all
        };
        let nodes = targets.iter().map(node).collect();
        let targets = (0..clients).map(|i| i % all);
        let mut failover = Failover::new(nodes, targets, Pauses::Doubled, start, 7);
        for slot in 0..clients as u32 {
            let client = failover.due(start).expect("all are due");
            failover.connects(client, slot);
        }
        assert_eq!(failover.next_at(), None);
        failover
    }

    /// Shows that a client never goes to the node that it comes from, that all others get as many of its
    /// clients, that a second try goes to the next node, and that one node is used again.
    #[test]
    fn clients_of_an_ended_node_are_spread_over_the_others() {
        let start = Instant::now();
        let mut failover = failover(&[2, 1, 3], 3000, start);
        let mut into = [0; 3];
        for slot in 0..3000 {
            let before = failover.node(failover.client(slot));
            failover.ended(slot, start);
            let after = failover.node(failover.client(slot));
            assert_ne!(before, after);
            if before == 0 {
                into[after] += 1;
            }
        }
        assert_eq!(into[0], 0);
        assert!(into[1..].iter().all(|count| (450..550).contains(count)), "{into:?}");
        let node = failover.node(failover.client(0));
        failover.ended(0, start);
        assert_eq!(failover.node(failover.client(0)), (node + 1) % 3);
        let mut failover = self::failover(&[2], 4, start);
        failover.ended(1, start);
        assert_eq!(failover.node(failover.client(1)), 0);
    }

    /// Shows that the first pauses fill half a second, that they double up to 30 s, that a connection that has
    /// lasted begins anew, and that the server's word counts more.
    #[test]
    fn pauses_double_until_a_connection_has_lasted() {
        let start = Instant::now();
        let mut failover = failover(&[1, 1], 1000, start);
        let longest = |failover: &mut Failover, now: Instant| {
            (0..1000).for_each(|slot| failover.ended(slot, now));
            let pauses: Vec<_> = std::iter::from_fn(|| {
                let at = failover.next_at()?;
                let client = failover.due(at).expect("it is due");
                failover.connects(client, client);
                Some(at - now)
            })
            .collect();
            assert_eq!(pauses.len(), 1000);
            *pauses.last().expect("1000 of them")
        };
        for most in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let longest = longest(&mut failover, start).as_secs_f64();
            assert!(longest <= most && longest > 0.98 * most, "{longest} of {most}");
        }
        (0..1000).for_each(|slot| failover.opened(slot, start));
        assert!(longest(&mut failover, start + 10 * SECOND) <= SECOND / 2);
        failover.retry_after(5, 3);
        failover.ended(5, start);
        let at = failover.next_at().expect("one waits");
        assert!((start + 3 * SECOND..=start + 4 * SECOND).contains(&at));
    }

    /// Shows that steps are taken one after the other, and the last one again.
    #[test]
    fn steps_have_a_last_one() {
        let pauses = Pauses::Millis(&[10, 5000]);
        let pause = |tries| pauses.pause(tries, &mut Rng::with_seed(7));
        assert_eq!(
            [0, 1, 2, u32::MAX].map(pause),
            [10, 5000, 5000, 5000].map(Duration::from_millis)
        );
    }
}
