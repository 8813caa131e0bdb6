//! The hold phase of `storm`.

use std::time::Duration;

use murre_record::{OneStorm, StormFacts};

use crate::engine::orders::Phase;
use crate::run::phases::{Early, Run};

impl Run {
    /// Quiet; then twice, without jitter and with: killed, come back, quiet.
    pub(super) fn storms(&mut self, stayed: u64, jitter: Duration) -> Result<(), Early> {
        let (all, span) = (self.job.conns_all(), self.job.common.duration);
        self.phase(Phase::Quiet, span, |_| true)?;
        let pss_before = self.rested_pss();
        self.storms = Some(StormFacts { stayed, pss_before, storms: Vec::new() });
        for over in [Duration::ZERO, jitter] {
            let killed = self.phase(Phase::Kill, span, |totals| totals.ready <= stayed)?;
            let pss_gone = self.rested_pss();
            let missed = self.workers.totals().missed_all();
            let back = self.phase(Phase::Return { over }, Duration::ZERO, |t| t.ready == all)?;
            let tries_missed = self.workers.totals().missed_all() - missed;
            self.phase(Phase::Quiet, span, |_| true)?;
            let storm = OneStorm {
                jitter_seconds: over.as_secs_f64(),
                killed_in_seconds: killed.as_secs_f64(),
                back_in_seconds: back.as_secs_f64(),
                tries_missed,
                pss_gone,
                pss_after: self.rested_pss(),
            };
            self.storms.as_mut().expect("begun above").storms.push(storm);
        }
        Ok(())
    }
}
