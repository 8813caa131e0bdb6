//! A small server, one thread per connection, that answers correctly or makes one mistake.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use murre_codec::http::{self, Progress, RequestDecoder};
use murre_codec::{CloseCode, Control, OpCode, encode, handshake};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

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
    CloseFrame,
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
            thread::spawn(move || Peer { stream, mistake, requests }.serve());
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
}

impl Peer {
    fn serve(&self) -> tungstenite::Result<()> {
        let mut stream = &self.stream;
        stream.set_nodelay(true)?;
        let (mut decoder, mut input) = (RequestDecoder::default(), Vec::new());
        loop {
            let mut bytes = [0; 16384];
            let read = stream.read(&mut bytes)?;
            if read == 0 {
                return Ok(());
            }
            input.extend_from_slice(&bytes[..read]);
            let mut fields = http::fields();
            let limits = http::RequestLimits::default();
            let progress = decoder.decode(&input, &mut fields, &limits).expect("our client");
            let Progress::Request(request) = progress else { continue };
            if request.wants_websocket() && self.mistake != Mistake::NoUpgrade {
                let upgrade = handshake::check(&request).expect("our client");
                let mut answer = Vec::new();
                handshake::accept(&mut answer, upgrade.key, None);
                // With the upgrade, in one write: the client must answer it before it sends any message.
                let ping = OpCode::Control(Control::Ping);
                encode::write_frame(&mut answer, ping, PING, None);
                stream.write_all(&answer)?;
                let (upper, rest) = (request.path() == "/upper", input[request.size..].to_vec());
                let socket = WebSocket::from_partially_read(stream, rest, Role::Server, None);
                return self.answer(socket, upper);
            }
            let (status, body) = match request.query("length") {
                Some(length) => {
                    let length = length.parse().expect("our client");
                    ("200 OK", self.spoil((b'a'..=b'z').cycle().take(length).collect())?)
                }
                None => ("404 Not Found", Some(Vec::new())),
            };
            if let Some(body) = body {
                let length = body.len();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")?;
                stream.write_all(&body)?;
            }
            let size = request.size;
            input.drain(..size);
        }
    }

    /// Answers messages and pings, after the upgrade.
    fn answer(&self, mut socket: WebSocket<&TcpStream>, upper: bool) -> tungstenite::Result<()> {
        let mut ponged = false;
        loop {
            let message = socket.read()?;
            // Pings and pongs may cross: they do not answer the server's ping.
            if !ponged && !matches!(message, Message::Pong(_) | Message::Ping(_)) {
                return Ok(());
            }
            let answer = match message {
                Message::Pong(payload) => {
                    ponged |= payload == PING;
                    continue;
                }
                Message::Close(_) => return socket.flush(),
                Message::Ping(payload) => {
                    self.spoil(payload.to_vec())?.map(|payload| Message::Pong(payload.into()))
                }
                Message::Text(text) => {
                    let text = if upper { text.to_ascii_uppercase() } else { text.to_string() };
                    let spoiled = self.spoil(text.into_bytes())?;
                    spoiled.map(|text| Message::text(String::from_utf8(text).expect("still ASCII")))
                }
                Message::Binary(bytes) => self.spoil(bytes.to_vec())?.map(Message::binary),
                Message::Frame(_) => unreachable!("`read` returns messages"),
            };
            match answer {
                Some(answer) => socket.send(answer)?,
                None => {
                    // Until the client ends the connection.
                    io::copy(socket.get_mut(), &mut io::sink())?;
                    return Ok(());
                }
            }
        }
    }

    /// Makes the mistake when its time has come. `None` if nothing more is to be sent.
    fn spoil(&self, mut body: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        if self.requests.fetch_add(1, Ordering::Relaxed) != 3 {
            return Ok(Some(body));
        }
        match self.mistake {
            Mistake::None | Mistake::NoUpgrade => {}
            Mistake::WrongByte => *body.last_mut().expect("no answer is empty") ^= 1,
            Mistake::Short => drop(body.pop()),
            Mistake::Dropped => return Err(ErrorKind::ConnectionReset.into()),
            Mistake::Silent => return Ok(None),
            Mistake::CloseFrame => {
                let mut close = Vec::new();
                encode::write_close(&mut close, CloseCode::Away, "going away", None);
                return (&self.stream).write_all(&close).map(|()| None);
            }
            Mistake::Garbage => {
                return (&self.stream).write_all(b"\xF7\xF7\xF7\xF7\r\n\r\n").map(|()| None);
            }
        }
        Ok(Some(body))
    }
}
