//! A server: shards on a thread for each core, with signals, a drain and counters.

mod error;
mod placement;
mod shards;
mod signals;
pub mod threads;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::counters::Counters;
use crate::host::{self, Plan, Wanted};
use crate::listener::Listener;
use crate::mailbox::Mailbox;
use crate::serve::{Handler, ServeCounters, ServeLimits, ServeMail};
use crate::shard::ShardConfig;

pub use error::ServerError;
pub use placement::{Pin, Placement};
pub use signals::Signals;
use threads::Ended;

/// What a [`Server`] is made with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// How many shards hold how many connections, on which interface of the kernel.
    pub plan: Plan,
    /// The core of each shard.
    pub placement: Placement,
    /// Where clients connect; at most [`LISTENERS_MAX`](crate::ring::LISTENERS_MAX).
    pub listeners: Vec<Listener>,
    /// The bounds of what a peer may do.
    pub limits: ServeLimits,
    /// The bounds of each shard. `max_conns` follows from the plan, `tick` from the limits; `index` is
    /// the shard's.
    pub shard: ShardConfig,
    /// From the end of [`Server::wait`] until the listener is closed. Meanwhile the server works as
    /// before, but [`Outbox::is_ready`](crate::Outbox::is_ready) is false, so that health checks fail
    /// and balancers send new connections elsewhere.
    pub drain_delay: Duration,
    /// The time over which connections are closed once the listener is.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    /// The defaults, with what [`host::plan`] chooses for this machine.
    ///
    /// # Errors
    /// [`ServerError::Host`] if the machine has no room for a server.
    pub fn new(listener: Listener) -> Result<Self, ServerError> {
        let plan = host::plan(&Wanted::default()).map_err(ServerError::Host)?;
        Self::with_plan(plan, listener)
    }

    /// The defaults, with this plan.
    ///
    /// # Errors
    /// None that a running process sees.
    pub fn with_plan(plan: Plan, listener: Listener) -> Result<Self, ServerError> {
        let placement = Placement::new(Pin::default(), plan.shards).map_err(ServerError::Thread)?;
        Ok(ServerConfig {
            plan,
            placement,
            listeners: vec![listener],
            limits: ServeLimits::default(),
            shard: ShardConfig::default(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        })
    }
}

/// Shards that run, with listeners that they share. Each core has a thread, which runs the core's shards.
///
/// They run until [`drain`](Server::drain) has returned, or the process ends.
pub struct Server<M> {
    shards: Vec<ShardHandle<M>>,
    /// How many threads have not ended.
    running: usize,
    events: Receiver<ServerEvent>,
    sender: Sender<ServerEvent>,
    /// When the signal came that ended [`Server::wait`].
    signalled: Option<Instant>,
    drain_delay: Duration,
    drain_timeout: Duration,
    on_hang_up: Option<Box<dyn FnMut() + Send>>,
}

/// A shard that runs, as other threads see it.
pub struct ShardHandle<M> {
    /// Where other threads leave mail for it.
    pub mailbox: Arc<Mailbox<ServeMail<M>>>,
    /// What it counts of connections and bytes.
    pub counters: Arc<Counters>,
    /// What it counts of requests and messages.
    pub serve: Arc<ServeCounters>,
}

/// Ends a [`Server`] from another thread.
#[derive(Clone, Debug)]
pub struct ServerHandle(Sender<ServerEvent>);

/// Makes the handler of a shard, on the shard's thread.
type MakeHandler<H> = dyn Fn(usize) -> H + Send + Sync;

/// What the thread that runs the server waits for.
#[derive(Debug)]
enum ServerEvent {
    Signal(Signal, Instant),
    Drain,
    /// A thread of shards has ended, the one of this name.
    ThreadEnded(String, Ended),
    Failed(String),
}

impl<M: Send + 'static> Server<M> {
    /// Starts the shards. `make` is called on each shard's thread with the shard's number, from 0,
    /// and gives the shard's handler.
    ///
    /// With `signals`, SIGTERM and SIGINT end [`wait`](Server::wait); without, only a
    /// [`handle`](Server::handle) does.
    ///
    /// # Errors
    /// [`ServerError::Shard`] and [`ServerError::Thread`].
    pub fn start<H: Handler<Mail = M> + 'static>(
        config: ServerConfig,
        signals: Option<Signals>,
        make: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Result<Self, ServerError> {
        let (sender, events) = mpsc::channel();
        if let Some(signals) = signals {
            let heard = sender.clone();
            signals
                .watch(move |signal, at| heard.send(ServerEvent::Signal(signal, at)).is_ok())
                .map_err(ServerError::Thread)?;
        }
        let make: Arc<MakeHandler<H>> = Arc::new(make);
        let start = |indexes: Vec<usize>| {
            let (events, name) = (sender.clone(), shards::thread_name(&indexes));
            // The receiver is gone only when nobody waits for the server any more.
            let ended = move |how| drop(events.send(ServerEvent::ThreadEnded(name, how)));
            let started = shards::start(indexes.clone(), config.clone(), Arc::clone(&make), ended);
            let started = started.map_err(|(index, error)| ServerError::Shard { index, error })?;
            Ok(indexes.into_iter().zip(started))
        };
        let threads = config.placement.threads(config.plan.io);
        let running = threads.len();
        let started: Vec<_> = threads.into_iter().map(start).collect::<Result<_, _>>()?;
        let mut shards: Vec<_> = started.into_iter().flatten().collect();
        shards.sort_unstable_by_key(|(index, _)| *index);
        Ok(Server {
            running,
            shards: shards.into_iter().map(|(_, shard)| shard).collect(),
            events,
            sender,
            signalled: None,
            drain_delay: config.drain_delay,
            drain_timeout: config.drain_timeout,
            on_hang_up: None,
        })
    }

    /// Has `action` called for each SIGHUP, on the thread that waits for the server's end. It must not block,
    /// as the server handles no other signal meanwhile.
    pub fn on_hang_up(&mut self, action: impl FnMut() + Send + 'static) {
        self.on_hang_up = Some(Box::new(action));
    }

    /// The shards, by number.
    pub fn shards(&self) -> &[ShardHandle<M>] {
        &self.shards
    }

    /// Connections that are open now, over all shards.
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.counters.open.get()).sum()
    }

    /// What ends the server from another thread.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.sender.clone())
    }

    /// Waits for SIGTERM, SIGINT or [`ServerHandle::drain`], then drains.
    ///
    /// # Errors
    /// Those of [`wait`](Server::wait) and [`drain`](Server::drain).
    pub fn run(mut self) -> Result<(), ServerError> {
        self.wait()?;
        self.drain()
    }

    /// Waits until the server is asked to end, and gives the reason: the name of the signal, or
    /// `drain`.
    ///
    /// # Errors
    /// [`ServerError::ThreadEnded`] and [`ServerError::Failed`].
    pub fn wait(&mut self) -> Result<&'static str, ServerError> {
        loop {
            match self.events.recv().expect("this holds a sender") {
                ServerEvent::Signal(signal, at) if signals::ends(signal) => {
                    self.signalled = Some(at);
                    return Ok(signal.as_str());
                }
                ServerEvent::Drain => return Ok("drain"),
                event => self.other(event)?,
            }
        }
    }

    /// Ends the server: waits for [`ServerConfig::drain_delay`], then closes the listeners and all
    /// connections, in random order over [`ServerConfig::drain_timeout`].
    ///
    /// # Errors
    /// [`ServerError::Interrupted`], [`ServerError::ThreadEnded`] and [`ServerError::Failed`].
    pub fn drain(&mut self) -> Result<(), ServerError> {
        if !self.drain_delay.is_zero() {
            self.tell(|| ServeMail::Unready, self.drain_delay)?;
        }
        let over = self.drain_timeout;
        self.tell(|| ServeMail::Drain(over), over.saturating_add(DRAIN_GRACE))?;
        if self.running > 0 {
            tracing::warn!(threads = self.running, "not drained in time, ending anyway");
        }
        Ok(())
    }

    /// Posts `mail` to every shard, and waits until all shards have ended or `span` is over.
    fn tell(&mut self, mail: impl Fn() -> ServeMail<M>, span: Duration) -> Result<(), ServerError> {
        let ends = matches!(mail(), ServeMail::Drain(_));
        let deadline = Instant::now() + span;
        let mut untold: Vec<_> =
            self.shards.iter().map(|shard| Arc::clone(&shard.mailbox)).collect();
        while self.running > 0 {
            // A full mailbox: that shard is told when there is room.
            untold.retain(|mailbox| mailbox.post(mail()).is_err());
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            let wait = if untold.is_empty() { rest } else { rest.min(TELL_AGAIN) };
            match self.events.recv_timeout(wait) {
                Ok(ServerEvent::ThreadEnded(_, Ok(()))) if ends => self.running -= 1,
                Ok(ServerEvent::Signal(signal, at)) if signals::ends(signal) => self.signal(at)?,
                Ok(event) => self.other(event)?,
                // Time to tell again, or the deadline.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// A signal during the drain. Within a second of the first it is the same request: timeout(1)
    /// signals the process and then its group, and init systems signal every process of a service.
    fn signal(&mut self, at: Instant) -> Result<(), ServerError> {
        let first = *self.signalled.get_or_insert(at);
        if at.saturating_duration_since(first) < SAME_SIGNAL {
            return Ok(());
        }
        Err(ServerError::Interrupted)
    }

    /// An event that means the same before and during the drain.
    fn other(&mut self, event: ServerEvent) -> Result<(), ServerError> {
        match event {
            ServerEvent::Signal(Signal::SIGHUP, _) if self.on_hang_up.is_some() => {
                self.on_hang_up.iter_mut().for_each(|action| action());
                Ok(())
            }
            ServerEvent::Signal(signal, _) => {
                tracing::info!(
                    signal = signal.as_str(),
                    "ignored: settings are read at start, logs go to stderr; SIGTERM ends"
                );
                Ok(())
            }
            ServerEvent::Drain => Ok(()),
            ServerEvent::ThreadEnded(name, how) => {
                let why = how.err().unwrap_or_else(|| "nobody asked it to".into());
                Err(ServerError::ThreadEnded { name, why })
            }
            ServerEvent::Failed(why) => Err(ServerError::Failed(why)),
        }
    }
}

impl ServerHandle {
    /// Ends [`Server::wait`], as SIGTERM does.
    pub fn drain(&self) {
        // A server that has ended needs no request to end.
        let _ = self.0.send(ServerEvent::Drain);
    }

    /// Ends [`Server::wait`] or [`Server::drain`] with [`ServerError::Failed`]: for programs with
    /// threads that the server cannot do without.
    pub fn fail(&self, why: String) {
        let _ = self.0.send(ServerEvent::Failed(why));
    }
}

/// After the drain's own time, for the last connections to take what is queued for them.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Until a shard whose mailbox was full is told again.
const TELL_AGAIN: Duration = Duration::from_millis(10);
/// Signals within this time count as one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A server of no shards, with these events to come.
    fn server(events: impl IntoIterator<Item = ServerEvent>) -> Server<()> {
        let (sender, receiver) = mpsc::channel();
        for event in events {
            sender.send(event).expect("the receiver is here");
        }
        Server {
            shards: Vec::new(),
            running: 1,
            events: receiver,
            sender,
            signalled: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(60),
            on_hang_up: None,
        }
    }

    /// The end of a shard, or of a thread that the program cannot do without, is an error before the
    /// drain and during it. A shard that has drained is none.
    #[test]
    fn the_end_of_a_thread_is_an_error() {
        let panicked = || Err("it panicked: a bug".to_owned());
        for (event, said) in [
            (
                ServerEvent::ThreadEnded("shard-3".into(), panicked()),
                "thread shard-3 ended: it panicked: a bug;",
            ),
            (ServerEvent::Failed("the control plane ended".into()), "the control plane ended"),
        ] {
            let again = match &event {
                ServerEvent::ThreadEnded(name, how) => {
                    ServerEvent::ThreadEnded(name.clone(), how.clone())
                }
                _ => ServerEvent::Failed("the control plane ended".into()),
            };
            let error = server([event]).wait().expect_err("an end");
            assert!(error.to_string().starts_with(said), "{error}");
            let error = server([again]).drain().expect_err("an end");
            assert!(error.to_string().starts_with(said), "{error}");
        }
        let ended = || ServerEvent::ThreadEnded("shard-0".into(), Ok(()));
        assert!(matches!(server([ended()]).wait(), Err(ServerError::ThreadEnded { .. })));
        assert!(server([ended()]).drain().is_ok());
    }

    /// Signals that ask for no end are passed over; a signal that is doubled counts once, and one more
    /// than a second later ends the drain.
    #[test]
    fn doubled_signals_count_once() {
        let (first, ended) =
            (Instant::now(), || ServerEvent::ThreadEnded("shard-0".into(), Ok(())));
        let signal = |signal, after| ServerEvent::Signal(signal, first + after);
        let begin = |second: Duration| {
            let mut server = server([
                signal(Signal::SIGHUP, Duration::ZERO),
                signal(Signal::SIGTERM, Duration::ZERO),
                signal(Signal::SIGUSR1, Duration::ZERO),
                signal(Signal::SIGINT, second),
                ended(),
            ]);
            assert_eq!(server.wait().expect("a signal"), "SIGTERM");
            server.drain()
        };
        assert!(begin(Duration::from_millis(999)).is_ok());
        assert!(matches!(begin(Duration::from_secs(1)), Err(ServerError::Interrupted)));
    }

    /// The handle of a server that has ended does nothing.
    #[test]
    fn a_handle_outlives_its_server() {
        let mut server = server([ServerEvent::ThreadEnded("shard-0".into(), Ok(()))]);
        let handle = server.handle();
        handle.drain();
        server.drain().expect("the shard ends");
        drop(server);
        handle.drain();
        handle.fail(io::Error::other("late").to_string());
    }
}
