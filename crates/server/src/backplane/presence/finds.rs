//! Where a user is connected, on all nodes. Every node asks its shards, which answer one by one. What a node does not
//! answer in time is missing, and the answer says so.

use std::collections::BTreeMap;

use murre_router::Shard;
use murre_router::channels::Origin;
use murre_router::presence::{HERE, Node};

use super::reads::PAGE_MS;

/// The questions without an answer, by number.
pub(crate) struct Finds<A> {
    finds: BTreeMap<u64, Find<A>>,
    next: u64,
}

struct Find<A> {
    /// Who gets the answer.
    asker: A,
    deadline: u64,
    nodes: BTreeMap<Node, OfNode>,
}

/// What one node has answered.
#[derive(Default)]
struct OfNode {
    /// The shards that have.
    shards: Vec<Shard>,
    is_complete: bool,
    connections: Vec<Origin>,
}

/// The answer of one shard of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundHere {
    pub(crate) shard: Shard,
    /// The number of shards of the node.
    pub(crate) shards: Shard,
    pub(crate) connections: Vec<Origin>,
}

/// An answer that is ready.
pub(crate) struct Found<A> {
    pub(crate) asker: A,
    /// The nodes with connections of the user, this one first.
    pub(crate) nodes: Vec<(Node, Vec<Origin>)>,
    /// Nodes that have not answered, or not wholly, in time.
    pub(crate) unanswered: Vec<Node>,
}

/// Connections of one shard that an answer names at most, so that it fits into one message.
pub(crate) const CONNECTIONS_MAX: usize = 50_000;

impl<A> Finds<A> {
    pub(crate) fn new() -> Self {
        Finds { finds: BTreeMap::new(), next: 0 }
    }

    /// Begins a question to this node and `others`. Returns its number.
    pub(crate) fn begin(&mut self, asker: A, others: impl Iterator<Item = Node>, now: u64) -> u64 {
        self.next = self.next.wrapping_add(1);
        let nodes = others.chain([HERE]).map(|node| (node, OfNode::default())).collect();
        let find = Find { asker, deadline: now.saturating_add(PAGE_MS), nodes };
        self.finds.insert(self.next, find);
        self.next
    }

    /// Takes the answer of a shard of a node. Returns the answer of all if it is complete.
    pub(crate) fn answer(&mut self, node: Node, id: u64, found: FoundHere) -> Option<Found<A>> {
        let find = self.finds.get_mut(&id)?;
        let of_node = find.nodes.get_mut(&node)?;
        if of_node.is_complete || of_node.shards.contains(&found.shard) {
            return None;
        }
        of_node.shards.push(found.shard);
        of_node.is_complete = of_node.shards.len() >= usize::from(found.shards);
        of_node.connections.extend(found.connections);
        let is_complete = find.nodes.values().all(|of_node| of_node.is_complete);
        if is_complete { self.finds.remove(&id).map(Find::end) } else { None }
    }

    /// Ends the questions whose time is over.
    pub(crate) fn give_up(&mut self, now: u64) -> Vec<Found<A>> {
        let overdue = self.finds.extract_if(.., |_, find| find.deadline <= now);
        overdue.map(|(_, find)| find.end()).collect()
    }
}

impl<A> Find<A> {
    fn end(self) -> Found<A> {
        let Find { asker, nodes, .. } = self;
        let missing = nodes.iter().filter(|(_, of_node)| !of_node.is_complete);
        let unanswered = missing.map(|(node, _)| *node).collect();
        let found = nodes.into_iter().map(|(node, of_node)| (node, of_node.connections));
        let nodes = found.filter(|(_, connections)| !connections.is_empty()).collect();
        Found { asker, nodes, unanswered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(shard: Shard, shards: Shard, connections: &[u64]) -> FoundHere {
        let connections = connections.iter().map(|origin| Origin(*origin)).collect();
        FoundHere { shard, shards, connections }
    }

    /// The answer has the connections of all shards of all nodes, and comes with the last of them. Repeats, and answers
    /// of others, change nothing.
    #[test]
    fn all_shards_of_all_nodes() {
        let mut finds = Finds::new();
        let id = finds.begin("api", [7, 9].into_iter(), 0);
        for (node, id, part) in [
            (7, id, part(1, 2, &[3])),
            (7, id, part(1, 2, &[3])),
            (HERE, id, part(0, 1, &[])),
            (8, id, part(0, 1, &[1])),
            (9, id + 1, part(0, 1, &[1])),
            (9, id, part(0, 1, &[5, 6])),
            (9, id, part(3, 9, &[1])),
        ] {
            assert!(finds.answer(node, id, part).is_none());
        }
        let found = finds.answer(7, id, part(0, 2, &[4])).expect("the last");
        assert_eq!((found.asker, found.unanswered), ("api", vec![]));
        let of = |origins: &[u64]| origins.iter().map(|origin| Origin(*origin)).collect::<Vec<_>>();
        assert_eq!(found.nodes, [(7, of(&[3, 4])), (9, of(&[5, 6]))]);
        assert!(finds.answer(7, id, part(0, 2, &[4])).is_none() && finds.finds.is_empty());
    }

    /// A node of which a shard does not answer is named, and what the others have found is there.
    #[test]
    fn a_shard_does_not_answer() {
        let mut finds = Finds::new();
        let id = finds.begin((), [7].into_iter(), 0);
        assert!(finds.answer(HERE, id, part(0, 1, &[2])).is_none());
        assert!(finds.answer(7, id, part(0, 2, &[1])).is_none());
        assert!(finds.give_up(PAGE_MS - 1).is_empty());
        let found = finds.give_up(PAGE_MS).pop().expect("an answer");
        assert_eq!(found.unanswered, [7]);
        assert_eq!(found.nodes, [(HERE, vec![Origin(2)]), (7, vec![Origin(1)])]);
    }
}
