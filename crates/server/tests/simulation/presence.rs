//! Who is in which channel: what clients are told of it, and what they must know when everything is quiet.

use std::collections::{BTreeMap, BTreeSet};

use murre_core::GlobalConnId;
use murre_core::ring::sim::Peer;
use serde_json::Value;

use super::client::{Client, Transport};
use super::model::Model;
use super::setup::{CHANNELS, has_presence};
use super::world::World;

/// What a subscription asks of presence.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    pub(super) watch: Option<Watch>,
    pub(super) meta: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Members,
    Counts,
}

impl Watch {
    /// The name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Watch::Members => "members",
            Watch::Counts => "counts",
        }
    }
}

/// What a subscribed client is in the presence of a channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    pub(super) meta: Option<u64>,
    /// It is no member until it replaces its metadata.
    is_hidden: bool,
    watch: Option<Watch>,
    known: Known,
    /// What a Phoenix client knows, by reference: a version of a member has one.
    references: BTreeMap<String, Value>,
    /// References that have joined, and others that have left, since it was told all members.
    changes: BTreeSet<(bool, String)>,
    /// Its subscription is not answered yet, and it has replaced its metadata or left meanwhile.
    is_early: bool,
}

/// Members by the names of their connections: users and metadata.
type Members = BTreeMap<String, (String, Option<u64>)>;

#[derive(Clone, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Members(Members),
    Count {
        clients: usize,
        users: usize,
    },
}

impl Client {
    /// It is subscribed from now on, by the command with this id.
    pub(super) fn appears(&mut self, channel: &str, id: u64, Asks { watch, meta }: Asks) {
        if !has_presence(channel) {
            return;
        }
        let early = self.present.get(channel).filter(|present| present.is_early);
        let meta = match early {
            Some(early) => early.meta,
            // Another user has not said the same of itself.
            None => meta.filter(|_| self.renamed_by < id),
        };
        let is_hidden = early.is_some_and(|early| early.is_hidden);
        let present = Present { meta, is_hidden, watch, ..Present::default() };
        self.present.insert(channel.to_owned(), present);
    }

    /// Its metadata is replaced. A subscription may be answered later than that: its channel has an owner.
    pub(super) fn updates(&mut self, channel: &str, meta: Option<u64>) {
        let present = self.present_or_early(channel);
        (present.meta, present.is_hidden) = (meta, false);
    }

    /// It is no member from now on.
    pub(super) fn hides(&mut self, channel: &str) {
        self.present_or_early(channel).is_hidden = true;
    }

    fn present_or_early(&mut self, channel: &str) -> &mut Present {
        let early = Present { is_early: true, ..Present::default() };
        self.present.entry(channel.to_owned()).or_insert(early)
    }

    /// Takes news of members.
    pub(super) fn told(&mut self, message: &Value, model: &mut Model) {
        let channel = message["identifier"].as_str().expect("it names its channel");
        let present = self.present.get_mut(channel);
        let present = present.unwrap_or_else(|| panic!("{message}, but it is not subscribed"));
        let watch = present.watch.unwrap_or_else(|| panic!("{message}, but it does not watch"));
        let list = |key: &str| message[key].as_array().expect("it has members");
        match message["type"].as_str().expect("a message has a type") {
            "presence_state" => {
                model.note("members told");
                let members: Members = list("members").iter().map(member).collect();
                assert_eq!(members.len(), list("members").len(), "{message}: each is there once");
                present.known = Known::Members(members);
                present.references = list("members").iter().filter_map(reference).collect();
                present.changes.clear();
            }
            "presence_diff" => {
                model.note("members changed");
                let Known::Members(members) = &mut present.known else {
                    panic!("{message}, but it knows {:?}", present.known)
                };
                for leave in list("leaves") {
                    members.remove(&member(leave).0);
                }
                members.extend(list("joins").iter().map(member));
                present.change(list("joins"), list("leaves"));
            }
            _ => {
                model.note("members counted");
                let count = |key: &str| message[key].as_u64().expect("it is a number") as usize;
                present.known = Known::Count { clients: count("clients"), users: count("users") };
            }
        }
        let is_list = !matches!(present.known, Known::Count { .. });
        assert!(watch == Watch::Members || !is_list, "{message}, but it watches counts");
    }
}

fn member(member: &Value) -> (String, (String, Option<u64>)) {
    let text = |key: &str| member[key].as_str().expect("it is a text").to_owned();
    // A Phoenix client's metadata is an object.
    let meta = member["meta"].as_u64().or(member["meta"]["data"].as_u64());
    (text("connection"), (text("user"), meta))
}

/// A member by the reference that it has for Phoenix clients.
fn reference(member: &Value) -> Option<(String, Value)> {
    let reference = member["reference"].as_str()?;
    Some((reference.to_owned(), member.clone()))
}

impl Present {
    /// Applies changes as the class `Presence` of the npm package does: a change that has been told with all
    /// members before changes nothing. Each change is told once.
    fn change(&mut self, joins: &[Value], leaves: &[Value]) {
        for (is_join, members) in [(true, joins), (false, leaves)] {
            for (reference, member) in members.iter().filter_map(reference) {
                let is_new = self.changes.insert((is_join, reference.clone()));
                assert!(is_new, "{member} is told twice");
                match is_join {
                    true => _ = self.references.insert(reference, member),
                    false => _ = self.references.remove(&reference),
                }
            }
        }
        if !self.references.is_empty() {
            self.known = Known::Members(self.references.values().map(member).collect());
        }
    }
}

/// The members of a channel, as far as they are certain.
#[derive(Default)]
struct Truth {
    members: Members,
    /// Connections that are no members.
    others: BTreeSet<String>,
    /// Connections of which only the server knows whether they have ended, and whether their grace is over.
    uncertain: BTreeSet<String>,
}

impl World {
    /// Checks what watchers know when nothing is on its way any more.
    pub(super) fn check_presence(&self) {
        for channel in CHANNELS.into_iter().filter(|channel| has_presence(channel)) {
            let truth = self.truth(channel);
            for (number, client) in self.clients.iter().enumerate() {
                let Some(client) = client.as_ref().filter(|client| client.is_there()) else {
                    continue;
                };
                if let Some(present) = client.present.get(channel) {
                    super::naming(&format!("client {number}, {channel}"), || truth.check(present));
                }
            }
        }
    }

    fn truth(&self, channel: &str) -> Truth {
        let mut truth = Truth::default();
        let is_there = |&(shard, peer): &(usize, Peer)| {
            let mut clients = self.clients.iter().flatten().filter(|client| client.is_there());
            clients.find(|client| (client.shard, client.peer) == (shard, peer))
        };
        for of in &self.peers {
            let Some(conn) = self.nodes[of.0].net.stats(of.1).id else { continue };
            let name = GlobalConnId::new(of.0 as u16, conn).to_string();
            match is_there(of) {
                // Sessions that poll are no connections.
                Some(client)
                    if !matches!(client.transport, Transport::Poll | Transport::PhoenixPoll) =>
                {
                    truth.add(name, client, channel);
                }
                _ => _ = truth.uncertain.insert(name),
            }
        }
        for name in &self.sessions {
            let mut clients = self.clients.iter().flatten().filter(|client| client.is_there());
            match clients.find(|client| client.name == *name) {
                Some(client) => truth.add(name.clone(), client, channel),
                None => _ = truth.uncertain.insert(name.clone()),
            }
        }
        truth
    }
}

impl Truth {
    /// A session that is there.
    fn add(&mut self, name: String, client: &Client, channel: &str) {
        let hidden = client.present.get(channel).is_some_and(|present| present.is_hidden);
        let is_member = client.readers.contains_key(channel) && !hidden;
        match client.user.as_ref().filter(|_| is_member) {
            Some((user, _)) => {
                let meta = client.present.get(channel).and_then(|present| present.meta);
                self.members.insert(name, (user.clone(), meta));
            }
            None => _ = self.others.insert(name),
        }
    }

    fn check(&self, Present { watch, known, references, .. }: &Present) {
        let connections = references.values().map(|member| member["connection"].to_string());
        let connections: BTreeSet<String> = connections.collect();
        assert_eq!(connections.len(), references.len(), "each is there once");
        match known {
            Known::Nothing => assert!(watch.is_none(), "it was told nothing"),
            Known::Members(known) => {
                for (name, member) in &self.members {
                    assert_eq!(known.get(name), Some(member), "{name} of {known:?}");
                }
                for name in known.keys().filter(|name| !self.members.contains_key(*name)) {
                    assert!(!self.others.contains(name), "{name} is no member");
                    assert!(self.uncertain.contains(name), "{name} is no connection");
                }
            }
            Known::Count { clients, users } => {
                let names: BTreeSet<&str> =
                    self.members.values().map(|(user, _)| user.as_str()).collect();
                let more = self.uncertain.len();
                let (all, named) = (self.members.len(), names.len());
                assert!((all..=all + more).contains(clients), "{clients} members instead of {all}");
                assert!((named..=named + more).contains(users), "{users} users instead of {named}");
            }
        }
    }
}
