//! A bare protocol in a simulation: connections in both directions, echoes, pushes, stale ids.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::actor::{Ending, Script};
use super::plan::Say;
use super::stage::Subject;
use crate::app::body;
use crate::echo::{Ask, Echo, Mail, frame, timer};

/// The echo.
pub(crate) struct Echoing;

impl Subject for Echoing {
    type Protocol = Echo;
    type Script = Frames;

    /// The echo has no timeouts of its own.
    const SILENCE: Option<Duration> = None;
    const IDLE: Duration = Duration::MAX;
    const HANDSHAKE: Duration = Duration::MAX;

    fn protocol(&self) -> Echo {
        Echo::default()
    }

    fn mail(&self, number: u64, length: usize) -> Mail {
        let payload = [number.to_be_bytes().as_slice(), &body(length)].concat();
        Mail::Push(Bytes::from(frame(Ask::Push, &payload)))
    }

    fn dial(&self, to: SocketAddr) -> Option<Mail> {
        Some(Mail::Connect(to))
    }

    fn check_left(&self, echo: &Echo) {
        assert!(echo.is_empty(), "connections are remembered");
    }
}

/// The client's side.
#[derive(Default)]
pub(crate) struct Frames {
    expected: Vec<Vec<u8>>,
    /// The number of timers requested.
    timers: usize,
    asked_for_end: bool,
    aborts: bool,
}

/// A frame or an expired timer, read from the shard.
enum Heard<'h> {
    Echo(&'h [u8]),
    Mail(u64),
    Timer,
}

/// Takes one frame off the front of `rest`; `None` if the frame is incomplete.
fn next<'h>(rest: &mut &'h [u8]) -> Option<Heard<'h>> {
    if rest.first() == Some(&b'T') {
        *rest = &rest[1..];
        return Some(Heard::Timer);
    }
    let &[kind, high, low, ..] = *rest else { return None };
    let len = 3 + usize::from(u16::from_be_bytes([high, low]));
    let frame = rest.get(..len)?;
    *rest = &rest[len..];
    match kind {
        b'p' => Some(Heard::Mail(u64::from_be_bytes(frame[3..11].try_into().expect("a number")))),
        b'e' | b's' => Some(Heard::Echo(frame)),
        kind => panic!("a frame of kind {kind}: the stream is torn"),
    }
}

impl Script for Frames {
    fn send(&mut self, say: Say, _heard: &[u8]) -> Vec<u8> {
        if self.asked_for_end {
            // The echo discards this frame.
            return frame(Ask::Echo, b"more");
        }
        let (ask, length) = match say {
            Say::Close | Say::AskClose | Say::GetLast(_) => (Ask::Close, 0),
            Say::AskAbort | Say::Garbage(_) => (Ask::Abort, 0),
            Say::Ping | Say::Pong | Say::Splinters | Say::Later | Say::Never => {
                self.timers += 1;
                return timer(3);
            }
            Say::Get(length) | Say::Pieces(length) => (Ask::Share, length),
            Say::Post(length) | Say::Message(length) => (Ask::Echo, length),
            Say::Refused | Say::Upgrade => (Ask::Echo, 0),
        };
        self.asked_for_end |= matches!(ask, Ask::Close | Ask::Abort);
        self.aborts |= ask == Ask::Abort;
        let said = frame(ask, &body(length));
        if !self.asked_for_end {
            self.expected.push(said.clone());
        }
        said
    }

    fn check(&self, heard: &[u8], whole: bool, _ending: Ending) {
        let (mut rest, mut echoes, mut timers) = (heard, 0, 0);
        let mut mails: Option<u64> = None;
        while let Some(heard) = next(&mut rest) {
            match heard {
                Heard::Echo(frame) => {
                    let expected = self.expected.get(echoes).map(Vec::as_slice);
                    assert!(expected == Some(frame), "echo {echoes} is not what was said");
                    echoes += 1;
                }
                Heard::Mail(number) => {
                    assert!(
                        mails.is_none_or(|last| last + 1 == number),
                        "{number} after {mails:?}"
                    );
                    mails = Some(number);
                }
                Heard::Timer => timers += 1,
            }
        }
        assert!(timers <= self.timers, "{timers} timers of {}", self.timers);
        let all = self.expected.len();
        assert!(!whole || self.aborts || echoes == all, "{echoes} echoes of {all} have come");
    }

    fn was_wrong(&self) -> bool {
        self.aborts
    }

    fn is_excessive(&self) -> bool {
        false
    }

    fn asked_for_end(&self) -> bool {
        self.asked_for_end
    }

    fn hears_without_end(&self) -> bool {
        false
    }

    fn last_mail(&self, heard: &[u8]) -> Option<u64> {
        if self.asked_for_end {
            return None;
        }
        let (mut rest, mut last) = (heard, 0);
        while let Some(heard) = next(&mut rest) {
            if let Heard::Mail(number) = heard {
                last = number;
            }
        }
        Some(last)
    }
}
