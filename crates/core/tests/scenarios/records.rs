//! A record layer: a byte stage for the shard, and the same for its peers.
//!
//! It is as simple as one can be that needs everything a byte stage may do. Each side begins with
//! [`HELLO`]; until that of the peer has come the shard sends nothing else. Then come records: two bytes
//! of length, and the bytes, each masked by the number of its record. An empty record is the last.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use murre_core::ring::SendData;
use murre_core::ring::sim::{Peer, Read};
use murre_core::{ByteStage, CloseReason, ConnId, Unsealed};

use crate::network::Network;

const HELLO: &[u8] = b"hello\n";
const HEAD_BYTES: usize = 2;
/// The longest record, larger than the receive buffers of some scenarios.
const RECORD_BYTES_MAX: usize = 3000;

/// The records of one direction of one connection.
#[derive(Default)]
struct Half {
    greeted: bool,
    ended: bool,
    records: u8,
}

impl Half {
    fn mask(&mut self, bytes: &mut [u8]) {
        self.records = self.records.wrapping_add(1);
        let key = self.records.wrapping_mul(31) | 1;
        bytes.iter_mut().for_each(|byte| *byte ^= key);
    }

    /// Appends `bytes` to `sealed` as records; the empty record for none.
    fn seal(&mut self, bytes: &[u8], sealed: &mut Vec<u8>) {
        let mut pieces: Vec<&[u8]> = bytes.chunks(RECORD_BYTES_MAX).collect();
        if bytes.is_empty() {
            pieces.push(b"");
        }
        for piece in pieces {
            sealed.extend((piece.len() as u16).to_le_bytes());
            let from = sealed.len();
            sealed.extend_from_slice(piece);
            self.mask(&mut sealed[from..]);
        }
    }

    /// Opens the whole records of `bytes` behind the first `plain`. Returns the plain bytes at its front,
    /// and the length of what is left; `None` if the peer breaks the rules.
    fn open(&mut self, bytes: &mut [u8], mut plain: usize) -> Option<(usize, usize)> {
        let mut at = plain;
        if !self.greeted && bytes.len() - at >= HELLO.len() {
            self.greeted = bytes[at..].starts_with(HELLO);
            at += HELLO.len();
            self.greeted.then_some(())?;
        }
        while self.greeted && bytes.len() - at >= HEAD_BYTES {
            let len = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
            (len <= RECORD_BYTES_MAX && !self.ended).then_some(())?;
            let record = at + HEAD_BYTES..at + HEAD_BYTES + len;
            if record.end > bytes.len() {
                break;
            }
            at = record.end;
            self.mask(&mut bytes[record.clone()]);
            self.ended = len == 0;
            bytes.copy_within(record, plain);
            plain += len;
        }
        bytes.copy_within(at.., plain);
        Some((plain, plain + bytes.len() - at))
    }
}

/// The byte stage of the shard.
#[derive(Default)]
pub(crate) struct Records(HashMap<u32, [Half; 2]>);

impl Records {
    fn halves(&mut self, conn: ConnId) -> &mut [Half; 2] {
        self.0.get_mut(&conn.index()).expect("it has opened and not closed")
    }
}

impl ByteStage for Records {
    fn opened(&mut self, conn: ConnId) {
        let before = self.0.insert(conn.index(), Default::default());
        assert!(before.is_none(), "it was told of the end of the slot's last connection");
    }

    fn open(
        &mut self,
        conn: ConnId,
        bytes: &mut [u8],
        plain: usize,
    ) -> Result<Unsealed, CloseReason> {
        let [input, output] = self.halves(conn);
        let (plain, len) = input.open(bytes, plain).ok_or(CloseReason::BadFrame)?;
        Ok(Unsealed { plain, len, answers: input.greeted && !output.greeted })
    }

    fn take(
        &mut self,
        conn: ConnId,
        queued: impl FnOnce() -> Option<SendData>,
    ) -> Option<SendData> {
        let [input, output] = self.halves(conn);
        if !input.greeted {
            return None;
        }
        let mut sealed = Vec::new();
        if !std::mem::replace(&mut output.greeted, true) {
            sealed.extend_from_slice(HELLO);
            return Some(SendData::Own(sealed));
        }
        output.seal(queued()?.bytes(), &mut sealed);
        Some(SendData::Own(sealed))
    }

    fn end(&mut self, conn: ConnId) -> Option<SendData> {
        let [input, output] = self.halves(conn);
        if !input.greeted || std::mem::replace(&mut output.ended, true) {
            return None;
        }
        let mut sealed = Vec::new();
        if !output.greeted {
            sealed.extend_from_slice(HELLO);
        }
        output.seal(b"", &mut sealed);
        Some(SendData::Own(sealed))
    }

    fn closed(&mut self, conn: ConnId) {
        self.0.remove(&conn.index()).expect("it was open");
    }
}

/// The peers' side of a network, each behind the record layer.
pub(crate) struct Recorded {
    net: Box<dyn Network>,
    peers: HashMap<Peer, Layer>,
}

/// The record layer of one peer.
#[derive(Default)]
struct Layer {
    input: Half,
    output: Half,
    /// Sealed, and not written yet.
    unwritten: Vec<u8>,
    /// Closes its side when everything is written.
    closes: bool,
    /// Received: `plain` bytes that are opened, and others.
    received: Vec<u8>,
    plain: usize,
}

impl Recorded {
    pub(crate) fn new(net: Box<dyn Network>) -> Self {
        Recorded { net, peers: HashMap::new() }
    }

    /// Writes what is sealed, and returns the layer.
    fn flush(&mut self, peer: Peer) -> &mut Layer {
        let layer = self.peers.entry(peer).or_default();
        if !std::mem::replace(&mut layer.output.greeted, true) {
            layer.unwritten.extend_from_slice(HELLO);
        }
        let written = self.net.write(peer, &layer.unwritten);
        layer.unwritten.drain(..written);
        if layer.unwritten.is_empty() && std::mem::take(&mut layer.closes) {
            self.net.half_close(peer);
        }
        layer
    }
}

impl Network for Recorded {
    fn connect(&mut self) -> Option<Peer> {
        self.net.connect()
    }

    fn connect_from(&mut self, address: SocketAddr) -> Option<Peer> {
        self.net.connect_from(address)
    }

    fn address(&self, peer: Peer) -> SocketAddr {
        self.net.address(peer)
    }

    fn listens_at(&self) -> Option<SocketAddr> {
        self.net.listens_at()
    }

    fn listen(&mut self) -> SocketAddr {
        self.net.listen()
    }

    fn accept(&mut self) -> Option<Peer> {
        self.net.accept()
    }

    fn write(&mut self, peer: Peer, bytes: &[u8]) -> usize {
        let layer = self.flush(peer);
        if !layer.unwritten.is_empty() || bytes.is_empty() {
            return 0;
        }
        let bytes = &bytes[..bytes.len().min(RECORD_BYTES_MAX)];
        layer.output.seal(bytes, &mut layer.unwritten);
        self.flush(peer);
        bytes.len()
    }

    fn read(&mut self, peer: Peer, bytes_max: usize) -> Read {
        self.flush(peer);
        let read = self.net.read(peer, bytes_max);
        let layer = self.peers.entry(peer).or_default();
        if let Read::Bytes(bytes) = &read {
            layer.received.extend(bytes);
            let opened = layer.input.open(&mut layer.received, layer.plain);
            let (plain, len) = opened.expect("the shard keeps to the rules");
            layer.received.truncate(len);
            layer.plain = plain;
        }
        let bytes: Vec<u8> = layer.received.drain(..layer.plain.min(bytes_max)).collect();
        layer.plain -= bytes.len();
        match read {
            _ if !bytes.is_empty() => Read::Bytes(bytes),
            Read::Bytes(_) => Read::Nothing,
            read => read,
        }
    }

    fn half_close(&mut self, peer: Peer) {
        self.peers.entry(peer).or_default().closes = true;
        self.flush(peer);
    }

    fn close(&mut self, peer: Peer) {
        self.net.close(peer);
    }

    fn reset(&mut self, peer: Peer) {
        self.net.reset(peer);
    }

    fn close_all(&mut self) {
        self.net.close_all();
    }

    fn vanish(&mut self, peer: Peer) {
        self.net.vanish(peer);
    }

    fn come_back(&mut self, peer: Peer) {
        self.net.come_back(peer);
    }

    fn break_off(&mut self, peer: Peer) {
        self.net.break_off(peer);
    }

    fn pass(&mut self, span: Duration) {
        self.net.pass(span);
    }

    fn passed(&self) -> bool {
        self.net.passed()
    }

    fn suspend(&mut self, span: Duration) {
        self.net.suspend(span);
    }

    fn now(&self) -> Instant {
        self.net.now()
    }

    fn is_simulated(&self) -> bool {
        self.net.is_simulated()
    }

    fn check_empty(&self) {
        self.net.check_empty();
    }

    fn all_ended(&mut self) -> bool {
        self.net.all_ended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Echo;
    use crate::world::{Setup, recorded};

    /// A peer that breaks the rules of the byte stage gets the stage's last bytes and the end of the stream,
    /// and nothing of what was queued for it. The protocol is offered what came before.
    #[test]
    fn a_peer_that_breaks_the_rules_is_closed() {
        recorded(&Setup::default(), Echo::default, |world| {
            let peer = world.connect();
            let mut sent = HELLO.to_vec();
            Half::default().seal(b"", &mut sent);
            let expected = sent.clone();
            // A record behind the last one.
            sent.extend([1, 0, b'x']);
            let sim = world.sim.clone().expect("it is simulated");
            let (mut heard, mut end) = (Vec::new(), None);
            world.until("the end", |_| {
                let written = sim.write(peer, &sent);
                sent.drain(..written);
                match sim.read(peer, 100) {
                    Read::Bytes(bytes) => heard.extend(bytes),
                    Read::Nothing => {}
                    read => end = Some(read),
                }
                end.is_some()
            });
            assert_eq!((heard, end), (expected, Some(Read::End)));
            sim.close(peer);
            world.until("it is closed", |world| {
                world.protocol().closed_for(CloseReason::BadFrame) == 1
            });
        });
    }
}
