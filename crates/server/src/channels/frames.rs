//! A publication as its subscribers receive it: written once for all of them on a shard.

use bytes::Bytes;
use murre_codec::{Kind, encode};
use murre_router::topics::{Form, Position, Publication};

use super::answer::{self, Data};
use super::{binary, data};

/// The forms of one publication, each made when it is first needed.
#[derive(Default)]
pub(crate) struct Frames {
    message: Option<Bytes>,
    event: Option<Bytes>,
}

impl Frames {
    /// A WebSocket frame.
    pub(crate) fn message(&mut self, publication: &Publication) -> &Bytes {
        self.message.get_or_insert_with(|| message(publication))
    }

    /// An event of a stream of this one channel.
    pub(crate) fn event(&mut self, publication: &Publication) -> &Bytes {
        let id = publication.position.map(event_id);
        self.event.get_or_insert_with(|| event("", &id, &json(publication)))
    }
}

fn message(publication: &Publication) -> Bytes {
    let Publication { topic, position, payload } = publication;
    match payload.form {
        Form::Raw => encode::frame(Kind::Text.opcode(), &payload.bytes),
        Form::Json => encode::frame(Kind::Text.opcode(), &json(publication)),
        Form::Binary => {
            let mut message = Vec::new();
            let offset = position.map_or(0, |position| position.offset);
            binary::write(&mut message, topic, offset, &payload.bytes);
            encode::frame(Kind::Binary.opcode(), &message)
        }
    }
}

/// The `publication` message.
pub(crate) fn json(publication: &Publication) -> Vec<u8> {
    let Publication { topic, position, payload } = publication;
    let mut text = Vec::with_capacity(96 + topic.len() + payload.bytes.len());
    answer::publication(&mut text, topic, position.map(|at| at.offset), data(payload));
    text
}

/// What a list of publications says of one.
pub(crate) fn numbered(publication: &Publication) -> (u64, Data<'_>) {
    let offset = publication.position.map_or(0, |position| position.offset);
    (offset, data(&publication.payload))
}

/// One event of a stream (HTML standard, section 9.2.6). `data` is JSON text without line ends.
pub(crate) fn event(name: &str, id: &Option<String>, data: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(64 + data.len());
    if !name.is_empty() {
        text.extend_from_slice(b"event: ");
        text.extend_from_slice(name.as_bytes());
        text.push(b'\n');
    }
    if let Some(id) = id {
        text.extend_from_slice(b"id: ");
        text.extend_from_slice(id.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// A position as event streams and polls write it: `EPOCH-OFFSET`.
pub(crate) fn event_id(position: Position) -> String {
    format!("{}-{}", position.epoch, position.offset)
}

/// Reads what [`event_id`] wrote.
pub(crate) fn read_position(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once('-')?;
    Some(Position { epoch: epoch.parse().ok()?, offset: offset.parse().ok()? })
}
