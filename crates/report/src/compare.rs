//! Our server beside others that did the same work in the same run of a script.
//!
//! Contestants take turns, so the first record of one is the neighbour of the first of the other,
//! and so on: ratios are taken between neighbours, and their median is less disturbed by other
//! work of the machine than a ratio of medians.

use crate::figures::Spread;
use crate::records::{OURS, RecordPlace, Run, ended, work};

/// The value of a promise in records.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) value: f64,
    /// The lines it is computed from, the most important first.
    pub(crate) places: Vec<RecordPlace>,
}

/// Which side of a ratio is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// Servers that did the same work at the same commit, with their records in one file.
#[derive(Clone, Debug)]
pub(crate) struct Group<'r> {
    pub(crate) work: String,
    file: &'r str,
    commit: Option<&'r str>,
    /// Ours is the first, if it is there.
    pub(crate) servers: Vec<Server<'r>>,
}

/// One server's rounds, in the order of their records.
#[derive(Clone, Debug)]
pub(crate) struct Server<'r> {
    pub(crate) label: &'r str,
    pub(crate) rounds: Vec<(&'r RecordPlace, &'r Run)>,
}

impl Group<'_> {
    /// A run of it: all did the same.
    pub(crate) fn run(&self) -> &Run {
        self.servers[0].rounds[0].1
    }

    /// Whether messages were sent on a schedule.
    pub(crate) fn scheduled(&self) -> bool {
        self.run().parameters.rate.is_some()
    }
}

impl Server<'_> {
    pub(crate) fn spread(&self, value: fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|(_, run)| value(run)).collect())
    }

    /// This server's value divided by another's, round by round.
    pub(crate) fn beside(
        &self,
        other: &Server<'_>,
        value: fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratios = pairs.filter_map(|((_, own), (_, theirs))| Some(value(own)? / value(theirs)?));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }
}

/// Of each kind of work that we and others did, the newest comparison.
pub(crate) fn groups<'r>(runs: impl Iterator<Item = (&'r RecordPlace, &'r Run)>) -> Vec<Group<'r>> {
    let mut groups: Vec<Group<'r>> = Vec::new();
    for (place, run) in runs.filter(|(_, run)| ended(run)) {
        let (work, commit) = (work(run), run.commit.as_deref());
        let known = groups.iter_mut().find(|group| {
            (group.file, group.commit) == (&place.file[..], commit) && group.work == work
        });
        let group = match known {
            Some(group) => group,
            None => {
                groups.push(Group { work, file: &place.file, commit, servers: Vec::new() });
                groups.last_mut().expect("just pushed")
            }
        };
        match group.servers.iter_mut().find(|server| server.label == run.label) {
            Some(server) => server.rounds.push((place, run)),
            None => group.servers.push(Server { label: &run.label, rounds: vec![(place, run)] }),
        }
    }
    groups.retain(|group| {
        group.servers.len() > 1 && group.servers.iter().any(|server| server.label == OURS)
    });
    for group in &mut groups {
        group.servers.sort_by_key(|server| server.label != OURS);
    }
    let started = |group: &Group<'r>| {
        let runs = group.servers.iter().flat_map(|server| &server.rounds);
        runs.map(|(_, run)| &run.started[..]).max().unwrap_or_default()
    };
    let order = |group: &Group<'r>| {
        let Run { scenario, parameters: p, .. } = group.run();
        (*scenario, p.rate.is_some(), p.idle_conns, p.payload, p.conns)
    };
    groups.sort_by(|one, other| {
        let key = |group| (order(group), &group.work, started(group));
        key(one).cmp(&key(other))
    });
    // The newest of each kind of work is the last of its neighbours.
    groups.reverse();
    groups.dedup_by(|later, kept| later.work == kept.work);
    groups.reverse();
    groups
}

/// Our value divided by that of the peer which comes closest to us, or is ahead.
pub(crate) fn with_best_peer<'r>(
    runs: impl Iterator<Item = (&'r RecordPlace, &'r Run)>,
    value: fn(&Run) -> Option<f64>,
    better: Better,
) -> Option<Measured> {
    let mut measured: Option<Measured> = None;
    for group in groups(runs) {
        let (ours, peers) = group.servers.split_first()?;
        for peer in peers {
            let Some(ratio) = ours.beside(peer, value) else { continue };
            let worse = measured.as_ref().is_none_or(|measured| match better {
                Better::More => ratio.median < measured.value,
                Better::Less => ratio.median > measured.value,
            });
            if worse {
                let places = [ours, peer].map(|server| server.rounds[0].0.clone());
                measured = Some(Measured { value: ratio.median, places: places.into() });
            }
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    use murre_record::Scenario;

    use super::*;
    use crate::records::{Line, Records};
    use crate::values::{p99_ms, per_second};

    /// Shows that ratios are taken pair by pair: where the machine was slow for both in one
    /// round, the ratios stay.
    #[test]
    fn rounds_are_compared_with_their_neighbours() {
        let mut records = Records::fixture();
        let mut round = 0;
        for line in &mut records.lines {
            if let crate::records::kinds::Content::Run(run) = &mut line.content
                && let (Scenario::WsEcho, Some(hold)) = (run.scenario, &mut run.hold)
            {
                let slow = if round < 2 { 10.0 } else { 1.0 };
                hold.requests_per_second = if run.label == OURS { 300.0 } else { 200.0 } / slow;
                round += 1;
            }
        }
        let groups = groups(records.runs());
        assert_eq!(groups.len(), 1);
        let [ours, peer] = &groups[0].servers[..] else { panic!("two servers") };
        assert_eq!((ours.label, peer.label, ours.rounds.len()), (OURS, "tokio-uring", 2));
        let ratio = ours.beside(peer, per_second).expect("two rounds");
        assert!((ratio.min - 1.5).abs() < 1e-9 && (ratio.max - 1.5).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ours.spread(per_second).expect("two rounds").min, 30.0);
    }

    /// Shows that connections which are idle beside and a schedule are not mixed with the rest,
    /// and that the newest comparison of the same work replaces the older one.
    #[test]
    fn other_work_is_another_comparison() {
        let mut records = Records::fixture();
        let mut more = Vec::new();
        for (index, (place, run)) in records.runs().enumerate() {
            if run.scenario != Scenario::WsEcho {
                continue;
            }
            let changes: [fn(&mut Run); 3] = [
                |run| run.parameters.idle_conns = 18_000,
                |run| run.parameters.rate = Some(40_000.0),
                |run| run.started = "2027-01-01T00:00:00Z".to_owned(),
            ];
            for (file, change) in ["idle", "idle", "newer"].into_iter().zip(changes) {
                let mut run = run.clone();
                change(&mut run);
                let place = RecordPlace { file: file.to_owned(), line: place.line + 100 * index };
                more.push(Line::of(place, run));
            }
        }
        records.lines.extend(more);
        let groups = groups(records.runs());
        let works: Vec<_> = groups.iter().map(|group| (&group.work[..], group.file)).collect();
        let echo = "echo of 32 B on 64 WebSockets";
        assert_eq!(
            works,
            [
                (echo, "newer"),
                (&format!("{echo}, 18,000 idle beside"), "idle"),
                (&format!("{echo}, 40,000 messages a second"), "idle"),
            ]
        );
        assert!(groups.iter().all(|group| group.servers[0].rounds.len() == 2));
        assert!(groups[2].scheduled() && groups[1].run().parameters.idle_conns == 18_000);
    }

    /// Shows which of two peers counts, when more is better and when less is.
    #[test]
    fn the_best_peer_is_the_one_to_beat() {
        let mut records = Records::fixture();
        let mut third = Vec::new();
        for (place, run) in records.runs() {
            if run.label == "tokio-uring" {
                let mut run = run.clone();
                run.label = "faster".to_owned();
                run.hold.as_mut().expect("held").requests_per_second *= 2.0;
                run.latency_us.p99 *= 2;

                third.push(Line::of(place.clone(), run));
            }
        }
        let value = |records: &Records, value: fn(&Run) -> Option<f64>, better| {
            with_best_peer(records.runs(), value, better).expect("peers").value
        };
        let (rate, p99) =
            (value(&records, per_second, Better::More), value(&records, p99_ms, Better::Less));
        records.lines.extend(third);
        assert!((value(&records, per_second, Better::More) - rate / 2.0).abs() < 1e-9);
        assert!((value(&records, p99_ms, Better::Less) - p99).abs() < 1e-9);
    }
}
