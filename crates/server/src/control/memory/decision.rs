//! The decision whether memory and pressure allow new connections.
//!
//! Admission closes at once below a floor. It opens again at a quarter above the floor, and at
//! least 5 s after it closed, because waiting clients take memory again as soon as it is free.

use std::fmt;
use std::time::{Duration, Instant};

use murre_core::Admission;
use serde::Serialize;

use super::bounds::Bound;

/// The thresholds at which admission closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    /// The least available memory; `None` derives it from the size of each bound.
    pub(super) floor_bytes: Option<u64>,
    /// In percent of ten seconds.
    pub(super) pressure_max: f64,
}

/// The memory and pressure at one time.
pub(super) struct Reading {
    pub(super) bounds: Vec<Bound>,
    /// In percent of ten seconds, where the kernel reports it.
    pub(super) pressure: Option<f64>,
}

/// A bound with its floor: the bytes that should be available.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Headroom {
    #[serde(flatten)]
    bound: Bound,
    pub(crate) floor_bytes: u64,
}

/// The last reading and decision.
pub(super) struct State {
    pub(super) admission: Admission,
    /// When `admission` changed last.
    since: Instant,
    pub(super) closed_since: Instant,
    pub(super) closings: u64,
    pub(super) memory: Vec<Headroom>,
    pub(super) pressure: Option<f64>,
    /// The admission that was logged last.
    pub(super) logged: Admission,
    /// Whether the log says that memory cannot be read.
    pub(super) unreadable: bool,
}

/// Admission stays at a step for at least this long before it loosens by one or more steps.
const LOOSEN_AFTER: Duration = Duration::from_secs(5);
/// Admission loosens when every reading is better than its threshold by this factor.
const LOOSEN_RATIO: f64 = 1.25;
/// The default floor is a twentieth of the memory, between the two limits below. A connection storm
/// takes tens of megabytes between two readings, and connected clients need memory, too.
const FLOOR_PART: u64 = 20;
const FLOOR_BYTES_MIN: u64 = 64 << 20;
const FLOOR_BYTES_MAX: u64 = 512 << 20;
/// The default floor is at most a quarter of a small bound. The process itself needs memory, so a
/// floor near the bound would never admit a connection.
const FLOOR_PART_MAX: u64 = 4;

impl State {
    /// An open admission before the first reading.
    pub(super) fn new(now: Instant) -> Self {
        State {
            admission: Admission::Open,
            since: now,
            closed_since: now,
            closings: 0,
            memory: Vec::new(),
            pressure: None,
            logged: Admission::Open,
            unreadable: false,
        }
    }

    /// Decides by the `reading` at the time `now`. If it is `None`, memory could not be read and
    /// the last reading holds.
    pub(super) fn update(
        &mut self,
        now: Instant,
        reading: Option<Reading>,
        thresholds: &Thresholds,
    ) {
        let with_floor =
            |bound: Bound| Headroom { floor_bytes: thresholds.floor(bound.bytes), bound };
        if let Some(Reading { bounds, pressure }) = reading {
            self.memory = bounds.into_iter().map(with_floor).collect();
            self.pressure = pressure;
        }
        let (tight, loose) =
            (self.allowed(1.0, thresholds), self.allowed(LOOSEN_RATIO, thresholds));
        let next = self.admission.min(tight).max(loose);
        let too_soon =
            next > self.admission && now.saturating_duration_since(self.since) < LOOSEN_AFTER;
        if next == self.admission || too_soon {
            return;
        }
        if self.admission == Admission::Open {
            self.closed_since = now;
            self.closings += 1;
        }
        (self.admission, self.since) = (next, now);
    }

    /// The admission if every reading must be better than its threshold by the factor `ratio`.
    fn allowed(&self, ratio: f64, thresholds: &Thresholds) -> Admission {
        let memory = self.memory.iter().map(|left| left.in_floors() / ratio).map(|floors| {
            if floors >= 1.0 {
                Admission::Open
            } else if floors >= 0.5 {
                Admission::Refuse
            } else {
                Admission::Wait
            }
        });
        let pressed =
            self.pressure.is_some_and(|pressure| pressure * ratio > thresholds.pressure_max);
        let pressure = if pressed { Admission::Refuse } else { Admission::Open };
        memory.min().unwrap_or(Admission::Open).min(pressure)
    }
}

impl Thresholds {
    /// The floor of a bound of `bytes` bytes, in bytes.
    fn floor(&self, bytes: u64) -> u64 {
        let default = (bytes / FLOOR_PART).clamp(FLOOR_BYTES_MIN, FLOOR_BYTES_MAX);
        self.floor_bytes.unwrap_or(default.min(bytes / FLOOR_PART_MAX))
    }
}

impl Headroom {
    /// The name of the bound.
    pub(crate) fn of(&self) -> &str {
        &self.bound.of
    }

    /// The available memory of the bound, in bytes.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.bound.available_bytes
    }

    /// Whether the floor is larger than the bound, so that no connection is ever admitted.
    pub(super) fn is_hopeless(&self) -> bool {
        self.floor_bytes > self.bound.bytes
    }

    /// The available memory as a multiple of the floor; infinite without a floor.
    pub(super) fn in_floors(&self) -> f64 {
        match self.floor_bytes {
            0 => f64::INFINITY,
            floor => self.bound.available_bytes as f64 / floor as f64,
        }
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Headroom { bound, floor_bytes } = self;
        let [left, all, floor] =
            [bound.available_bytes, bound.bytes, *floor_bytes].map(|bytes| bytes >> 20);
        write!(f, "{}: {left} of {all} MiB are left, {floor} should be", bound.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { floor_bytes: Some(1000), pressure_max: 20.0 };
    const LATER: Duration = Duration::from_secs(5);

    /// The decisions and the number of closings after a series of readings. Each has the available
    /// bytes, the pressure in percent and the time since the reading before.
    fn decided(looks: &[(u64, Option<f64>, Duration)]) -> (Vec<Admission>, u64) {
        let mut now = Instant::now();
        let mut state = State::new(now);
        let decided = looks.iter().map(|&(available_bytes, pressure, passed)| {
            now += passed;
            let ample = Bound { of: "machine".into(), bytes: 1 << 40, available_bytes: 1 << 40 };
            let group = Bound { of: "group".into(), bytes: 5000, available_bytes };
            let reading = Reading { bounds: vec![ample, group], pressure };
            state.update(now, Some(reading), &THRESHOLDS);
            state.admission
        });
        (decided.collect(), state.closings)
    }

    fn by_memory(left: &[u64]) -> Vec<Admission> {
        let looks: Vec<_> = left.iter().map(|&left| (left, Some(0.0), LATER)).collect();
        decided(&looks).0
    }

    use Admission::{Open, Refuse, Wait};

    /// Admission refuses below the floor, waits below half of it, and loosens a quarter above
    /// either.
    #[test]
    fn it_closes_and_opens_by_memory() {
        assert_eq!(by_memory(&[1000, 999, 1000, 1249, 1250]), [Open, Refuse, Refuse, Refuse, Open]);
        assert_eq!(by_memory(&[499, 500, 624, 625, 499]), [Wait, Wait, Wait, Refuse, Wait]);
        assert_eq!(by_memory(&[0, 1_249, 0, 5000]), [Wait, Refuse, Wait, Open]);
    }

    /// Admission closes at once and opens 5 s later at the earliest, so it does not flap.
    #[test]
    fn it_does_not_flap() {
        let soon = Duration::from_millis(250);
        let looks: Vec<_> =
            (0..40).map(|look| (if look % 2 == 0 { 900 } else { 5000 }, None, soon)).collect();
        let (admissions, closings) = decided(&looks);
        // In 10 s, admission closes at 0.25 s, opens at 5.25 s at the earliest, and closes at the
        // next reading.
        assert_eq!(closings, 2);
        assert_eq!(admissions.iter().filter(|&&admission| admission == Open).count(), 1);
    }

    /// Pressure above the threshold refuses connections even if memory is available, until the
    /// pressure has fallen by a fifth.
    #[test]
    fn it_closes_by_pressure() {
        let looks = [20.0, 20.1, 16.1, 16.0].map(|pressure| (5000, Some(pressure), LATER));
        assert_eq!(decided(&looks).0, [Open, Refuse, Refuse, Open]);
        assert_eq!(decided(&[(400, Some(99.0), LATER)]).0, [Wait]);
    }

    /// Admission is open if there are no bounds and no pressure, and if the floor is 0.
    #[test]
    fn what_is_not_known_closes_nothing() {
        let now = Instant::now();
        let mut state = State::new(now);
        state.update(now, Some(Reading { bounds: Vec::new(), pressure: None }), &THRESHOLDS);
        assert_eq!(state.admission, Open);
        let none = Bound { of: "machine".into(), bytes: 5000, available_bytes: 0 };
        state.update(
            now,
            Some(Reading { bounds: vec![none], pressure: None }),
            &Thresholds { floor_bytes: Some(0), ..THRESHOLDS },
        );
        assert_eq!(state.admission, Open);
    }

    /// The default floor is a twentieth of the bound, between 64 and 512 MiB, and a quarter of a
    /// bound below 256 MiB. So every bound admits connections while a quarter of it is available. A
    /// configured floor replaces the default.
    #[test]
    fn the_default_floor() {
        let default = Thresholds { floor_bytes: None, ..THRESHOLDS };
        let mib = |mib: u64| default.floor(mib << 20) >> 20;
        assert_eq!([512, 2000, 8000, 24_000].map(mib), [64, 100, 400, 512]);
        assert_eq!([4, 16, 64, 128, 256].map(mib), [1, 4, 16, 32, 64]);
        for bytes in (0..40).map(|bits| (1_u64 << bits) - 1) {
            assert!(default.floor(bytes) <= bytes / 4, "{bytes}");
        }
        assert_eq!(THRESHOLDS.floor(64 << 20), 1000);
    }

    /// A floor above its bound is hopeless; a bound without available memory at present is not.
    #[test]
    fn floors_that_are_never_reached() {
        let headroom = |bytes, floor_bytes| Headroom {
            bound: Bound { of: "group".into(), bytes, available_bytes: 0 },
            floor_bytes,
        };
        assert!(headroom(1000, 1001).is_hopeless());
        assert!(!headroom(1000, 1000).is_hopeless() && !headroom(0, 0).is_hopeless());
    }
}
