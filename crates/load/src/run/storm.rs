//! The hold phases of `storm` and `backend`.

use std::time::Duration;

use murre_record::{Arrival, OneStorm, StormFacts};

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
    /// So many times: quiet, all but the connections beside are reset, and come back at once.
    pub(super) fn arrivals(&mut self, beside: u64, times: u32) -> Result<(), Early> {
        let (all, span) = (self.job.conns_all(), self.job.common.duration);
        for _ in 0..times {
            self.phase(Phase::Quiet, span, |_| true)?;
            self.phase(Phase::Kill, span, |totals| totals.ready <= beside)?;
            let missed = self.workers.totals().missed_all();
            let at_once = Phase::Return { over: Duration::ZERO };
            let took = self.phase(at_once, Duration::ZERO, |totals| totals.ready == all)?;
            let seconds = took.as_secs_f64();
            self.arrivals.push(Arrival {
                seconds,
                connections_per_second: (all - beside) as f64 / seconds.max(1e-6),
                tries_missed: self.workers.totals().missed_all() - missed,
            });
        }
        self.phase(Phase::Quiet, span, |_| true)?;
        Ok(())
    }
}
