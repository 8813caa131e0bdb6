//! The plan of one simulation run: drawn from its seed, then plain data that can be cut.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;
use murre_core::ring::sim::{Faults, Keep, SimConfig};
use murre_core::{AddressLimits, Admission, ShardConfig};

/// The plan of one run.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) ring: SimConfig,
    pub(crate) shard: ShardConfig,
    /// The limits of the one address from which all clients connect.
    pub(crate) limits: AddressLimits,
    pub(crate) steps: Vec<Step>,
    /// The numbers of the faults that may happen; `None` allows all faults of the seed.
    pub(crate) faults_allowed: Option<Vec<u64>>,
}

/// One step. Clients have numbers, and a step of a client that is not connected does nothing, so
/// any step can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A client connects.
    Connect(usize),
    /// The shard connects to a listener, and the new connection becomes a client.
    Dial,
    /// A client queues something to send.
    Say(usize, Say),
    /// A client writes at most this many of its queued bytes.
    Write(usize, usize),
    /// A client reads at most this many bytes.
    Read(usize, usize),
    HalfClose(usize),
    Close(usize),
    Reset(usize),
    /// The client vanishes from the network.
    Vanish(usize),
    /// The client appears in the network again.
    ComeBack(usize),
    /// The network breaks the client's connection.
    Break(usize),
    /// Mail to all connections, of this many bytes.
    Mail(usize),
    /// The gate opens, refuses or delays new connections from now on.
    Gate(Admission),
    /// The shard drains within this many milliseconds.
    Drain(u64),
    Turns(usize),
    /// This many milliseconds pass.
    Pass(u64),
    /// The machine stands still for this many milliseconds.
    StandStill(u64),
}

/// A message of a client; lengths are those of payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    Get(usize),
    /// With `Connection: close`.
    GetLast(usize),
    Post(usize),
    Later,
    Never,
    /// An upgrade that the application refuses.
    Refused,
    Upgrade,
    Message(usize),
    /// A message in three frames, with a ping between two of them.
    Pieces(usize),
    Ping,
    Pong,
    /// A message with more frames than the limit.
    Splinters,
    /// A close frame.
    Close,
    /// A request to close the connection.
    AskClose,
    /// A request to abort the connection.
    AskAbort,
    Garbage(usize),
}

/// The largest number of clients at one time.
pub(crate) const CLIENTS: usize = 6;

impl Plan {
    /// Draws the plan of `seed`.
    pub(crate) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x9_1A7);
        let ring = SimConfig {
            seed,
            faults: faults(seed, rng),
            listening: true,
            buffers: rng.u16(1..5),
            buffer_bytes: rng.choice([64, 700, 2048]).expect("some"),
            socket_bytes: rng.choice([300, 4000, 16_000]).expect("some"),
            give_up: Duration::from_secs(5),
            keep: Keep::Nothing,
        };
        let shard = ShardConfig {
            max_conns: rng.choice([3, 8, 40]).expect("some"),
            max_send_bytes: rng.choice([4_000, 100_000]).expect("some"),
            linger: Duration::from_secs(1),
            tick: Duration::from_millis(100),
            slices: 2,
            accept_interval: Duration::from_millis(rng.choice([0, 0, 20]).expect("some")),
            ..ShardConfig::default()
        };
        let limits = match rng.u8(0..4) {
            0 => {
                AddressLimits { max_conns_per_address: Some(3), max_handshakes_per_second: Some(1) }
            }
            _ => AddressLimits::default(),
        };
        let steps = steps(rng);
        Plan { seed, ring, shard, limits, steps, faults_allowed: None }
    }
}

/// Some of the possible faults, because some faults hide others: often none of a kind, and
/// sometimes none at all.
fn faults(seed: u64, rng: &mut Rng) -> Faults {
    if seed.is_multiple_of(8) {
        return Faults::none();
    }
    let mut some = |most: u8| if rng.bool() { rng.u8(1..=most) } else { 0 };
    Faults {
        reordered: some(90),
        late: some(50),
        spurious_ready: some(20),
        short: some(60),
        interrupted: some(30),
        broken: some(2),
        accept: some(40),
        aborted: some(30),
        connect: some(50),
        slow_shutdown: some(90),
        shutdown: some(50),
        close: some(50),
        full_queue: some(80),
        woken: some(20),
        overslept: some(30),
        frozen: some(80),
    }
}

/// Draws the steps of a run from the kinds of steps and of messages, by their weights. Each run
/// uses only some of the kinds.
fn steps(rng: &mut Rng) -> Vec<Step> {
    let weights: Vec<u32> = WEIGHTS.iter().map(|&weight| some(rng, weight)).collect();
    let says: Vec<u32> = SAYS.iter().map(|&(_, weight)| some(rng, weight)).collect();
    let length_max = rng.choice([10, 300, 3000, 20_000]).expect("some");
    let upgrades = rng.bool();
    let mut steps = Vec::new();
    for _ in 0..rng.usize(20..160) {
        let client = rng.usize(0..CLIENTS);
        let piece = rng.choice([3, 100, 100_000, 100_000]).expect("some");
        let step = match weighted(rng, &weights) {
            0 => {
                steps.push(Step::Connect(client));
                if !upgrades {
                    continue;
                }
                Step::Say(client, Say::Upgrade)
            }
            1 => {
                let (say, _) = SAYS[weighted(rng, &says)];
                Step::Say(client, say.long(rng.usize(0..length_max)))
            }
            2 => Step::Write(client, piece),
            3 => Step::Read(client, piece),
            4 => Step::Turns(rng.usize(1..6)),
            5 => Step::HalfClose(client),
            6 => Step::Close(client),
            7 => Step::Reset(client),
            8 => Step::Vanish(client),
            9 => Step::ComeBack(client),
            10 => Step::Break(client),
            11 => Step::Mail(rng.usize(0..length_max)),
            12 => Step::Pass(rng.u64(1..1500)),
            13 => Step::StandStill(rng.choice([50, 3000, 600_000]).expect("some")),
            14 => Step::Dial,
            15 => Step::Gate(
                rng.choice([Admission::Wait, Admission::Refuse, Admission::Open]).expect("some"),
            ),
            _ => Step::Drain(rng.choice([0, 100, 2000]).expect("some")),
        };
        steps.push(step);
    }
    steps
}

/// The weights of the kinds, in the order of `steps`. Each run uses the kinds with at least the
/// weight `ALWAYS`.
const WEIGHTS: [u32; 17] = [25, 60, 50, 30, 60, 3, 3, 3, 3, 6, 1, 12, 8, 2, 8, 3, 1];
const ALWAYS: u32 = 20;

/// The kinds of messages with their weights: most messages do not end the connection.
const SAYS: [(Say, u32); 16] = [
    (Say::Get(0), 6),
    (Say::Post(0), 6),
    (Say::Message(0), 20),
    (Say::Pieces(0), 10),
    (Say::Ping, 4),
    (Say::Pong, 2),
    (Say::Splinters, 1),
    (Say::Refused, 2),
    (Say::Upgrade, 4),
    (Say::Later, 2),
    (Say::Never, 1),
    (Say::GetLast(0), 1),
    (Say::Close, 1),
    (Say::AskClose, 1),
    (Say::AskAbort, 1),
    (Say::Garbage(0), 1),
];

fn some(rng: &mut Rng, weight: u32) -> u32 {
    if weight >= ALWAYS || rng.bool() { weight } else { 0 }
}

fn weighted(rng: &mut Rng, weights: &[u32]) -> usize {
    let mut at = rng.u32(0..weights.iter().sum());
    for (index, &weight) in weights.iter().enumerate() {
        if at < weight {
            return index;
        }
        at -= weight;
    }
    unreachable!("below the sum")
}

impl Say {
    /// The same message with another length.
    fn long(self, length: usize) -> Self {
        match self {
            Say::Get(_) => Say::Get(length),
            Say::GetLast(_) => Say::GetLast(length),
            Say::Post(_) => Say::Post(length),
            Say::Message(_) => Say::Message(length),
            Say::Pieces(_) => Say::Pieces(length),
            Say::Garbage(_) => Say::Garbage(length),
            other => other,
        }
    }
}

impl Step {
    /// The client of the step, if it has one.
    pub(crate) fn client(self) -> Option<usize> {
        match self {
            Step::Connect(client)
            | Step::Say(client, _)
            | Step::Write(client, _)
            | Step::Read(client, _)
            | Step::HalfClose(client)
            | Step::Close(client)
            | Step::Reset(client)
            | Step::Vanish(client)
            | Step::ComeBack(client)
            | Step::Break(client) => Some(client),
            _ => None,
        }
    }

    /// The same step with a smaller amount, if possible.
    pub(crate) fn less(self) -> Option<Self> {
        let less = match self {
            Step::Say(client, Say::Get(length)) => Step::Say(client, Say::Get(length / 2)),
            Step::Say(client, Say::GetLast(length)) => Step::Say(client, Say::GetLast(length / 2)),
            Step::Say(client, Say::Post(length)) => Step::Say(client, Say::Post(length / 2)),
            Step::Say(client, Say::Message(length)) => Step::Say(client, Say::Message(length / 2)),
            Step::Say(client, Say::Pieces(length)) => Step::Say(client, Say::Pieces(length / 2)),
            Step::Say(client, Say::Garbage(length)) => Step::Say(client, Say::Garbage(length / 2)),
            Step::Mail(length) => Step::Mail(length / 2),
            Step::Turns(turns) => Step::Turns(turns.div_ceil(2)),
            Step::Pass(ms) => Step::Pass(ms / 2),
            Step::StandStill(ms) => Step::StandStill(ms / 2),
            Step::Drain(ms) => Step::Drain(ms / 2),
            other => other,
        };
        (less != self).then_some(less)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ring, shard) = (&self.ring, &self.shard);
        writeln!(
            f,
            "{} slots, {} buffers of {} bytes, {} bytes a socket, at most {} bytes queued",
            shard.max_conns,
            ring.buffers,
            ring.buffer_bytes,
            ring.socket_bytes,
            shard.max_send_bytes
        )?;
        write!(f, "{:?}", self.steps)
    }
}
