//! The cost of a connection by system: our newest measurements, those of peers beside us, and the published ones,
//! in one order.

use std::cmp::Reverse;

use crate::compare;
use crate::figures::grouped;
use crate::pictures::axis::label;
use crate::promises::R4;
use crate::published::{SYSTEMS, peer, peer_name};
use crate::records::{OURS, RecordPlace, Records, Run, is_ours};
use crate::values;
use murre_record::Memory;
use murre_record::Outcome;
use murre_record::SOCKET_BYTES;
use murre_record::Scenario;

/// One system.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: bool,
    pub(crate) user: Option<f64>,
    pub(crate) kernel: Option<Kernel>,
    /// The source; of ours the fixed cost.
    pub(crate) source: String,
    /// Its record, if it was measured here.
    pub(crate) place: Option<RecordPlace>,
}

/// The kernel's part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// Or all, where the parts are not known.
    pub(crate) socket: f64,
    /// The wait for input, the descriptor and page tables.
    pub(crate) wait: f64,
}

impl Kernel {
    fn of(memory: &Memory) -> Kernel {
        let descriptor = memory.descriptor_node + memory.descriptor_slot;
        Kernel { socket: memory.socket, wait: memory.wait + descriptor + memory.page_tables }
    }
}

impl Row {
    pub(crate) fn total(&self) -> Option<f64> {
        let kernel = self.kernel?;
        Some(kernel.socket + kernel.wait + self.user.unwrap_or_default())
    }
}

/// Ours first, from many connections to few; then the others from small to large.
pub(crate) fn rows(records: &Records) -> Vec<Row> {
    let peers = peers(records);
    let systems = SYSTEMS.iter().filter(|system| {
        system.peer.is_none_or(|name| !peers.iter().any(|(label, _)| peer(label) == name))
    });
    let told = systems.map(|system| Row {
        name: system.name.to_owned(),
        ours: false,
        user: system.user,
        kernel: system
            .total
            .map(|total| Kernel { socket: total - system.user.unwrap_or_default(), wait: 0.0 }),
        source: system.source.to_owned(),
        place: None,
    });
    let mut others: Vec<Row> = told.collect();
    others.extend(peers.into_iter().map(|(_, row)| row));
    // A system without a published kernel part is sorted as if it had a bare socket.
    let known = |row: &Row| row.total().unwrap_or(SOCKET_BYTES + row.user.unwrap_or_default());
    others.sort_by(|one, other| known(one).total_cmp(&known(other)));
    ours(records).into_iter().chain(others).collect()
}

/// Of each kind the run with the most connections, of several the newest.
fn ours(records: &Records) -> Vec<Row> {
    let passed = records.runs().filter(|(_, run)| is_ours(run) && run.outcome == Outcome::Passed);
    // The steps of a search are about how busy connections may be.
    let idle = passed.filter(|(_, run)| !R4.idle.contains(&&run.parameters.idle[..]));
    let mut runs: Vec<_> = idle.collect();
    runs.sort_by_key(|(place, run)| Reverse((run.connections(), &run.started, *place)));
    let mut ours: Vec<Row> = Vec::new();
    let mut kinds = Vec::new();
    for (place, run) in runs {
        let what = match run.scenario {
            Scenario::HttpKeepalive => "HTTP",
            Scenario::Phoenix => "Phoenix clients with a topic each",
            _ => "WebSockets",
        };
        let Some(memory) = known_memory(run) else { continue };
        let kind = format!("{what}, {}", memory.server_descriptors);
        if kinds.contains(&kind) {
            continue;
        }
        let fixed = grouped(memory.server_fixed_bytes / 1024);
        ours.push(Row {
            name: format!("Murre, {} {kind}", label(memory.connections as f64)),
            ours: true,
            user: Some(memory.user),
            kernel: Some(Kernel::of(memory)),
            source: format!("fixed {fixed} KiB for the whole server"),
            place: Some(place.clone()),
        });
        kinds.push(kind);
    }
    ours
}

/// Everyone else whose memory is in the newest comparison, by label: the round in the middle.
fn peers(records: &Records) -> Vec<(String, Row)> {
    let groups = compare::groups(records.runs());
    let servers = groups.iter().flat_map(|group| &group.servers);
    let mut peers: Vec<(String, Row)> = Vec::new();
    for server in servers.filter(|server| server.label != OURS) {
        let mut rounds = server.rounds.clone();
        rounds.retain(|(_, run)| known_memory(run).is_some());
        rounds.sort_by(|(_, one), (_, other)| {
            let user = |run| values::user_bytes(run).unwrap_or_default();
            user(one).total_cmp(&user(other))
        });
        let Some(&(place, run)) = rounds.get(rounds.len() / 2) else { continue };
        let Some(memory) = known_memory(run) else { continue };
        if peers.iter().any(|(label, _)| label == server.label) {
            continue;
        }
        let row = Row {
            name: peer_name(server.label),
            ours: false,
            user: Some(memory.user),
            kernel: Some(Kernel::of(memory)),
            source: format!("beside Murre, {} connections", grouped(memory.connections)),
            place: Some(place.clone()),
        };
        peers.push((server.label.to_owned(), row));
    }
    peers
}

/// The memory section of a run of many idle connections, if it is known whole.
fn known_memory(run: &Run) -> Option<&Memory> {
    let memory = run.memory.as_ref().filter(|memory| memory.total.is_some())?;
    let idle = matches!(
        run.scenario,
        Scenario::HttpKeepalive | Scenario::WsIdle | Scenario::WsUpper | Scenario::Phoenix
    );
    (idle && memory.connections >= CONNECTIONS_MIN).then_some(memory)
}

/// With fewer, slabs that are not full blur the cost of one.
const CONNECTIONS_MIN: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Line;

    /// Shows that a peer's record takes the place of the figure from before, and that neither a
    /// search's step nor a fan-out is a row.
    #[test]
    fn a_record_stands_for_what_was_said_without_one() {
        let mut records = Records::fixture();
        let name = |rows: &[Row]| -> Vec<String> {
            let named = rows.iter().filter(|row| row.name.starts_with("uWebSockets, "));
            named.map(|row| row.name.clone()).collect()
        };
        assert!(rows(&records).iter().any(|row| row.user == Some(251.0)));
        let (place, run) =
            records.runs().find(|(_, run)| run.scenario == Scenario::WsIdle).unwrap();
        let (place, run) = (place.clone(), run.clone());
        for (label, user) in [("uwebsockets", 300.0), ("uwebsockets-lean", 200.0)] {
            let mut run = run.clone();
            run.label = label.to_owned();
            run.memory.as_mut().expect("measured").user = user;

            records.lines.push(Line::of(place.clone(), run));
        }
        let ours = |records: &Records| rows(records).iter().filter(|row| row.ours).count();
        let before = ours(&records);
        let mut busy = run.clone();
        (busy.label, busy.scenario) = ("tokio-broadcast".to_owned(), Scenario::Fanout);
        records.lines.push(Line::of(place.clone(), busy));
        let mut step = run;
        step.scenario = Scenario::HttpKeepalive;
        step.parameters.idle = "4-12".to_owned();
        records.lines.push(Line::of(place, step));
        assert_eq!(ours(&records), before);

        let all = rows(&records);
        assert!(all.iter().all(|row| !row.name.contains("broadcast")), "it was not idle");
        assert_eq!(name(&all), ["uWebSockets, C++, lean", "uWebSockets, C++"]);
        let measured = all.iter().find(|row| row.name == "uWebSockets, C++").expect("a row");
        assert_eq!((measured.user, measured.place.is_some()), (Some(300.0), true));
    }
}
