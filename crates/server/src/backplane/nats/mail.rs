//! What the thread of the link has for the shards.

use std::sync::Arc;
use std::time::Instant;

use murre_router::channels::{
    AppendId, Arrived, ChannelError, FetchId, Fetched, Head, Payload, Position,
};
use murre_router::services::{Key, RemoteRequest, RequestError};

use crate::hub::HubMail;

/// News of NATS for the owner of a channel.
#[derive(Debug)]
pub(crate) enum FromNats {
    /// The outcome of a publication of this shard.
    Appended { id: AppendId, outcome: Result<Option<Position>, ChannelError> },
    /// A publication of any node.
    Arrived { channel: Arc<str>, arrived: Arrived },
    /// The subscription to a channel with history is in force.
    Opened { channel: Arc<str>, head: Head },
    /// It is not in force in time.
    Unopened { channel: Arc<str> },
    /// Publications of a channel with history may be missing, or of all with `None`, until it is opened again: those
    /// that NATS has taken since then.
    Lost { channel: Option<Arc<str>>, since: Instant },
    /// The outcome of a read.
    Fetched { id: FetchId, outcome: Result<Fetched, ChannelError> },
    /// A request of another node for a service that this shard owns, and the milliseconds that are left of its time.
    Requested { request: RemoteRequest, service: Arc<str>, payload: Payload, left: u32 },
    /// The outcome of a request of a member of this shard that another node was given.
    Outcome { waiting: Key, answer: Result<Payload, RequestError> },
}

/// Posts mail to the hub of a shard; a full mailbox gives it back.
pub(crate) type Post = Box<dyn Fn(usize, HubMail) -> Result<(), HubMail> + Send>;

/// Mail for the shards, gathered and posted together.
pub(super) struct Mail {
    post: Post,
    shards: Vec<Gathered>,
    /// Until then the connection had passed on all that NATS had sent.
    proved: Instant,
}

struct Gathered {
    news: Vec<FromNats>,
    /// The same, when the first of the news came.
    since: Instant,
    bytes: usize,
}

/// Bytes that wait for one shard before NATS is not read any more.
const BYTES_MAX: usize = 32 << 20;
/// What a piece of news takes besides its payload.
const EACH: usize = 128;

impl Mail {
    pub(super) fn new(shards: usize, post: Post, now: Instant) -> Self {
        let gathered = || Gathered { news: Vec::new(), since: now, bytes: 0 };
        Mail { post, shards: (0..shards).map(|_| gathered()).collect(), proved: now }
    }

    /// Adds news for a shard.
    pub(super) fn add(&mut self, shard: usize, news: FromNats) {
        let bytes = match &news {
            FromNats::Arrived { arrived: Arrived { payload, .. }, .. }
            | FromNats::Requested { payload, .. }
            | FromNats::Outcome { answer: Ok(payload), .. } => payload.bytes.len(),
            FromNats::Outcome { answer: Err(RequestError::ResponderFailed(why)), .. } => why.len(),
            _ => 0,
        };
        let gathered = &mut self.shards[shard];
        if gathered.news.is_empty() {
            gathered.since = self.proved;
        }
        gathered.bytes = gathered.bytes.saturating_add(bytes).saturating_add(EACH);
        gathered.news.push(news);
    }

    /// Adds to the news of every shard that publications of all channels may be missing.
    pub(super) fn add_loss(&mut self, since: Instant) {
        for shard in 0..self.shards.len() {
            self.add(shard, FromNats::Lost { channel: None, since });
        }
    }

    /// Posts what is gathered. What a full mailbox does not take waits. Until `proved` the connection has passed on all
    /// that NATS had sent.
    pub(super) fn post(&mut self, proved: Instant) {
        self.proved = proved;
        for (shard, gathered) in self.shards.iter_mut().enumerate() {
            if gathered.news.is_empty() {
                continue;
            }
            let news = std::mem::take(&mut gathered.news);
            match (self.post)(shard, HubMail::FromNats(gathered.since, news)) {
                Ok(()) => gathered.bytes = 0,
                Err(HubMail::FromNats(_, news)) => gathered.news = news,
                Err(_) => unreachable!("a full mailbox returns the mail that was posted"),
            }
        }
    }

    /// Whether a shard takes so little that no more should be gathered.
    pub(super) fn is_full(&self) -> bool {
        self.shards.iter().any(|gathered| gathered.bytes > BYTES_MAX)
    }

    /// Whether something waits for a full mailbox.
    pub(super) fn is_waiting(&self) -> bool {
        self.shards.iter().any(|gathered| !gathered.news.is_empty())
    }
}
