//! A client in a simulation: the bytes that it sends and reads, and the facts that explain its end.

use std::collections::VecDeque;

use crate::simulation::plan::Say;
use crate::watched::Drained;
use crate::world::{Peer, Read, World};

/// The bytes that a client sends and the answers that it expects.
pub(crate) trait Script: Default {
    /// The bytes to send for `say`.
    fn send(&mut self, say: Say, heard: &[u8]) -> Vec<u8>;

    /// Panics unless the bytes read are possible; with `whole`, unless they are complete.
    fn check(&self, heard: &[u8], whole: bool, ending: Ending);

    /// The client has sent invalid bytes.
    fn was_wrong(&self) -> bool;

    /// The client has exceeded a limit on pings or fragments.
    fn is_excessive(&self) -> bool;

    /// The client has asked for the end.
    fn asked_for_end(&self) -> bool;

    /// The client receives data again and again while it is connected.
    fn hears_without_end(&self) -> bool;

    /// The number of the last mail that the client read, for clients that receive every mail.
    fn last_mail(&self, heard: &[u8]) -> Option<u64>;
}

/// How the connection may have ended, as far as it affects the bytes read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    /// The shard closed the connection after a time limit.
    pub(crate) timed_out: bool,
    /// The shard refused the connection.
    pub(crate) refused: bool,
    /// The shard was drained, or refused or delayed some connections.
    pub(crate) unavailable: bool,
}

pub(crate) struct Actor<S> {
    pub(crate) number: usize,
    pub(crate) peer: Peer,
    pub(crate) script: S,
    unsent: VecDeque<u8>,
    pub(crate) heard: Vec<u8>,
    /// How the stream from the shard ended.
    pub(crate) end: Option<Read>,
    /// The client has closed or reset its side.
    pub(crate) left: bool,
    /// The client no longer takes part.
    pub(crate) gone: bool,
    /// The client has vanished from the network for now.
    pub(crate) lost: bool,
    /// The client has vanished from the network at some time, or the network has broken its
    /// connection.
    pub(crate) troubled: bool,
}

impl<S: Script> Actor<S> {
    pub(crate) fn new(number: usize, peer: Peer) -> Self {
        Actor {
            number,
            peer,
            script: S::default(),
            unsent: VecDeque::new(),
            heard: Vec::new(),
            end: None,
            left: false,
            gone: false,
            lost: false,
            troubled: false,
        }
    }

    pub(crate) fn send(&mut self, say: Say) {
        if !self.left {
            let bytes = self.script.send(say, &self.heard);
            self.unsent.extend(bytes);
        }
    }

    pub(crate) fn write<P: Drained + 'static>(&mut self, world: &mut World<P>, bytes_max: usize) {
        if self.left {
            return;
        }
        let unsent = self.unsent.make_contiguous();
        let len = unsent.len().min(bytes_max);
        let written = world.net.write(self.peer, &unsent[..len]);
        if written > 0 {
            let (number, rest) = (self.number, len - written);
            world
                .tell(|| format!("client {number} writes {written} bytes, {rest} more do not fit"));
        }
        self.unsent.drain(..written);
    }

    /// Returns whether there was anything to read.
    pub(crate) fn read<P: Drained + 'static>(
        &mut self,
        world: &mut World<P>,
        bytes_max: usize,
    ) -> bool {
        if self.gone || self.end.is_some() {
            return false;
        }
        let number = self.number;
        match world.net.read(self.peer, bytes_max) {
            Read::Bytes(bytes) => {
                world.tell(|| format!("client {number} reads {} bytes", bytes.len()));
                self.heard.extend(bytes);
            }
            Read::Nothing => return false,
            end => {
                world.tell(|| format!("client {number} reads the end: {end:?}"));
                // Most clients close their side then.
                if end == Read::End && !number.is_multiple_of(3) {
                    world.net.close(self.peer);
                    (self.left, self.gone) = (true, true);
                }
                self.end = Some(end);
            }
        }
        true
    }

    pub(crate) fn has_spoken(&self) -> bool {
        self.unsent.is_empty()
    }
}
