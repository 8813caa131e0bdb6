//! Who costs how much: our newest measurements and the published ones, in one order.

use std::cmp::Reverse;

use super::axis::label;
use crate::figures::grouped;
use crate::memory::SOCKET_BYTES;
use crate::published::SYSTEMS;
use crate::records::{Place, Records, Run};

/// One system.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) ours: bool,
    pub(super) user: Option<f64>,
    pub(super) kernel: Option<Kernel>,
    /// Who says so; of ours what is not per connection.
    pub(super) source: String,
    /// The record of one of ours.
    pub(super) place: Option<Place>,
}

/// The kernel's part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// Or all, where it is not known what is what.
    pub(super) socket: f64,
    /// The wait for input, the descriptor and page tables.
    pub(super) wait: f64,
}

impl Row {
    pub(super) fn total(&self) -> Option<f64> {
        let kernel = self.kernel?;
        Some(kernel.socket + kernel.wait + self.user.unwrap_or_default())
    }
}

/// Ours first, from many connections to few; then the others from small to large.
pub(super) fn rows(records: &Records) -> Vec<Row> {
    let mut runs: Vec<_> = records.runs().filter(|(_, run)| run.is_ours()).collect();
    runs.sort_by_key(|(place, run)| Reverse((run.connections(), &run.started, *place)));
    let mut ours: Vec<Row> = Vec::new();
    let mut kinds = Vec::new();
    for (place, run) in runs {
        let Some((kind, row)) = measured(place, run) else { continue };
        // Of each kind the one with the most connections is enough.
        if !kinds.contains(&kind) {
            kinds.push(kind);
            ours.push(row);
        }
    }
    let others = SYSTEMS.iter().map(|system| Row {
        name: system.name.to_owned(),
        ours: false,
        user: system.user,
        kernel: system
            .total
            .map(|total| Kernel { socket: total - system.user.unwrap_or_default(), wait: 0.0 }),
        source: system.source.to_owned(),
        place: None,
    });
    let mut others: Vec<Row> = others.collect();
    // What has no published kernel part stands where a bare socket would put it.
    let known = |row: &Row| row.total().unwrap_or(SOCKET_BYTES + row.user.unwrap_or_default());
    others.sort_by(|one, other| known(one).total_cmp(&known(other)));
    ours.into_iter().chain(others).collect()
}

/// A run of ours as a row, and what kind of row, if it is one of many connections whose memory is
/// known whole.
fn measured(place: &Place, run: &Run) -> Option<(String, Row)> {
    let memory = run.memory.as_ref()?;
    memory.total?;
    if memory.connections < CONNECTIONS_MIN || run.parameters.idle_conns > 0 {
        return None;
    }
    let what = match run.scenario {
        crate::cli::Scenario::HttpKeepalive => "HTTP",
        _ => "WebSockets",
    };
    let count = label(memory.connections as f64);
    let kind = format!("{what}, {}", memory.server_descriptors);
    let row = Row {
        name: format!("Murre, {count} {kind}"),
        ours: true,
        user: Some(memory.user),
        kernel: Some(Kernel {
            socket: memory.socket,
            wait: memory.wait
                + memory.descriptor_node
                + memory.descriptor_slot
                + memory.page_tables,
        }),
        source: format!(
            "fixed {} KiB for the whole server",
            grouped(memory.server_fixed_bytes / 1024)
        ),
        place: Some(place.clone()),
    };
    Some((kind, row))
}

/// With fewer, slabs that are not full blur what one costs.
const CONNECTIONS_MIN: u64 = 10_000;
