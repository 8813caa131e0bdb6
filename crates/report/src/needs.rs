//! Conditions that a run must meet to show a promise.

use murre_record::Scenario;

use crate::figures::grouped;
use crate::records::{Parameters, Run};
use crate::values::error_rate;

/// Conditions that a run must meet to show a promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) scenarios: &'static [Scenario],
    /// Connections reached: from the first, and fewer than the second.
    pub(crate) conns: (u64, u64),
    pub(crate) hold_seconds: f64,
    /// One of these, if there are any.
    pub(crate) idle: &'static [&'static str],
    pub(crate) unthrottled: bool,
    pub(crate) descriptors: Option<&'static str>,
    pub(crate) open_files_max: Option<u64>,
    pub(crate) payload: Option<u64>,
    pub(crate) channels: Option<Channels>,
    /// Whether connections have users.
    pub(crate) users: bool,
    /// Whether the server is several nodes, of which some end meanwhile.
    pub(crate) nodes: bool,
    /// Whether messages are sent on a schedule, or each when one has come back.
    pub(crate) scheduled: bool,
    pub(crate) p90_ms_max: Option<f64>,
    pub(crate) faults_per_answer_max: Option<f64>,
}

impl Needs {
    pub(crate) const fn of(scenarios: &'static [Scenario], conns_min: u64) -> Needs {
        Needs {
            scenarios,
            conns: (conns_min, u64::MAX),
            hold_seconds: 0.0,
            idle: &[],
            unthrottled: false,
            descriptors: None,
            open_files_max: None,
            payload: None,
            channels: None,
            users: false,
            nodes: false,
            scheduled: false,
            p90_ms_max: None,
            faults_per_answer_max: None,
        }
    }

    /// Why a run cannot show the promise. `None` if it can.
    pub(crate) fn unmet(&self, run: &Run) -> Option<String> {
        let p = &run.parameters;
        if !self.scenarios.contains(&run.scenario) {
            return Some("another scenario".to_owned());
        }
        let (from, below) = self.conns;
        if !(from..below).contains(&run.connections()) {
            let needed = grouped(from);
            let reached = grouped(run.connections());
            return Some(format!("{reached} connections instead of {needed}"));
        }
        let held = run.hold.as_ref().map_or(0.0, |hold| hold.seconds);
        if held < self.hold_seconds {
            return Some(format!("held for {held:.0} s instead of {:.0} s", self.hold_seconds));
        }
        if !self.idle.is_empty() && !self.idle.contains(&&p.idle[..]) {
            return Some(format!("idle {} s instead of {} s", p.idle, self.idle[0]));
        }
        if self.unthrottled && p.connect_rate > 0.0 {
            return Some("connects were paced by --connect-rate".to_owned());
        }
        let descriptors = run.memory.as_ref().map(|memory| &memory.server_descriptors[..]);
        if self.descriptors.is_some_and(|kind| descriptors.is_some_and(|own| own != kind)) {
            return Some(format!("{} descriptors", descriptors.unwrap_or_default()));
        }
        let files = run.machine.open_files_max;
        if let Some(max) = self.open_files_max.filter(|&max| files > max) {
            return Some(format!("open files were limited to {files}, not to {max}"));
        }
        if let Some(payload) = self.payload.filter(|&payload| payload != p.payload) {
            return Some(format!("messages of {} B instead of {payload} B", p.payload));
        }
        if self.channels.is_some_and(|channels| !channels.are(p)) {
            return Some(format!("{} channels", p.channels));
        }
        if p.token_secret_file.is_some() != self.users {
            return Some(if self.users { "anonymous connections" } else { "users" }.to_owned());
        }
        if run.nodes.is_some() != self.nodes {
            return Some(if self.nodes { "one node" } else { "several nodes" }.to_owned());
        }
        if p.rate.is_some() != self.scheduled {
            let pace = if self.scheduled { "no schedule" } else { "a schedule" };
            return Some(format!("messages were sent on {pace}"));
        }
        if let Some(max) = self.p90_ms_max {
            if run.latency_us.count == 0 {
                return Some("no answers".to_owned());
            }
            let p90 = run.latency_us.p90 as f64 / 1000.0;
            if p90 > max {
                return Some(format!("90 % within {p90:.0} ms instead of {max:.0} ms"));
            }
        }
        let errors = error_rate(run).unwrap_or(1.0);
        if self.faults_per_answer_max.is_some_and(|max| errors >= max) {
            return Some(format!("{:.2} % errors", errors * 100.0));
        }
        None
    }
}

/// The number of channels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Channels {
    One,
    /// So many.
    Number(u64),
    /// Each subscriber has its own.
    Own,
}

impl Channels {
    fn are(self, parameters: &Parameters) -> bool {
        match self {
            Channels::One => parameters.channels == 1,
            Channels::Number(number) => parameters.channels == number,
            Channels::Own => parameters.channels == parameters.conns,
        }
    }
}
