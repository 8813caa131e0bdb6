//! The backplane of one shard's channels over NATS: it hands everything to the thread of the link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_router::Shard;
use murre_router::channels::{
    self, Append, AppendId, Backplane, FetchId, FetchReason, Interest, Outgoing,
};

use super::channels::{ChannelCommand, Fetch};
use super::envelope;
use super::names::Kind;
use super::publishes::Publish;
use super::{Command, Nats};

/// The longest wait for publications that NATS keeps.
const FETCH_PATIENCE: Duration = Duration::from_secs(4);

/// The channels that one shard owns.
pub(crate) struct OverNats {
    nats: Arc<Nats>,
    shard: usize,
}

impl OverNats {
    /// The backplane of a shard.
    pub(crate) fn new(nats: Arc<Nats>, shard: Shard) -> Self {
        OverNats { nats, shard: shard.into() }
    }

    fn send(&self, command: ChannelCommand) {
        self.nats.send(Command::Channel(command));
    }
}

impl Backplane for OverNats {
    fn orders(&self) -> bool {
        true
    }

    fn append(&mut self, id: AppendId, publication: Outgoing<'_>) -> Append {
        let Outgoing { channel, payload, except, keeps_history } = publication;
        let room = payload.bytes.len();
        if !self.nats.shared.waiting.take(room) {
            return Append::Refuse;
        }
        let names = &self.nats.names;
        let kept = if keeps_history { names.kept_of(channel) } else { None };
        let kind = if kept.is_some() { Kind::ToStream } else { Kind::Plain };
        let except = except.map(|origin| (self.nats.shared.node.incarnation, origin));
        self.send(ChannelCommand::Publish(Publish {
            shard: self.shard,
            id,
            subject: names.subject(kind, channel).into(),
            kept: kept.map(|kept| (kept, channel.into())),
            room,
            payload: envelope::wrap(payload, except),
        }));
        Append::Later
    }

    fn interest(&mut self, channel: &str, interest: Interest, keeps_history: bool) {
        let kept = if keeps_history { self.nats.names.kept_of(channel) } else { None };
        let (shard, channel) = (self.shard, channel.into());
        self.send(ChannelCommand::Interest { shard, channel, interest, kept });
    }

    fn fetch(&mut self, id: FetchId, fetch: channels::Fetch<'_>) {
        let channels::Fetch { channel, after, reason, .. } = fetch;
        let kept = self.nats.names.kept_of(channel).expect("only channels with history are read");
        let (shard, channel) = (self.shard, channel.into());
        let now = Instant::now();
        let until = now.checked_add(FETCH_PATIENCE).unwrap_or(now);
        let missed_since = match reason {
            FetchReason::Gap { missed_ms } => now.checked_sub(Duration::from_millis(missed_ms)),
            FetchReason::Recovery | FetchReason::History => None,
        };
        let fetch = Fetch { shard, id, channel, kept, after, reason, missed_since, until };
        self.send(ChannelCommand::Fetch(fetch));
    }
}
