//! One subscriber, which outlives its connections.

use std::sync::atomic::Ordering;

use serde::Deserialize;

use crate::client::channel::Position;
use crate::scenarios::churn::sequence::Sequence;
use crate::scenarios::churn::shared::{Counts, one_more};

/// A subscriber, whichever connection it has.
pub(super) struct Subscriber {
    pub(super) channel: u32,
    pub(super) stage: Stage,
    pub(super) run: Sequence,
    /// Where it stands in the history of its channel.
    pub(super) position: Option<Position>,
    /// Its changes so far.
    pub(super) round: u32,
    pub(super) connected_before: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Without a connection.
    Away,
    Subscribing,
    Subscribed,
    Unsubscribing,
    /// Connected and not subscribed.
    Resting,
}

/// The published data.
#[derive(Debug, Deserialize)]
pub(super) struct Data {
    pub(super) number: u64,
    /// When, on our clock.
    pub(super) sent: u32,
}

impl Subscriber {
    pub(super) fn new(channel: u32) -> Subscriber {
        Subscriber {
            channel,
            stage: Stage::Away,
            run: Sequence::default(),
            position: None,
            round: 0,
            connected_before: false,
        }
    }

    /// The server has answered `subscribe`, after `sent` publications to the channel, which has history if it
    /// is `kept`: whatever is published from now on must come. The error says what is wrong with the answer.
    pub(super) fn subscribed(
        &mut self,
        kept: bool,
        (position, recovered): (Option<Position>, Option<bool>),
        sent: u64,
        counts: &Counts,
    ) -> Result<(), String> {
        match (kept, position, self.position, recovered) {
            (false, ..) => self.run = Sequence::behind(sent),
            // The run goes on, and the position with each publication.
            (true, Some(new), Some(old), Some(true)) if new.epoch == old.epoch => {
                one_more(&counts.recovered);
                let missed = new.offset.saturating_sub(old.offset);
                counts.recovered_publications.fetch_add(missed, Ordering::Relaxed);
                self.run.floor = sent;
            }
            (true, Some(_), None, _) | (true, Some(_), Some(_), Some(false)) => {
                if self.position.is_some() {
                    one_more(&counts.unrecovered);
                }
                (self.run, self.position) = (Sequence::behind(sent), position);
            }
            (true, ..) => {
                return Err(format!(
                    "a channel with history is subscribed to with position {position:?}, recovered \
                     {recovered:?}"
                ));
            }
        }
        self.stage = Stage::Subscribed;
        one_more(&counts.subscribed);
        Ok(())
    }

    /// Takes a publication. Returns whether its delay says something about the server's speed: one that was
    /// missed has waited for its reader. The error says why it is not the next.
    pub(super) fn receive(&mut self, number: u64, offset: Option<u64>) -> Result<bool, String> {
        if let Err(expected) = self.run.receive(number) {
            let channel = self.channel;
            return Err(format!("publication {number} of channel {channel} for {expected}"));
        }
        if let Some(position) = &mut self.position {
            if offset != Some(position.offset + 1) {
                return Err(format!("offset {offset:?} behind {}", position.offset));
            }
            position.offset += 1;
        }
        Ok(number >= self.run.floor)
    }
}
