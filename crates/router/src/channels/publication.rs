//! Publications, their positions, and queries for them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::Ticket;

/// One publication. Copies share the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The channel it was published to.
    pub channel: Arc<str>,
    /// Its position, in a channel with history.
    pub position: Option<Position>,
    /// The published bytes.
    pub payload: Payload,
    /// The session that does not get it. History does not keep this field.
    pub except: Option<Origin>,
}

/// Side data about the publisher, followed by the published data. The router reads neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// The encoding of the data.
    pub form: Form,
    /// Length in bytes of the side data at the front of `bytes`.
    pub side_len: u32,
    /// Side data and data, copied once when they left the receive buffer.
    pub bytes: Arc<[u8]>,
}

const _: () = assert!(size_of::<Payload>() == 24);
const _: () = assert!(size_of::<Publication>() == 80);

impl Publication {
    /// Stands for publications of a channel with history that the broker has lost.
    pub(super) fn loss(channel: Arc<str>) -> Self {
        let payload = Payload::new(Form::Binary, []);
        Publication { channel, position: None, payload, except: None }
    }

    /// Whether a publication of a channel with history stands for a loss.
    pub(super) fn is_loss(&self) -> bool {
        self.position.is_none()
    }
}

impl Payload {
    /// A payload without side data.
    pub fn new(form: Form, bytes: impl Into<Arc<[u8]>>) -> Self {
        Payload { form, side_len: 0, bytes: bytes.into() }
    }

    /// The side data about the publisher.
    pub fn side(&self) -> &[u8] {
        &self.bytes[..self.split()]
    }

    /// The published data.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.split()..]
    }

    /// A decoded payload may claim more side data than it has bytes: all bytes are side data then.
    fn split(&self) -> usize {
        (self.side_len as usize).min(self.bytes.len())
    }
}

/// The encoding of a payload's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// A JSON value.
    Json,
    /// Any bytes.
    Binary,
}

/// A position in a channel with history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Changes whenever the owner has lost its count of offsets, and differs from channel to channel.
    pub epoch: u32,
    /// Goes up with each publication of the channel. A single process counts them from 1, a broker leaves
    /// numbers out. A reader at 0 has seen none.
    pub offset: u64,
}

/// The session that published, as the caller encodes it. The router carries and compares it only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin(pub u64);

/// The publisher of a publication, and the outcomes that it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// The publishing session.
    pub origin: Origin,
    /// With a ticket, `Event::Published` always follows. Without one it follows only if the owner of the
    /// channel refuses the publication.
    pub ticket: Option<Ticket>,
    /// The publication is not delivered to `origin`.
    pub except: bool,
}

/// The place in a channel at which reading starts. It may have come from a client: any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// After the newest publication.
    Head,
    /// After this position.
    After(Position),
    /// After this offset, whatever the epoch.
    AfterOffset(u64),
}

impl Start {
    /// The offset after which reading starts, if it is not the newest.
    pub(super) fn offset(self) -> Option<u64> {
        match self {
            Start::Head => None,
            Start::After(Position { offset, .. }) | Start::AfterOffset(offset) => Some(offset),
        }
    }
}

impl HistoryQuery {
    /// The offset after which all publications are that the page may have.
    pub(super) fn fetch_after(self) -> u64 {
        match self.direction {
            Direction::Forward => self.start.offset().unwrap_or(0),
            Direction::Reverse => 0,
        }
    }
}

/// A query of a channel's history. A page ends before it exceeds `limit` publications or `bytes_max`
/// bytes of payload, but has at least one publication if there is one and `limit` is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// With [`Direction::Forward`] the page has the publications after the start, with
    /// [`Direction::Reverse`] the older ones. [`Start::Head`], and a start that cannot be recovered,
    /// select the newest publications.
    pub start: Start,
    /// Number of publications at most. With 0 the page has the position alone.
    pub limit: u32,
    /// Bytes of payload at most.
    pub bytes_max: u32,
    /// The order of the page.
    pub direction: Direction,
}

/// The order of the publications of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Reverse,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Side data and data are the two parts of the bytes, whatever length the side data claims.
    #[test]
    fn side_and_data_are_the_whole() {
        for (side_len, side) in [(0, &b""[..]), (2, b"ab"), (4, b"abcd"), (u32::MAX, b"abcd")] {
            let payload = Payload { form: Form::Binary, side_len, bytes: Arc::from(*b"abcd") };
            assert_eq!(payload.side(), side);
            assert_eq!([payload.side(), payload.data()].concat(), b"abcd");
        }
    }
}
