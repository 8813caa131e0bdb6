//! A peer that sends a little at a time, and reads the responses.

use std::cell::Cell;
use std::collections::VecDeque;

use crate::app::{Server, Understood, understand};
use crate::echo::answer;
use crate::watched::Drained;
use crate::world::{Peer, Read, World};

/// One client of the echo.
pub(crate) struct Client {
    pub(crate) peer: Peer,
    /// Bytes that are not yet written.
    unsent: VecDeque<u8>,
    /// The responses that it expects.
    pub(crate) expected: Vec<u8>,
    /// The bytes that it has read.
    pub(crate) heard: Vec<u8>,
    /// The number of bytes of `heard` that have been compared.
    checked: Cell<usize>,
    /// How the stream from the shard ended.
    pub(crate) end: Option<Read>,
}

impl Client {
    pub(crate) fn new<P: Drained + 'static>(world: &mut World<P>) -> Self {
        Client::of(world.connect())
    }

    pub(crate) fn of(peer: Peer) -> Self {
        Client {
            peer,
            unsent: VecDeque::new(),
            expected: Vec::new(),
            heard: Vec::new(),
            checked: Cell::new(0),
            end: None,
        }
    }

    /// Queues bytes for writing in later steps.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.expected.extend(answer(frame));
        self.send_bytes(frame);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
    }

    /// Writes a piece of random size.
    pub(crate) fn write<P: Drained + 'static>(&mut self, world: &mut World<P>) {
        let unsent = self.unsent.make_contiguous();
        let len = match world.rng.u8(0..3) {
            0 => world.rng.usize(0..=unsent.len().min(5)),
            1 => world.rng.usize(0..=unsent.len()),
            _ => unsent.len(),
        };
        let written = world.net.write(self.peer, &unsent[..len]);
        self.unsent.drain(..written);
    }

    /// Reads a piece of random size.
    pub(crate) fn read<P: Drained + 'static>(&mut self, world: &mut World<P>) {
        if self.end.is_some() {
            return;
        }
        let len = if world.rng.bool() { world.rng.usize(1..10) } else { 100_000 };
        match world.net.read(self.peer, len) {
            Read::Bytes(bytes) => self.heard.extend(bytes),
            Read::Nothing => {}
            end => self.end = Some(end),
        }
    }

    /// Writes and reads a piece.
    pub(crate) fn step<P: Drained + 'static>(&mut self, world: &mut World<P>) {
        self.write(world);
        self.read(world);
    }

    /// Whether all bytes are written.
    pub(crate) fn has_spoken(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Whether all bytes are written and answered. Panics if a response is wrong.
    pub(crate) fn is_answered(&self) -> bool {
        self.check();
        self.has_spoken() && self.heard.len() == self.expected.len()
    }

    /// Panics unless the bytes read are a prefix of the expected bytes.
    pub(crate) fn check(&self) {
        let (from, len) = (self.checked.replace(self.heard.len()), self.heard.len());
        assert!(
            len <= self.expected.len() && self.heard[from..] == self.expected[from..len],
            "heard {len} bytes that are not the first of the {} expected",
            self.expected.len(),
        );
    }
}

/// Steps all clients until each has read every response.
pub(crate) fn until_answered<P: Drained + 'static>(world: &mut World<P>, clients: &mut [Client]) {
    world.until("everybody is answered", |world| {
        clients.iter_mut().for_each(|client| client.step(world));
        clients.iter().all(Client::is_answered)
    });
}

/// Reads until the shard has ended the stream of each client.
pub(crate) fn until_ended<P: Drained + 'static>(world: &mut World<P>, clients: &mut [Client]) {
    world.until("everybody is at an end", |world| {
        clients.iter_mut().for_each(|client| client.step(world));
        clients.iter().all(|client| client.end.is_some())
    });
}

/// Steps until `done` accepts the parsed output.
pub(crate) fn until(
    world: &mut World<Server>,
    client: &mut Client,
    what: &str,
    done: impl Fn(&Understood) -> bool,
) -> Understood {
    world.until(what, |world| {
        client.step(world);
        done(&understand(&client.heard))
    });
    understand(&client.heard)
}
