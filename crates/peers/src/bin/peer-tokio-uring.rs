//! A WebSocket server on tokio-uring, one task per connection, each waiting in a read that owns its
//! buffer. It uses our own codec for frames, so that the comparison measures the runtime.

#![forbid(unsafe_code)]

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::Duration;

use clap::Parser;
use murre_codec::http::{self, Progress, RequestDecoder, Response, ResponseOptions};
use murre_codec::{
    CloseCode, Control, Decoder, FrameLimits, Item, OpCode, Role, encode, handshake,
};
use murre_peers::listen;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

/// A WebSocket echo server on tokio-uring, one thread.
#[derive(Parser)]
struct Args {
    /// The address to listen on; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio_uring::start(async {
        let listener = TcpListener::from_std(listen(args.listen)?);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio_uring::spawn(serve(stream))),
                // No descriptor is free until a connection closes.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
}

/// Serves one connection, from its handshake to its end.
async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(READ_BYTES);
    let mut out = Vec::new();
    let mut echo = Echo::Handshake(RequestDecoder::default());
    loop {
        // Unconsumed bytes stay in front of the bytes of the next read.
        let held = input.len();
        if held == input.capacity() {
            input.reserve(READ_BYTES);
        }
        let (read, slice) = stream.read(input.slice(held..)).await;
        input = slice.into_inner();
        if read? == 0 {
            return Ok(());
        }
        let flow = echo.received(&mut input, &mut out);
        if !out.is_empty() {
            let written;
            (written, out) = stream.write_all(out).await;
            written?;
            out.clear();
        }
        match flow {
            Continue(taken) => drop(input.drain(..taken)),
            Break(()) => return stream.shutdown(Shutdown::Write),
        }
    }
}

/// The state of one connection, without its socket.
enum Echo {
    /// The request is incomplete.
    Handshake(RequestDecoder),
    /// A WebSocket, with the part of an incomplete message that has arrived.
    Open { decoder: Decoder, message: Vec<u8> },
}

impl Echo {
    /// Puts the answers to `input` into `out`. Returns `Continue` with the number of consumed
    /// bytes; the caller offers the rest again, followed by more. Returns `Break` if no further
    /// answer follows.
    fn received(&mut self, input: &mut [u8], out: &mut Vec<u8>) -> ControlFlow<(), usize> {
        match self {
            Echo::Handshake(request) => {
                let taken = shake_hands(request, input, out)?;
                if taken == 0 {
                    return Continue(0);
                }
                *self = Echo::Open { decoder: Decoder::default(), message: Vec::new() };
                Continue(taken + self.received(&mut input[taken..], out)?)
            }
            Echo::Open { decoder, message } => echo(decoder, message, input, out),
        }
    }
}

/// Answers the request. Returns `Continue` with the number of consumed bytes, 0 while the request
/// is incomplete, or `Break` if the answer is a refusal.
fn shake_hands(
    decoder: &mut RequestDecoder,
    input: &[u8],
    out: &mut Vec<u8>,
) -> ControlFlow<(), usize> {
    let mut fields = http::fields();
    let refusal = match decoder.decode(input, &mut fields, &http::RequestLimits::default()) {
        Ok(Progress::Partial | Progress::Continue) => return Continue(0),
        Ok(Progress::Request(request)) => match handshake::check(&request) {
            Ok(upgrade) => {
                handshake::accept(out, upgrade.key, None);
                return Continue(request.size);
            }
            Err(refusal) => refusal.response(),
        },
        Err(bad) => Response::text(bad.status(), bad.reason()),
    };
    refusal.write(out, &ResponseOptions { keep_alive: false, ..ResponseOptions::default() });
    Break(())
}

/// Sends back every message in `input`. Returns `Continue` with the number of consumed bytes, or
/// `Break` after a close frame.
fn echo(
    decoder: &mut Decoder,
    message: &mut Vec<u8>,
    input: &mut [u8],
    out: &mut Vec<u8>,
) -> ControlFlow<(), usize> {
    let mut taken = 0;
    loop {
        let decoded = match decoder.decode(&mut input[taken..], &LIMITS) {
            Ok(decoded) => decoded,
            Err(violation) => {
                encode::write_close(out, violation.close_code(), violation.reason(), None);
                return Break(());
            }
        };
        taken += decoded.consumed;
        match decoded.item {
            None => return Continue(taken),
            Some(Item::Data { kind, bytes, start: true, end: true }) => {
                encode::write_frame(out, kind.opcode(), bytes, None);
            }
            Some(Item::Data { kind, bytes, end, .. }) => {
                message.extend_from_slice(bytes);
                if end {
                    encode::write_frame(out, kind.opcode(), message, None);
                    message.clear();
                }
            }
            Some(Item::Ping(payload)) => {
                let pong = OpCode::Control(Control::Pong);
                encode::write_frame(out, pong, payload, None);
            }
            Some(Item::Pong(_)) => {}
            Some(Item::Close(close)) => {
                let code = close.map_or(CloseCode::Normal, |close| close.code);
                encode::write_close(out, code, "", None);
                return Break(());
            }
        }
    }
}

/// The read size of the lean tokio-tungstenite peer.
const READ_BYTES: usize = 4096;

const LIMITS: FrameLimits = FrameLimits { role: Role::Server, max_message_bytes: 16 << 20 };
