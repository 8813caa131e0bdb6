//! Promises, and how records show whether one is kept. The promises themselves are in `promises.rs`.

use clap::ValueEnum;

use crate::compare::{self, Measured};
use crate::figures::{Spread, Unit, chosen};
use crate::needs::Needs;
use crate::records::kinds::{Ab, kind};
use crate::records::{OURS, RecordPlace, Records, Run, is_ours};
use crate::values::{connect_seconds, faults};

/// One promise.
pub(crate) struct Promise {
    pub(crate) id: &'static str,
    pub(crate) topic: Topic,
    /// The published run that it is about.
    pub(crate) about: Option<About>,
    pub(crate) text: &'static str,
    pub(crate) target: Target,
    pub(crate) unit: Unit,
    /// How to measure it again.
    pub(crate) measured_by: &'static str,
    pub(crate) evidence: Evidence,
}

/// The sections of SPECIFICATION.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topic {
    Memory,
    Connections,
    Speed,
}

/// A published run that is reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum About {
    /// http-kit, 2013: 600,000 HTTP keep-alive connections
    R1,
    /// Gretty, 2010: 512,000 WebSockets that send a text every 25 s
    R2,
    /// A comparison of Node.js, Vert.x, Netty and Atmosphere, 2012: publish and subscribe
    R3,
    /// Grizzly's criterion, 2005: think time 8 s, 90 % within 3 s, errors under 0.1 %
    R4,
    /// Phoenix channels, 2020: 800,000 clients on 10 machines, a heartbeat every 30 s
    R5,
    /// The same on several nodes, of which one is killed and one drained
    R5Nodes,
    /// 1,000,000 idle WebSockets for 10 minutes
    #[value(name = "idle-1m")]
    Idle1m,
    /// 2,000,000 idle WebSockets
    #[value(name = "idle-2m")]
    Idle2m,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    /// Reported, not promised.
    None,
}

impl Target {
    pub(crate) fn is_kept(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::Below(limit) => value < limit,
            Target::AtLeast(limit) => value >= limit,
            Target::None => true,
        }
    }

    pub(crate) fn text(self, unit: Unit) -> String {
        match self {
            Target::AtMost(0.0) => "none".to_owned(),
            Target::AtMost(limit) => format!("at most {}", chosen(limit, unit)),
            Target::Below(limit) => format!("below {}", chosen(limit, unit)),
            Target::AtLeast(limit) => format!("at least {}", chosen(limit, unit)),
            Target::None if unit == Unit::Count => "as many as can be".to_owned(),
            Target::None => "reported".to_owned(),
        }
    }
}

/// The records that a promise is computed from.
#[derive(Clone, Copy)]
pub(crate) enum Evidence {
    /// One run that meets the needs.
    Run(Needs, fn(&Run) -> Option<f64>),
    /// The most connections of a step of the newest search that meets the needs.
    Most(Needs),
    /// `ab` while a run holds its connections, and which of several rounds counts.
    Ab(Needs, fn(&Ab) -> f64, fn(&Spread) -> f64),
    /// The requests per second of `ab`, divided by those of `ab` against nginx in the same run, in pairs.
    AbBesideNginx(Needs),
    /// A run's value divided by another's, of ours both.
    Beside(Needs, Needs, fn(&Run) -> Option<f64>),
    /// Our runs divided by the best peer's, in pairs; less is better if the flag says so.
    Peers(Needs, fn(&Run) -> Option<f64>, compare::Better),
}

impl Promise {
    /// The value in the newest records that can show this promise; `None` while there are none.
    pub(crate) fn measure(&self, records: &Records) -> Option<Measured> {
        match self.evidence {
            Evidence::Run(needs, value) => {
                let (place, run) = newest(records, &needs, value)?;
                Some(Measured { value: value(run)?, places: vec![place.clone()] })
            }
            Evidence::Most(needs) => {
                let (place, run) = most(records, &needs)?;
                Some(Measured { value: run.connections() as f64, places: vec![place.clone()] })
            }
            Evidence::Ab(needs, value, pick) => {
                let (at, run) = newest(records, &needs, faults)?;
                let rounds = abs_beside(records, at, run, OURS);
                let held = needs.conns.0;
                let full = rounds.iter().filter(|(_, ab)| ab.connections_held >= held);
                let spread = Spread::of(full.clone().map(|(_, ab)| value(ab)).collect())?;
                let places = full.map(|(at, _)| (*at).clone()).collect();
                Some(Measured { value: pick(&spread), places })
            }
            Evidence::AbBesideNginx(needs) => {
                let (at, run) = newest(records, &needs, faults)?;
                let [ours, nginx] =
                    [OURS, "nginx"].map(|label| abs_beside(records, at, run, label));
                let ratio = |((_, own), (_, theirs)): (&(_, &Ab), &(_, &Ab))| {
                    own.requests_per_second / theirs.requests_per_second
                };
                let spread = Spread::of(ours.iter().zip(&nginx).map(ratio).collect())?;
                let places = [&ours, &nginx].map(|rounds| rounds[0].0.clone()).into();
                Some(Measured { value: spread.median, places })
            }
            Evidence::Beside(needs, other, value) => {
                let (at, run) = newest(records, &needs, value)?;
                let (other_at, other) = newest(records, &other, value)?;
                let places = vec![at.clone(), other_at.clone()];
                Some(Measured { value: value(run)? / value(other)?, places })
            }
            Evidence::Peers(needs, value, better) => {
                let runs = records.runs().filter(|(_, run)| needs.unmet(run).is_none());
                compare::with_best_peer(runs, value, better)
            }
        }
    }

    pub(crate) fn needs(&self) -> &Needs {
        match &self.evidence {
            Evidence::Run(needs, _)
            | Evidence::Most(needs)
            | Evidence::Ab(needs, ..)
            | Evidence::AbBesideNginx(needs)
            | Evidence::Beside(needs, ..)
            | Evidence::Peers(needs, ..) => needs,
        }
    }
}

/// The newest run of ours that a promise is about and that has the value.
fn newest<'r>(
    records: &'r Records,
    needs: &Needs,
    value: fn(&Run) -> Option<f64>,
) -> Option<(&'r RecordPlace, &'r Run)> {
    let ours = records.runs().filter(|(_, run)| is_ours(run) && needs.unmet(run).is_none());
    let valued = ours.filter(|(_, run)| value(run).is_some());
    valued.max_by_key(|(place, run)| (&run.started, *place))
}

/// The step with the most connections of the newest search. Its steps are in one file and at one
/// commit; those that missed the criterion do not count.
pub(crate) fn most<'r>(records: &'r Records, needs: &Needs) -> Option<(&'r RecordPlace, &'r Run)> {
    let any = Needs { p90_ms_max: None, faults_per_answer_max: None, ..*needs };
    let (newest_at, newest) = newest(records, &any, connect_seconds)?;
    let steps = records.runs().filter(|(place, run)| {
        is_ours(run) && (&place.file, &run.commit) == (&newest_at.file, &newest.commit)
    });
    let kept = steps.filter(|(_, run)| needs.unmet(run).is_none());
    kept.max_by_key(|(place, run)| (run.connections(), *place))
}

/// The rounds of `ab` against a server while a run was under way: their lines are before the run's
/// own, which is written at its end, and later than its start.
pub(crate) fn abs_beside<'r>(
    records: &'r Records,
    at: &RecordPlace,
    run: &Run,
    label: &str,
) -> Vec<(&'r RecordPlace, &'r Ab)> {
    let abs = records.of(kind!(Ab)).map(|(line, ab)| (&line.place, ab));
    let before = abs.filter(|(place, _)| place.file == at.file && place.line < at.line);
    before.filter(|(_, ab)| ab.label == label && ab.started >= run.started).collect()
}

#[cfg(test)]
mod tests {
    use murre_record::{Outcome, Scenario};

    use super::*;
    use crate::promises::PROMISES;
    use crate::records::Line;
    use crate::records::kinds::Content;
    use crate::values::user_bytes;

    /// Shows on which side of each the border itself is, and how it is said.
    #[test]
    fn targets_have_their_borders() {
        assert!(Target::AtMost(96.0).is_kept(96.0) && !Target::AtMost(96.0).is_kept(96.1));
        assert!(Target::Below(60.0).is_kept(59.9) && !Target::Below(60.0).is_kept(60.0));
        assert!(Target::AtLeast(1.0).is_kept(1.0) && !Target::AtLeast(1.0).is_kept(0.99));
        assert_eq!(Target::AtMost(0.0).text(Unit::Count), "none");
        assert_eq!(Target::Below(60.0).text(Unit::Seconds), "below 60 s");
    }

    /// Shows that ids are unique and that no verdict is about nothing.
    #[test]
    fn each_published_run_is_promised_something() {
        let mut ids: Vec<_> = PROMISES.iter().map(|promise| promise.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), PROMISES.len());
        for about in About::value_variants() {
            assert!(PROMISES.iter().any(|promise| promise.about == Some(*about)), "{about:?}");
        }
    }

    /// Shows that a later run replaces an earlier one even if it is worse, and that others
    /// neither by their label, nor interrupted, nor too small do.
    #[test]
    fn the_newest_run_that_can_show_it_counts() {
        let mut records = Records::fixture();
        let needs = Needs::of(&[Scenario::WsIdle], 10_000);
        let user = |records: &Records| {
            newest(records, &needs, user_bytes).map(|(place, run)| (place.line, user_bytes(run)))
        };
        let (line, before) = user(&records).expect("two runs");
        assert_eq!(line, 2);
        let change = |records: &mut Records, change: fn(&mut Run)| {
            for line in &mut records.lines {
                if let (Content::Run(run), 2) = (&mut line.content, line.place.line)
                    && run.scenario == Scenario::WsIdle
                {
                    change(run);
                }
            }
        };
        change(&mut records, |run| run.memory.as_mut().expect("measured").user += 1000.0);
        assert_eq!(user(&records), Some((2, before.map(|bytes| bytes + 1000.0))));
        for worse in [
            (|run| run.label = "other".to_owned()) as fn(&mut Run),
            |run| run.outcome = Outcome::Interrupted,
            |run| run.connect.connections = 9_999,
            |run| run.memory = None,
        ] {
            let mut records = Records::fixture();
            change(&mut records, worse);
            assert_eq!(user(&records).map(|(line, _)| line), Some(1));
        }
    }

    /// Shows that steps which missed do not count, that an older search does not either, and
    /// that a newer one without any step that held leaves nothing.
    #[test]
    fn a_search_ends_at_its_greatest_step_that_held() {
        let mut records = Records::fixture();
        let run = records.runs().find(|(_, run)| run.scenario == Scenario::HttpKeepalive);
        let mut run = run.expect("one").1.clone();
        run.parameters.idle = "4-12".to_owned();
        let step = |file: &str, started: &str, conns: u64, p90_ms: u64, lost: u64| {
            let mut run = run.clone();
            run.started = format!("2026-12-0{started}T00:00:00Z");
            run.connect.connections = conns;
            run.latency_us.p90 = p90_ms * 1000;
            run.hold.as_mut().expect("held").requests = 10_000;
            run.errors.insert("lost".to_owned(), lost);
            let place = RecordPlace { file: file.to_owned(), line: conns as usize };
            Line::of(place, run)
        };
        let promise = PROMISES.iter().find(|promise| promise.about == Some(About::R4));
        let most = |records: &Records| {
            promise.and_then(|promise| promise.measure(records)).map(|measured| measured.value)
        };
        records.lines.push(step("one", "1", 900, 10, 0));
        assert_eq!(most(&records), Some(900.0));
        records.lines.push(step("two", "2", 100, 3000, 9));
        records.lines.push(step("two", "3", 200, 3001, 0));
        records.lines.push(step("two", "4", 150, 1, 10));
        assert_eq!(most(&records), Some(100.0));
        records.lines.push(step("three", "5", 100, 4000, 0));
        assert_eq!(most(&records), None);
    }

    /// Shows that only lines between a run's start and its record are of that run.
    #[test]
    fn ab_belongs_to_the_run_around_it() {
        let records = Records::fixture();
        let run = records.runs().find(|(_, run)| run.scenario == Scenario::HttpKeepalive);
        let (place, run) = run.expect("one");
        assert_eq!(abs_beside(&records, place, run, OURS).len(), 1);
        assert_eq!(abs_beside(&records, place, run, "nginx").len(), 0);
        let later = Run { started: "2027-01-01T00:00:00Z".to_owned(), ..run.clone() };
        assert_eq!(abs_beside(&records, place, &later, OURS).len(), 0);
        let first = RecordPlace { line: 1, ..place.clone() };
        assert_eq!(abs_beside(&records, &first, run, OURS).len(), 0);
    }
}
