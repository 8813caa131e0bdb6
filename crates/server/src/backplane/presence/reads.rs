//! Pages of the members of a channel on all nodes. Every node is asked for its number of members, and one after
//! another for members, until a page is full. What a node does not answer in time is missing in the page, which
//! says so.
//!
//! A place in the list of all members is the number of a node and the place there.

use std::collections::BTreeMap;
use std::sync::Arc;

use murre_router::presence::{HERE, Node, PresencePage, PresenceQuery};

/// The pages that are being read, by number.
pub(crate) struct Reads<A> {
    reads: BTreeMap<u64, Read<A>>,
    next: u64,
}

struct Read<A> {
    /// Who gets the page.
    asker: A,
    channel: Arc<str>,
    deadline: u64,
    /// What may still come into the page.
    limit: u32,
    bytes_max: u32,
    /// Nodes whose number of members is not known yet, and those with members.
    waiting: Vec<Node>,
    present: Vec<Node>,
    /// The node that is asked for members, and the one to go on with: it, or the next.
    asked: Option<Node>,
    from: Option<(Node, u32)>,
    page: PresencePage,
    unanswered: Vec<Node>,
}

/// A question to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) node: Node,
    pub(crate) id: u64,
    pub(crate) channel: Arc<str>,
    pub(crate) query: PresenceQuery,
}

/// A page that is ready.
pub(crate) struct Ready<A> {
    pub(crate) asker: A,
    pub(crate) page: PresencePage,
    /// Nodes that have not answered in time.
    pub(crate) unanswered: Vec<Node>,
}

/// Milliseconds for all answers of one page.
pub(crate) const PAGE_MS: u64 = 1000;
/// Bytes that one node is asked for at most, so that they fit into one message.
const NODE_BYTES_MAX: u32 = 512 << 10;
/// Bytes that a member takes in a page beside its name and metadata, as in the router.
const MEMBER_BYTES: usize = 64;

impl<A> Reads<A> {
    pub(crate) fn new() -> Self {
        Reads { reads: BTreeMap::new(), next: 0 }
    }

    /// Begins a page of this node and `others`, and returns the questions.
    pub(crate) fn begin(
        &mut self,
        asker: A,
        channel: Arc<str>,
        query: PresenceQuery,
        others: impl Iterator<Item = Node>,
        now: u64,
    ) -> Vec<Question> {
        self.next = self.next.wrapping_add(1);
        let id = self.next;
        let mut nodes: Vec<Node> = others.chain([HERE]).collect();
        nodes.sort_unstable();
        let place = Node::try_from(query.from >> 32).ok();
        let from = place.and_then(|wanted| {
            let node = nodes.iter().find(|node| **node >= wanted)?;
            Some((*node, if *node == wanted { query.from as u32 } else { 0 }))
        });
        let from = from.filter(|_| query.limit > 0);
        let read = Read {
            asker,
            channel,
            deadline: now.saturating_add(PAGE_MS),
            limit: query.limit,
            bytes_max: query.bytes_max,
            waiting: nodes.clone(),
            present: Vec::new(),
            asked: from.map(|(node, _)| node),
            from,
            page: PresencePage::default(),
            unanswered: Vec::new(),
        };
        let questions = nodes.into_iter().map(|node| read.question(id, node)).collect();
        self.reads.insert(id, read);
        questions
    }

    /// Takes the answer of a node. Returns the next question, or the page if it is ready.
    pub(crate) fn answer(
        &mut self,
        node: Node,
        id: u64,
        answer: PresencePage,
    ) -> (Option<Question>, Option<Ready<A>>) {
        let Some(read) = self.reads.get_mut(&id) else { return (None, None) };
        if let Some(at) = read.waiting.iter().position(|waiting| *waiting == node) {
            read.waiting.swap_remove(at);
            let (sum, count) = (&mut read.page.count, answer.count);
            sum.clients = sum.clients.saturating_add(count.clients);
            sum.users = sum.users.saturating_add(count.users);
            if count.clients > 0 {
                read.present.push(node);
            }
        } else if read.asked != Some(node) {
            return (None, None);
        }
        if read.asked == Some(node) {
            read.asked = None;
            read.add(node, answer);
        }
        self.go_on(id)
    }

    /// Goes on without the nodes that have not answered in time, or have ended.
    pub(crate) fn give_up(&mut self, now: u64) -> Vec<Ready<A>> {
        let overdue: Vec<u64> =
            self.reads.iter().filter(|(_, read)| read.deadline <= now).map(|(id, _)| *id).collect();
        let ready = overdue.into_iter().filter_map(|id| {
            let read = self.reads.get_mut(&id)?;
            read.unanswered = std::mem::take(&mut read.waiting);
            if let Some(node) = read.asked.take() {
                if !read.unanswered.contains(&node) {
                    read.unanswered.push(node);
                }
                read.from = node.checked_add(1).map(|next| (next, 0));
            }
            Some(self.ready(id))
        });
        ready.collect()
    }

    fn go_on(&mut self, id: u64) -> (Option<Question>, Option<Ready<A>>) {
        let Some(read) = self.reads.get_mut(&id) else { return (None, None) };
        if !read.waiting.is_empty() || read.asked.is_some() {
            return (None, None);
        }
        // A place within a node means that its page was full.
        match read.next() {
            Some((node, 0)) if read.limit > 0 && read.bytes_max > 0 => {
                read.asked = Some(node);
                read.from = Some((node, 0));
                (Some(read.question(id, node)), None)
            }
            _ => (None, Some(self.ready(id))),
        }
    }

    fn ready(&mut self, id: u64) -> Ready<A> {
        let read = self.reads.remove(&id).expect("the caller has found it");
        let next = read.next().map(|(node, place)| u64::from(node) << 32 | u64::from(place));
        let Read { asker, mut page, unanswered, .. } = read;
        page.next = next;
        Ready { asker, page, unanswered }
    }
}

impl<A> Read<A> {
    fn question(&self, id: u64, node: Node) -> Question {
        let (from, limit) = match self.from {
            Some((of, from)) if of == node => (from.into(), self.limit),
            _ => (0, 0),
        };
        let bytes_max = self.bytes_max.min(NODE_BYTES_MAX);
        let query = PresenceQuery { from, limit, bytes_max };
        Question { node, id, channel: Arc::clone(&self.channel), query }
    }

    /// Adds the members of a node, and goes on behind them.
    fn add(&mut self, node: Node, answer: PresencePage) {
        for mut member in answer.members {
            let meta = member.meta.as_ref().map_or(0, |meta| meta.bytes().len());
            let bytes = meta.saturating_add(member.user.len()).saturating_add(MEMBER_BYTES);
            self.bytes_max =
                self.bytes_max.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
            self.limit = self.limit.saturating_sub(1);
            member.node = node;
            self.page.members.push(member);
        }
        let place = answer.next.and_then(|next| u32::try_from(next).ok());
        self.from = match place.filter(|place| *place > 0) {
            Some(place) => Some((node, place)),
            None => node.checked_add(1).map(|next| (next, 0)),
        };
    }

    /// The next place with members, as far as is known.
    fn next(&self) -> Option<(Node, u32)> {
        let (node, place) = self.from?;
        if place > 0 {
            return Some((node, place));
        }
        let later = self.present.iter().chain(&self.unanswered).filter(|other| **other >= node);
        later.min().map(|node| (*node, 0))
    }
}

#[cfg(test)]
mod tests {
    use murre_router::channels::Origin;
    use murre_router::presence::{Count, PresentMember};

    use super::*;

    /// The members of a node, 10 each, from a place on.
    fn of_node(Question { node, query, .. }: &Question, members: u32) -> PresencePage {
        let from = query.from as u32;
        let end = members.min(from.saturating_add(query.limit));
        let member = |slot| PresentMember {
            node: HERE,
            origin: Origin(u64::from(*node) * 1000 + u64::from(slot)),
            stamp: 0,
            replaces: 0,
            user: "u".into(),
            meta: None,
        };
        let count = Count { clients: members.into(), users: 1 };
        let more = query.limit > 0 && end < members;
        PresencePage {
            count,
            members: (from..end).map(member).collect(),
            next: more.then_some(end.into()),
            unanswered: Vec::new(),
        }
    }

    /// Reads all pages of nodes with so many members each; the nodes without a number do not answer.
    fn read(nodes: &[(Node, Option<u32>)], limit: u32) -> (Vec<u64>, Vec<Node>, Count, usize) {
        let (mut all, mut pages, mut from) = (Vec::new(), 0, 0);
        loop {
            pages += 1;
            assert!(pages < 100, "it goes on for ever");
            let mut reads = Reads::new();
            let query = PresenceQuery { from, limit, bytes_max: 1 << 20 };
            let others = nodes.iter().map(|(node, _)| *node).filter(|node| *node != HERE);
            let mut questions = reads.begin((), "c".into(), query, others, 0);
            let mut ready = None;
            while let Some(question) = questions.pop() {
                let (_, members) =
                    nodes.iter().find(|(node, _)| *node == question.node).expect("one");
                let Some(members) = members else { continue };
                let answer = of_node(&question, *members);
                let (further, page) = reads.answer(question.node, question.id, answer);
                questions.extend(further);
                ready = page.or(ready);
            }
            assert!(reads.give_up(PAGE_MS - 1).is_empty());
            let given_up = reads.give_up(PAGE_MS).pop();
            assert!(ready.is_none() || given_up.is_none() && reads.reads.is_empty());
            let Ready { page, unanswered, .. } = ready.or(given_up).expect("a page");
            assert!(page.members.len() <= limit as usize);
            all.extend(page.members.iter().map(|member| {
                assert_eq!(u64::from(member.node), member.origin.0 / 1000);
                member.origin.0
            }));
            match page.next {
                Some(next) => from = next,
                None => return (all, unanswered, page.count, pages),
            }
        }
    }

    /// Each member of each node is in one page, and the numbers are the sum of all.
    #[test]
    fn pages_have_each_member_once() {
        let nodes = [(HERE, Some(3)), (4, Some(0)), (7, Some(10)), (Node::MAX, Some(5))];
        for (limit, least) in [(1, 18), (4, 5), (7, 3), (1000, 1)] {
            let (mut all, missing, count, pages) = read(&nodes, limit);
            assert_eq!((missing, count), (vec![], Count { clients: 18, users: 4 }));
            assert!((least..least + 4).contains(&pages), "{pages} pages of {limit}");
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 18);
        }
        assert_eq!(read(&nodes, 0).3, 1, "numbers alone");
    }

    /// A node that does not answer is named, and the members of the others are there all the same.
    #[test]
    fn a_node_does_not_answer() {
        let nodes = [(HERE, Some(3)), (4, None), (7, Some(10))];
        let (all, missing, count, _) = read(&nodes, 2);
        assert_eq!((all.len(), missing), (13, vec![4]));
        assert_eq!(count, Count { clients: 13, users: 2 });
    }

    /// Places that no page has said, the highest among them, have pages that make sense.
    #[test]
    fn any_place() {
        for (from, members) in [(u64::MAX, 0), (1 << 48, 0), (5 << 32, 10), (7 << 32 | 9, 1)] {
            let mut reads = Reads::new();
            let query = PresenceQuery { from, limit: 100, bytes_max: 1 << 20 };
            let questions = reads.begin((), "c".into(), query, [7].into_iter(), 0);
            let answers = questions
                .iter()
                .map(|question| reads.answer(question.node, question.id, of_node(question, 10)).1);
            let ready = answers.flatten().next().expect("a page");
            assert_eq!((ready.page.members.len(), ready.page.next), (members, None), "{from}");
        }
    }
}
