//! The acts of `storm`, and what its record says of them.

use std::thread;
use std::time::Duration;

use murre_record::{OneStorm, StormFacts};

use super::{Ended, QUIET, Run};
use crate::run::act::Act;

impl Run {
    /// Quiet; then twice, without jitter and with: killed, come back, quiet.
    pub(super) fn storms(&mut self) -> Ended {
        let (all, stayed) = (self.cli.conns_all(), u64::from(self.cli.staying()));
        let span = self.cli.duration;
        if self.act(Act::Quiet, span, |_| true).is_none() {
            return Ended::Early;
        }
        let pss_before = self.rested_pss();
        self.storms = Some(StormFacts { stayed, pss_before, storms: Vec::new() });
        for over in [Duration::ZERO, self.cli.jitter] {
            let Some(killed) = self.act(Act::Kill, span, |totals| totals.ready <= stayed) else {
                return Ended::Early;
            };
            let pss_gone = self.rested_pss();
            let missed = self.crew.totals().missed_all();
            let back = self.act(Act::Return { over }, Duration::ZERO, |t| t.ready == all);
            let Some(back) = back else { return Ended::Early };
            let tries_missed = self.crew.totals().missed_all() - missed;
            if self.act(Act::Quiet, span, |_| true).is_none() {
                return Ended::Early;
            }
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
        Ended::Done
    }

    /// The server's PSS, when it has been left alone.
    fn rested_pss(&self) -> Option<u64> {
        self.cli.server_pid?;
        thread::sleep(QUIET);
        self.server_pss()
    }
}
