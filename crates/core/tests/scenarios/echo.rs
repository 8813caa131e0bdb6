//! A small protocol that uses every function of a protocol, and its client's side.
//!
//! A frame is a kind, a length in two bytes, and that many bytes of payload.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use murre_core::{CloseReason, ConnId, Outbox, Protocol, Queued};

use crate::watched::Drained;

/// The request of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ask {
    /// Returns the frame, in the connection's own buffer.
    Echo = b'e',
    /// Returns the frame, as shared bytes.
    Share = b's',
    /// Returns as many bytes as the payload says, a number of four bytes.
    Large = b'l',
    /// Sends the payload to all other connections.
    Push = b'p',
    /// Closes after the queued bytes.
    Close = b'c',
    /// Closes at once.
    Abort = b'a',
    /// Returns a `T` after a number of ticks, which has two bytes.
    Timer = b't',
}

pub(crate) fn frame(ask: Ask, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("small frames");
    [&[ask as u8][..], &len.to_be_bytes(), payload].concat()
}

pub(crate) fn large(len: u32) -> Vec<u8> {
    frame(Ask::Large, &len.to_be_bytes())
}

pub(crate) fn timer(ticks: u16) -> Vec<u8> {
    frame(Ask::Timer, &ticks.to_be_bytes())
}

/// An echo request of either kind, of up to `len_max` bytes.
pub(crate) fn some_echo(rng: &mut Rng, len_max: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..rng.usize(0..=len_max)).map(|_| rng.u8(..)).collect();
    frame(if rng.bool() { Ask::Echo } else { Ask::Share }, &payload)
}

/// The response that a client expects to its own frame.
pub(crate) fn answer(frame: &[u8]) -> Vec<u8> {
    match frame[0] {
        b'e' | b's' => frame.to_vec(),
        b'l' => pattern(u32::from_be_bytes(frame[3..7].try_into().expect("four bytes"))).to_vec(),
        b't' => b"T".to_vec(),
        _ => Vec::new(),
    }
}

fn pattern(len: u32) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[derive(Default)]
pub(crate) struct Echo {
    /// All open connections, for pushes: in the same order in every run.
    everybody: BTreeSet<ConnId>,
    /// Expired timers: when each was set, for how many ticks, and when it expired.
    pub(crate) expired: Vec<(Instant, u16, Instant)>,
    /// The number of mails received.
    pub(crate) mails: u32,
    /// The ids of closed connections.
    pub(crate) stale: Vec<ConnId>,
    /// The number of pushes that a slow consumer had no room for.
    pub(crate) slow: u32,
    /// The number of pushes queued, and of pushes to closed connections.
    pub(crate) pushed: u32,
    pub(crate) gone: u32,
    /// The results of connect requests.
    pub(crate) asked: Vec<Option<ConnId>>,
    /// The timer of each new connection, in ticks.
    greeting: u16,
    /// The number of times to connect again after a refusal.
    again: u32,
    last_to: Option<SocketAddr>,
}

/// The state of a connection: when its timer was set, and for how many ticks.
pub(crate) type State = Option<(Instant, u16)>;

pub(crate) enum Mail {
    /// Sends these bytes to all connections.
    Push(Bytes),
    Close(ConnId),
    Abort(ConnId),
    Connect(SocketAddr),
    Nothing,
    Drain(Duration),
    Stop,
}

impl Echo {
    /// An echo that connects again after a refusal, at most `again` times.
    pub(crate) fn stubborn(again: u32) -> Self {
        Echo { again, ..Echo::default() }
    }

    /// An echo that sets a timer of `ticks` for each new connection.
    pub(crate) fn greeting(ticks: u16) -> Self {
        Echo { greeting: ticks, ..Echo::default() }
    }

    /// Whether no connection is recorded as open.
    pub(crate) fn is_empty(&self) -> bool {
        self.everybody.is_empty()
    }

    fn push(&mut self, from: Option<ConnId>, bytes: &Bytes, out: &mut Outbox) {
        for &id in self.everybody.iter().filter(|&&id| Some(id) != from) {
            match out.send(id, bytes) {
                Queued::Yes => self.pushed += 1,
                Queued::Gone => self.gone += 1,
                Queued::SlowConsumer => self.slow += 1,
            }
        }
        // The id of a closed connection has no effect on the connection that now uses its slot.
        for &id in &self.stale {
            assert_eq!(out.send(id, bytes), Queued::Gone);
            out.close(id, CloseReason::BadFrame);
            out.abort(id, CloseReason::BadFrame);
            out.set_timer(id, 1);
            assert!(!out.is_open(id) && !out.congested(id));
        }
    }

    fn act(&mut self, id: ConnId, state: &mut State, frame: &[u8], out: &mut Outbox) {
        let (kind, payload) = (frame[0], &frame[3..]);
        let queued = match kind {
            b'e' => out.write(id, |bytes| bytes.extend_from_slice(frame)),
            b's' | b'l' => out.send(id, &Bytes::from(answer(frame))),
            b'p' => return self.push(Some(id), &Bytes::copy_from_slice(payload), out),
            b'c' => return out.close(id, CloseReason::Finished),
            b'a' => return out.abort(id, CloseReason::BadFrame),
            b't' => {
                let ticks = u16::from_be_bytes([payload[0], payload[1]]);
                *state = Some((out.now(), ticks));
                return out.set_timer(id, ticks);
            }
            kind => panic!("{kind} is no kind: the stream is torn"),
        };
        assert_ne!(queued, Queued::Gone, "it is being served, so it is there");
    }
}

impl Drained for Echo {
    fn drain(over: Duration) -> Mail {
        Mail::Drain(over)
    }
}

impl Protocol for Echo {
    type State = State;
    type Mail = Mail;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, out: &mut Outbox) -> State {
        self.everybody.insert(id);
        if self.greeting == 0 {
            return None;
        }
        out.set_timer(id, self.greeting);
        Some((out.now(), self.greeting))
    }

    fn refused(&mut self, _id: ConnId, _errno: i32, out: &mut Outbox) {
        if self.again > 0 {
            self.again -= 1;
            let to = self.last_to.expect("it was asked for");
            self.asked.push(out.connect(to, None));
        }
    }

    fn received(
        &mut self,
        id: ConnId,
        state: &mut State,
        input: &mut [u8],
        out: &mut Outbox,
    ) -> usize {
        let mut at = 0;
        while let [_, high, low, ..] = input[at..] {
            let end = at + 3 + usize::from(u16::from_be_bytes([high, low]));
            if end > input.len() || out.congested(id) || !out.is_open(id) {
                break;
            }
            self.act(id, state, &input[at..end], out);
            at = end;
        }
        at
    }

    fn expired(&mut self, id: ConnId, state: &mut State, out: &mut Outbox) {
        let (set, ticks) = state.take().expect("a timer runs out once");
        self.expired.push((set, ticks, out.now()));
        let _ = out.write(id, |bytes| bytes.push(b'T'));
    }

    fn closed(&mut self, id: ConnId, _state: State, _reason: CloseReason, out: &mut Outbox) {
        assert!(self.everybody.remove(&id));
        assert_eq!(out.write(id, |bytes| bytes.push(0)), Queued::Gone);
        if self.stale.len() < 64 {
            self.stale.push(id);
        }
    }

    fn mail(&mut self, mail: Mail, out: &mut Outbox) {
        self.mails += 1;
        match mail {
            Mail::Push(bytes) => self.push(None, &bytes, out),
            Mail::Close(id) => out.close(id, CloseReason::Finished),
            Mail::Abort(id) => out.abort(id, CloseReason::Finished),
            Mail::Connect(to) => {
                self.last_to = Some(to);
                self.asked.push(out.connect(to, None));
            }
            Mail::Nothing => {}
            Mail::Drain(over) => out.drain(over),
            Mail::Stop => out.stop(),
        }
    }
}
