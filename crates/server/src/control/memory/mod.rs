//! The memory watch, which decides whether there is memory for more connections.
//!
//! [`Watch`] reads the available memory four times a second and sets the [`Gate`] that the shards
//! read. The documentation of the gate says how shards treat new connections while it is closed.

mod bounds;
mod decision;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use murre_core::{Admission, Gate};
use serde::Serialize;

use self::bounds::Bounds;
pub(crate) use self::decision::Headroom;
use self::decision::{Reading, State, Thresholds};
use crate::config::Config;

/// The time between two readings. A storm of 25,000 connections a second takes 26 MB in this time.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Reads memory and pressure, and sets the gate.
pub(crate) struct Watch {
    bounds: Bounds,
    pressure: Option<PathBuf>,
    thresholds: Thresholds,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

/// The last reading and decision, as `/stats` shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) admission: &'static str,
    /// The number of times that admission closed.
    pub(crate) closings: u64,
    pub(crate) memory: Vec<Headroom>,
    /// The share of the last ten seconds in which all tasks waited for memory, in percent.
    pub(crate) pressure: Option<f64>,
    pub(crate) pressure_max: f64,
}

impl Watch {
    /// A watch that has read memory once, so that shards start with a decision.
    pub(crate) fn new(config: &Config) -> Self {
        let thresholds = Thresholds {
            floor_bytes: config.limits.memory_floor_bytes,
            pressure_max: f64::from(config.limits.max_memory_pressure),
        };
        Self::over(Bounds::find(Path::new("/")), thresholds, Instant::now())
    }

    fn over(bounds: Bounds, thresholds: Thresholds, now: Instant) -> Self {
        let watch = Watch {
            pressure: bounds.pressure_file(),
            bounds,
            thresholds,
            gate: Arc::default(),
            state: Mutex::new(State::new(now)),
        };
        watch.decide(now);
        watch
    }

    /// Logs an error for each floor that is above its bound, because then no client is ever served.
    pub(crate) fn warn_of_hopeless_floors(&self) {
        for left in self.state().memory.iter().filter(|left| left.is_hopeless()) {
            tracing::error!(
                memory = %left,
                flag = "--memory-floor-bytes",
                "no connection will be admitted: the floor is above all the memory there is; lower the \
                 flag"
            );
        }
    }

    /// The gate that the shards read.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Whether new connections are served.
    pub(crate) fn admits(&self) -> bool {
        self.state().admission == Admission::Open
    }

    /// The last reading and decision.
    pub(crate) fn seen(&self) -> Seen {
        let state = self.state();
        Seen {
            admission: name(state.admission),
            closings: state.closings,
            memory: state.memory.clone(),
            pressure: state.pressure,
            pressure_max: self.thresholds.pressure_max,
        }
    }

    /// Reads memory, decides, and logs a change. `refused` is the number of connections that were
    /// refused so far.
    pub(crate) fn check(&self, now: Instant, refused: u64) {
        self.decide(now);
        let mut state = self.state();
        let (before, admission) = (state.logged, state.admission);
        if before == admission {
            return;
        }
        state.logged = admission;
        let (memory, pressure) = (Shortest(&state.memory), state.pressure);
        match admission {
            Admission::Open => {
                let closed_for = now.saturating_duration_since(state.closed_since);
                tracing::info!(%memory, pressure, ?closed_for, refused, "admission is open again");
            }
            Admission::Refuse => tracing::warn!(
                %memory,
                pressure,
                flag = FLAGS,
                "memory is short: new connections are answered with 503; give the machine or the \
                 control group more memory, or move the bounds"
            ),
            Admission::Wait => tracing::warn!(
                %memory,
                pressure,
                flag = FLAGS,
                "memory is very short: new connections wait in the backlog; give the machine or the \
                 control group more memory, or move the bounds"
            ),
        }
    }

    fn decide(&self, now: Instant) {
        let reading = self.read();
        let mut state = self.state();
        match &reading {
            Err(error) if !state.unreadable => {
                tracing::warn!(%error, "memory cannot be read: the last reading holds");
            }
            _ => {}
        }
        state.unreadable = reading.is_err();
        state.update(now, reading.ok(), &self.thresholds);
        self.gate.set(state.admission);
    }

    fn read(&self) -> io::Result<Reading> {
        let bounds = self.bounds.read()?;
        let text = self.pressure.as_deref().map(bounds::read).transpose()?.flatten();
        Ok(Reading { bounds, pressure: text.and_then(|text| bounds::pressure(&text)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every field is valid at any time, so the state is valid after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings that change the thresholds.
const FLAGS: &str = "--memory-floor-bytes, --max-memory-pressure";

/// All bounds, in the form of log lines.
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let parts: Vec<String> = state.memory.iter().map(|left| left.to_string()).collect();
        let unknown = "unknown: neither /proc/meminfo nor a control group can be read";
        f.write_str(if parts.is_empty() { unknown } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// The bound with the least headroom, in the form of log lines.
struct Shortest<'m>(&'m [Headroom]);

impl fmt::Display for Shortest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shortest =
            self.0.iter().min_by(|one, other| one.in_floors().total_cmp(&other.in_floors()));
        shortest.map_or(Ok(()), |left| left.fmt(f))
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
    use std::fs;

    use super::*;

    /// Memory that cannot be read is not taken for unlimited memory: the last decision holds until
    /// memory can be read again.
    #[test]
    fn the_last_reading_holds() {
        let meminfo = "proc/meminfo";
        let [short, ample] =
            [100, 900].map(|kib| format!("MemTotal: 1000 kB\nMemAvailable: {kib} kB\n"));
        let root = bounds::tests::machine("unreadable", &[(meminfo, &short)]);
        let file = root.join(meminfo);
        let thresholds = Thresholds { floor_bytes: Some(150 << 10), pressure_max: 100.0 };
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let watch = Watch::over(Bounds::find(&root), thresholds, now);
        assert_eq!(watch.seen().admission, "refuse");
        fs::remove_file(&file).expect("it was there");
        // A folder exists and cannot be read as a file, even by root.
        fs::create_dir(&file).expect("room");
        watch.decide(at(60));
        assert_eq!((watch.seen().admission, watch.seen().memory.len()), ("refuse", 1));
        fs::remove_dir(&file).expect("it was there");
        fs::write(&file, ample).expect("room");
        watch.decide(at(120));
        assert_eq!(watch.seen().admission, "open");
        fs::remove_dir_all(&root).expect("it was there");
    }
}
