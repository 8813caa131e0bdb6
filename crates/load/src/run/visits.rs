//! The hold phases of `abuse` and `soak`.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use murre_record::{Remains, SoakFacts, VisitFacts};
use serde_json::Value;

use crate::engine::orders::Phase;
use crate::measure::admin;
use crate::measure::reading::Reading;
use crate::run::phases::{Early, POLL, Run};

impl Run {
    /// Twice: quiet, abuse, a pause in which the server clears up.
    pub(super) fn abuse(&mut self) -> Result<(), Early> {
        let span = self.job.common.duration;
        for _ in 0..2 {
            self.phase(Phase::Quiet, span, |_| true)?;
            self.phase(Phase::Visit, span, |_| true)?;
            self.phase(Phase::Settle, SETTLE, |_| true)?;
        }
        self.judge_visits();
        Ok(())
    }

    /// A warm-up, after which everything has been used once; then the soak. The server's state after both is
    /// compared.
    pub(super) fn soak(&mut self, admin: SocketAddr) -> Result<(), Early> {
        let span = self.job.common.duration;
        let mut before = None;
        for span in [span.min(WARM_UP).max(span / 6), span] {
            self.phase(Phase::Visit, span, |_| true)?;
            self.phase(Phase::Settle, SETTLE, |_| true)?;
            let patience = Instant::now() + self.job.common.timeout;
            let after = loop {
                let after = match self.remains(admin) {
                    Ok(after) => after,
                    Err(error) => return self.fail(format!("{error:#}")),
                };
                let left = left(&after, before.as_ref());
                if left.is_empty() || Instant::now() >= patience {
                    self.reasons.extend(left);
                    break after;
                }
                thread::sleep(POLL * 10);
            };
            match before.take() {
                None => before = Some(after),
                Some(before) => self.soaked = Some(SoakFacts { before, after }),
            }
        }
        self.judge_visits();
        Ok(())
    }

    fn remains(&self, admin: SocketAddr) -> anyhow::Result<Remains> {
        let stats = admin::stats(admin)?;
        let pid = self.job.common.server();
        let reading = pid.map(Reading::take).transpose()?;
        let files =
            |pid| fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|all| all.count() as u64);
        let left = ZERO.map(|name| (name.to_owned(), number(&stats, name)));
        let mut remains = Remains {
            not_zero: left.into_iter().filter(|(_, value)| *value > 0).collect(),
            accepted: number(&stats, "connections_accepted"),
            files: pid.and_then(files),
            pss_bytes: reading.as_ref().map(|reading| reading.server.pss_bytes),
            ..Remains::default()
        };
        let slabs = reading.and_then(|reading| reading.slabs);
        for cache in slabs.iter().flat_map(|slabs| slabs.0.values()) {
            if let Some(name) = OBJECTS.into_iter().find(|name| cache.is(name)) {
                remains.objects.insert(name.to_owned(), cache.objects);
                remains.slack_objects = remains.slack_objects.max(cache.slack_objects);
            }
        }
        Ok(remains)
    }

    fn judge_visits(&mut self) {
        for (name, VisitFacts { otherwise, first_otherwise, begun, .. }) in
            self.job.scenario.visit_facts()
        {
            let first = first_otherwise.unwrap_or_default();
            if otherwise > 0 {
                self.reasons.push(format!("{name}: {otherwise} of {begun} ended wrongly: {first}"));
            }
            if begun == 0 {
                self.reasons.push(format!("{name}: no connection got to it: raise --duration"));
            }
        }
    }
}

fn number(stats: &Value, name: &str) -> u64 {
    stats["total"][name].as_u64().unwrap_or_else(|| panic!("/stats has no {name}"))
}

/// What is left behind, in words; compared with `before`, if that is known.
fn left(after: &Remains, before: Option<&Remains>) -> Vec<String> {
    let mut left: Vec<String> =
        after.not_zero.iter().map(|(name, value)| format!("left behind: {value} {name}")).collect();
    let Some(before) = before else { return left };
    let mut compare = |what: &dyn fmt::Display, before: u64, after: u64, room: u64| {
        if after > before + room {
            left.push(format!("left behind: {what} grew from {before} to {after}"));
        }
    };
    if let (Some(before), Some(after)) = (before.files, after.files) {
        compare(&"open files", before, after, 0);
    }
    if let (Some(before), Some(after)) = (before.pss_bytes, after.pss_bytes) {
        compare(&"memory", before, after, before / PSS_PART + PSS_BYTES);
    }
    // A leak of one object of twenty connections is found; fewer may be sockets of other programs.
    let room = after.slack_objects + (after.accepted - before.accepted) / 20;
    for (name, after) in &after.objects {
        let before = before.objects.get(name).copied().unwrap_or_default();
        compare(&format_args!("objects of {name}"), before, *after, room);
    }
    left
}

/// Numbers of `/stats` that are 0 without connections.
const ZERO: [&str; 18] = [
    "connections_open",
    "websockets_open",
    "connections_authenticated",
    "connections_lagging",
    "subscriptions_lagging",
    "log_publications",
    "channels",
    "subscriptions",
    "messages_waiting",
    "deliveries_waiting",
    "services",
    "requests_waiting",
    "requests_parked_bytes",
    "commands_waiting",
    "tokens_expiring",
    "buffers_lent",
    "sends_waiting",
    "inputs_waiting",
];

/// Objects that the kernel has for each socket.
const OBJECTS: [&str; 3] = ["TCP", "sock_inode_cache", "filp"];

/// Growth of a server's memory that is not a leak: a twentieth, and the allocator's part for each thread.
const PSS_PART: u64 = 20;
const PSS_BYTES: u64 = 512 << 10;

/// How long the server has to itself after its visitors.
const SETTLE: Duration = Duration::from_secs(2);

/// How long everything takes to be used once.
const WARM_UP: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Shows each kind of remains that is found, and how much of it is none: a leak of one object
    /// in ten connections is one, of others' few sockets not.
    #[test]
    fn what_is_left_behind_is_named() {
        let before = Remains {
            accepted: 1000,
            files: Some(20),
            pss_bytes: Some(10 << 20),
            objects: BTreeMap::from([("TCP".to_owned(), 500)]),
            slack_objects: 100,
            ..Remains::default()
        };
        let after = Remains { accepted: 11_000, ..before.clone() };
        assert_eq!(left(&after, Some(&before)), Vec::<String>::new());
        let with = |change: &dyn Fn(&mut Remains)| {
            let mut changed = after.clone();
            change(&mut changed);
            left(&changed, Some(&before)).join("")
        };
        let objects = |count| with(&|after| after.objects.extend([("TCP".to_owned(), count)]));
        assert_eq!(objects(1100), "");
        assert_eq!(objects(1500), "left behind: objects of TCP grew from 500 to 1500");
        assert_eq!(
            with(&|after| after.files = Some(21)),
            "left behind: open files grew from 20 to 21"
        );
        assert_eq!(with(&|after| after.pss_bytes = Some(11 << 20)), "");
        let memory = with(&|after| after.pss_bytes = Some(12 << 20));
        assert_eq!(memory, "left behind: memory grew from 10485760 to 12582912");
        let mut busy = Remains::default();
        busy.not_zero.insert("services".to_owned(), 2);
        assert_eq!(left(&busy, None), ["left behind: 2 services"]);
    }
}
