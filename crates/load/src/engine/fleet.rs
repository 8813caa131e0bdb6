//! Connects a shard's share of the virtual clients at the pace asked for, holds them, and counts
//! what becomes of them. What a client says is its scenario's.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use murre_core::{CloseReason, ConnId, Outbox, Protocol};

use crate::client::{Client, Desk, Standing};
use crate::engine::comeback::Comeback;
use crate::engine::crew::{Kit, Scored};
use crate::engine::score::{Fault, Score};
use crate::run::act::Act;

/// What the main thread, or another shard, tells a shard; but for `Act` and `Look`, which may come
/// more often, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Connect.
    Start,
    /// All connections of all shards are up: the hold phase begins.
    Begin,
    /// Another part of the hold phase.
    Act(Act),
    /// Another shard has done something: have a turn.
    Look,
    /// Ask nothing new.
    Finish,
    /// Say goodbye and end.
    Leave { over: Duration },
}

/// What a shard tells the main thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its share was up at this time.
    Full,
    /// More faults than the run forgives; it opens no more connections.
    Failing,
    /// It asks nothing new any more; what it is owed is in its tally.
    Finished,
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The shard's thread is over before it was told to be.
    Died(std::io::Error),
}

/// Which connection goes where: the `i`-th of all to target `i` modulo the targets, and from the
/// next source each time the targets have all had one.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) sources: Vec<IpAddr>,
}

impl Routes {
    pub(crate) fn route(&self, i: u64) -> (SocketAddr, Option<IpAddr>) {
        let (targets, sources) = (self.targets.len() as u64, self.sources.len() as u64);
        let source = (i / targets).checked_rem(sources);
        (self.targets[(i % targets) as usize], source.map(|i| self.sources[i as usize]))
    }
}

/// What a shard is to connect.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) conns: u32,
    /// How many of them are active, where a scenario makes a difference.
    pub(crate) active: u32,
    /// This shard, and how many there are: they take turns over the routes.
    pub(crate) shard: u64,
    pub(crate) shards: u64,
    pub(crate) routes: Routes,
    /// Connects per second; 0 is as fast as they go.
    pub(crate) connect_rate: f64,
    pub(crate) errors_max: u64,
}

/// A shard's virtual clients.
pub(crate) struct Fleet<C> {
    client: C,
    score: Score,
    share: Share,
    events: Sender<Event>,
    phase: Phase,
    /// Connects begun, for the routes.
    begun: u64,
    /// Connections on their way: from the connect until they are ready, or are not to be.
    coming: u32,
    /// Connects that the rate allows now.
    tokens: f64,
    refilled: Instant,
    /// When the rate allows the next, if that is what there is to wait for.
    resume_at: Option<Instant>,
    /// `Event::Failing` is sent once.
    failing: bool,
    /// All connections were told to end.
    killed: bool,
    /// They are on their way back.
    comeback: Option<Comeback>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Connecting,
    Holding,
    Leaving,
}

/// What is kept of a virtual client.
pub(crate) struct Member<S> {
    standing: Standing,
    state: S,
}

/// User memory per idle virtual client, the transport's part included.
pub(crate) const MEMBER_BYTES_MAX: usize = 128;

impl<C: Client> Fleet<C> {
    /// What a virtual client takes up in user memory while idle.
    pub(crate) const MEMBER_BYTES: usize =
        murre_core::CONN_BYTES + murre_core::TIMER_BYTES + size_of::<Option<Member<C::State>>>();

    pub(crate) fn new(client: C, (score, share, events): Kit) -> Fleet<C> {
        const { assert!(Self::MEMBER_BYTES <= MEMBER_BYTES_MAX) };
        Fleet {
            client,
            score,
            share,
            events,
            phase: Phase::Waiting,
            begun: 0,
            coming: 0,
            tokens: 0.0,
            refilled: Instant::now(),
            resume_at: None,
            failing: false,
            killed: false,
            comeback: None,
        }
    }

    /// Opens what is missing, as far as the pace and the bound on those on their way allow.
    fn connect(&mut self, out: &mut Outbox) {
        self.refill(out.now());
        self.resume_at = None;
        while out.live() < self.share.conns && self.coming < COMING_MAX && !self.failing {
            if self.tokens < 1.0 {
                let missing = (1.0 - self.tokens) / self.share.connect_rate;
                let pause = PACE_MIN.max(Duration::from_secs_f64(missing));
                self.resume_at = Some(out.now() + pause);
                return;
            }
            if self.open(out).is_none() {
                return;
            }
            self.tokens -= 1.0;
        }
    }

    /// Opens one; `None` when there is no slot for it.
    fn open(&mut self, out: &mut Outbox) -> Option<ConnId> {
        let i = self.begun * self.share.shards + self.share.shard;
        let (to, from) = self.share.routes.route(i);
        let id = out.connect(to, from)?;
        self.begun += 1;
        self.coming += 1;
        Some(id)
    }

    // ---- storms ----

    fn act(&mut self, act: Act, out: &mut Outbox) {
        let missing = self.share.conns - out.live();
        self.killed = act == Act::Kill;
        self.comeback = match act {
            Act::Return { over } => {
                let seed = self.share.shard ^ self.begun << 16;
                Some(Comeback::new(missing, over, out.now(), seed))
            }
            _ => None,
        };
        self.score.act(out.now(), self.comeback.is_some());
        if self.killed {
            let all = (0..self.share.conns).filter_map(|index| out.at(index));
            all.collect::<Vec<_>>().into_iter().for_each(|id| out.abort(id, CloseReason::Finished));
        }
    }

    /// Opens whoever is due, as many as there are: that is what a storm is.
    fn come_back(&mut self, out: &mut Outbox) {
        self.resume_at = None;
        while let Some(tries) = self.comeback.as_mut().and_then(|back| back.due(out.now())) {
            let opened = self.open(out);
            let comeback = self.comeback.as_mut().expect("it had one due");
            match opened {
                Some(id) => comeback.tries_in(id.index(), tries),
                None => return comeback.wait(tries, out.now() + PACE_MIN),
            }
        }
        self.resume_at = self.comeback.as_ref().and_then(Comeback::next_at);
    }

    /// One that was to come back, or was back, is not here.
    fn missed(&mut self, id: ConnId, out: &Outbox) {
        if let Some(comeback) = &mut self.comeback {
            comeback.missed(id.index(), out.now());
        }
    }

    fn refill(&mut self, now: Instant) {
        if self.share.connect_rate == 0.0 {
            self.tokens = f64::INFINITY;
            return;
        }
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        let most = (self.share.connect_rate * BURST_SECONDS).max(1.0);
        self.tokens = (self.tokens + passed * self.share.connect_rate).min(most);
    }

    /// A client has dealt with something: what it made of its connection.
    fn stands(&mut self, before: Standing, after: Standing) {
        if before == after {
            return;
        }
        if before == Standing::Coming {
            self.coming -= 1;
        }
        self.report();
    }

    fn report(&mut self) {
        let tally = self.score.tally();
        if !self.failing && tally.faults_all() > self.share.errors_max {
            self.failing = true;
            self.tell(Event::Failing);
        } else if tally.ready() == u64::from(self.share.conns) {
            self.tell(Event::Full);
        }
    }

    fn tell(&self, event: Event) {
        // The main thread listens for as long as there are shards; after that nobody needs it.
        let _ = self.events.send(event);
    }
}

impl<C: Client> Scored for Fleet<C> {
    fn score(&self) -> &Score {
        &self.score
    }
}

impl<C: Client> Protocol for Fleet<C> {
    type State = Member<C::State>;
    type Mail = Order;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) -> Self::State {
        let mut standing = Standing::Coming;
        let mut desk = Desk { out, score: &mut self.score, standing: &mut standing };
        let state = self.client.connected(id, &mut desk);
        Member { standing, state }
    }

    fn refused(&mut self, id: ConnId, errno: i32, out: &mut Outbox) {
        self.coming -= 1;
        self.score.missed(Fault::Refused, std::io::Error::from_raw_os_error(errno));
        self.missed(id, out);
        self.report();
    }

    fn received(
        &mut self,
        id: ConnId,
        member: &mut Self::State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let before = member.standing;
        let mut desk = Desk { out, score: &mut self.score, standing: &mut member.standing };
        let consumed = self.client.received(id, &mut member.state, input, &mut desk);
        self.stands(before, member.standing);
        consumed
    }

    fn expired(&mut self, id: ConnId, member: &mut Self::State, out: &mut Outbox) {
        let before = member.standing;
        let mut desk = Desk { out, score: &mut self.score, standing: &mut member.standing };
        self.client.expired(id, &mut member.state, &mut desk);
        self.stands(before, member.standing);
    }

    fn leave(&mut self, id: ConnId, member: &mut Self::State, out: &mut Outbox) {
        match member.standing {
            Standing::Ready => self.client.leave(id, &mut member.state, out),
            Standing::Coming | Standing::Failed | Standing::Departed => {
                out.abort(id, CloseReason::Finished);
            }
        }
    }

    fn closed(&mut self, id: ConnId, member: Self::State, reason: CloseReason, out: &mut Outbox) {
        self.score.forget(self.client.owed(&member.state));
        self.client.closed(member.state);
        match member.standing {
            Standing::Coming => self.coming -= 1,
            Standing::Ready => self.score.no_longer_ready(),
            Standing::Failed | Standing::Departed => {}
        }
        if self.phase != Phase::Leaving {
            match member.standing {
                Standing::Failed | Standing::Departed => {}
                Standing::Ready if self.killed && reason == CloseReason::Finished => {}
                Standing::Ready => self.score.fault(Fault::Lost, reason.name()),
                Standing::Coming => {
                    let detail = format_args!("{} before it was complete", reason.name());
                    self.score.missed(Fault::Handshake, detail);
                }
            }
            self.missed(id, out);
            self.report();
        }
    }

    fn mail(&mut self, order: Order, out: &mut Outbox) {
        match order {
            Order::Start => {
                self.phase = Phase::Connecting;
                self.refilled = out.now();
                if self.share.conns == 0 {
                    self.report();
                }
            }
            Order::Begin => {
                self.phase = Phase::Holding;
                self.resume_at = None;
                self.score.hold(out.now());
                self.client.begin(out, &mut self.score);
            }
            Order::Act(act) if C::COMES_BACK => self.act(act, out),
            Order::Act(_) => self.score.act(out.now(), false),
            // The turn follows.
            Order::Look => {}
            Order::Finish => {
                self.client.finish(out, &mut self.score);
                self.tell(Event::Finished);
            }
            Order::Leave { over } => {
                self.phase = Phase::Leaving;
                self.resume_at = None;
                if C::SAYS_GOODBYE {
                    out.drain(over);
                } else {
                    out.stop();
                }
            }
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        if self.phase == Phase::Connecting || (C::RETURNS && self.phase == Phase::Holding) {
            self.connect(out);
        }
        if self.comeback.is_some() {
            self.come_back(out);
        }
        self.client.turn(out, &mut self.score);
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.resume_at, self.client.wake_at()].into_iter().flatten().min()
    }
}

/// Connections on their way at most, in one shard: more would overflow the server's backlog, and
/// then wait a second for the SYN that was dropped.
const COMING_MAX: u32 = 256;

/// A paced shard opens what has become due in between, so that it does not wake for each.
const PACE_MIN: Duration = Duration::from_millis(1);

/// What a paced shard may catch up on at once after it was late.
const BURST_SECONDS: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_use_every_pair_before_one_twice() {
        // Shows that connections spread evenly over all targets and sources.
        let targets: Vec<SocketAddr> =
            (1..=3).map(|d| SocketAddr::from(([127, 0, 0, d], 80))).collect();
        let sources: Vec<IpAddr> = (8..=9).map(|d| IpAddr::from([127, 0, 0, d])).collect();
        let routes = Routes { targets, sources };
        let mut pairs: Vec<_> = (0..6).map(|i| routes.route(i)).collect();
        assert_eq!(routes.route(6), pairs[0]);
        pairs.sort();
        pairs.dedup();
        assert_eq!(pairs.len(), 6);
        assert!(pairs.iter().all(|(_, source)| source.is_some()));
        let routes = Routes { sources: Vec::new(), ..routes };
        assert_eq!(routes.route(4).1, None);
    }
}
