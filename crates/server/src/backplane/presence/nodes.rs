//! The other nodes that live, as far as their beats tell.

use std::collections::HashMap;

use murre_router::presence::Node;

use super::wire::Incarnation;

/// Milliseconds between two beats of a node.
pub(crate) const BEAT_MS: u64 = 1000;
/// A node without a beat for this time, in milliseconds, is dead.
pub(crate) const LEASE_MS: u64 = 5000;
/// A node that has not heard its own beats for this time, in milliseconds, hears nothing: the silence of
/// others proves nothing.
const DEAF_MS: u64 = 2 * BEAT_MS;
/// More nodes than this are not taken.
const NODES_MAX: usize = 4096;

/// The other nodes, under the numbers that the router knows them by.
pub(crate) struct Nodes {
    peers: HashMap<Incarnation, Peer>,
    /// The number of the newest one. Numbers go around, so none is used again soon.
    newest: Node,
    /// When this node has heard its own beat last.
    echo: Option<u64>,
    /// No node is dead before this time and a lease: others may still be connecting again.
    patient_until: u64,
}

/// Another node.
struct Peer {
    number: Node,
    session: u64,
    beat: u64,
    heard: u64,
    name: Box<str>,
}

/// What a beat shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing new.
    Known,
    /// A node that this one does not know.
    New(Node),
    /// What the node has said since its last beat may be lost.
    Lost(Node),
    /// There are too many nodes.
    TooMany,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Nodes { peers: HashMap::new(), newest: 0, echo: None, patient_until: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = Node> {
        self.peers.values().map(|peer| peer.number)
    }

    pub(crate) fn number(&self, incarnation: Incarnation) -> Option<Node> {
        self.peers.get(&incarnation).map(|peer| peer.number)
    }

    pub(crate) fn name(&self, number: Node) -> Option<&str> {
        self.peers.values().find(|peer| peer.number == number).map(|peer| &*peer.name)
    }

    pub(crate) fn incarnation(&self, number: Node) -> Option<Incarnation> {
        let found = self.peers.iter().find(|(_, peer)| peer.number == number);
        found.map(|(incarnation, _)| *incarnation)
    }

    /// This node has heard its own beat.
    pub(crate) fn echo(&mut self, now: u64) {
        if self.is_deaf(now) {
            self.doubt(now);
        }
        self.echo = Some(now);
    }

    /// This node may not have heard others. If NATS was away, each of them takes its own time to connect
    /// again, up to 8 seconds, so they have two leases from now on.
    pub(crate) fn doubt(&mut self, now: u64) {
        // Before the first echo this node knows nobody whom it could have missed.
        if self.echo.is_some() {
            self.patient_until = now.saturating_add(LEASE_MS);
        }
    }

    fn is_deaf(&self, now: u64) -> bool {
        self.echo.is_none_or(|echo| now.saturating_sub(echo) > DEAF_MS)
    }

    /// Takes the beat of another node.
    pub(crate) fn beat(
        &mut self,
        incarnation: Incarnation,
        (session, beat): (u64, u64),
        name: &str,
        now: u64,
    ) -> Beat {
        if let Some(peer) = self.peers.get_mut(&incarnation) {
            if beat <= peer.beat {
                return Beat::Known;
            }
            let is_next = beat == peer.beat.saturating_add(1) && session == peer.session;
            (peer.session, peer.beat, peer.heard) = (session, beat, now);
            return if is_next { Beat::Known } else { Beat::Lost(peer.number) };
        }
        if self.peers.len() >= NODES_MAX {
            return Beat::TooMany;
        }
        let number = self.free_number();
        tracing::info!(node = name, number, "another node is there");
        let peer = Peer { number, session, beat, heard: now, name: name.into() };
        self.peers.insert(incarnation, peer);
        Beat::New(number)
    }

    /// The next number that no node has. It is not 0, which is this node.
    fn free_number(&mut self) -> Node {
        loop {
            self.newest = self.newest.checked_add(1).unwrap_or(1);
            if self.numbers().all(|number| number != self.newest) {
                return self.newest;
            }
        }
    }

    /// A node has ended. Returns the number that it had.
    pub(crate) fn remove(&mut self, incarnation: Incarnation) -> Option<Node> {
        let Peer { name, number, .. } = self.peers.remove(&incarnation)?;
        tracing::info!(node = &*name, number, "another node has ended");
        Some(number)
    }

    /// Removes the nodes that are dead, and returns their numbers.
    pub(crate) fn take_dead(&mut self, now: u64) -> Vec<Node> {
        if self.is_deaf(now) {
            return Vec::new();
        }
        let since = self.patient_until;
        let is_dead = |peer: &Peer| now.saturating_sub(peer.heard.max(since)) >= LEASE_MS;
        let dead = self.peers.extract_if(|_, peer| is_dead(peer));
        dead.map(|(_, Peer { name, number, .. })| {
            tracing::warn!(node = &*name, number, "another node is dead: it is not heard any more");
            number
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(nodes: &mut Nodes, incarnation: u64, beat: u64, now: u64) -> Beat {
        nodes.beat(incarnation, (1, beat), "name", now)
    }

    /// A node is dead when its lease is over, and a new one when it beats again. A missing beat and another
    /// session show that something may be lost; a repeat shows nothing.
    #[test]
    fn leases() {
        let mut nodes = Nodes::new();
        assert_eq!(beat(&mut nodes, 7, 1, 0), Beat::New(1));
        for (number, now) in (0..5).map(|number| (number, number * BEAT_MS)) {
            nodes.echo(now);
            assert!(nodes.take_dead(now).is_empty(), "{number}");
        }
        assert_eq!(beat(&mut nodes, 7, 2, 4500), Beat::Known);
        assert_eq!(beat(&mut nodes, 7, 2, 4500), Beat::Known);
        assert_eq!(beat(&mut nodes, 7, 4, 4500), Beat::Lost(1));
        assert_eq!(nodes.beat(7, (2, 5), "name", 4500), Beat::Lost(1));
        (5..10).for_each(|second| nodes.echo(second * BEAT_MS));
        assert!(nodes.take_dead(9499).is_empty());
        assert_eq!(nodes.take_dead(9500), [1]);
        assert_eq!(nodes.number(7), None);
        assert_eq!(beat(&mut nodes, 7, 9, 9500), Beat::New(2));
    }

    /// While this node does not hear itself, others are not dead. Afterwards they have time to connect again.
    #[test]
    fn a_deaf_node_buries_nobody() {
        let mut nodes = Nodes::new();
        beat(&mut nodes, 7, 1, 0);
        nodes.echo(0);
        assert!(nodes.take_dead(60_000).is_empty());
        nodes.echo(60_000);
        assert!(nodes.take_dead(60_000).is_empty());
        (61..70).for_each(|second| nodes.echo(second * BEAT_MS));
        assert!(nodes.take_dead(69_999).is_empty());
        nodes.echo(70_000);
        assert_eq!(nodes.take_dead(70_000), [1]);
    }

    /// A connection that is replaced before this node counts as deaf gives others the same time.
    #[test]
    fn a_new_connection_is_a_doubt() {
        let mut nodes = Nodes::new();
        nodes.doubt(0);
        beat(&mut nodes, 7, 1, 0);
        (0..5).for_each(|second| nodes.echo(second * BEAT_MS));
        nodes.doubt(4500);
        (5..15).for_each(|second| nodes.echo(second * BEAT_MS));
        assert!(nodes.take_dead(14_499).is_empty());
        assert_eq!(nodes.take_dead(14_500), [1]);
    }

    /// The number of a dead node is used again only when all others were.
    #[test]
    fn numbers_go_around() {
        let mut nodes = Nodes::new();
        assert_eq!(beat(&mut nodes, 1, 1, 0), Beat::New(1));
        for round in 2..=u64::from(Node::MAX) {
            assert_eq!(beat(&mut nodes, round, 1, 0), Beat::New(round as Node));
            assert_eq!(nodes.remove(round), Some(round as Node));
        }
        assert_eq!(
            beat(&mut nodes, 1 << 20, 1, 0),
            Beat::New(2),
            "1 is in use, and 0 is this node"
        );
        for incarnation in 0..NODES_MAX as u64 {
            beat(&mut nodes, 1 << 30 | incarnation, 1, 0);
        }
        assert_eq!((beat(&mut nodes, 1 << 40, 1, 0), nodes.len()), (Beat::TooMany, NODES_MAX));
    }
}
