//! Ids of events. An id names the position of a client in each channel of its stream. A client that
//! returns the id (`Last-Event-ID`) continues from these positions.
//!
//! In a stream of one channel the id is a position, `EPOCH-OFFSET`. In a stream of several channels
//! it has one part for each channel, `HASH.EPOCH-OFFSET`, separated by commas. `HASH` is the hash
//! of the channel's name, so the next request may name its channels in another order, or other
//! channels.

use murre_router::channels::{Position, Start};

/// The progress of a client in one channel of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The name of the channel.
    pub(super) channel: Box<str>,
    pub(super) place: Place,
}

/// The progress of a client in one channel, as its part of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The channel keeps no history, or the client has received nothing of it.
    None,
    /// The client has received everything up to this position.
    At(Position),
    /// The client sent a position that cannot be read, and has not yet been told that it has missed
    /// publications.
    Unreadable,
}

impl Place {
    /// The place of a client that begins at `start`.
    pub(super) fn of(start: Start) -> Self {
        match start {
            Start::Head => Place::None,
            Start::After(position) => Place::At(position),
            Start::AfterOffset(_) => Place::Unreadable,
        }
    }
}

/// A start from which no channel can recover, so the client is told that it has missed
/// publications.
const LOST: Start = Start::AfterOffset(u64::MAX);
/// The text of [`Place::Unreadable`].
const UNREADABLE: &str = "?";

/// The start in `channel` of a client that returns `id`, in a stream of `channels` channels. A
/// channel without a part in the id starts at the head, because the client has received nothing of
/// it.
pub(super) fn start(id: &str, channel: &str, channels: usize) -> Start {
    if id.is_empty() {
        return Start::Head;
    }
    if channels == 1
        && let Some(position) = read_position(id)
    {
        return Start::After(position);
    }
    let mut start = None;
    let hash = hash(channel);
    for part in id.split(',') {
        match read_part(part) {
            None => return LOST,
            // Two channels of the stream have this hash.
            Some((of, _)) if of == hash && start.is_some() => return LOST,
            Some((of, read)) if of == hash => start = Some(read),
            Some(_) => {}
        }
    }
    start.unwrap_or(Start::Head)
}

/// Parses one part of an id; `None` if it is malformed.
fn read_part(part: &str) -> Option<(u64, Start)> {
    let (hash, place) = part.split_once('.')?;
    let start = match place {
        "" => Start::Head,
        UNREADABLE => LOST,
        place => Start::After(read_position(place)?),
    };
    let is_hash = hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((u64::from_str_radix(hash, 16).ok().filter(|_| is_hash)?, start))
}

/// The id of an event in a stream of several channels.
pub(super) fn of_several(seen: &[Seen]) -> String {
    let parts = seen.iter().map(|Seen { channel, place }| {
        let hash = hash(channel);
        match place {
            Place::None => format!("{hash:016x}."),
            Place::At(position) => format!("{hash:016x}.{}", of_one(*position)),
            Place::Unreadable => format!("{hash:016x}.{UNREADABLE}"),
        }
    });
    parts.collect::<Vec<_>>().join(",")
}

/// A position in the form of event streams and polls: `EPOCH-OFFSET`.
pub(super) fn of_one(position: Position) -> String {
    format!("{}-{}", position.epoch, position.offset)
}

/// Parses a position in the form of [`of_one`]; `None` if it is malformed.
pub(super) fn read_position(text: &str) -> Option<Position> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (epoch, offset) = text.split_once('-')?;
    (number(epoch) && number(offset)).then_some(())?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}

const HASH_DIGITS: usize = 16;

/// The 64-bit FNV-1a hash of a channel's name. It is the same in every process. Clients can find names
/// with the same hash; the epoch of a position shows that it is of another channel.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A position is parsed as it is written, and other texts are refused.
    #[test]
    fn positions() {
        for position in
            [Position { epoch: 0, offset: 0 }, Position { epoch: u32::MAX, offset: u64::MAX }]
        {
            assert_eq!(read_position(&of_one(position)), Some(position));
        }
        for wrong in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-2",
            "1-+2",
            "4294967296-1",
            "1-18446744073709551616",
            "1-2-3",
            "1e1-1",
            " 1-2",
            "garbage",
        ] {
            assert_eq!(read_position(wrong), None, "{wrong}");
        }
    }

    /// Every channel finds its own part of an id in any order of channels, and a channel without a
    /// part starts at the head.
    #[test]
    fn parts_go_by_name() {
        let at = Position { epoch: 7, offset: 9 };
        let seen = |channel: &str, place| Seen { channel: channel.into(), place };
        let id = of_several(&[
            seen("a,b", Place::At(at)),
            seen("c.d", Place::None),
            seen("e", Place::Unreadable),
        ]);
        for (channel, expected) in
            [("e", LOST), ("a,b", Start::After(at)), ("c.d", Start::Head), ("a", Start::Head)]
        {
            assert_eq!(start(&id, channel, 2), expected, "{channel} in {id}");
        }
        assert_eq!(start(&id, "a,b", 1), Start::After(at), "alone");
    }

    /// An id that cannot be read is not taken for absent: no channel starts at the head.
    #[test]
    fn unreadable_ids_lose_the_place() {
        let hash = format!("{:016x}", hash("a"));
        for (id, channels) in [
            ("7-9", 2),
            ("7-9,7-9", 2),
            (",", 2),
            ("?", 1),
            ("7-9x", 1),
            ("a.7-9", 2),
            ("+00000000000000a.7-9", 2),
        ] {
            assert_eq!(start(id, "a", channels), LOST, "{id}");
        }
        let twice = format!("{hash}.7-9,{hash}.");
        assert_eq!(start(&twice, "a", 2), LOST, "two channels with the same hash");
        for place in ["7-", "x", "7-9-1", "?"] {
            assert_eq!(start(&format!("{hash}.{place}"), "a", 2), LOST, "{place}");
        }
        assert_eq!(start("", "a", 1), Start::Head, "an empty id is none (HTML standard, 9.2.6)");
        let position = Position { epoch: 7, offset: 9 };
        assert_eq!(start("7-9", "a", 1), Start::After(position));
    }
}
