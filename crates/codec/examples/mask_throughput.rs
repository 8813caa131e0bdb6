//! Measures the speed of unmasking: our loop beside the naive loop, and our decoder beside
//! tungstenite's.
//!
//! ```sh
//! cargo run --release --package murre-codec --example mask_throughput [PAYLOAD_BYTES...]
//! ```
//!
//! Prints one line of JSON. Every figure is the median of its rounds: 10^9 bytes of payload a
//! second for each payload size, and nanoseconds to decode one short text frame. The candidates run
//! in turns, so that other load on the machine affects all of them.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Instant;

use murre_codec::{Decoder, FrameLimits, Item, Kind, Role, encode, mask};
use tungstenite::protocol::{Role as TheirRole, WebSocket};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const ROUNDS: usize = 21;
/// The bytes of payload that one candidate handles in one round.
const ROUND_BYTES: usize = 64 << 20;
/// The bytes of frames that arrive together, as far as they fit a receive buffer.
const ARRIVING_BYTES: usize = 64 << 10;
const SIZES: [usize; 3] = [64, 1 << 10, 64 << 10];
/// A typical chat message.
const SHORT_TEXT: &[u8] = b"a short text, like so many others";

fn main() {
    let arguments = std::env::args().skip(1);
    let mut sizes: Vec<usize> =
        arguments.map(|bytes| bytes.parse().expect("PAYLOAD_BYTES is a number")).collect();
    if sizes.is_empty() {
        sizes.extend(SIZES);
    }
    assert!(sizes.iter().all(|&bytes| bytes > 0), "PAYLOAD_BYTES is at least 1");
    let rates: Vec<String> = sizes.into_iter().map(rates).collect();
    println!(
        "{{\"bench\":\"mask_throughput\",\"rounds\":{ROUNDS},\"sizes\":[{}],\
         \"text_frame_payload_bytes\":{},\"text_frame_decode_ns\":{:.1}}}",
        rates.join(","),
        SHORT_TEXT.len(),
        text_frame_ns()
    );
}

/// The rates of all candidates for one payload size, as JSON.
fn rates(payload_bytes: usize) -> String {
    let (stream, frames) = arriving(Kind::Binary, &vec![7; payload_bytes]);
    let turns = (ROUND_BYTES / (frames * payload_bytes)).max(1);
    let bytes = turns * frames * payload_bytes;

    let mut payload = vec![7; payload_bytes];
    let mut ours = Ours { decoder: Decoder::default(), buffer: vec![0; stream.len()] };
    let mut tungstenite =
        WebSocket::from_raw_socket(Arriving { stream: &stream, at: 0 }, TheirRole::Server, None);

    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let [apply, naive, decode, theirs] = &mut rates;
        apply.push(rate(bytes, || {
            (0..turns * frames).for_each(|_| {
                black_box(mask::apply(black_box(&mut payload), MASK));
            });
        }));
        naive.push(rate(bytes, || {
            (0..turns * frames).for_each(|_| naive_loop(black_box(&mut payload), MASK));
        }));
        decode.push(rate(bytes, || (0..turns).for_each(|_| ours.decode(&stream))));
        theirs.push(rate(bytes, || {
            (0..turns * frames).for_each(|_| {
                black_box(tungstenite.read().expect("a frame"));
            });
        }));
    }
    let [apply, naive, decode, theirs] = rates.map(median);
    format!(
        "{{\"payload_bytes\":{payload_bytes},\"round_bytes\":{bytes},\
         \"mask_gb_per_s\":{apply:.2},\"naive_gb_per_s\":{naive:.2},\
         \"decode_gb_per_s\":{decode:.2},\"tungstenite_decode_gb_per_s\":{theirs:.2}}}"
    )
}

/// The nanoseconds to decode a short text frame, with its UTF-8 check, in a stream of such frames.
fn text_frame_ns() -> f64 {
    let (stream, frames) = arriving(Kind::Text, SHORT_TEXT);
    let mut ours = Ours { decoder: Decoder::default(), buffer: vec![0; stream.len()] };
    let turns = ROUND_BYTES / stream.len();
    let rounds = (0..ROUNDS)
        .map(|_| 1.0 / rate(turns * frames, || (0..turns).for_each(|_| ours.decode(&stream))));
    median(rounds.collect())
}

/// As many masked frames of this payload as arrive together, and their number.
fn arriving(kind: Kind, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut frame = vec![];
    encode::write_frame(&mut frame, kind.opcode(), payload, Some(MASK));
    let frames = (ARRIVING_BYTES / frame.len()).max(1);
    (frame.repeat(frames), frames)
}

/// Our decoder and the buffer that frames arrive in.
struct Ours {
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Ours {
    /// Decodes a stream of whole frames. The copy stands for the read from the socket;
    /// tungstenite's side of the comparison copies as well.
    fn decode(&mut self, stream: &[u8]) {
        let limits = FrameLimits { role: Role::Server, max_message_bytes: u32::MAX };
        self.buffer.copy_from_slice(stream);
        let mut rest = &mut self.buffer[..];
        while !rest.is_empty() {
            let decoded = self.decoder.decode(rest, &limits).expect("valid frames");
            assert!(matches!(black_box(decoded.item), Some(Item::Data { end: true, .. })));
            let consumed = decoded.consumed;
            rest = &mut rest[consumed..];
        }
    }
}

/// The loop of RFC 6455 section 5.3, byte by byte.
fn naive_loop(bytes: &mut [u8], mask: [u8; 4]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
}

/// A socket that returns the same frames over and over.
struct Arriving<'s> {
    stream: &'s [u8],
    at: usize,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.stream[self.at..]).read(buffer)?;
        self.at = (self.at + read) % self.stream.len();
        Ok(read)
    }
}

impl Write for Arriving<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `work`, and returns its rate in units of 10^9 a second, for `many` units.
fn rate(many: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    many as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
