//! `Serve` in a simulation: HTTP, deferred responses, WebSocket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use murre_codec::{CloseCode, Control, Data, Kind, OpCode};
use murre_core::{Serve, ServeLimits, ServeMail};

use super::actor::{Ending, Script};
use super::plan::Say;
use super::stage::Subject;
use crate::app::{
    App, Mistake, Server, body, close, control, fragmented, get, handshake, limits, post, said,
    serve_patiently, understand,
};

/// A server.
#[derive(Default)]
pub(crate) struct Serving {
    /// The application's mistake, which the simulation must find.
    pub(crate) mistake: Option<Mistake>,
    /// For the kernel: limits that never expire.
    pub(crate) patient: bool,
}

impl Subject for Serving {
    type Protocol = Server;
    type Script = Talk;

    const SILENCE: Option<Duration> = Some(Duration::from_secs(20));
    const IDLE: Duration = Duration::from_secs(2);
    const HANDSHAKE: Duration = Duration::from_secs(1);

    fn protocol(&self) -> Server {
        if self.patient {
            return serve_patiently();
        }
        let limits = ServeLimits {
            http_idle_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(3),
            pong_timeout: Duration::from_secs(2),
            min_bytes_per_second: 10_000,
            max_fragments: FRAGMENTS_MAX as u32,
            max_pings_per_second: PINGS_MAX as u8,
            ..limits()
        };
        Serve::new(App::impatient(self.mistake), limits)
    }

    fn mail(&self, number: u64, length: usize) -> ServeMail<Bytes> {
        ServeMail::App(Bytes::from(format!("mail {number} {}", "m".repeat(length))))
    }

    fn dial(&self, _to: SocketAddr) -> Option<ServeMail<Bytes>> {
        None
    }

    fn check_left(&self, served: &Server) {
        assert!(served.handler().open.is_empty(), "sessions are left");
        assert!(served.handler().later.is_empty(), "answers to come are left");
        let counters = served.counters();
        assert_eq!(counters.websockets_open.get(), 0, "WebSockets are counted as open");
        assert_eq!(served.handler().opened, served.handler().closed.len(), "sessions");
        assert_eq!(served.handler().messages, counters.messages.get(), "messages");
        assert_eq!(served.messages_arriving(), 0, "halves of messages are kept");
    }
}

/// The limits on frames of a message, and on pings and pongs within a second.
const FRAGMENTS_MAX: usize = 4;
const PINGS_MAX: usize = 3;

/// The client's side.
#[derive(Default)]
pub(crate) struct Talk {
    mode: Mode,
    answers: Vec<Answer>,
    messages: Vec<(Kind, Vec<u8>)>,
    pongs: Vec<Vec<u8>>,
    /// The client expects a close frame.
    close: bool,
    asked_for_end: bool,
    /// The client has broken a rule of the protocol.
    wrong: bool,
    /// The client has asked for a response that never ends.
    endless: bool,
    /// The number of pings and pongs sent.
    pings: usize,
    /// The client has sent a message of too many frames.
    splinters: bool,
    /// The client has sent bytes out of turn, so its responses depend on the order of events.
    unsure: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Http,
    /// The response comes later.
    Waiting,
    /// The response never ends.
    Streaming,
    WebSocket,
    /// The shard ignores all further input.
    Over,
}

enum Answer {
    Known(u16, Vec<u8>),
    /// See [`is_late`].
    Late,
}

fn is_mail(body: &[u8]) -> bool {
    body.starts_with(b"mail ")
}

/// Whether `body` can be a deferred response.
fn is_late(body: &[u8]) -> bool {
    body.is_empty() || body == b"drained" || is_mail(body)
}

fn mail_number(mail: &[u8]) -> u64 {
    let number = mail.split(|&byte| byte == b' ').nth(1).expect("a number");
    std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).expect("a number")
}

impl Talk {
    fn asks(&mut self, request: Vec<u8>, status: u16, answer: &[u8]) -> Vec<u8> {
        self.answers.push(Answer::Known(status, answer.to_vec()));
        request
    }

    fn say_http(&mut self, say: Say) -> Vec<u8> {
        match say {
            Say::Get(length) => self.asks(get(length), 200, &body(length)),
            Say::Ping | Say::Pong | Say::Splinters => self.asks(get(0), 200, b""),
            Say::Post(length) | Say::Message(length) | Say::Pieces(length) => {
                self.asks(post(&body(length)), 200, &body(length))
            }
            Say::GetLast(length) => self.ask_last(length),
            Say::Close | Say::AskClose | Say::AskAbort => self.ask_last(0),
            Say::Later => {
                self.mode = Mode::Waiting;
                self.answers.push(Answer::Late);
                b"GET /later HTTP/1.1\r\nHost: m\r\n\r\n".to_vec()
            }
            Say::Never => {
                self.mode = Mode::Streaming;
                self.endless = true;
                b"GET /never HTTP/1.1\r\nHost: m\r\n\r\n".to_vec()
            }
            Say::Refused => {
                self.mode = Mode::Over;
                self.asked_for_end = true;
                self.asks(handshake("/refused"), 403, b"no\n")
            }
            Say::Upgrade => {
                self.mode = Mode::WebSocket;
                self.asks(handshake("/ws"), 101, b"")
            }
            Say::Garbage(length) => {
                self.speaks_wrong();
                [b"nonsense\r\n\r\n".as_slice(), &body(length)].concat()
            }
        }
    }

    fn ask_last(&mut self, length: usize) -> Vec<u8> {
        self.mode = Mode::Over;
        self.asked_for_end = true;
        let request =
            format!("GET /n?length={length} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
        self.asks(request.into_bytes(), 200, &body(length))
    }

    fn say_frames(&mut self, say: Say) -> Vec<u8> {
        match say {
            Say::Get(length) | Say::Post(length) | Say::Message(length) => {
                let payload = body(length).to_vec();
                let (kind, data) = match length % 2 {
                    0 => (Kind::Text, Data::Text),
                    _ => (Kind::Binary, Data::Binary),
                };
                let frame = said(OpCode::Data(data), &payload);
                self.messages.push((kind, payload));
                frame
            }
            Say::Pieces(length) => {
                let payload = body(length);
                let (one, rest) = payload.split_at(length / 3);
                let (two, three) = rest.split_at(rest.len() / 2);
                self.messages.push((Kind::Binary, payload.to_vec()));
                self.pongs.push(b"between".to_vec());
                self.pings += 1;
                let mut frames = fragmented(&[one, two, three]);
                // After the first frame: 2 or 4 bytes of header, 4 of mask.
                let first = said(OpCode::Data(Data::Binary), one).len();
                frames.splice(first..first, control(Control::Ping, b"between"));
                frames
            }
            Say::Ping | Say::Later | Say::Never | Say::Refused | Say::Upgrade => {
                self.pongs.push(b"ping".to_vec());
                self.pings += 1;
                control(Control::Ping, b"ping")
            }
            Say::Pong => {
                self.pings += 1;
                control(Control::Pong, b"unasked")
            }
            Say::Splinters => {
                self.splinters = true;
                self.unsure = true;
                self.mode = Mode::Over;
                fragmented(&[b"x".as_slice(); FRAGMENTS_MAX + 1])
            }
            Say::Close | Say::GetLast(_) => {
                self.ends();
                close(CloseCode::Normal)
            }
            Say::AskClose | Say::AskAbort => {
                self.ends();
                said(OpCode::Data(Data::Text), b"close")
            }
            Say::Garbage(length) => {
                self.speaks_wrong();
                vec![0xFF; length + 2]
            }
        }
    }

    fn ends(&mut self) {
        self.mode = Mode::Over;
        self.close = true;
        self.asked_for_end = true;
    }

    fn speaks_wrong(&mut self) {
        self.mode = Mode::Over;
        self.wrong = true;
        self.unsure = true;
    }

    fn check_answers(&self, heard: &[(u16, Vec<u8>)], whole: bool, ending: Ending) {
        for (at, (status, body)) in heard.iter().enumerate() {
            let late = || *status == 200 && is_late(body);
            let known = match self.answers.get(at) {
                Some(Answer::Known(expected, content)) => status == expected && body == content,
                Some(Answer::Late) => late(),
                None => self.mode == Mode::Streaming && late(),
            };
            let last = at + 1 == heard.len();
            let instead = match status {
                408 => ending.timed_out,
                429 => ending.refused,
                503 => ending.unavailable,
                _ => false,
            };
            assert!(known || instead && last, "answer {at} is {status}, {} bytes", body.len());
        }
        let all = self.answers.len();
        assert!(!whole || heard.len() >= all, "{} of {all} answers", heard.len());
    }

    fn check_messages(&self, heard: &[(Kind, Vec<u8>)], whole: bool) {
        let (mails, own): (Vec<_>, Vec<_>) = heard.iter().partition(|(_, bytes)| is_mail(bytes));
        let numbers: Vec<u64> = mails.iter().map(|(_, mail)| mail_number(mail)).collect();
        let in_order = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(in_order, "mails came as {numbers:?}");
        check_beginning("message", &own, &self.messages.iter().collect::<Vec<_>>(), whole);
    }
}

fn check_beginning<T: PartialEq>(what: &str, heard: &[T], expected: &[T], whole: bool) {
    let (count, all) = (heard.len(), expected.len());
    assert!(count <= all, "{count} {what}s, and {all} were to come");
    assert!(heard == &expected[..count], "a {what} is not what was to come");
    assert!(!whole || count == all, "{count} {what}s of {all} have come");
}

impl Script for Talk {
    fn send(&mut self, say: Say, heard: &[u8]) -> Vec<u8> {
        if self.mode == Mode::Waiting && understand(heard).responses.len() == self.answers.len() {
            self.mode = Mode::Http;
        }
        match self.mode {
            Mode::Http => self.say_http(say),
            Mode::WebSocket => self.say_frames(say),
            Mode::Waiting | Mode::Streaming => {
                self.mode = Mode::Over;
                self.unsure = true;
                self.asked_for_end = true;
                get(10)
            }
            Mode::Over => body(30).to_vec(),
        }
    }

    fn check(&self, heard: &[u8], whole: bool, ending: Ending) {
        // The output of a server can be parsed, whatever the input was.
        let understood = understand(heard);
        if self.unsure {
            return;
        }
        self.check_answers(&understood.responses, whole, ending);
        self.check_messages(&understood.messages, whole);
        let pongs: Vec<&Vec<u8>> = understood.pongs.iter().collect();
        check_beginning("pong", &pongs, &self.pongs.iter().collect::<Vec<_>>(), whole);
        assert!(!whole || !self.close || understood.close.is_some(), "no close frame has come");
    }

    fn was_wrong(&self) -> bool {
        self.wrong
    }

    fn is_excessive(&self) -> bool {
        self.splinters || self.pings > PINGS_MAX
    }

    fn asked_for_end(&self) -> bool {
        self.asked_for_end
    }

    fn hears_without_end(&self) -> bool {
        self.endless
    }

    fn last_mail(&self, heard: &[u8]) -> Option<u64> {
        if self.mode != Mode::WebSocket || self.unsure {
            return None;
        }
        let messages = understand(heard).messages;
        Some(
            messages
                .iter()
                .rev()
                .find(|(_, bytes)| is_mail(bytes))
                .map_or(0, |(_, bytes)| mail_number(bytes)),
        )
    }
}
