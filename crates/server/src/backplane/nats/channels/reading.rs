//! The streams of namespaces with history, as far as this node knows them, and reads for the owners of channels, which
//! wait until the stream is known.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_router::channels::{ChannelError, FetchId, FetchReason, Fetched};

use super::{Channels, Done, KeptIndex};
use crate::backplane::nats::link::Link;
use crate::backplane::nats::mail::FromNats;
use crate::backplane::nats::names::epoch;
use crate::backplane::nats::reads::{Read, ReadError};
use crate::backplane::nats::streams::Seen;

/// A read for the owner of a channel.
#[derive(Clone, Debug)]
pub(in crate::backplane::nats) struct Fetch {
    pub(in crate::backplane::nats) shard: usize,
    pub(in crate::backplane::nats) id: FetchId,
    pub(in crate::backplane::nats) channel: Arc<str>,
    pub(in crate::backplane::nats) kept: KeptIndex,
    pub(in crate::backplane::nats) after: u64,
    pub(in crate::backplane::nats) reason: FetchReason,
    /// Publications after `after` were taken by NATS since then; `None` if that is unknown.
    pub(in crate::backplane::nats) missed_since: Option<Instant>,
    /// When its reader is told that it has failed.
    pub(in crate::backplane::nats) until: Instant,
}

/// The stream of a namespace with history.
pub(super) struct KeptState {
    /// The name by which it was known last.
    pub(super) name: Option<Arc<str>>,
    /// The greatest offset that was seen in it.
    pub(super) seen: u64,
    look: Look,
    /// Channels whose newest publication is to be looked up.
    pub(super) to_read: Vec<Arc<str>>,
    /// Look-ups in flight.
    pub(super) reading: u32,
    /// Why there is no stream, as the log has it.
    problem: Option<String>,
    /// Reads that wait for the stream.
    fetches: Vec<Fetch>,
}

/// Whether a stream is looked for.
enum Look {
    /// From this time on.
    At(Instant),
    Running,
    /// It was found.
    Done,
}

/// The pause before a stream that could not be had is looked for again.
const STREAM_AGAIN: Duration = Duration::from_millis(500);
/// A loss between NATS servers is noticed within this time, when all heads are looked up.
const NOTICED: Duration = Duration::from_secs(65);

impl KeptState {
    pub(super) fn new(now: Instant) -> Self {
        KeptState {
            name: None,
            seen: 0,
            look: Look::At(now),
            to_read: Vec::new(),
            reading: 0,
            problem: None,
            fetches: Vec::new(),
        }
    }

    /// The name of the stream, once it was found.
    pub(super) fn known(&self) -> Option<Arc<str>> {
        self.name.clone().filter(|_| matches!(self.look, Look::Done))
    }

    /// Looks for the stream again, unless it is being looked for.
    pub(super) fn look_again(&mut self, now: Instant) {
        if let Look::Done = self.look {
            self.look = Look::At(now);
        }
    }
}

impl Channels {
    /// Looks for the stream of a namespace, if its time has come.
    pub(super) fn look(&mut self, kept: KeptIndex, now: Instant) {
        let state = &mut self.of_kept[kept];
        if matches!(state.look, Look::At(at) if at <= now) {
            state.look = Look::Running;
            let seen = state.name.clone().map(|stream| Seen { stream, offset: state.seen });
            let (streams, done) = (self.streams.clone(), self.done.clone());
            tokio::spawn(async move {
                let found = streams.find(kept, seen).await;
                let _ = done.send(Done::Stream(kept, found));
            });
        }
    }

    /// Takes the name of a stream, or why there is none.
    pub(super) fn found(
        &mut self,
        kept: KeptIndex,
        found: Result<String, String>,
        link: &mut Link,
        now: Instant,
    ) {
        let stream: Arc<str> = match found {
            Ok(stream) => stream.into(),
            Err(why) => {
                let state = &mut self.of_kept[kept];
                state.look = Look::At(now.checked_add(STREAM_AGAIN).unwrap_or(now));
                if state.problem.as_ref() != Some(&why) {
                    let namespace = &self.streams.names.kept()[kept].namespace;
                    tracing::warn!(%namespace, why, "no stream for the history of a namespace; trying again");
                    state.problem = Some(why);
                }
                return;
            }
        };
        let state = &mut self.of_kept[kept];
        (state.look, state.problem) = (Look::Done, None);
        let fetches = mem::take(&mut state.fetches);
        match &state.name {
            Some(known) if *known != stream => self.renew(kept, stream, now),
            _ => state.name = Some(stream),
        }
        fetches.into_iter().for_each(|fetch| self.fetch(fetch, link));
        self.publishes.stream_found(kept, link, &mut self.mail);
    }

    /// Reads a channel, as soon as its stream is known.
    pub(super) fn fetch(&mut self, mut fetch: Fetch, link: &Link) {
        let state = &mut self.of_kept[fetch.kept];
        let Some(stream) = state.known() else {
            state.fetches.push(fetch);
            return;
        };
        // Until then the connection had passed on all publications.
        let noticed = if link.is_in_cluster() { NOTICED } else { Duration::ZERO };
        let since = fetch.missed_since.map(|since| since.min(link.proved()));
        fetch.missed_since = since.and_then(|since| since.checked_sub(noticed));
        let (reads, done) = (self.reads.clone(), self.done.clone());
        tokio::spawn(async move {
            let outcome = reads.range(&stream, &fetch).await;
            let _ = done.send(Done::Fetched(fetch, stream, outcome));
        });
    }

    /// Takes the outcome of a read.
    pub(super) fn fetched(
        &mut self,
        fetch: Fetch,
        stream: &str,
        outcome: Result<Read, ReadError>,
        link: &Link,
        now: Instant,
    ) {
        let &Fetch { shard, id, ref channel, kept, .. } = &fetch;
        let outcome = match outcome {
            Ok(Read { publications, reached, has_more, is_complete }) => {
                let epoch = epoch(stream, channel);
                Ok(Fetched { epoch, publications, reached, has_more, is_complete })
            }
            Err(ReadError::NoStream) => {
                // It is read from the stream that is found, or made, then.
                self.of_kept[kept].look_again(now);
                return self.fetch(fetch, link);
            }
            Err(ReadError::Away) if now < fetch.until => return self.fetch(fetch, link),
            Err(ReadError::Away | ReadError::TooLarge) => Err(ChannelError::Overloaded),
        };
        self.mail.add(shard, FromNats::Fetched { id, outcome });
    }

    /// Tells the readers of a stream that is not found in time.
    pub(super) fn give_up_fetches(&mut self, now: Instant) {
        for state in &mut self.of_kept {
            for fetch in state.fetches.extract_if(.., |fetch| fetch.until <= now) {
                let outcome = Err(ChannelError::Overloaded);
                self.mail.add(fetch.shard, FromNats::Fetched { id: fetch.id, outcome });
            }
        }
    }
}
