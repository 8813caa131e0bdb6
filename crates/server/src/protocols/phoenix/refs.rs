//! Refs of messages and joins. A ref is kept as the JSON text that the client has sent, because
//! clients compare it with theirs as it comes back: `"1"` and `1` are two refs.

use std::borrow::Cow;
use std::fmt;

use crate::hub::RequestId;

/// A ref: a string, a number or null, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ref<'a>(Cow<'a, str>);

/// The longest ref as JSON text: a string of 255 bytes, which is the most that a binary message holds.
const BYTES_MAX: usize = 257;

impl<'a> Ref<'a> {
    pub(crate) const NULL: Ref<'static> = Ref(Cow::Borrowed("null"));

    /// The ref with this JSON text; `None` for other types and for refs that are too long.
    pub(super) fn new(json: &'a str) -> Option<Self> {
        let is_scalar = json.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        let right = json.len() <= BYTES_MAX && (is_scalar || json == "null");
        right.then_some(Ref(Cow::Borrowed(json)))
    }

    /// The ref of a binary message: the bytes of a string, or none.
    pub(super) fn of_text(text: &'a str) -> Self {
        match text {
            "" => Ref::NULL,
            text => Ref(Cow::Owned(serde_json::Value::from(text).to_string())),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0 == "null"
    }

    /// Its JSON text.
    pub(crate) fn json(&self) -> &str {
        &self.0
    }
}

/// The text of a ref in a binary message: the content of a string, and nothing for null.
pub(super) fn binary_text(json: &str) -> Cow<'_, str> {
    match json {
        "null" => "".into(),
        json if json.starts_with('"') => {
            serde_json::from_str::<String>(json).map_or_else(|_| json.into(), Cow::Owned)
        }
        json => json.into(),
    }
}

/// The kind of a command that a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Join,
    Leave,
    Push,
}

/// The message that a reply of the hub answers, packed into the request id of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) asked: Asked,
    /// The join ref of the channel, as JSON text.
    pub(crate) join_ref: &'a str,
    /// The ref of the message, as JSON text.
    pub(crate) reference: &'a str,
    pub(crate) topic: &'a str,
    /// The join ref of an earlier join of the topic, which ends with this one.
    pub(crate) replaces: Option<&'a str>,
}

/// Separates the parts of a request id. Neither JSON text in its shortest form nor a topic has one.
const SEPARATOR: char = '\n';

impl<'a> Request<'a> {
    /// The request id of the command.
    pub(crate) fn id(&self) -> RequestId {
        let kind = match self.asked {
            Asked::Join => 'j',
            Asked::Leave => 'l',
            Asked::Push => 'p',
        };
        let Request { join_ref, reference, topic, replaces, .. } = self;
        let mut text = format!("{kind}{join_ref}{SEPARATOR}{reference}{SEPARATOR}{topic}");
        if let Some(replaces) = replaces {
            text.push(SEPARATOR);
            text.push_str(replaces);
        }
        RequestId::Text(text.into())
    }

    /// The message that a command with this id was; `None` for a command without an id.
    pub(crate) fn of(id: &'a RequestId) -> Option<Self> {
        let RequestId::Text(text) = id else { return None };
        let kind = text.chars().next()?;
        let mut parts = text.get(1..)?.split(SEPARATOR);
        let asked = match kind {
            'j' => Asked::Join,
            'l' => Asked::Leave,
            _ => Asked::Push,
        };
        let [join_ref, reference, topic] = [parts.next()?, parts.next()?, parts.next()?];
        Some(Request { asked, join_ref, reference, topic, replaces: parts.next() })
    }
}

/// A join ref in a table of joins: four bytes for the refs of all known clients, which count joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed(pub(super) u32);

impl Packed {
    const NULL: Packed = Packed(u32::MAX);
    const TEXT: u32 = 1 << 31;

    /// The packed form of null and of the strings `"0"` to `"2147483647"`; `None` for other refs.
    pub(super) fn small(reference: &Ref<'_>) -> Option<Self> {
        if reference.is_null() {
            return Some(Packed::NULL);
        }
        let digits = reference.json().strip_prefix('"')?.strip_suffix('"')?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = plain && (digits == "0" || !digits.starts_with('0'));
        let number = digits.parse().ok().filter(|number| canonical && *number < Packed::TEXT);
        number.map(Packed)
    }

    /// The packed form of a ref that has this key in the table of texts.
    pub(super) fn text(key: u32) -> Option<Self> {
        (key < Packed::TEXT - 1).then_some(Packed(Packed::TEXT | key))
    }

    /// The key of its text, if it is in the table of texts.
    pub(super) fn key(self) -> Option<u32> {
        let is_text = self != Packed::NULL && self.0 & Packed::TEXT != 0;
        is_text.then_some(self.0 & !Packed::TEXT)
    }
}

/// The JSON text of a ref that is not in the table of texts.
impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Packed::NULL => f.write_str("null"),
            Packed(number) => write!(f, "\"{number}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request id returns the message that it was made of, whatever its refs are.
    #[test]
    fn requests_come_apart() {
        for (join_ref, reference) in [("null", "\"1\""), ("\"\\n🚀\"", "7"), ("\"12\"", "null")] {
            for (asked, replaces) in
                [(Asked::Join, Some("\"1\"")), (Asked::Leave, None), (Asked::Push, None)]
            {
                let request = Request { asked, join_ref, reference, topic: "room:é, x", replaces };
                assert_eq!(Request::of(&request.id()), Some(request));
            }
        }
        assert_eq!(Request::of(&RequestId::None), None);
    }

    /// Refs that known clients make take four bytes, and others are not confused with them.
    #[test]
    fn small_refs() {
        for json in ["null", "\"0\"", "\"7\"", "\"2147483647\""] {
            let reference = Ref::new(json).expect("a ref");
            let packed = Packed::small(&reference).expect("small");
            assert_eq!((packed.key(), packed.to_string().as_str()), (None, json));
        }
        for json in ["7", "\"\"", "\"07\"", "\"+7\"", "\"2147483648\"", "\"a\"", "\"-1\"", "0"] {
            assert_eq!(Packed::small(&Ref::new(json).expect("a ref")), None, "{json}");
        }
        assert_eq!(Packed::text(5).and_then(Packed::key), Some(5));
        assert_eq!(Packed::text(u32::MAX), None);
        for json in ["true", "[]", "{}", "", &format!("\"{}\"", "x".repeat(256))] {
            assert_eq!(Ref::new(json), None, "{json}");
        }
    }

    /// A ref of a binary message is the ref of a text message with the same content.
    #[test]
    fn refs_of_binary_messages() {
        for (text, json) in [("", "null"), ("12", "\"12\""), ("\"", "\"\\\"\""), ("🚀", "\"🚀\"")]
        {
            assert_eq!(Ref::of_text(text).json(), json);
            assert_eq!(binary_text(json), text);
        }
        assert_eq!(binary_text("7"), "7");
    }
}
