//! The hold phase of `phoenix` with several nodes: steady, then a node is killed and another one drained. Their
//! clients return to the nodes that live.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use murre_record::{NodeEnd, ProcessFacts};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::orders::Phase;
use crate::engine::score::Totals;
use crate::measure::reading::process_memory;
use crate::measure::{admin, machine};
use crate::run::phases::{Early, POLL, Run};

/// The nodes of a run, and which of them end.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// The admin port of each node.
    pub(crate) admins: Vec<SocketAddr>,
    /// The processes of the first two nodes; `None` if the operator ends them.
    pub(crate) pids: Option<[i32; 2]>,
    /// How long the run goes on after the end of each.
    pub(crate) settle: Duration,
    /// Processes whose use of the machine is recorded.
    pub(crate) processes: Vec<(String, i32)>,
}

/// How a node ends.
const ENDS: [(&str, Signal); 2] = [("killed", Signal::SIGKILL), ("drained", Signal::SIGTERM)];

impl Run {
    /// Steady for the whole duration; then two nodes end, one after the other.
    pub(super) fn nodes(&mut self, plan: &NodePlan) -> Result<(), Early> {
        let cpu = || plan.processes.iter().map(|&(_, pid)| cpu_of_tree(pid));
        let connected: Vec<_> = cpu().collect();
        self.steady(self.job.common.duration)?;
        let steady = connected.into_iter().zip(cpu()).zip(&plan.processes);
        let processes = steady.map(|((connected, now), (name, pid))| {
            let facts = ProcessFacts {
                connect_cpu_seconds: connected.as_secs_f64(),
                steady_cpu_seconds: now.saturating_sub(connected).as_secs_f64(),
                pss_bytes: tree(*pid).map(pss).sum(),
            };
            (name.clone(), facts)
        });
        self.processes = processes.collect();
        self.compare()?;
        for (node, (how, signal)) in ENDS.into_iter().enumerate() {
            let ended = self.end_node(plan, node, how, signal)?;
            self.ended.push(ended);
            self.steady(plan.settle)?;
            self.compare()?;
        }
        Ok(())
    }

    /// A part in which no connection may end.
    fn steady(&mut self, span: Duration) -> Result<(), Early> {
        let ended = self.workers.totals().ended;
        self.phase(Phase::Quiet, span, |_| true)?;
        let ended = self.workers.totals().ended - ended;
        if ended > 0 {
            return self.fail(format!("{ended} connections were lost while no node ended"));
        }
        Ok(())
    }

    /// One node ends. Waits until its clients are on other nodes.
    fn end_node(
        &mut self,
        plan: &NodePlan,
        node: usize,
        how: &str,
        signal: Signal,
    ) -> Result<NodeEnd, Early> {
        let admin = plan.admins[node];
        let connections = match admin::connections(admin) {
            Ok(connections) => connections,
            Err(error) => return self.fail(format!("{error:#}")),
        };
        let before = self.workers.totals();
        match plan.pids {
            Some(pids) => {
                if let Err(error) = kill(Pid::from_raw(pids[node]), signal) {
                    return self.fail(format!("node {node}, process {}: {error}", pids[node]));
                }
            }
            None => self.progress.print(&format!(
                "The node whose admin port is {admin} must be {how} now: send it {signal}."
            )),
        }
        let mut begun = Instant::now();
        while plan.pids.is_none() && self.workers.totals().ended == before.ended {
            begun = Instant::now();
            self.next(begun + POLL, Duration::ZERO)?;
        }
        let (lost, all) = (before.ended + connections, self.job.conns_all());
        let back = move |now: &Totals| now.ended >= lost && now.ready == all;
        self.phase(Phase::NodeEnds, Duration::ZERO, back)?;
        let back_in = begun.elapsed();
        let now = self.workers.totals();
        let lost = now.ended - before.ended;
        if lost != connections {
            return self
                .fail(format!("{lost} connections were lost, a node {how} had {connections}"));
        }
        Ok(NodeEnd {
            how: how.to_owned(),
            connections,
            lost,
            tries_missed: now.missed_all() - before.missed_all(),
            back_in_seconds: back_in.as_secs_f64(),
        })
    }

    /// Compares the nodes' state with the clients'.
    fn compare(&mut self) -> Result<(), Early> {
        let connections = self.workers.totals().ready;
        match self.job.scenario.compare(connections).context("while nodes end") {
            Ok(()) => Ok(()),
            Err(error) => self.fail(format!("{error:#}")),
        }
    }
}

/// A process and its children.
fn tree(pid: i32) -> impl Iterator<Item = i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children: Vec<i32> =
        children.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect();
    std::iter::once(pid).chain(children)
}

fn cpu_of_tree(pid: i32) -> Duration {
    tree(pid).filter_map(machine::cpu_of).sum()
}

fn pss(pid: i32) -> u64 {
    process_memory(&pid.to_string()).map_or(0, |memory| memory.pss_bytes)
}
