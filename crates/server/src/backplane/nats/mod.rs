//! The connection to NATS, over which the nodes of a cluster exchange what they publish.
//!
//! ```text
//!   shards, control plane ──▶ Nats (handle) ──commands──▶ thread "nats": Link ──▶ NATS
//!                   handlers ◀──────────────────messages──┘
//! ```
//!
//! The client is our own, because those that exist give each subscription a queue of its own, which takes
//! kilobytes, and drop messages when it is full. Here a subscription is an entry of a table, and nothing that NATS
//! has sent is dropped: when the shards do not take more, the connection is not read.

mod channels;
mod connection;
mod counts;
#[allow(clippy::arithmetic_side_effects, reason = "counts of bits")]
mod credentials;
mod envelope;
mod link;
mod mail;
mod names;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle;
mod orders;
mod publishes;
mod reads;
mod run;
mod services;
mod settings;
mod shard;
mod streams;
#[allow(clippy::arithmetic_side_effects, reason = "numbers of a date, in their ranges")]
mod time;
mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use self::channels::ChannelCommand;
use self::connection::Opener;
pub(crate) use self::counts::Counts;
use self::counts::WaitingBytes;
use self::link::Link;
pub(crate) use self::mail::{FromNats, Post};
use self::names::Names;
use self::reads::Reads;
pub(crate) use self::run::Runner;
pub(crate) use self::services::ServicesOverNats;
use self::services::{ServiceCommand, Services};
pub(crate) use self::settings::{Kept, NatsServer, Settings, Storage, Token};
pub(crate) use self::shard::OverNats;
use self::streams::Streams;
use self::time::NatsClock;

/// The link, for other threads. They never wait for it.
pub(crate) struct Nats {
    shared: Arc<Shared>,
    names: Arc<Names>,
    commands: UnboundedSender<Command>,
}

/// What the handle and the thread share.
struct Shared {
    cluster: Token,
    node: NodeId,
    counts: Counts,
    /// Whether NATS has taken this node once since the start.
    joined: AtomicBool,
    waiting: WaitingBytes,
    /// The number of the next subscription.
    next: AtomicU64,
}

/// This node and this start of it.
#[derive(Clone, Debug)]
pub(crate) struct NodeId {
    pub(crate) name: Token,
    /// Tells one start of a node from another, and nodes of the same name apart.
    pub(crate) incarnation: u64,
}

/// Called on the thread of the link with the subject and the payload of a message. It must not block.
pub(crate) type MessageHandler = Box<dyn Fn(&str, &[u8]) + Send>;
/// Called on the thread of the link when there is a new connection. It must not block.
pub(crate) type ConnectedHandler = Box<dyn Fn() + Send>;

/// A subscription of another part of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SubscriptionId(u64);

/// What other threads want of the link.
enum Command {
    Channel(ChannelCommand),
    Service(ServiceCommand),
    Publish { subject: Box<str>, payload: Vec<u8> },
    Subscribe { number: u64, subject: Box<str>, handle: MessageHandler },
    Unsubscribe { number: u64 },
    OnConnected(ConnectedHandler),
}

impl Shared {
    /// A number for a subscription, used once.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }
}

impl Nats {
    /// The link with these settings, and what its thread runs.
    ///
    /// # Errors
    /// A sentence that names a file that cannot be used, the problem and the remedy.
    pub(crate) fn new(settings: Settings) -> Result<(Arc<Nats>, Runner), String> {
        let opener = Opener::new(&settings)?;
        // The standard library's only source of unpredictable numbers.
        let incarnation = RandomState::new().hash_one(());
        let node = NodeId { name: settings.node, incarnation };
        let shared = Arc::new(Shared {
            cluster: settings.cluster.clone(),
            node,
            counts: Counts::default(),
            joined: AtomicBool::new(false),
            waiting: WaitingBytes::default(),
            next: AtomicU64::new(1),
        });
        let (sender, commands) = unbounded_channel();
        let (link, sends, requests) = Link::new(Arc::clone(&shared));
        let names = Arc::new(Names::new(settings.cluster, settings.namespaces, settings.kept));
        let clock = Arc::new(NatsClock::new());
        let streams = Streams {
            names: Arc::clone(&names),
            requests: sends.clone(),
            clock: Arc::clone(&clock),
            storage: settings.storage,
            replicas: settings.replicas,
        };
        let reads = Reads::new(Arc::clone(&names), sends, clock);
        let runner = Runner {
            opener,
            servers: settings.servers,
            shared: Arc::clone(&shared),
            link,
            services: Services::new(Arc::clone(&shared), Arc::clone(&names)),
            streams,
            reads,
            commands,
            requests,
        };
        Ok((Arc::new(Nats { shared, names, commands: sender }), runner))
    }

    /// The name of this node, and the number of this start.
    pub(crate) fn node(&self) -> &NodeId {
        &self.shared.node
    }

    /// The subject of the cluster with this end.
    pub(crate) fn subject(&self, end: &str) -> String {
        format!("murre.{}.{end}", self.shared.cluster)
    }

    /// Publishes to a subject, at most once: without a connection, and when too much waits, the message is
    /// dropped and counted. Returns whether it waits for the connection.
    pub(crate) fn publish(&self, subject: &str, payload: Vec<u8>) -> bool {
        let takes = self.shared.waiting.take(payload.len());
        if takes {
            self.send(Command::Publish { subject: subject.into(), payload });
        } else {
            self.shared.counts.dropped.fetch_add(1, Relaxed);
        }
        takes
    }

    /// Has each message to a subject handled, on this connection and all later ones, until
    /// [`unsubscribe`](Self::unsubscribe). Messages of the time without a connection are lost.
    pub(crate) fn subscribe(&self, subject: &str, handle: MessageHandler) -> SubscriptionId {
        let number = self.shared.number();
        self.send(Command::Subscribe { number, subject: subject.into(), handle });
        SubscriptionId(number)
    }

    /// Ends a subscription. Messages that are on their way may still be handled.
    pub(crate) fn unsubscribe(&self, SubscriptionId(number): SubscriptionId) {
        self.send(Command::Unsubscribe { number });
    }

    /// Has `handle` called for the connection that is there, and for each new one, after the subscriptions were
    /// made again: messages may have been lost before.
    pub(crate) fn on_connected(&self, handle: ConnectedHandler) {
        self.send(Command::OnConnected(handle));
    }

    /// Has the channels of this node checked soon: what other nodes have published may be lost between NATS servers.
    pub(crate) fn doubt(&self) {
        self.send(Command::Channel(ChannelCommand::Doubt));
    }

    /// Whether NATS has taken this node once since the start.
    pub(crate) fn has_joined(&self) -> bool {
        self.shared.joined.load(Relaxed)
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.shared.counts.up.load(Relaxed)
    }

    /// The counts of the link.
    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn send(&self, command: Command) {
        // The process ends when the thread has.
        let _ = self.commands.send(command);
    }
}
