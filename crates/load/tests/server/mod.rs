//! A small server, one thread per connection, that answers correctly or makes one mistake.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use murre_codec::http::{self, Progress, RequestDecoder};
use murre_codec::{
    CloseCode, Control, Decoded, Decoder, FrameLimits, Item, Kind, OpCode, Role, encode, handshake,
};

/// The server's mistake. It happens once, on the connection with the fourth request of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// One byte of an answer is wrong.
    WrongByte,
    /// The answer lacks its last byte.
    Short,
    /// The connection closes instead of the answer.
    Dropped,
    /// There is no answer, and the connection stays open.
    Silent,
    /// The answer is neither HTTP nor a frame.
    Garbage,
    /// Every upgrade is refused.
    NoUpgrade,
    /// A WebSocket closes with a close frame instead of the answer.
    Goodbye,
}

/// Starts the server, on all of 127.0.0.0/8. It runs until the test process ends.
pub(crate) fn start(mistake: Mistake) -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().expect("bound").port()));
    let requests = Arc::new(AtomicU32::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let requests = Arc::clone(&requests);
            // A client that resets its connection ends its thread.
            thread::spawn(move || Peer { stream, mistake, requests, input: Vec::new() }.serve());
        }
    });
    address
}

/// The payload of the ping that the server first sends on every WebSocket.
const PING: &[u8] = b"are you there";

struct Peer {
    stream: TcpStream,
    mistake: Mistake,
    requests: Arc<AtomicU32>,
    input: Vec<u8>,
}

impl Peer {
    fn serve(&mut self) -> std::io::Result<()> {
        self.stream.set_nodelay(true)?;
        let mut decoder = RequestDecoder::default();
        loop {
            self.read()?;
            let mut fields = http::fields();
            let limits = http::RequestLimits::default();
            let progress = decoder.decode(&self.input, &mut fields, &limits).expect("our client");
            let Progress::Request(request) = progress else { continue };
            let mut answer = Vec::new();
            let upgraded = request.wants_websocket() && self.mistake != Mistake::NoUpgrade;
            let upper = request.path() == "/upper";
            if upgraded {
                let upgrade = handshake::check(&request).expect("our client");
                handshake::accept(&mut answer, upgrade.key, None);
                // Directly after the upgrade: the client must answer it before it sends any
                // message.
                encode::write_frame(&mut answer, OpCode::Control(Control::Ping), PING, None);
            } else if let Some(length) = request.query("length") {
                let length = length.parse().expect("our client");
                let body: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
                answer = self.spoil(body, |body| {
                    let mut out =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())
                            .into_bytes();
                    out.extend_from_slice(body);
                    out
                })?;
            } else {
                answer.extend_from_slice(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            }
            let size = request.size;
            self.input.drain(..size);
            self.stream.write_all(&answer)?;
            if upgraded {
                return self.talk(upper);
            }
        }
    }

    /// Answers frames, after the upgrade.
    fn talk(&mut self, upper: bool) -> std::io::Result<()> {
        let limits = FrameLimits { role: Role::Server, max_message_bytes: 1 << 24 };
        let mut decoder = Decoder::default();
        let mut message = Vec::new();
        let mut ponged = false;
        loop {
            let mut input = std::mem::take(&mut self.input);
            let mut at = 0;
            loop {
                let Decoded { consumed, item } =
                    decoder.decode(&mut input[at..], &limits).expect("our client");
                at += consumed;
                let Some(item) = item else { break };
                let mut answer = Vec::new();
                // Pings and pongs may cross: they do not answer the server's ping.
                if !ponged && !matches!(item, Item::Pong(_) | Item::Ping(_)) {
                    return Err(ErrorKind::InvalidData.into());
                }
                match item {
                    Item::Data { kind, bytes, end, .. } => {
                        message.extend_from_slice(bytes);
                        if !end {
                            continue;
                        }
                        if upper && kind == Kind::Text {
                            message.make_ascii_uppercase();
                        }
                        answer = self.spoil(std::mem::take(&mut message), |message| {
                            let mut out = Vec::new();
                            encode::write_frame(&mut out, kind.opcode(), message, None);
                            out
                        })?;
                    }
                    Item::Ping(payload) => {
                        answer = self.spoil(payload.to_vec(), |payload| {
                            let mut out = Vec::new();
                            let pong = OpCode::Control(Control::Pong);
                            encode::write_frame(&mut out, pong, payload, None);
                            out
                        })?;
                    }
                    Item::Pong(payload) => ponged |= payload == PING,
                    Item::Close(_) => {
                        encode::write_close(&mut answer, CloseCode::Normal, "", None);
                        return self.stream.write_all(&answer);
                    }
                }
                self.stream.write_all(&answer)?;
            }
            input.drain(..at);
            self.input = input;
            self.read()?;
        }
    }

    /// Makes the mistake when its time has come.
    fn spoil(
        &self,
        mut body: Vec<u8>,
        write: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> std::io::Result<Vec<u8>> {
        if self.requests.fetch_add(1, Ordering::Relaxed) != 3 {
            return Ok(write(&body));
        }
        match self.mistake {
            Mistake::None | Mistake::NoUpgrade => {}
            Mistake::WrongByte => {
                *body.last_mut().expect("no answer is empty") ^= 1;
            }
            Mistake::Short => {
                body.pop();
            }
            Mistake::Dropped => return Err(ErrorKind::ConnectionReset.into()),
            Mistake::Silent => return Ok(Vec::new()),
            Mistake::Goodbye => {
                let mut out = Vec::new();
                encode::write_close(&mut out, CloseCode::Away, "going away", None);
                return Ok(out);
            }
            Mistake::Garbage => return Ok(b"\xF7\xF7\xF7\xF7\r\n\r\n".to_vec()),
        }
        Ok(write(&body))
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut bytes = [0; 16384];
        match self.stream.read(&mut bytes)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.input.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }
}
