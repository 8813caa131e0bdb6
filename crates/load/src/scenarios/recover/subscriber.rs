//! One subscriber, which outlives its connections.

use std::time::Instant;

use crate::client::channel::Position;
use crate::scenarios::recover::log::Part;
use crate::scenarios::recover::outages::Return;

/// A subscriber, whichever connection it has.
pub(super) struct Subscriber {
    pub(super) channel: u32,
    pub(super) stage: Stage,
    /// That of the last publication, or of the subscription.
    pub(super) position: Option<Position>,
    /// Where the part begins of which it must have everything: with the next publication, if it is not known.
    from: Option<u64>,
    received: u64,
    /// Publications up to this offset were there when it subscribed.
    recovered_to: u64,
    /// When its connection ended, until it is subscribed again.
    pub(super) ended: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Without a connection, or before it has subscribed.
    Away,
    Subscribing,
    /// The server was not ready for it. It tries again.
    Refused,
    Subscribed,
}

/// What a publication was for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It came when it was published.
    Live,
    /// It was missed, and has waited for the subscriber.
    Recovered,
}

impl Subscriber {
    pub(super) fn new(channel: u32) -> Subscriber {
        Subscriber {
            channel,
            stage: Stage::Away,
            position: None,
            from: None,
            received: 0,
            recovered_to: 0,
            ended: None,
        }
    }

    /// Ends the part of which it must have everything.
    fn end_part(&mut self, to: u64) -> Option<Part> {
        let epoch = self.position?.epoch;
        let received = std::mem::take(&mut self.received);
        let from = self.from.take()?;
        Some(Part { channel: self.channel, epoch, from, to, received })
    }

    /// Ends it with the newest publication that was answered.
    pub(super) fn end(&mut self, newest: Option<Position>) -> Option<Part> {
        let position = self.position?;
        let newest = newest.filter(|newest| newest.epoch == position.epoch);
        self.end_part(newest.map_or(position.offset, |newest| newest.offset.max(position.offset)))
    }

    /// The server has left out publications, and says so.
    pub(super) fn dropped(&mut self) -> Option<Part> {
        self.end_part(self.position?.offset)
    }

    /// The server has answered `subscribe`. The error says what is wrong with the answer.
    pub(super) fn subscribed(
        &mut self,
        answer: (Option<Position>, Option<bool>),
        plain: bool,
    ) -> Result<(Return, Option<Part>), String> {
        self.stage = Stage::Subscribed;
        if plain {
            let part = self.dropped();
            self.position = None;
            return Ok((Return::Anew, part));
        }
        match (answer, self.position) {
            ((Some(new), Some(true)), Some(old)) if new.epoch == old.epoch => {
                if new.offset < old.offset {
                    return Err(format!("recovered from {} to {}", old.offset, new.offset));
                }
                self.recovered_to = new.offset;
                Ok((Return::Recovered, None))
            }
            ((Some(new), None), None) | ((Some(new), Some(false)), Some(_)) => {
                let (how, part) =
                    (self.position.map_or(Return::Anew, |_| Return::Told), self.dropped());
                self.position = Some(new);
                (self.from, self.received) = (Some(new.offset), 0);
                self.recovered_to = new.offset;
                Ok((how, part))
            }
            ((new, recovered), old) => {
                Err(format!("subscribed at {new:?}, recovered {recovered:?}, from {old:?}"))
            }
        }
    }

    /// Takes a publication. Returns its position.
    pub(super) fn receive(&mut self, offset: u64) -> Result<(Position, Received), String> {
        let position =
            self.position.get_or_insert(Position { epoch: 0, offset: offset.saturating_sub(1) });
        if offset <= position.offset {
            return Err(format!("offset {offset} behind {}: twice, or late", position.offset));
        }
        if self.from.is_none() {
            self.from = Some(offset - 1);
        }
        position.offset = offset;
        self.received += 1;
        let received =
            if offset <= self.recovered_to { Received::Recovered } else { Received::Live };
        Ok((*position, received))
    }

    /// Whether it has everything up to there.
    pub(super) fn has(&self, newest: Option<Position>) -> bool {
        let behind = |newest: Position| {
            self.position.is_none_or(|own| own.epoch != newest.epoch || own.offset < newest.offset)
        };
        !newest.is_some_and(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { epoch: 7, offset }
    }

    /// Shows one client through a recovery, a loss that it is told of in each way, and the end.
    #[test]
    fn a_part_goes_on_until_a_loss_is_told() {
        let mut one = Subscriber::new(3);
        let part = |from, to, received| Some(Part { channel: 3, epoch: 7, from, to, received });
        assert_eq!(one.subscribed((Some(at(10)), None), false), Ok((Return::Anew, None)));
        assert_eq!(one.receive(12), Ok((at(12), Received::Live)));
        assert!(one.receive(12).is_err() && one.receive(11).is_err());
        assert_eq!(
            one.subscribed((Some(at(30)), Some(true)), false),
            Ok((Return::Recovered, None))
        );
        assert_eq!(one.receive(30), Ok((at(30), Received::Recovered)));
        assert_eq!(one.receive(31), Ok((at(31), Received::Live)));
        assert_eq!(
            one.subscribed((Some(at(50)), Some(false)), false),
            Ok((Return::Told, part(10, 31, 3)))
        );
        assert_eq!(one.receive(51), Ok((at(51), Received::Live)));
        assert_eq!(one.dropped(), part(50, 51, 1));
        assert_eq!(one.receive(61), Ok((at(61), Received::Live)));
        assert!(one.has(Some(at(61))) && !one.has(Some(at(62))) && one.has(None));
        assert_eq!(one.end(Some(at(64))), part(60, 64, 1));
    }

    /// Shows answers to `subscribe` that no server may give.
    #[test]
    fn a_wrong_answer_is_found() {
        for wrong in [
            (None, None),
            (Some(at(9)), Some(true)),
            (Some(at(10)), None),
            (Some(Position { epoch: 8, offset: 20 }), Some(true)),
        ] {
            let mut one = Subscriber::new(0);
            one.subscribed((Some(at(10)), None), false).expect("right");
            assert!(one.subscribed(wrong, false).is_err(), "{wrong:?}");
        }
    }

    /// Shows that without history each subscription begins with its first publication.
    #[test]
    fn without_history_each_subscription_is_a_part() {
        let mut one = Subscriber::new(0);
        for first in [4, 9] {
            let (how, _) = one.subscribed((None, None), true).expect("right");
            assert_eq!(how, Return::Anew);
            let place = Position { epoch: 0, offset: first };
            assert_eq!(one.receive(first), Ok((place, Received::Live)));
        }
        let part = Part { channel: 0, epoch: 0, from: 8, to: 9, received: 1 };
        assert_eq!(one.end(None), Some(part));
    }
}
