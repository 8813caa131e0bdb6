//! A WebSocket server on tokio-uring, one task per connection, each waiting in a read that owns its
//! buffer. It frames with our own codec, so that the runtime is what is measured.

#![forbid(unsafe_code)]

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::ControlFlow::{self, Break, Continue};
use std::time::Duration;

use clap::Parser;
use murre_codec::http::{self, Progress, RequestDecoder, Response};
use murre_codec::{
    CloseCode, Control, Decoder, FrameLimits, Item, OpCode, Role, encode, handshake,
};
use murre_peers::listen;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

/// A WebSocket echo server on tokio-uring, one thread.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the kernel choose.
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
                // No descriptor is free: one will be when a connection closes.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
}

/// One connection, from its handshake to its end.
async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(READ_BYTES);
    let mut out = Vec::new();
    let mut echo = Echo::Handshake(RequestDecoder::default());
    loop {
        // What is not taken yet stays in front of what the next read brings.
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

/// What one connection has said so far, without its socket.
enum Echo {
    /// The request is not whole yet.
    Handshake(RequestDecoder),
    /// A WebSocket, with what has come of a message that is not whole yet.
    Open { decoder: Decoder, message: Vec<u8> },
}

impl Echo {
    /// Puts the answers to `input` into `out`. `Continue` with how many of its bytes are taken, the
    /// rest to be offered again with more behind it; `Break` where nothing more will be answered.
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

/// Answers the request. `Continue` with the bytes it took, 0 while it is not whole; `Break` where
/// the answer is a refusal.
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
    refusal.write(out, false, false, 1, None);
    Break(())
}

/// Sends back every message in `input`. `Continue` with the bytes taken, `Break` after a close frame.
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

/// As much as the lean tokio-tungstenite peer reads at once.
const READ_BYTES: usize = 4096;

const LIMITS: FrameLimits = FrameLimits { role: Role::Server, message_bytes_max: 16 << 20 };
