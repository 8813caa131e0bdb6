//! The part of a run's connections that one worker has.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use murre_core::{CloseReason, Outbox};

/// Which connection goes where: the `i`-th of all to target `i` modulo the targets, and from the
/// next source each time the targets have all had one.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    pub(crate) targets: Vec<SocketAddr>,
    /// The targets of each node.
    pub(crate) nodes: Vec<Range<usize>>,
    pub(crate) sources: Vec<IpAddr>,
}

impl Routes {
    pub(crate) fn route(&self, i: u64) -> (SocketAddr, Option<IpAddr>) {
        let source = (i / self.targets.len() as u64).checked_rem(self.sources.len() as u64);
        (self.targets[self.target(i)], source.map(|i| self.sources[i as usize]))
    }

    fn target(&self, i: u64) -> usize {
        (i % self.targets.len() as u64) as usize
    }

    /// The target of the `i`-th client that is spread over nodes: each node in turn, and every round begins
    /// one node later. With three nodes or more, clients `i` and `i + 2` with `i` a multiple of 3 are on
    /// different ones.
    pub(crate) fn spread(&self, i: u64) -> usize {
        let round = i / self.nodes.len() as u64;
        let node = &self.nodes[((i + round) % self.nodes.len() as u64) as usize];
        node.start + (round % node.len() as u64) as usize
    }
}

/// The connections of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) conns: u32,
    /// This shard, and how many there are. Each begins with another route.
    pub(crate) shard: u64,
    pub(crate) shards: u64,
    pub(crate) routes: Routes,
    /// Connects per second; 0 is as fast as they go.
    pub(crate) connect_rate: f64,
    pub(crate) errors_max: u64,
}

impl Share {
    /// Resets all connections of the worker.
    pub(crate) fn abort_all(&self, out: &mut Outbox) {
        let all: Vec<_> = (0..self.conns).filter_map(|index| out.at(index)).collect();
        all.into_iter().for_each(|id| out.abort(id, CloseReason::Finished));
    }
}

/// One worker's part of `all`; parts differ by one at most.
pub(crate) fn part(all: u32, worker: usize, workers: usize) -> u32 {
    let (worker, workers) = (worker as u32, workers as u32);
    all / workers + u32::from(worker < all % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that connections spread evenly over all targets and sources.
    #[test]
    fn routes_use_every_pair_before_one_twice() {
        let targets: Vec<SocketAddr> =
            (1..=3).map(|d| SocketAddr::from(([127, 0, 0, d], 80))).collect();
        let sources: Vec<IpAddr> = (8..=9).map(|d| IpAddr::from([127, 0, 0, d])).collect();
        let routes = Routes { targets, nodes: Vec::new(), sources };
        let mut pairs: Vec<_> = (0..6).map(|i| routes.route(i)).collect();
        assert_eq!(routes.route(6), pairs[0]);
        pairs.sort();
        pairs.dedup();
        assert_eq!(pairs.len(), 6);
        assert!(pairs.iter().all(|(_, source)| source.is_some()));
        let routes = Routes { sources: Vec::new(), ..routes };
        assert_eq!(routes.route(4).1, None);
    }

    /// Shows that clients go to all targets of all nodes evenly, and that the two connections of a user go to
    /// different nodes.
    #[test]
    fn clients_are_spread_over_nodes() {
        for nodes in 1..6 {
            let ranges: Vec<_> = (0..nodes).map(|node| node * 4..node * 4 + 4).collect();
            let targets = vec![SocketAddr::from(([127, 0, 0, 1], 80)); nodes * 4];
            let routes = Routes { targets, nodes: ranges, sources: Vec::new() };
            let mut count = vec![0; nodes * 4];
            (0..nodes as u64 * 40).for_each(|i| count[routes.spread(i)] += 1);
            assert_eq!(count, vec![10; nodes * 4]);
            let node = |i| routes.spread(i) / 4;
            assert!(nodes < 3 || (0..300).step_by(3).all(|i| node(i) != node(i + 2)), "{nodes}");
        }
    }

    /// Shows that no connection is forgotten and that parts are even.
    #[test]
    fn parts_make_the_whole() {
        let parts: Vec<u32> = (0..3).map(|worker| part(100, worker, 3)).collect();
        assert_eq!(parts, [34, 33, 33]);
    }
}
