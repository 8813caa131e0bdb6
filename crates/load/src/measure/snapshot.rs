//! Counts and clocks at the borders of the phases. Two of them make a section of the record.

use std::time::{Duration, Instant};

use crate::engine::score::Totals;
use crate::engine::workers::Workers;
use crate::measure::machine;
use murre_record::{Connect, Hold};

/// Counts and clocks at a moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    pub(crate) totals: Totals,
    pub(crate) client_cpu: Duration,
    /// Of each process of the server that is there.
    server_cpu: Vec<Option<Duration>>,
}

impl Snapshot {
    pub(crate) fn now(workers: &Workers, server_pids: &[i32]) -> Snapshot {
        Snapshot {
            at: Instant::now(),
            totals: workers.totals(),
            client_cpu: machine::cpu_own(),
            server_cpu: server_pids.iter().copied().map(machine::cpu_of).collect(),
        }
    }

    /// The connect phase, from here to `full`.
    pub(crate) fn connect_until(&self, full: &Snapshot) -> Connect {
        let seconds = full.at.saturating_duration_since(self.at).as_secs_f64();
        let connections = full.totals.ready;
        let server_cpu_seconds = self.server_cpu_until(full);
        Connect {
            seconds,
            connections,
            connections_per_second: per(connections, Some(seconds)).unwrap_or_default(),
            client_cpu_seconds: (full.client_cpu - self.client_cpu).as_secs_f64(),
            server_cpu_seconds,
            connections_per_server_cpu_second: per(connections, server_cpu_seconds),
        }
    }

    /// The hold phase, from here to `end`.
    pub(crate) fn hold_until(&self, end: &Snapshot) -> Hold {
        let seconds = end.at.saturating_duration_since(self.at).as_secs_f64();
        let requests = end.totals.answered - self.totals.answered;
        let server_cpu_seconds = self.server_cpu_until(end);
        Hold {
            seconds,
            requests,
            requests_per_second: per(requests, Some(seconds)).unwrap_or_default(),
            bytes_in: end.totals.bytes_in - self.totals.bytes_in,
            bytes_out: end.totals.bytes_out - self.totals.bytes_out,
            client_cpu_seconds: (end.client_cpu - self.client_cpu).as_secs_f64(),
            server_cpu_seconds,
            requests_per_server_cpu_second: per(requests, server_cpu_seconds),
        }
    }

    fn server_cpu_until(&self, end: &Snapshot) -> Option<f64> {
        // A node that has ended meanwhile is left out.
        let spent = self.server_cpu.iter().zip(&end.server_cpu);
        let spent = spent.filter_map(|(from, to)| Some((*to)?.saturating_sub((*from)?)));
        spent.map(|spent| spent.as_secs_f64()).reduce(|sum, spent| sum + spent)
    }
}

/// `n` per second of `seconds`; `None` where there was no time to divide by.
fn per(n: u64, seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|&seconds| seconds > 0.0).map(|seconds| n as f64 / seconds)
}
