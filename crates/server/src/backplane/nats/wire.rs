//! The protocol of NATS clients: lines of text, and messages behind some of them.
//!
//! Source: <https://docs.nats.io/reference/reference-protocols/nats-protocol>; headers are ADR-4 of
//! nats-architecture-and-design.

use std::fmt::Write;
use std::str;

use bytes::{Buf, Bytes, BytesMut};

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The server's description of itself, in JSON.
    Info(Bytes),
    Ping,
    Pong,
    Message(Message),
    /// What is wrong, without its quotes. The server closes the connection after most of them.
    Error(String),
}

/// A message to one of our subscriptions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: Bytes,
    /// Our number of the subscription.
    pub(super) subscription: u64,
    pub(super) reply: Option<Bytes>,
    /// The status line and the fields; empty for none.
    headers: Bytes,
    pub(super) payload: Bytes,
}

/// The peer does not speak the protocol. The text says what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotNats(pub(super) &'static str);

/// Bytes of a line at most; an INFO line names all servers of a cluster.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Bytes of a message and its headers at most. No server allows its clients more (`max_payload`).
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Takes the first whole operation off the front of `input`; `None` if there is none yet.
///
/// # Errors
/// The peer does not speak the protocol.
pub(super) fn take(input: &mut BytesMut) -> Result<Option<Op>, NotNats> {
    loop {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            let too_long = input.len() > LINE_BYTES_MAX;
            return if too_long { Err(NotNats("a line is too long")) } else { Ok(None) };
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        let (name, rest) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
            Some(at) => (&line[..at], line[at..].trim_ascii()),
            None => (line, &b""[..]),
        };
        let op = match name {
            b"MSG" | b"HMSG" => {
                let with_headers = name.len() == "HMSG".len();
                return take_message(input, end.saturating_add(1), with_headers);
            }
            b"PING" => Some(Op::Ping),
            b"PONG" => Some(Op::Pong),
            b"INFO" => Some(Op::Info(Bytes::copy_from_slice(rest))),
            b"-ERR" => {
                let text = String::from_utf8_lossy(rest);
                Some(Op::Error(text.trim_matches('\'').to_owned()))
            }
            b"+OK" => None,
            _ => return Err(NotNats("an unknown operation")),
        };
        input.advance(end.saturating_add(1));
        if op.is_some() {
            return Ok(op);
        }
    }
}

/// Takes a message, whose payload begins at `start`.
fn take_message(
    input: &mut BytesMut,
    start: usize,
    with_headers: bool,
) -> Result<Option<Op>, NotNats> {
    const MALFORMED: NotNats = NotNats("a malformed message");
    let line = str::from_utf8(&input[..start]).map_err(|_| MALFORMED)?;
    let mut words = line.split_ascii_whitespace().skip(1);
    let mut word = || words.next().ok_or(MALFORMED);
    let (subject, subscription) = (word()?, number(word()?).ok_or(MALFORMED)?);
    let rest: Vec<&str> = words.take(4).collect();
    let (reply, lengths) = match (with_headers, &*rest) {
        (false, &[length]) => (None, ["0", length]),
        (false, &[reply, length]) => (Some(reply), ["0", length]),
        (true, &[headers, length]) => (None, [headers, length]),
        (true, &[reply, headers, length]) => (Some(reply), [headers, length]),
        _ => return Err(MALFORMED),
    };
    let [headers_length, length] =
        lengths.map(|text| number(text).and_then(|length| usize::try_from(length).ok()));
    let (headers_length, length) = (headers_length.ok_or(MALFORMED)?, length.ok_or(MALFORMED)?);
    if length > MESSAGE_BYTES_MAX || headers_length > length {
        return Err(MALFORMED);
    }
    let end = start.saturating_add(length);
    if input.len() < end.saturating_add(2) {
        return Ok(None);
    }
    let (subject, reply) = (copied(subject), reply.map(copied));
    input.advance(start);
    let mut payload = input.split_to(length).freeze();
    if !input.starts_with(b"\r\n") {
        return Err(MALFORMED);
    }
    input.advance(2);
    let headers = payload.split_to(headers_length);
    Ok(Some(Op::Message(Message { subject, subscription, reply, headers, payload })))
}

fn copied(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A number of digits alone.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Message {
    /// The status in the first line of the headers, as 503 if nobody has a subscription to the subject of a
    /// request.
    pub(super) fn status(&self) -> Option<u16> {
        let line = self.headers.split(|&byte| byte == b'\r').next()?;
        let line = line.strip_prefix(b"NATS/1.0")?.trim_ascii();
        str::from_utf8(line.get(..3)?).ok()?.parse().ok()
    }

    /// The value of the header field of this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.split(|&byte| byte == b'\n').skip(1);
        let mut fields = lines.filter_map(|line| str::from_utf8(line).ok()?.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The value of a header field that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.header(name).and_then(number)
    }
}

/// Writes a publication. `id` is the header `Nats-Msg-Id`, by which a stream recognizes a repeat.
pub(super) fn publish(
    out: &mut BytesMut,
    subject: &str,
    reply: Option<&str>,
    id: Option<&str>,
    payload: &[u8],
) {
    let reply = reply.unwrap_or_default();
    let space = if reply.is_empty() { "" } else { " " };
    let line = match id {
        None => write!(out, "PUB {subject}{space}{reply} {}\r\n", payload.len()),
        Some(id) => {
            const FRAME: usize = "NATS/1.0\r\nNats-Msg-Id: \r\n\r\n".len();
            let headers = FRAME.saturating_add(id.len());
            let length = headers.saturating_add(payload.len());
            write!(
                out,
                "HPUB {subject}{space}{reply} {headers} {length}\r\n\
                 NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n"
            )
        }
    };
    line.expect("a buffer takes all that is written to it");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Writes the beginning of a subscription; of those in one `queue` group one gets each message.
pub(super) fn subscribe(out: &mut BytesMut, subject: &str, queue: Option<&str>, number: u64) {
    let line = match queue {
        None => write!(out, "SUB {subject} {number}\r\n"),
        Some(queue) => write!(out, "SUB {subject} {queue} {number}\r\n"),
    };
    line.expect("a buffer takes all that is written to it");
}

/// Writes the end of a subscription.
pub(super) fn unsubscribe(out: &mut BytesMut, number: u64) {
    write!(out, "UNSUB {number}\r\n").expect("a buffer takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations are cut off whatever pieces they arrive in.
    #[test]
    fn operations_in_any_pieces() {
        let text =
            b"INFO {\"a\":1}\r\n+OK\r\nPING\r\nMSG a.b 7 3\r\n1\n2\r\nMSG a.b 8 _INBOX.1 0\r\n\r\n\
            HMSG c 9 30 32\r\nNATS/1.0\r\nNats-Sequence: 5\r\n\r\nhi\r\n-ERR 'no'\r\nPONG\r\n";
        let mut texts = BytesMut::from(&text[..]);
        // The length of the headers in the text is of these.
        let headers = "NATS/1.0\r\nNats-Sequence: 5\r\n\r\n";
        assert_eq!(headers.len(), 30);
        let mut whole = Vec::new();
        while let Some(op) = take(&mut texts).expect("NATS") {
            whole.push(op);
        }
        assert!(texts.is_empty());
        let mut pieces = BytesMut::new();
        let mut taken = Vec::new();
        for byte in text {
            pieces.extend_from_slice(&[*byte]);
            taken.extend(take(&mut pieces).expect("NATS"));
        }
        assert_eq!(taken, whole);
        let [
            Op::Info(_),
            Op::Ping,
            Op::Message(first),
            Op::Message(second),
            Op::Message(third),
            Op::Error(_),
            Op::Pong,
        ] = &*whole
        else {
            panic!("{whole:?}")
        };
        assert_eq!((&first.payload[..], first.subscription), (&b"1\n2"[..], 7));
        assert_eq!(second.reply.as_deref(), Some(&b"_INBOX.1"[..]));
        assert_eq!((&third.payload[..], third.status()), (&b"hi"[..], None));
        assert_eq!((third.number("nats-sequence"), third.header("other")), (Some(5), None));
    }

    /// What is no NATS is an error, and no claim of a length makes room for it.
    #[test]
    fn what_is_no_nats_is_refused() {
        for wrong in [
            "HTTP/1.1 400 Bad Request\r\n",
            "MSG a\r\n",
            "MSG a x 3\r\n",
            "MSG a 1 -3\r\n",
            "MSG a 1 99999999999999999999\r\n",
            "MSG a 1 999999999\r\n",
            "MSG a 1 1\r\nxyz",
            "HMSG a 1 9 3\r\n",
            "HMSG a 1 r 1 2 3\r\n",
        ] {
            let mut input = BytesMut::from(wrong);
            assert!(take(&mut input).is_err(), "{wrong:?}");
        }
        let mut long = BytesMut::from(&[b'x'; LINE_BYTES_MAX + 1][..]);
        assert_eq!(take(&mut long), Err(NotNats("a line is too long")));
    }

    /// A status line is found with and without a description; other headers have none.
    #[test]
    fn statuses() {
        for (headers, status) in [
            ("NATS/1.0 503\r\n\r\n", Some(503)),
            ("NATS/1.0 404 Message Not Found\r\n\r\n", Some(404)),
            ("NATS/1.0\r\nStatus: 1\r\n\r\n", None),
            ("", None),
        ] {
            let headers = Bytes::from_static(headers.as_bytes());
            let message = Message {
                subject: Bytes::new(),
                subscription: 0,
                reply: None,
                headers,
                payload: Bytes::new(),
            };
            assert_eq!(message.status(), status);
        }
    }

    /// What is written is what a server reads.
    #[test]
    fn operations_of_a_client() {
        let mut out = BytesMut::new();
        publish(&mut out, "a.b", None, None, b"hi");
        publish(&mut out, "a.b", Some("r"), Some("id-1"), b"hi");
        subscribe(&mut out, "a.*", None, 3);
        subscribe(&mut out, "s", Some("q"), 4);
        unsubscribe(&mut out, 3);
        let text = "PUB a.b 2\r\nhi\r\nHPUB a.b r 31 33\r\nNATS/1.0\r\nNats-Msg-Id: id-1\r\n\r\nhi\r\n\
                    SUB a.* 3\r\nSUB s q 4\r\nUNSUB 3\r\n";
        assert_eq!(str::from_utf8(&out), Ok(text));
    }
}
