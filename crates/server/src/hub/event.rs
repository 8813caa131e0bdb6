//! The event of a publication: a name for the kind of its data, which clients of some protocols choose
//! and listen for. It is side data of the payload: one byte with its length, then the event.

use std::str;

use murre_router::channels::{Form, Payload};

/// The name of an event: 1 to 255 bytes without control characters, and none of the names that a
/// protocol's own messages have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a>(&'a str);

/// The sentence for a name that is no event.
pub(crate) const BAD_EVENT: &str = "`event` is a string of 1 to 255 bytes without control characters; names \
                                    that begin with phx_ or presence_ are the server's";

/// The beginnings of names of messages that only the server may send.
const RESERVED: [&str; 2] = ["phx_", "presence_"];

impl<'a> Event<'a> {
    /// The event of this name; `None` if no event can have it.
    pub(crate) fn new(name: &'a str) -> Option<Self> {
        let fits = !name.is_empty() && u8::try_from(name.len()).is_ok();
        let free = !RESERVED.iter().any(|reserved| name.starts_with(reserved));
        (fits && free && !name.contains(char::is_control)).then_some(Event(name))
    }

    /// The event of a publication, if it has one.
    pub(crate) fn of(payload: &'a Payload) -> Option<Self> {
        let (&length, rest) = payload.side().split_first()?;
        let name = rest.get(..usize::from(length))?;
        Event::new(str::from_utf8(name).ok()?)
    }

    pub(crate) fn name(self) -> &'a str {
        self.0
    }

    /// The payload of a publication with this event.
    pub(crate) fn payload(self, form: Form, data: &[u8]) -> Payload {
        let length = u8::try_from(self.0.len()).expect("an event has at most 255 bytes");
        let bytes: Vec<u8> = [&[length], self.0.as_bytes(), data].concat();
        let side_len = u32::from(length).saturating_add(1);
        Payload { form, side_len, bytes: bytes.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A publication keeps its event beside its data, and other side data is no event.
    #[test]
    fn an_event_lies_beside_the_data() {
        for name in ["new_msg", "a,b", "ß", &"n".repeat(255)] {
            let event = Event::new(name).expect(name);
            let payload = event.payload(Form::Json, b"{}");
            assert_eq!((Event::of(&payload), payload.data()), (Some(event), &b"{}"[..]));
        }
        for (side_len, bytes) in
            [(0, &b"{}"[..]), (1, b"\0{}"), (2, b"\x02a{}"), (2, b"\x01\xff{}")]
        {
            let payload = Payload { side_len, ..Payload::new(Form::Json, bytes) };
            assert_eq!(Event::of(&payload), None, "{bytes:?}");
        }
    }

    /// Names of messages of the server, and names that cannot be shown, are no events.
    #[test]
    fn names_that_are_refused() {
        let long = "n".repeat(256);
        for name in ["", "a\n", "phx_reply", "phx_", "presence_diff", "\u{80}", &long] {
            assert_eq!(Event::new(name), None, "{name}");
        }
        assert!(["phx", "presence", "Phx_x"].iter().all(|name| Event::new(name).is_some()));
    }
}
