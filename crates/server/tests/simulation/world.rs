//! A server of several shards on one thread, and its clients.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use murre_core::ring::sim::{Faults, Peer, SimNet, SimRing};
use murre_core::{GlobalConnId, Held, Serve, ServeMail, Shard};
use murre_router::channels::Cursor;

use super::application::Application;
use super::backend::{self, Mood};
use super::client::{Client, Pace};
use super::ends::{self, Circumstances};
use super::model::{Model, Seen};
use super::operations::control::{self, Question};
use super::operations::drain::Drain;
use super::operations::{CLIENTS, Operation};
use super::plan::Plan;
use super::setup::{CHANNELS, Setup, TICK};
use crate::hub::{HubMail, SIMULATED_UNIX_SECONDS};
use crate::routes::{App, AppMail, AppMailbox};
use crate::webhooks::Webhooks;

pub(super) type AppShard = Shard<SimRing, Serve<App>>;

/// A shard with its network.
pub(super) struct Node {
    pub(super) net: SimNet,
    pub(super) mailbox: AppMailbox,
    /// `None` once it has ended.
    pub(super) shard: Option<AppShard>,
}

pub(super) struct World {
    setup: Setup,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Option<Client>>,
    /// All that have ever connected, by shard.
    pub(super) peers: Vec<(usize, Peer)>,
    /// The names of sessions that have polled.
    pub(super) sessions: BTreeSet<String>,
    pub(super) model: Model,
    pub(super) questions: Vec<Question>,
    /// Where the shards record events for an application, and what it knows from them.
    webhooks: Arc<Webhooks>,
    application: Application,
    /// The application that decides about sessions and commands.
    backend: Option<backend::Application>,
    /// Seconds by which the wall clock has been set forward.
    pub(super) wall_offset: i64,
    /// What mailboxes have had no room for, in order.
    mails: VecDeque<(usize, ServeMail<AppMail>)>,
    /// The order of turns.
    rng: Rng,
    began: Instant,
    pub(super) now: Instant,
    /// When a client read or wrote the last time.
    moved_at: Instant,
}

/// When the runs begin, in Unix seconds.
const WALL: i64 = 1_700_000_000;
/// How much time a turn takes in which nothing happens.
const MOMENT: Duration = Duration::from_micros(100);
/// Rounds in which nothing happens, after which time passes faster.
const QUIET: u32 = 12;

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        fastrand::seed(setup.seed);
        let (nodes, worker) = setup.nodes();
        let began = nodes[0].net.now();
        let boxes: Arc<[AppMailbox]> = nodes.iter().map(|node| Arc::clone(&node.mailbox)).collect();
        let model = Model::new(setup);
        let shard = nodes[0].shard.as_ref().expect("it has not ended");
        let webhooks = shard.protocol().handler().hub().config().webhooks.clone();
        let mut world = World {
            setup: setup.clone(),
            nodes,
            clients: (0..CLIENTS).map(|_| None).collect(),
            peers: Vec::new(),
            sessions: BTreeSet::new(),
            model,
            questions: Vec::new(),
            webhooks: webhooks.expect("the run has one"),
            application: Application::default(),
            backend: worker.map(|worker| backend::Application::new(worker, setup.seed)),
            wall_offset: 0,
            mails: VecDeque::new(),
            rng: Rng::with_seed(setup.seed),
            began,
            now: began,
            moved_at: began,
        };
        world.set_wall();
        for shard in 0..setup.shards {
            world.post(shard, ServeMail::App(AppMail::Join(Arc::clone(&boxes))));
        }
        world
    }

    /// Plays a run from its beginning to its end.
    pub(super) fn play(plan: &Plan) -> Seen {
        let mut world = World::new(&plan.setup);
        for step in &plan.steps {
            step.operation().play(&mut world);
        }
        world.calm();
        if plan.all_leave {
            world.all_leave();
        }
        world.end();
        world.model.seen
    }

    /// Whether there are more slots than a run takes.
    pub(super) fn has_room(&self) -> bool {
        self.setup.max_conns >= 64
    }

    /// The first client that `fits`, from this one on and round.
    pub(super) fn find(&self, client: usize, fits: impl Fn(&Client) -> bool) -> Option<usize> {
        let all = (0..CLIENTS).map(|at| (client + at) % CLIENTS);
        let is_there = |client: &Client| client.is_there() && fits(client);
        all.into_iter().find(|&at| self.clients[at].as_ref().is_some_and(is_there))
    }

    /// A client that has a WebSocket of `murre.v1`, this one or one after it, and the id of its next command.
    pub(super) fn websocket(&mut self, client: usize) -> Option<(&mut Client, u64)> {
        let fits = |client: &Client| client.is_websocket() && client.opened;
        let client = self.find(client, fits)?;
        let id = self.model.next_id();
        Some((self.clients[client].as_mut()?, id))
    }

    /// A client that has a WebSocket of any protocol, this one or one after it, and the id of its next
    /// command.
    pub(super) fn subscriber(&mut self, client: usize) -> Option<(&mut Client, u64)> {
        let fits =
            |client: &Client| (client.is_websocket() || client.is_phoenix()) && client.opened;
        let client = self.find(client, fits)?;
        let id = self.model.next_id();
        Some((self.clients[client].as_mut()?, id))
    }

    /// The index of the first publication of a channel that a client may hear which subscribes now.
    pub(super) fn first(&self, channel: &str) -> usize {
        self.model.first(channel, self.now)
    }

    /// Leaves mail for a shard, now or once its mailbox has room.
    pub(super) fn post(&mut self, shard: usize, mail: ServeMail<AppMail>) {
        self.mails.push_back((shard, mail));
        self.post_all();
    }

    fn post_all(&mut self) {
        let mut full = vec![false; self.nodes.len()];
        for (shard, mail) in std::mem::take(&mut self.mails) {
            let node = &self.nodes[shard];
            if node.shard.is_none() {
                // Dropped with the question in it.
                continue;
            }
            let posted = if full[shard] { Err(mail) } else { node.mailbox.post(mail) };
            if let Err(mail) = posted {
                full[shard] = true;
                self.mails.push_back((shard, mail));
            }
        }
    }

    /// The application that decides behaves so from now on.
    pub(super) fn set_mood(&mut self, mood: Mood) {
        if let Some(backend) = &mut self.backend {
            backend.set_mood(mood, &mut self.model.said);
        }
    }

    /// The application that decides takes calls, and answers some.
    fn answer_calls(&mut self) {
        let Some(backend) = &mut self.backend else { return };
        for (shard, id, answer) in backend.round(self.now, &self.clients, &mut self.model) {
            self.post(shard, ServeMail::App(AppMail::Hub(HubMail::Answer(id, answer))));
        }
    }

    fn set_wall(&mut self) {
        let passed = (self.now - self.began).as_secs() as i64;
        let wall = (WALL + passed + self.wall_offset) as u64;
        self.model.wall = wall;
        self.model.wall_max = self.model.wall_max.max(wall);
        SIMULATED_UNIX_SECONDS.set(Some(wall));
    }

    /// One turn of each shard that has not ended, in any order, then of each client. A shard that has
    /// nothing to do lets up to `span` pass. Returns whether anything happened.
    pub(super) fn round(&mut self, span: Duration) -> bool {
        self.answer_calls();
        self.post_all();
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.rng.shuffle(&mut order);
        let mut happened = !self.mails.is_empty();
        for index in order {
            happened |= self.turn(index, span);
        }
        if self.turn_clients() {
            self.moved_at = self.now;
            happened = true;
        }
        self.hear_answers();
        self.hear_events();
        self.check_bounds();
        happened
    }

    pub(super) fn turn(&mut self, index: usize, span: Duration) -> bool {
        self.set_wall();
        let Node { net, shard: place, .. } = &mut self.nodes[index];
        let Some(shard) = place else { return false };
        net.suspend(self.now - net.now());
        net.pass(span);
        let before = shard.counters().completions.get();
        shard.turn().expect("the ring works");
        let happened = shard.counters().completions.get() > before;
        self.now = net.now();
        if shard.stopped() {
            *place = None;
        }
        self.model.refresh(self.now);
        happened
    }

    pub(super) fn turn_clients(&mut self) -> bool {
        let mut happened = false;
        for (number, client) in self.clients.iter_mut().enumerate() {
            let Some(client) = client else { continue };
            let net = &self.nodes[client.shard].net;
            if client.name.is_empty()
                && !client.polls_phoenix()
                && let Some(conn) = net.stats(client.peer).id
            {
                client.name = GlobalConnId::new(client.shard as u16, conn).to_string();
            }
            let ended = client.end.is_some();
            happened |= client.flush(net);
            let read = || client.read(net, &mut self.model);
            happened |= super::naming(&format!("client {number}"), read);
            let turn = || client.turn_polls(&self.nodes);
            let (moved, opened) = super::naming(&format!("client {number}, posts"), turn);
            happened |= moved;
            self.peers.extend(opened);
            self.sessions.extend(Some(&client.name).filter(|_| client.polls_phoenix()).cloned());
            if let (false, Some(end)) = (ended, &client.end) {
                // The session of a client that polls may be on any shard.
                let known = match client.polls_phoenix() {
                    true => Circumstances {
                        drained: self.model.drained.contains(&true),
                        cut_off: self.nodes.iter().any(|node| node.shard.is_none()),
                    },
                    false => Circumstances {
                        drained: self.model.drained[client.shard],
                        cut_off: self.nodes[client.shard].shard.is_none(),
                    },
                };
                super::naming(&format!("client {number}, {:?}", client.transport), || {
                    ends::judge(client, end, &known, &mut self.model);
                });
            }
        }
        happened
    }

    /// Whether a shard has ended before all others had.
    pub(super) fn is_cut_off(&self, shard: usize) -> bool {
        self.nodes[shard].shard.is_none()
    }

    /// The application is told of what has happened.
    fn hear_events(&mut self) {
        let (lines, missed) = self.webhooks.take();
        assert_eq!(missed, 0, "there is room for all events");
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.application.apply(&serde_json::from_slice(line).expect("JSON"));
        }
    }

    /// Checks that the application knows which channels have subscribers.
    fn check_application(&self) {
        let mut occupied = BTreeSet::new();
        for node in &self.nodes {
            let Some(shard) = &node.shard else { return };
            let (channels, _) = shard.protocol().handler().hub().channels(Cursor::default(), 100);
            let channels = channels.into_iter().filter(|channel| channel.subscribers > 0);
            occupied.extend(channels.map(|channel| channel.name.to_string()));
        }
        assert_eq!(self.application.occupied, occupied);
    }

    /// Lets `span` pass, with the turns that it takes.
    pub(super) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        let (mut slice, mut quiet) = (MOMENT, 0);
        while self.now < until && self.nodes.iter().any(|node| node.shard.is_some()) {
            let happened = self.round(slice.min(until - self.now));
            // A client that reads whatever is there is as fast as the network: no time passes while
            // something moves. What is late in a simulated kernel comes within some turns.
            quiet = if happened { 0 } else { quiet + 1 };
            slice = match quiet {
                0 => Duration::ZERO,
                1..QUIET => MOMENT,
                _ => (slice * 2).min(TICK / 2),
            };
        }
    }

    /// Lets `span` pass without a turn.
    pub(super) fn stand_still(&mut self, span: Duration) {
        self.now += span;
        self.round(Duration::ZERO);
    }

    /// Ends all faults and has every client read. Then each client must have got everything that the model
    /// says.
    fn calm(&mut self) {
        self.nodes.iter().for_each(|node| node.net.set_faults(Faults::none()));
        for client in self.clients.iter_mut().flatten() {
            client.pace = Pace::Full;
        }
        self.set_mood(Mood::Willing);
        for shard in 0..self.nodes.len() {
            control::look(self, shard);
        }
        while !self.mails.is_empty() {
            self.round(MOMENT);
        }
        // Longer than any request waits.
        self.pass(CALM);
        let all_work = self.nodes.iter().all(|node| node.shard.is_some());
        while all_work && self.now - self.moved_at < CALM / 4 {
            self.pass(CALM / 4);
        }
        for shard in 0..self.nodes.len() {
            control::look(self, shard);
        }
        // A shard counts whole seconds until a token expires, so it may be one second late.
        let wall = self.model.wall - 1;
        self.pass(Duration::from_millis(50));
        if self.nodes.iter().any(|node| node.shard.is_none()) {
            return self.check_without_ended_shards();
        }
        assert!(self.questions.is_empty(), "a question was never answered");
        self.check_application();
        for (number, client) in self.clients.iter().enumerate() {
            let Some(client) = client.as_ref().filter(|client| client.is_there()) else { continue };
            super::naming(&format!("client {number}"), || {
                let node = &self.nodes[client.shard];
                let posts = client.polls.as_ref().map(|polls| (polls.shard, polls.peer));
                let waits =
                    |(shard, peer): (usize, Peer)| self.nodes[shard].net.stats(peer).id.is_none();
                if posts.is_some_and(waits) && node.net.stats(client.peer).id.is_some() {
                    return;
                }
                if node.net.stats(client.peer).id.is_none() {
                    // All slots are taken, some by connections of clients that have vanished.
                    let taken = node.shard.as_ref().map_or(0, |shard| shard.outbox().live());
                    return assert!(taken >= self.setup.max_conns, "it is not accepted");
                }
                ends::must_be_there(client, wall, &self.model);
                client.must_be_satisfied(&self.model);
            });
        }
        self.check_presence();
    }

    /// Checks what must hold after some shards have ended before others: a client of a shard that works
    /// gets all publications of the channels that such shards own.
    fn check_without_ended_shards(&mut self) {
        let shards = self.nodes.len() as u16;
        if self.nodes.iter().all(|node| node.shard.is_none()) {
            return;
        }
        self.model.note("a shard ended before others");
        for (number, client) in self.clients.iter().enumerate() {
            let Some(client) = client.as_ref().filter(|client| client.is_there()) else { continue };
            let works = |channel: &str| {
                let owner = murre_router::channels::owner(channel, shards, self.setup.seed);
                !self.is_cut_off(usize::from(owner))
            };
            if self.is_cut_off(client.shard) || client.polls_phoenix() {
                continue;
            }
            super::naming(&format!("client {number}"), || {
                let readers = client.readers.iter().filter(|(channel, _)| works(channel));
                readers.for_each(|(_, reader)| reader.must_be_complete(&self.model));
                for (channel, begun) in &client.beginning {
                    assert!(!works(channel), "{channel} never began: {begun:?}");
                }
            });
        }
    }

    /// Has all clients leave. Then no collection has anything left.
    fn all_leave(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            client.left = true;
        }
        for &(shard, peer) in &self.peers {
            self.nodes[shard].net.come_back(peer);
            self.nodes[shard].net.reset(peer);
        }
        self.pass(CALM);
        // Tokens are known for ten minutes, and history may last for five.
        for _ in 0..FORGOTTEN_AFTER {
            self.stand_still(Duration::from_secs(60));
            for shard in 0..self.nodes.len() {
                control::look(self, shard);
            }
            for _ in 0..TURNS_TO_FORGET {
                self.round(Duration::ZERO);
            }
        }
        self.check_empty();
    }

    fn check_empty(&self) {
        // What waits for a shard that was cut off waits until all end.
        if self.nodes.iter().any(|node| node.shard.is_none()) {
            return;
        }
        assert_eq!(self.application, Application::default());
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(shard) = &node.shard else { continue };
            let left = shard.protocol().handler().left();
            assert!(left.is_empty(), "shard {index} has left: {left:?}");
            assert_eq!(shard.held(), Held::default(), "shard {index}");
        }
    }

    /// Drains all shards, and waits until they have ended.
    fn end(&mut self) {
        Drain::now().play(self);
        let started = self.now;
        while self.nodes.iter().any(|node| node.shard.is_some()) {
            self.round(Duration::from_millis(10));
            assert!(self.now - started < PATIENCE, "the drain never ends");
        }
        self.round(Duration::ZERO);
    }

    /// Checks the bounds of memory, however slowly clients read.
    fn check_bounds(&self) {
        let mut history_bytes = 0;
        for node in &self.nodes {
            let Some(shard) = &node.shard else { continue };
            let stats = shard.protocol().handler().hub().channel_stats();
            history_bytes += if stats.kept > 0 { stats.history_bytes } else { 0 };
            let bound =
                self.setup.logs_bytes_max.min(CHANNELS.len() as u64 * self.setup.log_bytes_max)
                    + LOG_SLACK;
            assert!(stats.log_bytes <= bound, "logs have {} bytes", stats.log_bytes);
            let (waiting, bytes) = shard.protocol().handler().hub().most_waiting();
            assert!(waiting <= 16 && bytes <= 64 << 10, "{waiting} commands wait, {bytes} bytes");
            let outbox = shard.outbox();
            for slot in 0..64 {
                let queued = outbox.at(slot).map_or(0, |conn| outbox.queued(conn));
                let bound = self.setup.congested_bytes + QUEUE_SLACK;
                assert!(queued <= bound, "{queued} bytes are queued for one connection");
            }
        }
        let bound = self.setup.history_bytes_max + HISTORY_SLACK;
        assert!(history_bytes <= bound, "history has {history_bytes} bytes");
    }
}

/// Longer than any request waits, and than the linger of connections.
const CALM: Duration = Duration::from_secs(4);
/// Turns in which a shard that has nothing else to do lets go of what is over.
const TURNS_TO_FORGET: usize = 6;
/// Minutes.
const FORGOTTEN_AFTER: u32 = 25;
const PATIENCE: Duration = Duration::from_secs(60);
/// A batch that was on its way when the bound was reached.
const LOG_SLACK: u64 = 400 << 10;
/// The longest answer of a run: a page of history, or the messages of a poll.
const QUEUE_SLACK: u32 = 100 << 10;
/// Records of channels that have nothing to put out.
const HISTORY_SLACK: u64 = 5000;
