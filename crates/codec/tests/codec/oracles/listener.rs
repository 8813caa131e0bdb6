//! A frame decoder whose caller keeps the tail, and the items that it decodes.

use murre_codec::{CloseCode, Decoder, FrameLimits, Item, Kind, Role, TAIL_BYTES_MAX, Violation};

/// The largest message in bytes, unless a test sets another limit.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 1 << 20;

/// An item of a stream, with whole messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(CloseCode, String)>),
    Broken(Violation),
}

/// A decoder whose caller keeps the tail, as the server does.
pub(crate) struct Listener {
    decoder: Decoder,
    limits: FrameLimits,
    tail: Vec<u8>,
    message: Option<(Kind, Vec<u8>)>,
    pub(crate) said: Vec<Said>,
}

impl Listener {
    pub(crate) fn new(role: Role, max_message_bytes: u32) -> Self {
        Listener {
            decoder: Decoder::default(),
            limits: FrameLimits { role, max_message_bytes },
            tail: vec![],
            message: None,
            said: vec![],
        }
    }

    /// Decodes the next bytes, and checks the decoder's promises on the way.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        if self.is_over() {
            return;
        }
        let mut input = std::mem::take(&mut self.tail);
        input.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let decoded = match self.decoder.decode(&mut input[at..], &self.limits) {
                Ok(decoded) => decoded,
                Err(violation) => return self.said.push(Said::Broken(violation)),
            };
            at += decoded.consumed;
            let Some(item) = decoded.item else { break };
            assert!(decoded.consumed > 0, "an item takes bytes");
            hear_item(item, &mut self.message, &mut self.said);
            if self.is_over() {
                return;
            }
        }
        self.tail = input.split_off(at);
        assert!(self.tail.len() <= TAIL_BYTES_MAX, "a tail of {} bytes", self.tail.len());
    }

    /// Whether the decoder ignores all further input.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.said.last(), Some(Said::Broken(_) | Said::Close(_)))
    }
}

fn hear_item(item: Item<'_>, message: &mut Option<(Kind, Vec<u8>)>, said: &mut Vec<Said>) {
    match item {
        Item::Data { kind, bytes, start, end } => {
            assert_eq!(start, message.is_none(), "the first bytes are marked, and no others");
            let (begun, whole) = message.get_or_insert_with(|| (kind, vec![]));
            assert_eq!(*begun, kind, "a message does not change its kind");
            whole.extend_from_slice(bytes);
            if end {
                said.extend(message.take().map(|(kind, whole)| Said::Message(kind, whole)));
            }
        }
        Item::Ping(payload) => said.push(Said::Ping(payload.to_vec())),
        Item::Pong(payload) => said.push(Said::Pong(payload.to_vec())),
        Item::Close(close) => {
            said.push(Said::Close(close.map(|close| (close.code, close.reason.to_owned()))));
        }
    }
}

/// Decodes a stream that arrives in these pieces.
pub(crate) fn hear<'b>(
    role: Role,
    max_message_bytes: u32,
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> Vec<Said> {
    let mut listener = Listener::new(role, max_message_bytes);
    pieces.into_iter().for_each(|piece| listener.hear(piece));
    listener.said
}
