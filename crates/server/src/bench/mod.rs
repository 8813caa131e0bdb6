//! The answers that `--bench` adds: the answers of the servers in the published runs.

mod feed;
mod pages;

use std::time::Instant;

use bytes::Bytes;
use murre_codec::Kind;
use murre_codec::http::Response;
use murre_core::{ConnId, Outbox};

use crate::hub::{Hub, Outlet};

pub(crate) use pages::{CHAT_MOUNT, Page, page};

/// The fixtures of the published runs on one shard.
pub(crate) struct Fixtures {
    feed: feed::Feed,
    /// The rate that the other shards have not been told yet.
    told: Option<feed::Rate>,
}

/// Mail from one shard to the others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mail {
    /// The new rate of the feed.
    Feed(feed::Rate),
}

impl Fixtures {
    /// Fixtures that publish nothing but quotes until a client sends a feed command.
    pub(crate) fn new(shards: u16, now: Instant) -> Self {
        Fixtures { feed: feed::Feed::new(shards, now), told: None }
    }

    /// Handles a message on `/ws`. Returns whether the message was for the fixtures.
    pub(crate) fn message(
        &mut self,
        conn: ConnId,
        message: &[u8],
        hub: &Hub,
        out: &mut Outbox,
    ) -> bool {
        let answer = if let Some(rate) = feed::command(message) {
            self.feed.set(rate, out.now());
            self.told = Some(rate);
            Some(r#"{"type":"feed"}"#.to_owned())
        } else {
            feed::order(message, || hub.connection_id(conn).to_string())
        };
        if let Some(answer) = &answer {
            // A connection that has ended needs no answer.
            let _ = out.message(conn, Kind::Text, answer.as_bytes());
        }
        answer.is_some()
    }

    /// The mail for the other shards, if there is any.
    pub(crate) fn mail_for_others(&mut self) -> Option<Mail> {
        self.told.take().map(Mail::Feed)
    }

    /// Handles mail from another shard.
    pub(crate) fn mail(&mut self, mail: Mail, now: Instant) {
        let Mail::Feed(rate) = mail;
        self.feed.set(rate, now);
    }

    /// The work of the fixtures in one turn.
    pub(crate) fn turn(&mut self, hub: &mut Hub, out: &impl Outlet) {
        self.feed.turn(hub, out);
    }

    /// The latest time at which the next turn must begin.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.feed.wake_at()
    }
}

/// The first `length` characters of one constant text, as in http-kit's server of 2013.
///
/// Every body is a slice of the same static bytes, so no body is allocated or copied.
pub(crate) fn text_of_length(length: Option<&str>) -> Response {
    match length.map_or(Some(LENGTH_DEFAULT), clamped) {
        Some(length) => Response::text(200, Bytes::from_static(&TEXT[..length])),
        None => Response::text(400, "length must be a number\n"),
    }
}

/// The description of the clients in the 2010 run with half a million WebSockets.
pub(crate) fn scenario() -> Response {
    Response::text(200, SCENARIO)
}

/// Turns a text message into upper case in place. Returns the new text if it is not ASCII and
/// cannot be changed in place.
pub(crate) fn upper(text: &mut [u8]) -> Option<String> {
    if text.is_ascii() {
        text.make_ascii_uppercase();
        return None;
    }
    // The codec passes only UTF-8, so the lossy conversion loses nothing.
    Some(String::from_utf8_lossy(text).to_uppercase())
}

/// The number in `digits`, clamped to the lengths of the text; `None` if it is not a number.
fn clamped(digits: &str) -> Option<usize> {
    let (negative, magnitude) = match digits.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, digits),
    };
    if magnitude.is_empty() || !magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // A number that overflows is larger than any length of the text.
    let length = if negative { 0 } else { magnitude.parse().unwrap_or(usize::MAX) };
    Some(length.clamp(1, LENGTH_MAX))
}

const LENGTH_DEFAULT: usize = 1024;
const LENGTH_MAX: usize = 10_240;

/// The alphabet, repeated.
static TEXT: [u8; LENGTH_MAX] = {
    let mut text = [0; LENGTH_MAX];
    let mut at = 0;
    while at < text.len() {
        text[at] = b'a' + (at % 26) as u8;
        at += 1;
    }
    text
};

const SCENARIO: &str = "\
connect WebSocket /upper
every 25 s send a text of about 30 characters
expect the same text in upper case
stay connected
";

#[cfg(test)]
mod tests {
    use super::*;

    /// A length in range gives that number of characters from the front of the same text.
    #[test]
    fn bodies_are_prefixes_of_one_text() {
        for length in [1, 26, 27, 1024, 4096, 10_240] {
            let response = text_of_length(Some(&length.to_string()));
            assert_eq!((response.status, response.content_type), (200, "text/plain"));
            assert_eq!(response.body.len(), length);
            assert!(
                response.body.iter().zip(0..).all(|(&byte, at)| byte == b'a' + (at % 26) as u8)
            );
        }
    }

    /// Numbers of any size are clamped to the range, and other texts are refused.
    #[test]
    fn lengths_are_clamped_or_refused() {
        let body_bytes = |length| text_of_length(length).body.len();
        assert_eq!(body_bytes(None), 1024);
        assert_eq!(body_bytes(Some("0")), 1);
        assert_eq!(body_bytes(Some("-7")), 1);
        assert_eq!(body_bytes(Some("10241")), 10_240);
        assert_eq!(body_bytes(Some("99999999999999999999999")), 10_240);
        for wrong in ["", "-", "x", "12x", "+1", "1.5", " 1"] {
            assert_eq!(text_of_length(Some(wrong)).status, 400, "{wrong:?}");
        }
    }

    /// ASCII is changed in place; other scripts follow Unicode, even if the length changes.
    #[test]
    fn upper_case_follows_unicode() {
        let mut ascii = *b"a murre, 2 eggs";
        assert_eq!(upper(&mut ascii), None);
        assert_eq!(&ascii, b"A MURRE, 2 EGGS");
        for (text, expected) in [("straße", "STRASSE"), ("ésker", "ÉSKER"), ("ŉ", "ʼN")] {
            assert_eq!(upper(&mut text.as_bytes().to_vec()).as_deref(), Some(expected));
        }
    }
}
