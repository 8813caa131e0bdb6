//! Our server beside others that did the same work in the same run of a script.
//!
//! Contestants take turns, so the first record of one is the neighbour of the first of the other,
//! and so on: ratios are taken between neighbours, and their median is less disturbed by what else
//! the machine did than a ratio of medians.

use crate::claims::{Measured, OURS};
use crate::cli::Scenario;
use crate::figures::Spread;
use crate::records::{Place, Run};

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
    pub(crate) rounds: Vec<(&'r Place, &'r Run)>,
}

impl Group<'_> {
    /// All did the same.
    pub(crate) fn scenario(&self) -> Scenario {
        self.servers[0].rounds[0].1.scenario
    }
}

impl Server<'_> {
    pub(crate) fn spread(&self, value: fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|(_, run)| value(run)).collect())
    }

    /// What this server did divided by what another did, round by round.
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
pub(crate) fn groups<'r>(runs: impl Iterator<Item = (&'r Place, &'r Run)>) -> Vec<Group<'r>> {
    let mut groups: Vec<Group<'r>> = Vec::new();
    for (place, run) in runs.filter(|(_, run)| run.ended()) {
        let (work, commit) = (run.work(), run.commit.as_deref());
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
    groups.sort_by(|one, other| (&one.work, started(one)).cmp(&(&other.work, started(other))));
    // The newest of each kind of work is the last of its neighbours.
    groups.reverse();
    groups.dedup_by(|later, kept| later.work == kept.work);
    groups.reverse();
    groups
}

/// Our value divided by that of the peer which comes closest to us, or is ahead.
pub(crate) fn with_best_peer<'r>(
    runs: impl Iterator<Item = (&'r Place, &'r Run)>,
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
