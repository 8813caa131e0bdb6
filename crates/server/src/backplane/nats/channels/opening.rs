//! Opens channels with history: first, after a reconnect, and when another stream keeps them.
//!
//! When NATS has answered a ping behind the subscription, this is in force, and the newest publication of the channel is
//! looked up. What arrives before its offset is known is held.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_router::channels::{Arrived, Head};

use super::reading::KeptState;
use super::{Channels, Done, KeptIndex};
use crate::backplane::nats::link::Link;
use crate::backplane::nats::mail::FromNats;
use crate::backplane::nats::names::epoch;
use crate::backplane::nats::reads::{CHANNELS_MAX, Heads, ReadError};

/// How far a channel with history is. Those without are always open.
pub(super) enum State {
    Opening {
        /// Publications may be missing that NATS has taken since then.
        since: Instant,
        held: Vec<Arrived>,
        has_dropped: bool,
    },
    Open,
}

/// The newest publications of some channels that were asked for.
pub(in crate::backplane::nats) struct HeadsRead {
    kept: KeptIndex,
    connection: u64,
    stream: Arc<str>,
    channels: Vec<Arc<str>>,
    heads: Result<Heads, ReadError>,
}

/// Publications that are held for a channel that is being opened.
const HELD_MAX: usize = 256;
/// Subscriptions that are made again between two pings: the server is silent while it makes them, and must not look
/// dead.
const SUBSCRIPTIONS_PER_PING: usize = 8192;
/// Look-ups in flight for one namespace.
const READING_MAX: u32 = 2;
/// In a cluster of NATS servers, the time by which all of them know a subscription.
const KNOWN_EVERYWHERE: Duration = Duration::from_secs(2);
/// In a cluster of NATS servers, the time between two look-ups of the heads of all channels.
const CHECK_EVERY: Duration = Duration::from_secs(60);

impl State {
    fn opening(since: Instant) -> Self {
        State::Opening { since, held: Vec::new(), has_dropped: false }
    }

    /// Holds a publication of a channel that is being opened; gives back one of an open channel.
    pub(super) fn hold(&mut self, arrived: Arrived) -> Option<Arrived> {
        match self {
            State::Open => return Some(arrived),
            State::Opening { held, .. } if held.len() < HELD_MAX => held.push(arrived),
            State::Opening { has_dropped, .. } => *has_dropped = true,
        }
        None
    }
}

impl Channels {
    /// Begins to open a channel with history, whose subscription has been sent.
    pub(super) fn open(&mut self, channel: Arc<str>, now: Instant) {
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        if let State::Open = entry.state {
            entry.state = State::opening(now);
        }
        self.new.push(channel);
    }

    /// A connection is there: all is subscribed to, and sent, again.
    pub(in crate::backplane::nats) fn connected(&mut self, link: &mut Link, now: Instant) {
        self.unconfirmed.clear();
        self.new.clear();
        self.connection = self.connection.saturating_add(1);
        self.check_at = now.checked_add(CHECK_EVERY).filter(|_| link.is_in_cluster());
        for state in &mut self.of_kept {
            state.to_read.clear();
        }
        let all: Vec<_> = self
            .channels
            .iter()
            .map(|(channel, entry)| (Arc::clone(channel), entry.number, entry.kept))
            .collect();
        for (at, (channel, number, kept)) in all.into_iter().enumerate() {
            link.subscribe(&self.subject(&channel, kept), None, number);
            if kept.is_some() {
                self.open(channel, now);
            }
            if at.checked_rem(SUBSCRIPTIONS_PER_PING) == Some(0) {
                self.confirm(link);
            }
        }
        self.publishes.connected(link, &mut self.mail, now);
    }

    /// The connection is broken: messages may be lost that NATS has sent since `since`.
    pub(in crate::backplane::nats) fn disconnected(&mut self, since: Instant, now: Instant) {
        // A stream may be deleted meanwhile. Reads wait until it is found again.
        self.of_kept.iter_mut().for_each(|state| state.look_again(now));
        for entry in self.channels.values_mut().filter(|entry| entry.kept.is_some()) {
            if let State::Open = entry.state {
                entry.state = State::opening(since);
            }
        }
        self.mail.add_loss(since);
    }

    /// Messages may be lost between NATS servers, which the server of this node does not say: the heads of all
    /// channels are looked up soon.
    pub(in crate::backplane::nats) fn doubt(&mut self, link: &Link, now: Instant) {
        if link.is_in_cluster() {
            let soon = now.checked_add(KNOWN_EVERYWHERE);
            self.check_at = self.check_at.min(soon).or(soon);
        }
    }

    /// Looks up the heads of all channels, if that is due.
    pub(super) fn check(&mut self, link: &Link, now: Instant) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        let is_busy = |state: &KeptState| state.reading > 0 || !state.to_read.is_empty();
        if self.of_kept.iter().any(is_busy) {
            self.check_at = now.checked_add(KNOWN_EVERYWHERE);
            return;
        }
        self.check_at = now.checked_add(CHECK_EVERY).filter(|_| link.is_in_cluster());
        self.of_kept.iter_mut().for_each(|state| state.look_again(now));
        for (channel, entry) in &self.channels {
            if let (State::Open, Some(kept)) = (&entry.state, entry.kept) {
                self.of_kept[kept].to_read.push(Arc::clone(channel));
            }
        }
    }

    /// The stream of a namespace is another one now.
    pub(super) fn renew(&mut self, kept: KeptIndex, stream: Arc<str>, now: Instant) {
        tracing::warn!(%stream, "another stream keeps the history of a namespace now: what was kept is lost");
        let state = &mut self.of_kept[kept];
        (state.name, state.seen) = (Some(stream), 0);
        state.to_read.clear();
        let of_kept = self.channels.iter().filter(|(_, entry)| entry.kept == Some(kept));
        let all: Vec<_> = of_kept.map(|(channel, _)| Arc::clone(channel)).collect();
        all.into_iter().for_each(|channel| self.open(channel, now));
    }

    /// Has the server answer when the new subscriptions are in force.
    pub(super) fn confirm(&mut self, link: &mut Link) {
        let pongs = link.ping();
        self.unconfirmed.extend(self.new.drain(..).map(|channel| (pongs, channel)));
    }

    /// Looks up the newest publications of channels whose subscriptions are in force.
    pub(super) fn take_confirmed(&mut self, link: &Link) {
        while self.unconfirmed.front().is_some_and(|(pongs, _)| *pongs <= link.pongs()) {
            let Some((_, channel)) = self.unconfirmed.pop_front() else { break };
            if let Some(kept) = self.channels.get(&channel).and_then(|entry| entry.kept) {
                self.of_kept[kept].to_read.push(channel);
            }
        }
    }

    /// Looks up the newest publications of channels that are being opened.
    pub(super) fn read_heads(&mut self, kept: KeptIndex) {
        let state = &mut self.of_kept[kept];
        while let Some(stream) = state.known()
            && state.reading < READING_MAX
            && !state.to_read.is_empty()
        {
            let count = state.to_read.len().min(CHANNELS_MAX);
            let channels: Vec<_> = state.to_read.drain(..count).collect();
            state.reading = state.reading.saturating_add(1);
            let (reads, done) = (self.reads.clone(), self.done.clone());
            let connection = self.connection;
            tokio::spawn(async move {
                let heads = reads.heads(&stream, &channels).await;
                let read = HeadsRead { kept, connection, stream, channels, heads };
                let _ = done.send(Done::Heads(read));
            });
        }
    }

    /// Takes the newest publications of some channels.
    pub(super) fn heads(&mut self, read: HeadsRead, link: &mut Link, now: Instant) {
        let HeadsRead { kept, connection, stream, channels, heads } = read;
        let state = &mut self.of_kept[kept];
        state.reading = state.reading.saturating_sub(1);
        // All are opened again on a new connection, and in another stream.
        if connection != self.connection || state.name.as_ref() != Some(&stream) {
            return;
        }
        match heads {
            Ok(heads) => {
                state.seen = state.seen.max(heads.newest());
                for channel in channels {
                    let head = heads.of(&channel, epoch(&stream, &channel));
                    self.opened(channel, head, link, now);
                }
            }
            Err(why) => {
                state.to_read.extend(channels);
                if why == ReadError::NoStream {
                    state.look_again(now);
                }
            }
        }
    }

    /// The newest publication of a channel is known.
    fn opened(&mut self, channel: Arc<str>, head: Head, link: &mut Link, now: Instant) {
        let Some(entry) = self.channels.get_mut(&channel) else { return };
        let shard = entry.shard;
        if entry.left {
            entry.state = State::Open;
            return;
        }
        self.mail.add(shard, FromNats::Opened { channel: Arc::clone(&channel), head });
        let state = mem::replace(&mut entry.state, State::Open);
        let State::Opening { since, held, has_dropped } = state else { return };
        let is_later = |arrived: &Arrived| {
            let at = arrived.place.as_ref().map(|at| at.position);
            at.is_some_and(|at| at.epoch == head.epoch && at.offset > head.newest)
        };
        for arrived in held.into_iter().filter(is_later) {
            self.mail.add(shard, FromNats::Arrived { channel: Arc::clone(&channel), arrived });
        }
        if has_dropped {
            self.mail.add(shard, FromNats::Lost { channel: Some(Arc::clone(&channel)), since });
            self.open(channel, now);
        } else if link.is_in_cluster()
            && let Some(at) = now.checked_add(KNOWN_EVERYWHERE)
        {
            self.checked_again.push_back((at, channel));
        }
    }
}
