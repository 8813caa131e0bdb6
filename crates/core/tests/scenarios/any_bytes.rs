//! A whole shard on the simulated ring, driven by input bytes: they decide what peers send and in
//! which pieces, when peers read and close, how time passes, and which faults occur. The fuzz
//! target uses this file too, so it needs none of the scenarios beside it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use murre_codec::http::{self, ResponseDecoder};
use murre_codec::{Decoder, FrameLimits, Role};
use murre_core::ring::sim::Faults;
use murre_core::{ServeMail, ShardConfig};

use crate::app::{Server, get, handshake, post, serve, setup, text};
use crate::choices::Choices;
use crate::world::{Peer, Read, Setup, World};

/// Panics unless every turn's counters balance, the output to peers is valid, and nothing is left
/// when all peers are gone.
pub(crate) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let faults = [
        Faults::none(),
        Faults::hidden(),
        Faults { broken: 5, shutdown: 30, ..Faults::hidden() },
        Faults { broken: 2, accept: 50, ..Faults::none() },
    ];
    let shard = ShardConfig {
        max_conns: 2 + choices.number(8),
        max_send_bytes: [4_000, 100_000][choices.index(2)],
        ..setup().shard
    };
    let setup = Setup {
        shard,
        faults: faults[choices.index(4)],
        buffers: 1 + choices.index(4) as u16,
        buffer_bytes: [64, 700, 2048][choices.index(3)],
        socket_bytes: [300, 16_000][choices.index(2)],
        ..setup()
    };
    // A seed that is a multiple of four would have no faults.
    let seed = u64::from(4 * choices.number(64) + 1);
    let mut stage = Stage {
        world: World::simulated(&setup, seed, serve()),
        clients: Vec::new(),
        past: Vec::new(),
    };
    while choices.has_more() && !stage.world.shard.stopped() {
        stage.step(&mut choices);
        stage.world.turn();
        stage.world.check_balance();
    }
    stage.end();
}

/// The largest number of clients at one time.
const CLIENTS: usize = 6;

struct Stage {
    world: World<Server>,
    clients: Vec<Client>,
    past: Vec<Client>,
}

struct Client {
    peer: Peer,
    unsent: VecDeque<u8>,
    heard: Vec<u8>,
    /// Whether its output can be parsed without knowing its requests.
    plain: bool,
}

impl Stage {
    fn step(&mut self, choices: &mut Choices) {
        let step = choices.number(16);
        match step {
            10 => (0..choices.number(4)).for_each(|_| self.world.turn()),
            11 => self.world.pass(Duration::from_millis([1, 100, 1500, 9000][choices.index(4)])),
            13 => {
                let mail = Bytes::from(vec![b'm'; 20 * choices.index(256)]);
                self.world.post(ServeMail::App(mail));
            }
            15 if choices.number(4) == 0 => {
                let over = Duration::from_millis([0, 100, 2000][choices.index(3)]);
                self.world.post(ServeMail::Drain(over));
            }
            0 | 15 if self.clients.len() < CLIENTS => {
                // The listener is closed in a drain.
                if let Some(peer) = self.world.net.connect() {
                    let (unsent, heard) = (VecDeque::new(), Vec::new());
                    self.clients.push(Client { peer, unsent, heard, plain: true });
                }
            }
            _ if self.clients.is_empty() => {}
            _ => self.client_step(step, choices),
        }
    }

    fn client_step(&mut self, step: u32, choices: &mut Choices) {
        let at = choices.index(self.clients.len());
        let Stage { world, clients, past } = self;
        let client = &mut clients[at];
        match step {
            1 => {
                let bytes = some(choices);
                // The response to HEAD has a length and no body.
                client.plain &= !bytes.windows(2).any(|pair| pair == b"HE" || pair == b"EA");
                client.unsent.extend(bytes);
            }
            2 => client.unsent.extend(handshake("/ws")),
            3 => client.unsent.extend(get(40 * choices.index(256))),
            4 => client.unsent.extend(post(&some(choices))),
            5 => {
                // Mostly a valid frame, with a mask of zeros.
                let (first, payload) = (choices.number(256) as u8, some(choices));
                client.unsent.extend([first, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
                client.unsent.extend(payload);
            }
            6 => client.unsent.extend(text(&"text ".repeat(8 * choices.index(256)))),
            7 | 8 => {
                client.write(world, if step == 7 { 1 + choices.index(16) } else { usize::MAX })
            }
            9 => {
                client.read(world, if choices.bool() { 1 + choices.index(256) } else { usize::MAX })
            }
            12 => {
                let peer = client.peer;
                match choices.number(5) {
                    0 => return world.net.half_close(peer),
                    1 => world.net.close(peer),
                    2 => world.net.reset(peer),
                    _ => world.net.vanish(peer),
                }
                past.push(clients.swap_remove(at));
            }
            14 => client.unsent.extend(request(["/later", "/never", "/"][choices.index(3)])),
            _ => {}
        }
    }

    /// Lets the clients send and receive the rest, and then drains the shard.
    fn end(mut self) {
        for _ in 0..20 {
            for client in &mut self.clients {
                client.write(&mut self.world, usize::MAX);
                client.read(&mut self.world, usize::MAX);
            }
            self.world.turn();
        }
        if !self.world.shard.stopped() {
            self.world.finish();
        }
        // At the end of a drain the shard aborts the connections that still read their last bytes.
        if self.world.shard.outbox().live() == 0 {
            let served = &self.world.protocol().inner;
            assert!(served.handler().open.is_empty() && served.handler().later.is_empty());
            assert_eq!(served.counters().websockets_open.get(), 0);
            assert_eq!(served.messages_arriving(), 0, "halves of messages are kept");
        }
        for client in self.clients.iter_mut().chain(&mut self.past) {
            client.read(&mut self.world, usize::MAX);
            client.judge();
        }
    }
}

impl Client {
    fn write(&mut self, world: &mut World<Server>, bytes_max: usize) {
        let len = self.unsent.len().min(bytes_max);
        let written = world.net.write(self.peer, &self.unsent.make_contiguous()[..len]);
        self.unsent.drain(..written);
    }

    fn read(&mut self, world: &mut World<Server>, bytes_max: usize) {
        if let Read::Bytes(bytes) = world.net.read(self.peer, bytes_max) {
            self.heard.extend(bytes);
        }
    }

    /// Panics unless the output consists of responses, and of frames after a 101.
    fn judge(&mut self) {
        if !self.plain {
            return;
        }
        let (mut rest, mut upgraded) = (&mut self.heard[..], false);
        while !upgraded {
            let mut fields = http::fields();
            let received = ResponseDecoder::default().decode(rest, &mut fields);
            let Some(received) = received.expect("a response") else { return };
            upgraded = received.status == 101;
            let size = received.size;
            rest = &mut rest[size..];
        }
        let limits = FrameLimits { role: Role::Client, max_message_bytes: 1 << 20 };
        let mut decoder = Decoder::default();
        loop {
            let consumed = decoder.decode(rest, &limits).expect("frames").consumed;
            if consumed == 0 {
                return;
            }
            rest = &mut rest[consumed..];
        }
    }
}

/// Up to 63 of the input bytes.
fn some(choices: &mut Choices) -> Vec<u8> {
    (0..choices.number(64)).map(|_| choices.number(256) as u8).collect()
}

fn request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: murre\r\n\r\n").into_bytes()
}
