//! Numbers of a run that claims and tables are about. `None` where the run has no such number.

use murre_record::{BackendFacts, PhaseFacts, SessionCount};

use crate::records::Run;

/// Errors for each right answer.
pub(crate) fn error_rate(run: &Run) -> Option<f64> {
    let answers = run.hold.as_ref()?.requests.max(1);
    Some(run.faults() as f64 / answers as f64)
}

/// The server's processor time for an idle connection, in microseconds a second.
pub(crate) fn idle_cpu_us(run: &Run) -> Option<f64> {
    let hold = run.hold.as_ref()?;
    Some(hold.server_cpu_seconds? * 1e6 / hold.seconds / run.connections().max(1) as f64)
}

pub(crate) fn user_bytes(run: &Run) -> Option<f64> {
    run.memory.as_ref().map(|memory| memory.user)
}

pub(crate) fn total_bytes(run: &Run) -> Option<f64> {
    run.memory.as_ref()?.total
}

/// The server's memory before the first connection, for each shard.
pub(crate) fn fixed_bytes_per_shard(run: &Run) -> Option<f64> {
    let memory = run.memory.as_ref()?;
    // With fewer shards than cores the fixed memory of the process would be divided by too few.
    let shards = memory.server_before.shards.filter(|&shards| shards >= run.machine.cores)?;
    Some(memory.server_fixed_bytes as f64 / shards as f64)
}

pub(crate) fn connects_per_second(run: &Run) -> Option<f64> {
    Some(run.connect.connections_per_second)
}

pub(crate) fn connects_per_cpu_second(run: &Run) -> Option<f64> {
    run.connect.connections_per_server_cpu_second
}

pub(crate) fn per_second(run: &Run) -> Option<f64> {
    run.hold.as_ref().map(|hold| hold.requests_per_second)
}

pub(crate) fn per_cpu_second(run: &Run) -> Option<f64> {
    run.hold.as_ref()?.requests_per_server_cpu_second
}

pub(crate) fn p99_ms(run: &Run) -> Option<f64> {
    (run.latency_us.count > 0).then(|| run.latency_us.p99 as f64 / 1000.0)
}

/// Until the last subscriber of a publication has it.
pub(crate) fn last_delivery_p99_ms(run: &Run) -> Option<f64> {
    run.fanout.as_ref().map(|fanout| fanout.last_delivery_us.p99 as f64 / 1000.0)
}

/// Of the pings of connections that are beside a fan-out.
pub(crate) fn beside_p99_ms(run: &Run) -> Option<f64> {
    let beside = run.fanout.as_ref()?.beside_us.filter(|beside| beside.count > 0)?;
    Some(beside.p99 as f64 / 1000.0)
}

/// The server's processor time for a message, in microseconds.
pub(crate) fn cpu_us(run: &Run) -> Option<f64> {
    per_cpu_second(run).map(|messages| 1e6 / messages)
}

/// The part of the machine's cores that the server uses.
pub(crate) fn server_share(run: &Run) -> Option<f64> {
    let hold = run.hold.as_ref()?;
    Some(hold.server_cpu_seconds? / hold.seconds / run.machine.cores.max(1) as f64)
}

/// Of a run at whose end the server's count of members was compared with the connections.
pub(crate) fn phoenix_faults(run: &Run) -> Option<f64> {
    let counted = run.phoenix.as_ref()?.members?.clients;
    Some((run.faults() + counted.abs_diff(run.connections())) as f64)
}

/// Of a run over several nodes in which one was killed and one drained, and the session log was compared.
pub(crate) fn nodes_faults(run: &Run) -> Option<f64> {
    let nodes = run.nodes.as_ref().filter(|nodes| nodes.ended.len() == 2)?;
    let SessionCount { online, unbroken } = nodes.sessions?;
    let wrong = nodes.users.abs_diff(online) + nodes.users.abs_diff(unbroken);
    let lost = nodes.ended.iter().map(|end| end.connections.abs_diff(end.lost)).sum::<u64>();
    Some(phoenix_faults(run)? + (wrong + lost) as f64)
}

/// From the end of a node until the clients were back.
pub(crate) fn back_seconds(run: &Run, how: &str) -> Option<f64> {
    let ended = &run.nodes.as_ref()?.ended;
    ended.iter().find(|end| end.how == how).map(|end| end.back_in_seconds)
}

/// The part before the first node ended.
fn steady(run: &Run) -> Option<&PhaseFacts> {
    run.nodes.as_ref()?;
    run.phases.first()
}

/// The nodes' processor time for a connection, in microseconds a second.
pub(crate) fn steady_cpu_us(run: &Run) -> Option<f64> {
    let steady = steady(run)?;
    let spent = steady.server_cpu_seconds? / steady.seconds;
    Some(spent * 1e6 / run.connections().max(1) as f64)
}

/// The part of the machine's cores that the nodes use.
pub(crate) fn steady_share(run: &Run) -> Option<f64> {
    let steady = steady(run)?;
    Some(steady.server_cpu_seconds? / steady.seconds / run.machine.cores.max(1) as f64)
}

pub(crate) fn steady_p99_ms(run: &Run) -> Option<f64> {
    let latency = steady(run)?.latency_us;
    (latency.count > 0).then(|| latency.p99 as f64 / 1000.0)
}

/// Of a run at whose end the server's count of members was compared: faults, and failed checks.
pub(crate) fn presence_faults(run: &Run) -> Option<f64> {
    run.presence.as_ref()?.members?;
    Some(run.faults() as f64 + run.reasons.len() as f64)
}

/// Of the pings beside members that come and go.
pub(crate) fn presence_beside_ms(run: &Run) -> Option<f64> {
    let beside = run.presence.as_ref()?.beside_us.filter(|beside| beside.count > 0)?;
    Some(beside.p99 as f64 / 1000.0)
}

pub(crate) fn average_response_ms(run: &Run) -> Option<f64> {
    run.article.as_ref().map(|article| article.average_response_ms)
}

pub(crate) fn faults(run: &Run) -> Option<f64> {
    Some(run.faults() as f64)
}

/// Of a run whose storms were seen to their end.
pub(crate) fn storm_faults(run: &Run) -> Option<f64> {
    let whole = run.storm.as_ref()?.storms.len() == 2;
    whole.then(|| run.faults() as f64)
}

/// Until all connections were back that returned at once.
pub(crate) fn storm_back_seconds(run: &Run) -> Option<f64> {
    Some(run.storm.as_ref()?.storms.first()?.back_in_seconds)
}

/// Of the connections that stayed, in the worst phase in which others were killed or returned.
pub(crate) fn storm_p99_ms(run: &Run) -> Option<f64> {
    let worst =
        run.phases.iter().filter(|phase| phase.phase != "quiet").map(|phase| phase.latency_us.p99);
    Some(worst.max()? as f64 / 1000.0)
}

/// The server's memory after both storms, divided by that before them.
pub(crate) fn storm_memory(run: &Run) -> Option<f64> {
    let storm = run.storm.as_ref()?;
    Some(storm.storms.get(1)?.pss_after? as f64 / storm.pss_before? as f64)
}

/// Faults of a run whose connections came to their end each time, connects that had to be repeated, and calls
/// beyond the bound on those in flight.
pub(crate) fn backend_faults(run: &Run) -> Option<f64> {
    let backend = arrived(run)?;
    let missed: u64 = backend.arrivals.iter().map(|arrival| arrival.tries_missed).sum();
    let beyond = backend.application.in_flight_max.saturating_sub(CALLS_IN_FLIGHT_MAX);
    Some((run.faults() + missed + beyond) as f64)
}

/// Until the last connection had its session, in the slowest of the times that all came at once.
pub(crate) fn backend_seconds(run: &Run) -> Option<f64> {
    arrived(run)?.arrivals.iter().map(|arrival| arrival.seconds).reduce(f64::max)
}

/// Of the pings beside connections that come at once.
pub(crate) fn backend_beside_ms(run: &Run) -> Option<f64> {
    let latency = arrived(run)?.arriving_us;
    (latency.count > 0).then(|| latency.p99 as f64 / 1000.0)
}

/// A run whose connections have come at least once.
fn arrived(run: &Run) -> Option<&BackendFacts> {
    run.backend.as_ref().filter(|backend| !backend.arrivals.is_empty())
}

/// The calls of one kind that docs/backend.md promises to be in flight at most.
const CALLS_IN_FLIGHT_MAX: u64 = 256;

/// Of a run in which every kind of abuse came to its end.
pub(crate) fn abuse_faults(run: &Run) -> Option<f64> {
    run.abuse.as_ref()?;
    let otherwise: u64 = run.visits.values().map(|visits| visits.otherwise).sum();
    Some((run.faults() + otherwise) as f64)
}

/// How much later the well-behaved were answered while others were hostile.
pub(crate) fn abuse_p99(run: &Run) -> Option<f64> {
    let abuse = run.abuse.as_ref()?;
    Some(abuse.abused_us.p99 as f64 / abuse.quiet_us.p99.max(1) as f64)
}

/// Kinds of things left behind, and kinds of visits that ended wrongly.
pub(crate) fn soak_left(run: &Run) -> Option<f64> {
    run.soak.as_ref()?;
    Some(run.reasons.len() as f64)
}

pub(crate) fn connect_seconds(run: &Run) -> Option<f64> {
    Some(run.connect.seconds)
}
