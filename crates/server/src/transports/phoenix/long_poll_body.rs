//! The body of a POST, from which its messages are cut one by one. A message that has not been taken costs
//! its bytes in the body and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use murre_codec::Kind;
use murre_codec::http::Request;

/// Messages of one body at most. Phoenix takes 100 and drops the rest.
const MESSAGES_MAX: usize = 4096;

/// The messages of a POST that have not been taken: one a line, binary ones in base64, or the whole body
/// of clients before Phoenix 1.7.
#[derive(Debug)]
pub(crate) struct PostBody {
    /// Begins with a message, if there is one.
    rest: Bytes,
    is_lines: bool,
}

impl PostBody {
    /// Reads the body of a request; `None` if not all of its messages can be read, or there are too many.
    pub(super) fn read(request: &Request<'_, '_>) -> Option<Self> {
        let is_lines = request
            .header("content-type")
            .is_some_and(|value| value.starts_with(b"application/x-ndjson"));
        let text = str::from_utf8(request.body).ok()?;
        if is_lines {
            let mut lines = text.lines().map(str::trim_ascii).filter(|line| !line.is_empty());
            let is_message = |line: &str| is_text(line.as_bytes()) || STANDARD.decode(line).is_ok();
            if !lines.by_ref().take(MESSAGES_MAX).all(is_message) || lines.next().is_some() {
                return None;
            }
        }
        let mut body = PostBody { rest: Bytes::copy_from_slice(request.body), is_lines };
        body.skip_blanks();
        Some(body)
    }

    /// Bytes that have not been taken.
    pub(super) fn bytes(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next message.
    pub(super) fn take(&mut self) -> Option<(Kind, Bytes)> {
        if self.rest.is_empty() {
            return None;
        }
        if !self.is_lines {
            return Some((Kind::Text, std::mem::take(&mut self.rest)));
        }
        let end = self.rest.iter().position(|&byte| byte == b'\n').unwrap_or(self.rest.len());
        let line = self.rest.split_to(end);
        self.skip_blanks();
        let line = line.slice_ref(line.trim_ascii());
        Some(match is_text(&line) {
            true => (Kind::Text, line),
            false => {
                (Kind::Binary, STANDARD.decode(&line).expect("it was checked on arrival").into())
            }
        })
    }

    /// Skips the blanks before the next message.
    fn skip_blanks(&mut self) {
        if self.is_lines {
            self.rest = self.rest.slice_ref(self.rest.trim_ascii_start());
        }
    }
}

/// Whether a line is a message as text.
fn is_text(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'[' | b'{'))
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    /// The messages of a POST with this body.
    fn messages(content_type: &str, body: &[u8]) -> Option<Vec<(Kind, Bytes)>> {
        let length = body.len();
        let head = format!(
            "POST /longpoll HTTP/1.1\r\nHost: m\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let bytes = [head.as_bytes(), body].concat();
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(&bytes, &mut fields, &RequestLimits::default());
        let Ok(Progress::Request(request)) = decoded else { panic!("{head:?} is no request") };
        let mut body = PostBody::read(&request)?;
        let mut all = Vec::new();
        while let Some(message) = body.take() {
            all.push(message);
        }
        assert_eq!((body.bytes(), body.take()), (0, None));
        Some(all)
    }

    /// Each line is a message, without the blanks around it. What begins as neither form of a message is
    /// base64.
    #[test]
    fn lines() {
        let text = |text: &'static str| (Kind::Text, Bytes::from_static(text.as_bytes()));
        let binary = |bytes: &'static [u8]| (Kind::Binary, Bytes::from_static(bytes));
        for (body, expected) in [
            ("", vec![]),
            ("\r\n\n \t\r\n", vec![]),
            ("[1]", vec![text("[1]")]),
            ("[1]\n[2]\r\n", vec![text("[1]"), text("[2]")]),
            ("\n\n  [1] \n\n\r\n\t{\"a\":\" \"}\n \n", vec![text("[1]"), text("{\"a\":\" \"}")]),
            ("AP8=\r\n[\n/w==", vec![binary(b"\0\xff"), text("["), binary(b"\xff")]),
        ] {
            let found = messages("application/x-ndjson; charset=utf-8", body.as_bytes());
            assert_eq!(found, Some(expected), "{body:?}");
        }
        for wrong in [&b"!"[..], b"[1]\nAP8", b"AP8=\n\"a\"", b"[\xff]", b"[1]\nAP9="] {
            assert_eq!(messages("application/x-ndjson", wrong), None, "{wrong:?}");
        }
    }

    /// A body of another type is one message.
    #[test]
    fn whole_bodies() {
        let body = b" [1]\n[2]\n";
        let expected = vec![(Kind::Text, Bytes::from_static(body))];
        assert_eq!(messages("application/json", body), Some(expected));
        assert_eq!(messages("application/json", b""), Some(vec![]));
        assert_eq!(messages("application/json", b"\xff"), None);
    }

    /// Too many messages are refused, however short they are. Blank lines are none.
    #[test]
    fn numbers_of_messages() {
        let most = "\n[\n".repeat(MESSAGES_MAX);
        let taken = messages("application/x-ndjson", most.as_bytes()).expect("no more");
        assert_eq!(taken.len(), MESSAGES_MAX);
        let more = format!("{most}[");
        assert_eq!(messages("application/x-ndjson", more.as_bytes()), None);
    }

    /// A body takes no more than its bytes and these.
    #[test]
    fn a_body_is_small() {
        assert!(size_of::<PostBody>() <= 40);
    }
}
