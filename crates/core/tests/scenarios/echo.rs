//! A small protocol that does everything a protocol can do, and its client's side.
//!
//! A frame is a kind, a length of two bytes, and so many bytes of payload.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use murre_core::{CloseReason, ConnId, Outbox, Protocol, Queued};

use crate::watched::Drained;

/// What a frame asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ask {
    /// The frame back, in the connection's own buffer.
    Echo = b'e',
    /// The frame back, as shared bytes.
    Share = b's',
    /// As many bytes as the payload, four bytes long, says.
    Large = b'l',
    /// The payload to everybody else.
    Push = b'p',
    /// Close after what is queued.
    Close = b'c',
    /// Close now.
    Abort = b'a',
    /// A `T` when so many ticks, two bytes, have passed.
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

/// An echo of up to `len_max` bytes, of either kind.
pub(crate) fn some_echo(rng: &mut Rng, len_max: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..rng.usize(0..=len_max)).map(|_| rng.u8(..)).collect();
    frame(if rng.bool() { Ask::Echo } else { Ask::Share }, &payload)
}

/// The answer that a client may expect to its own frame.
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
    /// The others, for pushes: in an order that is the same in every run.
    everybody: BTreeSet<ConnId>,
    /// Timers that ran out: when they were set, for how many ticks, and when they ran out.
    pub(crate) expired: Vec<(Instant, u16, Instant)>,
    /// Mails that came.
    pub(crate) mails: u32,
    /// Names that are no longer anybody's.
    pub(crate) stale: Vec<ConnId>,
    /// The largest number of bytes that anybody had pushed to them without taking them.
    pub(crate) slow: u32,
    /// Bytes queued by mail to connections, and to those that had gone.
    pub(crate) pushed: u32,
    pub(crate) gone: u32,
    /// Connections that were asked for.
    pub(crate) asked: Vec<Option<ConnId>>,
    /// A timer of so many ticks for everybody who comes.
    greeting: u16,
    /// Connect again whenever one is refused, so many times.
    again: u32,
    last_to: Option<SocketAddr>,
}

/// What is remembered of a connection: when its timer was set.
pub(crate) type State = Option<(Instant, u16)>;

pub(crate) enum Mail {
    /// To everybody.
    Push(Bytes),
    Close(ConnId),
    Abort(ConnId),
    Connect(SocketAddr),
    Nothing,
    Drain(Duration),
    Stop,
}

impl Echo {
    /// One that connects again when it is refused, so many times.
    pub(crate) fn stubborn(again: u32) -> Self {
        Echo { again, ..Echo::default() }
    }

    /// One that sets a timer of so many ticks for everybody who comes.
    pub(crate) fn greeting(ticks: u16) -> Self {
        Echo { greeting: ticks, ..Echo::default() }
    }

    /// Whether nobody is remembered as open.
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
        // A name that has outlived its connection does no harm to whoever has its slot.
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
