//! Whether there is memory for more connections.
//!
//! [`Watch`] reads what is left, a few times a second on the control plane's thread, and sets the
//! [`Gate`] that the shards read; what a closed gate means for who comes is told there. It closes
//! below a floor and opens again above it, by a quarter, and not before some seconds have passed:
//! what has just been given back is taken again at once where a crowd is waiting.

mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use murre_core::{Admission, Gate};
use serde::Serialize;

use crate::config::Config;
use memory::{Bound, Bounds};

/// How often memory is looked at. A storm of 25,000 connections a second takes 26 MB meanwhile.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What decides, and what it was that decided.
pub(crate) struct Watch {
    bounds: Bounds,
    pressure: Option<PathBuf>,
    limits: Limits,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

/// Where the gate closes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// `None`: by the size of what is bounded.
    floor_bytes: Option<u64>,
    pressure_max: f64,
}

/// What was read, and what was decided.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) admission: &'static str,
    /// How often it was closed.
    pub(crate) closings: u64,
    pub(crate) memory: Vec<Left>,
    /// The share of the last ten seconds in which nobody got on for want of memory, in percent.
    pub(crate) pressure: Option<f64>,
    pub(crate) pressure_max: f64,
}

/// How much is left of something, and how much should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Left {
    #[serde(flatten)]
    bound: Bound,
    pub(crate) floor_bytes: u64,
}

/// What is remembered from one look to the next.
struct State {
    admission: Admission,
    /// When it was last tightened or loosened.
    since: Instant,
    closed_since: Instant,
    closings: u64,
    memory: Vec<Left>,
    pressure: Option<f64>,
    /// What the log has been told last.
    told: Admission,
}

/// Once closed, for this long at least, and no wider in one step: it does not flap, and the log has
/// few lines.
const LOOSEN_AFTER: Duration = Duration::from_secs(5);
/// What is loosened needs so much more than what is kept.
const LOOSEN_RATIO: f64 = 1.25;
/// The floor, if none is given: a twentieth, within these. A storm takes tens of megabytes between
/// two looks, and those who are connected need room to talk.
const FLOOR_PART: u64 = 20;
const FLOOR_BYTES_MIN: u64 = 64 << 20;
const FLOOR_BYTES_MAX: u64 = 512 << 20;

impl Watch {
    /// Looks for the first time, so that shards start with what is so.
    pub(crate) fn new(config: &Config) -> Self {
        let bounds = Bounds::find(Path::new("/"));
        let now = Instant::now();
        let watch = Watch {
            pressure: bounds.pressure_file(),
            bounds,
            limits: Limits {
                floor_bytes: config.limits.memory_floor_bytes,
                pressure_max: f64::from(config.limits.max_memory_pressure),
            },
            gate: Arc::default(),
            state: Mutex::new(State::new(now)),
        };
        watch.decide(now);
        watch
    }

    /// What the shards read.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// What was read last.
    pub(crate) fn seen(&self) -> Seen {
        let state = self.state();
        Seen {
            admission: name(state.admission),
            closings: state.closings,
            memory: state.memory.clone(),
            pressure: state.pressure,
            pressure_max: self.limits.pressure_max,
        }
    }

    /// Looks again, and logs what has changed; `refused` is how many connections were refused so far.
    pub(crate) fn look(&self, now: Instant, refused: u64) {
        self.decide(now);
        let mut state = self.state();
        let (before, admission) = (state.told, state.admission);
        if before == admission {
            return;
        }
        state.told = admission;
        let (memory, pressure) = (Shortest(&state.memory), state.pressure);
        match admission {
            Admission::Open => {
                let closed_for = now.saturating_duration_since(state.closed_since);
                tracing::info!(%memory, pressure, ?closed_for, refused, "admission is open again");
            }
            Admission::Refuse => tracing::warn!(
                %memory,
                pressure,
                "memory is short: new connections are answered with 503"
            ),
            Admission::Wait => tracing::warn!(
                %memory,
                pressure,
                "memory is very short: new connections wait in the backlog"
            ),
        }
    }

    fn decide(&self, now: Instant) {
        let text = self.pressure.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let pressure = text.and_then(|text| memory::pressure(&text));
        let mut state = self.state();
        state.see(now, self.bounds.read(), pressure, &self.limits);
        self.gate.set(state.admission);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What is in it is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now: Instant) -> Self {
        State {
            admission: Admission::Open,
            since: now,
            closed_since: now,
            closings: 0,
            memory: Vec::new(),
            pressure: None,
            told: Admission::Open,
        }
    }

    /// Closes at once, and opens late.
    fn see(&mut self, now: Instant, bounds: Vec<Bound>, pressure: Option<f64>, limits: &Limits) {
        let with_floor = |bound: Bound| Left { floor_bytes: limits.floor(bound.bytes), bound };
        self.memory = bounds.into_iter().map(with_floor).collect();
        self.pressure = pressure;
        let (tight, loose) = (self.allowed(1.0, limits), self.allowed(LOOSEN_RATIO, limits));
        let next = self.admission.min(tight).max(loose);
        let waits = next > self.admission && now < self.since + LOOSEN_AFTER;
        if next == self.admission || waits {
            return;
        }
        if self.admission == Admission::Open {
            self.closed_since = now;
            self.closings += 1;
        }
        (self.admission, self.since) = (next, now);
    }

    /// What is allowed where everything has to be better than its limit by `ratio`.
    fn allowed(&self, ratio: f64, limits: &Limits) -> Admission {
        let memory = self.memory.iter().map(|left| left.in_floors() / ratio).map(|floors| {
            if floors >= 1.0 {
                Admission::Open
            } else if floors >= 0.5 {
                Admission::Refuse
            } else {
                Admission::Wait
            }
        });
        let pressed = self.pressure.is_some_and(|pressure| pressure * ratio > limits.pressure_max);
        let pressure = if pressed { Admission::Refuse } else { Admission::Open };
        memory.min().unwrap_or(Admission::Open).min(pressure)
    }
}

impl Limits {
    fn floor(&self, bytes: u64) -> u64 {
        let usual = (bytes / FLOOR_PART).clamp(FLOOR_BYTES_MIN, FLOOR_BYTES_MAX);
        self.floor_bytes.unwrap_or(usual)
    }
}

impl Left {
    /// Of what it is left.
    pub(crate) fn of(&self) -> &str {
        &self.bound.of
    }

    pub(crate) fn available_bytes(&self) -> u64 {
        self.bound.available_bytes
    }

    /// How many times the floor is left; without a floor as many as there can be.
    fn in_floors(&self) -> f64 {
        match self.floor_bytes {
            0 => f64::INFINITY,
            floor => self.bound.available_bytes as f64 / floor as f64,
        }
    }
}

/// All that is watched, for people.
impl std::fmt::Display for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        let parts: Vec<String> = state.memory.iter().map(|left| left.to_string()).collect();
        let unknown = "unknown: neither /proc/meminfo nor a control group can be read";
        f.write_str(if parts.is_empty() { unknown } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// The bound of which least is left, for people.
struct Shortest<'m>(&'m [Left]);

impl std::fmt::Display for Shortest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shortest =
            self.0.iter().min_by(|one, other| one.in_floors().total_cmp(&other.in_floors()));
        shortest.map_or(Ok(()), |left| left.fmt(f))
    }
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Left { bound, floor_bytes } = self;
        let [left, all, floor] =
            [bound.available_bytes, bound.bytes, *floor_bytes].map(|bytes| bytes >> 20);
        write!(f, "{}: {left} of {all} MiB are left, {floor} should be", bound.of)
    }
}

fn name(admission: Admission) -> &'static str {
    match admission {
        Admission::Open => "open",
        Admission::Refuse => "refuse",
        Admission::Wait => "wait",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { floor_bytes: Some(1000), pressure_max: 20.0 };
    const LATER: Duration = Duration::from_secs(5);

    /// What is decided when so much is left, at one moment after the other.
    fn decided(looks: &[(u64, Option<f64>, Duration)]) -> (Vec<Admission>, u64) {
        let mut now = Instant::now();
        let mut state = State::new(now);
        let decided = looks.iter().map(|&(available_bytes, pressure, passed)| {
            now += passed;
            let ample = Bound { of: "machine".into(), bytes: 1 << 40, available_bytes: 1 << 40 };
            let group = Bound { of: "group".into(), bytes: 5000, available_bytes };
            state.see(now, vec![ample, group], pressure, &LIMITS);
            state.admission
        });
        (decided.collect(), state.closings)
    }

    fn by_memory(left: &[u64]) -> Vec<Admission> {
        let looks: Vec<_> = left.iter().map(|&left| (left, Some(0.0), LATER)).collect();
        decided(&looks).0
    }

    use Admission::{Open, Refuse, Wait};

    /// It closes below the floor, more so below half of it, and opens a quarter above either.
    #[test]
    fn it_closes_and_opens_by_memory() {
        assert_eq!(by_memory(&[1000, 999, 1000, 1249, 1250]), [Open, Refuse, Refuse, Refuse, Open]);
        assert_eq!(by_memory(&[499, 500, 624, 625, 499]), [Wait, Wait, Wait, Refuse, Wait]);
        assert_eq!(by_memory(&[0, 1_249, 0, 5000]), [Wait, Refuse, Wait, Open]);
    }

    /// It closes at once, and opens only after a while, so that it closes and opens at most so often.
    #[test]
    fn it_does_not_flap() {
        let soon = Duration::from_millis(250);
        let looks: Vec<_> =
            (0..40).map(|look| (if look % 2 == 0 { 900 } else { 5000 }, None, soon)).collect();
        let (admissions, closings) = decided(&looks);
        // 10 s: closed at 0.25, opened at 5.25 at the earliest, closed at the next look.
        assert_eq!(closings, 2);
        assert_eq!(admissions.iter().filter(|&&admission| admission == Open).count(), 1);
    }

    /// Under pressure it refuses, whatever is left, and until there is a fifth less of it.
    #[test]
    fn it_closes_by_pressure() {
        let looks = [20.0, 20.1, 16.1, 16.0].map(|pressure| (5000, Some(pressure), LATER));
        assert_eq!(decided(&looks).0, [Open, Refuse, Refuse, Open]);
        assert_eq!(decided(&[(400, Some(99.0), LATER)]).0, [Wait]);
    }

    /// Where nothing can be read, everybody is let in; so too without a floor.
    #[test]
    fn what_is_not_known_closes_nothing() {
        let now = Instant::now();
        let mut state = State::new(now);
        state.see(now, Vec::new(), None, &LIMITS);
        assert_eq!(state.admission, Open);
        let none = Bound { of: "machine".into(), bytes: 5000, available_bytes: 0 };
        state.see(now, vec![none], None, &Limits { floor_bytes: Some(0), ..LIMITS });
        assert_eq!(state.admission, Open);
    }

    /// The floor by itself is a twentieth, but enough for a storm and no waste.
    #[test]
    fn the_usual_floor() {
        let usual = Limits { floor_bytes: None, ..LIMITS };
        let mib = |mib: u64| usual.floor(mib << 20) >> 20;
        assert_eq!([512, 2000, 8000, 24_000].map(mib), [64, 100, 400, 512]);
    }
}
