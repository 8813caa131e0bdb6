//! Outages: the times from the first subscriber that loses its connection until all are subscribed again.

use std::sync::Mutex;
use std::time::Instant;

use murre_record::Outage;

/// The outages of a run.
#[derive(Default)]
pub(super) struct Outages(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the hold phase began.
    start: Option<Instant>,
    /// Subscribers that are away.
    away: u64,
    /// The one that lasts, since then.
    now: Option<(Instant, Outage)>,
    over: Vec<Outage>,
}

/// How a subscriber has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// Nothing is missing.
    Recovered,
    /// The server has said that publications are.
    Told,
    /// The channel has no history.
    Anew,
}

impl Outages {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no thread panics with it")
    }

    pub(super) fn start(&self, now: Instant) {
        self.lock().start.get_or_insert(now);
    }

    /// A subscriber has lost its connection.
    pub(super) fn ended(&self, now: Instant) {
        let mut state = self.lock();
        let since_start = state.start.map(|start| now.saturating_duration_since(start));
        state.away += 1;
        let begun = Outage {
            begun_seconds: since_start.unwrap_or_default().as_secs_f64(),
            ..Outage::default()
        };
        let (_, outage) = state.now.get_or_insert((now, begun));
        outage.ended += 1;
    }

    /// It is subscribed again.
    pub(super) fn back(&self, how: Return, now: Instant) {
        let mut state = self.lock();
        state.away -= 1;
        let (began, mut outage) = state.now.take().expect("a subscriber was away");
        match how {
            Return::Recovered => outage.recovered += 1,
            Return::Told => outage.told += 1,
            Return::Anew => {}
        }
        if state.away > 0 {
            state.now = Some((began, outage));
            return;
        }
        outage.seconds = now.saturating_duration_since(began).as_secs_f64();
        state.over.push(outage);
    }

    pub(super) fn all(&self) -> Vec<Outage> {
        self.lock().over.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Shows that an outage lasts from the first end to the last return, whoever comes back, and that another
    /// one follows.
    #[test]
    fn an_outage_is_over_when_all_are_back() {
        let (outages, start) = (Outages::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        outages.start(start);
        outages.ended(at(1));
        outages.ended(at(2));
        outages.back(Return::Recovered, at(3));
        outages.ended(at(3));
        outages.back(Return::Told, at(4));
        assert!(outages.all().is_empty());
        outages.back(Return::Recovered, at(6));
        outages.ended(at(8));
        outages.back(Return::Anew, at(9));
        let outage = |begun_seconds, seconds, ended, recovered, told| Outage {
            begun_seconds,
            seconds,
            ended,
            recovered,
            told,
        };
        assert_eq!(outages.all(), [outage(1.0, 5.0, 3, 2, 1), outage(8.0, 1.0, 1, 0, 0)]);
    }
}
