//! A NATS server for the nodes of a model. It takes the text of clients and answers in that of servers.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;

use super::DELAY;

pub(super) struct Broker {
    rng: Rng,
    nodes: Vec<Connection>,
}

#[derive(Default)]
struct Connection {
    /// By number: the subject, and the group.
    subscriptions: BTreeMap<u64, (String, Option<String>)>,
    /// Operations on their way to the broker, and bytes on their way to the node, with the time when they arrive.
    to_broker: VecDeque<(u64, Operation)>,
    to_node: VecDeque<(u64, Vec<u8>)>,
}

enum Operation {
    Subscribe(u64, String, Option<String>),
    Unsubscribe(u64),
    Publish { subject: String, reply: Option<String>, payload: Vec<u8> },
}

impl Broker {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let nodes = (0..nodes).map(|_| Connection::default()).collect();
        Broker { rng: Rng::with_seed(!seed), nodes }
    }

    pub(super) fn disconnect(&mut self, node: usize) {
        self.nodes[node] = Connection::default();
    }

    pub(super) fn subscriptions(&self, node: usize) -> usize {
        self.nodes[node].subscriptions.len()
    }

    /// Takes what a node has sent.
    pub(super) fn send(&mut self, node: usize, mut text: &[u8], now: u64) {
        let connection = &mut self.nodes[node];
        let before = connection.to_broker.back().map_or(0, |(due, _)| *due);
        let due = before.max(now + self.rng.u64(0..DELAY));
        while !text.is_empty() {
            let end = text.windows(2).position(|two| two == b"\r\n").expect("a line");
            let line = str::from_utf8(&text[..end]).expect("text");
            text = &text[end + 2..];
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse().expect("a number");
            let operation = match *words {
                ["SUB", subject, id] => Operation::Subscribe(number(id), subject.into(), None),
                ["SUB", subject, group, id] => {
                    Operation::Subscribe(number(id), subject.into(), Some(group.into()))
                }
                ["UNSUB", id] => Operation::Unsubscribe(number(id)),
                ["PUB", subject, .., length] => {
                    let (payload, rest) = text.split_at(number(length) as usize);
                    text = rest.strip_prefix(b"\r\n").expect("the end of a message");
                    let reply = (words.len() == 4).then(|| words[2].to_owned());
                    Operation::Publish { subject: subject.into(), reply, payload: payload.into() }
                }
                // It proves nothing about services.
                ["PING"] => continue,
                _ => panic!("{line}"),
            };
            connection.to_broker.push_back((due, operation));
        }
    }

    /// What has arrived for a node.
    pub(super) fn receive(&mut self, node: usize, now: u64) -> Vec<u8> {
        let wire = &mut self.nodes[node].to_node;
        let count = wire.iter().take_while(|(due, _)| *due <= now).count();
        wire.drain(..count).flat_map(|(_, bytes)| bytes).collect()
    }

    /// Does what has arrived.
    pub(super) fn turn(&mut self, now: u64) {
        for node in 0..self.nodes.len() {
            while self.nodes[node].to_broker.front().is_some_and(|(due, _)| *due <= now) {
                let (_, operation) = self.nodes[node].to_broker.pop_front().expect("it is there");
                match operation {
                    Operation::Subscribe(number, subject, group) => {
                        let subscription = (subject, group);
                        self.nodes[node].subscriptions.insert(number, subscription);
                    }
                    Operation::Unsubscribe(number) => {
                        let was_there = self.nodes[node].subscriptions.remove(&number);
                        assert!(was_there.is_some(), "it was subscribed");
                    }
                    Operation::Publish { subject, reply, payload } => {
                        self.publish(node, &subject, reply.as_deref(), &payload, now);
                    }
                }
            }
        }
    }

    fn publish(
        &mut self,
        from: usize,
        subject: &str,
        reply: Option<&str>,
        payload: &[u8],
        now: u64,
    ) {
        let (mut plain, mut groups) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for (node, connection) in self.nodes.iter().enumerate() {
            for (number, (of, group)) in &connection.subscriptions {
                match group {
                    _ if !covers(of, subject) => {}
                    None => plain.push((node, *number)),
                    Some(group) => groups.entry(group.clone()).or_default().push((node, *number)),
                }
            }
        }
        let chosen = groups.into_values().map(|members| members[self.rng.usize(..members.len())]);
        plain.extend(chosen);
        let reply_word = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
        for (node, number) in &plain {
            let head = format!("MSG {subject} {number} {reply_word}{}\r\n", payload.len());
            self.deliver(*node, [head.as_bytes(), payload, b"\r\n"].concat(), now);
        }
        if let Some(reply) = reply.filter(|_| plain.is_empty()) {
            let own = self.nodes[from].subscriptions.iter().find(|(_, (of, _))| covers(of, reply));
            let number = own.expect("it hears answers").0;
            let status = format!("HMSG {reply} {number} 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
            self.deliver(from, status.into_bytes(), now);
        }
    }

    fn deliver(&mut self, node: usize, bytes: Vec<u8>, now: u64) {
        let wire = &mut self.nodes[node].to_node;
        let before = wire.back().map_or(0, |(due, _)| *due);
        wire.push_back((before.max(now + self.rng.u64(0..DELAY)), bytes));
    }
}

/// Whether a subscription, which may end in a wildcard, has a subject.
fn covers(subscription: &str, subject: &str) -> bool {
    match subscription.strip_suffix('*') {
        Some(front) => subject.strip_prefix(front).is_some_and(|end| !end.contains('.')),
        None => subscription == subject,
    }
}
