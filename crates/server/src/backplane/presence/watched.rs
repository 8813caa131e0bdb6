//! The channels that this node watches: what it has heard of them from each node, and what it has to ask.
//!
//! A node of which nothing is known in a channel that somebody watches is asked until it answers, so that
//! what cannot be read is never taken for absent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use murre_router::Shard;
use murre_router::presence::{Changes, Node, PresentMember, RemoteEvent};

use super::wire::Statement;

/// The channels that shards of this node watch, or have watched a short time ago.
pub(crate) struct Watched {
    channels: HashMap<Arc<str>, Channel>,
    /// Channels that nobody watches any more, by the time at which they are forgotten.
    lingering: VecDeque<(u64, Arc<str>)>,
    /// Channels for which all nodes are to be asked.
    ask_all: VecDeque<Arc<str>>,
    /// Channels for which one node is to be asked.
    ask_one: BTreeMap<Node, VecDeque<Arc<str>>>,
    /// Channels whose nodes have been asked, by the time at which they are asked again.
    asked: VecDeque<(u64, Arc<str>)>,
}

struct Channel {
    owner: Shard,
    /// When it is forgotten, if nobody watches it.
    forgotten_at: Option<u64>,
    /// Nodes that are not here have nobody in the channel.
    nodes: Vec<(Node, Knowledge)>,
    is_asked: bool,
}

/// What is known of a node in a channel.
enum Knowledge {
    /// All up to the statement with this number.
    Upto(u64),
    /// Nothing reliable: the node is asked. The last statement that was passed on had the number `last`, or there was none.
    Wanted { last: u64, parts: Option<Box<Parts>> },
}

/// The first parts of a statement that has several.
struct Parts {
    number: u64,
    next: u64,
    members: Vec<PresentMember>,
}

/// What a statement shows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new, or nothing that can be used yet.
    Nothing,
    /// A statement before it is missing.
    Gap,
    /// The owner of the channel is to be told.
    Event(Shard, RemoteEvent),
}

/// Channels of one question.
const ASK_MAX: usize = 500;
/// Milliseconds until a question is repeated.
pub(crate) const PATIENCE_MS: u64 = 2000;
/// Milliseconds for which a channel is kept that nobody watches any more.
const LINGER_MS: u64 = 5000;

impl Watched {
    pub(crate) fn new() -> Self {
        Watched {
            channels: HashMap::new(),
            lingering: VecDeque::new(),
            ask_all: VecDeque::new(),
            ask_one: BTreeMap::new(),
            asked: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there is something to ask.
    pub(crate) fn has_questions(&self) -> bool {
        !self.ask_all.is_empty() || !self.ask_one.is_empty()
    }

    /// A shard watches its channel from now on, and knows nothing of it. Returns whether the channel is new here.
    pub(crate) fn watch(
        &mut self,
        owner: Shard,
        name: &Arc<str>,
        nodes: impl Iterator<Item = Node>,
    ) -> bool {
        let is_new = !self.channels.contains_key(name);
        let channel = self.channels.entry(Arc::clone(name)).or_insert_with(|| Channel {
            owner,
            forgotten_at: None,
            nodes: Vec::new(),
            is_asked: false,
        });
        channel.forgotten_at = None;
        nodes.for_each(|node| channel.want(node));
        if !channel.nodes.is_empty() {
            self.ask_all.push_back(Arc::clone(name));
        }
        is_new
    }

    /// Nobody watches a channel any more.
    pub(crate) fn unwatch(&mut self, name: &Arc<str>, now: u64) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let due = now.saturating_add(LINGER_MS);
        channel.forgotten_at = Some(due);
        self.lingering.push_back((due, Arc::clone(name)));
    }

    /// Forgets a channel that nobody has watched for some time.
    pub(crate) fn take_forgotten(&mut self, now: u64) -> Option<Arc<str>> {
        while self.lingering.front().is_some_and(|(due, _)| *due <= now) {
            let (due, name) = self.lingering.pop_front()?;
            if self.channels.get(&name).is_some_and(|channel| channel.forgotten_at == Some(due)) {
                self.channels.remove(&name);
                return Some(name);
            }
        }
        None
    }

    /// What a node has in all channels is not known any more, or not yet.
    pub(crate) fn want_all_of(&mut self, node: Node) {
        let questions = self.ask_one.entry(node).or_default();
        questions.clear();
        for (name, channel) in &mut self.channels {
            channel.want(node);
            questions.push_back(Arc::clone(name));
        }
        if questions.is_empty() {
            self.ask_one.remove(&node);
        }
    }

    /// Nothing of what these nodes have is known any more.
    pub(crate) fn want_everything(&mut self, nodes: &[Node]) {
        self.ask_one.clear();
        self.ask_all.clear();
        if nodes.is_empty() {
            return;
        }
        for (name, channel) in &mut self.channels {
            nodes.iter().for_each(|node| channel.want(*node));
            self.ask_all.push_back(Arc::clone(name));
        }
    }

    /// What a node has in a channel is not known any more, because the shard could not be told. It is asked
    /// later.
    pub(crate) fn want_later(&mut self, node: Node, name: &Arc<str>, now: u64) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        channel.want(node);
        if !std::mem::replace(&mut channel.is_asked, true) {
            self.asked.push_back((now.saturating_add(PATIENCE_MS), Arc::clone(name)));
        }
    }

    /// A node has ended.
    pub(crate) fn forget_node(&mut self, node: Node) {
        self.ask_one.remove(&node);
        for channel in self.channels.values_mut() {
            channel.nodes.retain(|(of, _)| *of != node);
        }
    }

    /// Takes what a node says of a channel.
    pub(crate) fn hear(
        &mut self,
        node: Node,
        name: &Arc<str>,
        (number, statement): (u64, Statement),
        now: u64,
    ) -> Heard {
        let Some(channel) = self.channels.get_mut(name) else { return Heard::Nothing };
        if channel.forgotten_at.is_some() {
            return Heard::Nothing;
        }
        match channel.hear(node, name, number, statement) {
            Step::Event(event) => Heard::Event(channel.owner, event),
            Step::Nothing => Heard::Nothing,
            Step::Part => {
                // The next part may be lost.
                if !std::mem::replace(&mut channel.is_asked, true) {
                    self.asked.push_back((now.saturating_add(PATIENCE_MS), Arc::clone(name)));
                }
                Heard::Nothing
            }
            Step::Gap => {
                channel.want(node);
                self.ask_one.entry(node).or_default().push_back(Arc::clone(name));
                Heard::Gap
            }
        }
    }

    /// A node says that it has nothing in a channel as of the statement `at`. Returns what the owner is to be
    /// told.
    pub(crate) fn hear_nothing(
        &mut self,
        node: Node,
        name: &Arc<str>,
        at: u64,
    ) -> Option<(Shard, RemoteEvent)> {
        let channel = self.channels.get_mut(name)?;
        if channel.forgotten_at.is_some() {
            return None;
        }
        let place = channel.nodes.iter().position(|(of, _)| *of == node)?;
        let last = channel.nodes[place].1.last();
        if last > at {
            return None;
        }
        if last == 0 {
            // The owner has never been told anything of the node.
            channel.nodes.swap_remove(place);
            return None;
        }
        channel.nodes[place].1 = Knowledge::Upto(at);
        let event = RemoteEvent::Members { node, channel: Arc::clone(name), members: Vec::new() };
        Some((channel.owner, event))
    }

    /// The channels of the next question to one node, or to all if there is none. They are asked again later.
    pub(crate) fn take_question(&mut self, now: u64) -> Option<(Option<Node>, Vec<Arc<str>>)> {
        let Watched { channels, ask_all, ask_one, asked, .. } = self;
        let is_wanted = |name: &Arc<str>, node: Option<Node>| {
            let channel = channels.get(name).filter(|channel| channel.forgotten_at.is_none());
            channel.is_some_and(|channel| {
                let mut wanted = channel.nodes.iter().filter(|(_, of)| of.is_wanted());
                wanted.any(|(of, _)| node.is_none_or(|node| *of == node))
            })
        };
        let (node, names) = match ask_one.first_entry() {
            _ if !ask_all.is_empty() => {
                let end = ask_all.len().min(ASK_MAX);
                (None, ask_all.drain(..end).filter(|name| is_wanted(name, None)).collect())
            }
            Some(mut entry) => {
                let (node, questions) = (*entry.key(), entry.get_mut());
                let end = questions.len().min(ASK_MAX);
                let names = questions.drain(..end);
                let names: Vec<_> = names.filter(|name| is_wanted(name, Some(node))).collect();
                if questions.is_empty() {
                    entry.remove();
                }
                (Some(node), names)
            }
            None => return None,
        };
        for name in &names {
            let channel = channels.get_mut(name).expect("it is wanted");
            if !std::mem::replace(&mut channel.is_asked, true) {
                asked.push_back((now.saturating_add(PATIENCE_MS), Arc::clone(name)));
            }
        }
        Some((node, names))
    }

    /// Has the nodes asked again that have not answered in time.
    pub(crate) fn ask_again(&mut self, now: u64) {
        while self.asked.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, name)) = self.asked.pop_front() else { return };
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            channel.is_asked = false;
            let wanted = channel.nodes.iter().filter(|(_, knowledge)| knowledge.is_wanted());
            for (node, _) in wanted {
                self.ask_one.entry(*node).or_default().push_back(Arc::clone(&name));
            }
        }
    }
}

/// What a statement means for its channel.
enum Step {
    Nothing,
    /// More parts follow.
    Part,
    Gap,
    Event(RemoteEvent),
}

impl Channel {
    fn want(&mut self, node: Node) {
        match self.nodes.iter_mut().find(|(of, _)| *of == node) {
            Some((_, knowledge)) => {
                *knowledge = Knowledge::Wanted { last: knowledge.last(), parts: None };
            }
            None => self.nodes.push((node, Knowledge::Wanted { last: 0, parts: None })),
        }
    }

    fn hear(&mut self, node: Node, name: &Arc<str>, number: u64, statement: Statement) -> Step {
        let place = self.nodes.iter().position(|(of, _)| *of == node);
        let last = place.map_or(0, |place| self.nodes[place].1.last());
        if number <= last {
            return Step::Nothing;
        }
        let is_wanted = place.is_some_and(|place| self.nodes[place].1.is_wanted());
        let channel = Arc::clone(name);
        let event = match statement {
            Statement::Count(count) => RemoteEvent::Count { node, channel, count },
            Statement::Changes { previous: 0, joins: members, .. } => {
                RemoteEvent::Members { node, channel, members: of_node(members, node) }
            }
            Statement::Changes { previous, joins, leaves } if previous == last && !is_wanted => {
                let (joins, leaves) = (of_node(joins, node), of_node(leaves, node));
                RemoteEvent::Changes { node, channel, changes: Changes { joins, leaves } }
            }
            Statement::Changes { .. } | Statement::Mark if is_wanted => return Step::Nothing,
            Statement::Changes { .. } | Statement::Mark => return Step::Gap,
            Statement::Members { part, is_last, members } => {
                let Some(members) = self.parts(node, number, (part, is_last), members) else {
                    return Step::Part;
                };
                RemoteEvent::Members { node, channel, members: of_node(members, node) }
            }
        };
        // `parts` may have added the node.
        let known = self.nodes.iter_mut().find(|(of, _)| *of == node);
        match known {
            Some((_, knowledge)) => *knowledge = Knowledge::Upto(number),
            None => self.nodes.push((node, Knowledge::Upto(number))),
        }
        Step::Event(event)
    }

    /// Takes a part of all members of a node. Returns all of them with the last part, if none is missing.
    fn parts(
        &mut self,
        node: Node,
        number: u64,
        (part, is_last): (u64, bool),
        members: Vec<PresentMember>,
    ) -> Option<Vec<PresentMember>> {
        if part == 0 && is_last {
            return Some(members);
        }
        let place = self.nodes.iter().position(|(of, _)| *of == node);
        let before = place.and_then(|place| match &mut self.nodes[place].1 {
            Knowledge::Wanted { parts, .. } => parts.take(),
            Knowledge::Upto(_) => None,
        });
        let mut parts = match before {
            _ if part == 0 => Box::new(Parts { number, next: 0, members: Vec::new() }),
            Some(parts) if parts.number == number && parts.next == part => parts,
            _ => return None,
        };
        parts.next = parts.next.saturating_add(1);
        parts.members.extend(members);
        if is_last {
            return Some(parts.members);
        }
        let last = place.map_or(0, |place| self.nodes[place].1.last());
        let wanted = Knowledge::Wanted { last, parts: Some(parts) };
        match place {
            Some(place) => self.nodes[place].1 = wanted,
            None => self.nodes.push((node, wanted)),
        }
        None
    }
}

impl Knowledge {
    fn is_wanted(&self) -> bool {
        matches!(self, Knowledge::Wanted { .. })
    }

    fn last(&self) -> u64 {
        match self {
            Knowledge::Upto(last) | Knowledge::Wanted { last, .. } => *last,
        }
    }
}

/// The members as those of a node.
fn of_node(mut members: Vec<PresentMember>, node: Node) -> Vec<PresentMember> {
    members.iter_mut().for_each(|member| member.node = node);
    members
}
