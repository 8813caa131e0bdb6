//! One client's connection: what it has asked, what it hears, and how it may end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use murre_core::ring::sim::{Peer, Read, SimNet};
use murre_router::channels::Position;
use serde_json::Value;

use super::backend::Thing;
use super::ends::End;
use super::long_poll::Polls;
use super::model::{Model, Reader};
use super::operations::poll::Poll;
use super::phoenix;
use super::presence::Present;
use super::wire::{self, Heard, Wire};

/// What a client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    /// A WebSocket of Phoenix, version 2.
    Phoenix,
    /// Long polls of Phoenix, version 2.
    PhoenixPoll,
    /// An event stream of these channels.
    Events(Vec<String>),
    Poll,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Whatever is there, after each turn.
    Full,
    /// So many bytes after each turn.
    Slow(usize),
    Nothing,
}

/// The start that a client gives for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It gives none: it hears what is published from now on.
    Nothing,
    /// It has heard everything up to this position.
    Position(Position),
    /// It gives something that is no position.
    Unreadable,
}

impl Given {
    /// The position, if it is one.
    pub(super) fn position(self) -> Option<Position> {
        match self {
            Given::Position(position) => Some(position),
            Given::Nothing | Given::Unreadable => None,
        }
    }
}

/// A command that waits for its answer.
pub(super) trait Asked: Debug {
    /// Checks the answer, and updates the readers by it.
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model);

    /// The channel to which it subscribes.
    fn subscribes_to(&self) -> Option<&str> {
        None
    }

    /// Whether there must be an answer.
    fn must_be_answered(&self) -> bool {
        true
    }
}

/// What a client remembers from one connection to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// What it has seen of each channel.
    pub(super) positions: BTreeMap<String, Position>,
    /// The channels of its last event stream, and the last id there.
    pub(super) stream: Option<(Vec<String>, String)>,
}

/// A connection of a client.
pub(super) struct Client {
    pub(super) shard: usize,
    pub(super) peer: Peer,
    /// The name of its connection; empty until that is accepted.
    pub(super) name: String,
    pub(super) transport: Transport,
    pub(super) pace: Pace,
    /// It has read whatever was there, always.
    pub(super) fast: bool,
    pub(super) opened: bool,
    /// What a client that polls has beside.
    pub(super) polls: Option<Box<Polls>>,
    wire: Wire,
    outgoing: VecDeque<u8>,
    pub(super) asked: BTreeMap<u64, Box<dyn Asked>>,
    pub(super) readers: BTreeMap<String, Reader>,
    /// The join ref of each reader of a client that speaks Phoenix.
    pub(super) joins: BTreeMap<String, String>,
    /// For each channel of a stream that is not subscribed yet: publications taken when it asked, and
    /// the start it gave.
    pub(super) beginning: BTreeMap<String, (usize, Given)>,
    pub(super) poll: Option<Poll>,
    /// Where it was in the channels of a stream whose subscriptions the server has ended.
    ended: BTreeMap<String, Option<Position>>,
    /// What it is in the presence of the channels that it is subscribed to.
    pub(super) present: BTreeMap<String, Present>,
    /// The id of the last command that made it another user's.
    pub(super) renamed_by: u64,
    pub(super) memory: Memory,
    /// What its requests bring.
    pub(super) token: Option<String>,
    /// The user and the expiry of the token in force.
    pub(super) user: Option<(String, Option<u64>)>,
    /// The users that it has given tokens of.
    pub(super) names: BTreeSet<String>,
    /// It has sent a token in a command.
    pub(super) authenticates: bool,
    /// When subscriptions end to which the application has consented.
    pub(super) expiring: BTreeMap<String, u64>,
    /// The sentence of the answer that refuses its session.
    pub(super) refusal: String,
    /// It has sent a good token.
    pub(super) may_be_user: bool,
    /// Services that it offers, or may offer.
    pub(super) serves: Vec<String>,
    /// Publications without a request id.
    pub(super) unnamed: Vec<u64>,
    /// Errors without a request id.
    pub(super) refused: usize,
    pub(super) last_error: Option<String>,
    /// An administrator has asked for an end that may be its.
    pub(super) may_be_disconnected: bool,
    /// It was told that its session ends because of an administrator.
    pub(super) must_be_disconnected: bool,
    pub(super) end: Option<End>,
    /// It has closed its side, or vanished.
    pub(super) left: bool,
}

impl Client {
    pub(super) fn new(shard: usize, peer: Peer, transport: Transport, memory: Memory) -> Self {
        Client {
            shard,
            peer,
            name: String::new(),
            transport,
            pace: Pace::Full,
            fast: true,
            opened: false,
            polls: None,
            wire: Wire::default(),
            outgoing: VecDeque::new(),
            asked: BTreeMap::new(),
            readers: BTreeMap::new(),
            joins: BTreeMap::new(),
            beginning: BTreeMap::new(),
            poll: None,
            ended: BTreeMap::new(),
            present: BTreeMap::new(),
            renamed_by: 0,
            memory,
            token: None,
            user: None,
            names: BTreeSet::new(),
            authenticates: false,
            expiring: BTreeMap::new(),
            refusal: String::new(),
            may_be_user: false,
            serves: Vec::new(),
            unnamed: Vec::new(),
            refused: 0,
            last_error: None,
            may_be_disconnected: false,
            must_be_disconnected: false,
            end: None,
            left: false,
        }
    }

    /// Its connection, as the author of publications.
    pub(super) fn author(&self) -> (usize, usize) {
        // The connection for GETs may change.
        match &self.polls {
            Some(polls) => polls.author,
            None => (self.shard, self.peer.index()),
        }
    }

    /// Whether it is there, as far as it knows.
    pub(super) fn is_there(&self) -> bool {
        !self.left && self.end.is_none()
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.transport == Transport::WebSocket
    }

    pub(super) fn is_phoenix(&self) -> bool {
        matches!(self.transport, Transport::Phoenix | Transport::PhoenixPoll)
    }

    /// Whether its token has expired by then, in Unix seconds.
    pub(super) fn has_expired(&self, wall: u64) -> bool {
        let expires = self.user.as_ref().and_then(|(_, expires)| *expires);
        expires.is_some_and(|at| at + LEEWAY <= wall)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    /// Sends a command or a batch of commands.
    pub(super) fn send(&mut self, message: &Value) {
        let is_phoenix = self.is_phoenix();
        let mut text = |message: &Value| match &mut self.polls {
            Some(polls) => polls.say(message.to_string()),
            None => self.write(&wire::frame(wire::TEXT, message.to_string().as_bytes())),
        };
        match message {
            Value::Array(batch) if is_phoenix => {
                batch.iter().for_each(|command| text(&phoenix::message(command)));
            }
            command if is_phoenix => text(&phoenix::message(command)),
            message => text(message),
        }
    }

    /// Publishes bytes, without a request id.
    pub(super) fn publish_bytes(&mut self, channel: &str, payload: &str) {
        let name = channel.as_bytes();
        let message = match self.is_phoenix() {
            true => phoenix::binary(channel, payload),
            false => [&[1, name.len() as u8], name, payload.as_bytes()].concat(),
        };
        match &mut self.polls {
            Some(polls) => polls.say_bytes(&message),
            None => self.write(&wire::frame(wire::BINARY, &message)),
        }
    }

    /// Hands the network what it takes. Returns whether it took anything.
    pub(super) fn flush(&mut self, net: &SimNet) -> bool {
        let written = net.write(self.peer, self.outgoing.make_contiguous());
        self.outgoing.drain(..written);
        written > 0
    }

    /// The next bytes are those of another connection.
    pub(super) fn forget_input(&mut self) {
        self.wire = Wire::default();
        self.outgoing.clear();
    }

    /// Reads as fast as it does. Returns whether anything came.
    pub(super) fn read(&mut self, net: &SimNet, model: &mut Model) -> bool {
        let mut room = match self.pace {
            Pace::Full => usize::MAX,
            Pace::Slow(bytes) => bytes,
            Pace::Nothing => 0,
        };
        let mut came = false;
        while room > 0 && self.end.is_none() && !self.left {
            match net.read(self.peer, room) {
                Read::Bytes(bytes) => {
                    room -= bytes.len();
                    came = true;
                    self.wire.push(&bytes);
                }
                Read::Nothing => break,
                end @ (Read::End | Read::Reset) => {
                    self.hear_all(model);
                    if self.end.is_none() {
                        self.end = Some(End::of(self, end == Read::Reset));
                    }
                    net.close(self.peer);
                    return true;
                }
            }
        }
        self.hear_all(model);
        came
    }

    fn hear_all(&mut self, model: &mut Model) {
        while self.end.is_none()
            && let Some(heard) = self.wire.next()
        {
            self.hear(heard, model);
        }
    }

    fn hear(&mut self, heard: Heard, model: &mut Model) {
        match heard {
            Heard::Opened => {
                self.opened = true;
                self.admitted(model);
            }
            Heard::Message(message) if self.is_phoenix() => {
                if let Some(message) = self.translated(&message) {
                    self.message(&message, model);
                }
            }
            Heard::Message(message) => self.message(&message, model),
            Heard::Binary(publication) => self.publication(&publication, model),
            Heard::Ping(payload) => self.write(&wire::frame(wire::PONG, &payload)),
            Heard::Close { code, reason } => {
                self.end = Some(End::WebSocket { code, reason, error: self.last_error.take() });
                self.write(&wire::frame(wire::CLOSE, &code.to_be_bytes()));
            }
            Heard::Event { name, id, data } => self.event(&name, id, &data, model),
            Heard::Retry => self.end = Some(End::Retry),
            Heard::Answer { status, body, last } => {
                self.answer(status, &body, model);
                if last {
                    self.end.get_or_insert(End::Idle);
                }
            }
        }
    }

    pub(super) fn message(&mut self, message: &Value, model: &mut Model) {
        assert!(self.last_error.is_none(), "{message} behind the error that ends the session");
        let id = message.get("id").map(|id| id.as_u64().expect("ids of the run are numbers"));
        match (message["type"].as_str().expect("a message has a type"), id) {
            ("publication", None) => self.publication(&wire::publication(message, None), model),
            ("dropped", None) => self.dropped(message, model),
            ("presence_state" | "presence_diff" | "presence_count", None) => {
                self.told(message, model);
            }
            ("request", None) => super::operations::service::serve(self, message, model),
            ("unsubscribed", None) => self.unsubscribed(message, model),
            ("error", None) => match message["code"].as_str().expect("an error has a code") {
                code @ ("token_expired" | "disconnected" | "too_slow") => {
                    self.last_error = Some(code.to_owned());
                }
                "refused" => {
                    let sentence = message["message"].as_str().expect("an error has a message");
                    assert!(model.refuses(&self.name, sentence), "{message}");
                    self.refused += 1;
                }
                "backend_failed" | "too_many" if model.has_backend => self.refused += 1,
                "overloaded" | "too_fast" | "not_allowed" | "unmatched topic" => {
                    model.note("an unnamed publication refused");
                    self.refused += 1;
                }
                code => panic!("{code} is no error that comes by itself"),
            },
            (_, Some(id)) => {
                let asked = self.asked.remove(&id);
                let asked = asked.unwrap_or_else(|| panic!("{message} answers nothing"));
                if message["type"] == "error" && message["code"] == "too_fast" {
                    assert!(model.limits_commands, "{message}");
                }
                asked.answered(message, self, model);
            }
            (_, None) => panic!("{message} answers nothing"),
        }
    }

    fn publication(&mut self, publication: &wire::Publication, model: &mut Model) {
        let channel = &publication.channel;
        let reader = self.readers.get_mut(channel);
        let reader = reader.unwrap_or_else(|| panic!("{publication:?}, but it is not subscribed"));
        reader.hear(publication, model);
        if let Some(seen) = reader.seen {
            self.memory.positions.insert(channel.clone(), seen);
        }
    }

    fn dropped(&mut self, message: &Value, model: &mut Model) {
        assert!(!self.fast, "{message}, though it has read whatever was there");
        let channel = message["identifier"].as_str().expect("it names its channel");
        assert!(!super::setup::disconnects(channel), "{message}: slow readers are disconnected");
        let reader = self.readers.get_mut(channel).expect("it is subscribed");
        reader.skip(message["count"].as_u64().expect("it is a number"), model);
    }

    fn event(&mut self, name: &str, id: Option<String>, data: &Value, model: &mut Model) {
        match name {
            "" => self.publication(&wire::publication(data, None), model),
            "subscribed" => {
                let channel = data["identifier"].as_str().expect("it names its channel").to_owned();
                let begun = self.beginning.remove(&channel);
                let begun = begun.expect("each channel begins once");
                self.subscribed(&channel, Thing::Subscribe(channel.clone()), model);
                super::operations::subscribe::begin(self, &channel, begun, data, model);
            }
            "dropped" => self.dropped(data, model),
            "unsubscribed" => self.unsubscribed(data, model),
            "error" => {
                let code = data["code"].as_str().expect("an error has a code");
                self.end = Some(End::Event { code: code.to_owned() });
            }
            name => panic!("{name} is no event"),
        }
        if let Some(id) = id {
            self.check_id(&id);
            let Transport::Events(channels) = &self.transport else { panic!("it is a stream") };
            self.memory.stream = Some((channels.clone(), id));
        }
    }

    /// The id of an event says what has been seen of each channel when it is the last.
    fn check_id(&self, id: &str) {
        let Transport::Events(channels) = &self.transport else { panic!("it is a stream") };
        let parts: Vec<&str> = id.split(',').collect();
        assert_eq!(parts.len(), channels.len(), "{id:?} has a part for each channel");
        for (channel, part) in channels.iter().zip(parts) {
            let seen = match self.readers.get(channel) {
                Some(reader) => reader.seen.map_or(Given::Nothing, Given::Position),
                None => match self.ended.get(channel) {
                    Some(seen) => seen.map_or(Given::Nothing, Given::Position),
                    None => self.beginning.get(channel).map_or(Given::Nothing, |&(_, given)| given),
                },
            };
            let place = wire::place(part, channels.len());
            assert_eq!(place, seen, "{id:?} is where it is in {channel}");
        }
    }

    fn answer(&mut self, status: u16, body: &str, model: &mut Model) {
        match self.transport {
            Transport::Poll => super::operations::poll::answered(self, status, body, model),
            Transport::PhoenixPoll => self.polled(status, body, model),
            _ => {
                let body: Value = serde_json::from_str(body).unwrap_or_default();
                self.refusal = text(&body, "message");
                self.end = Some(End::Answer { status, code: text(&body, "code") });
            }
        }
    }

    /// Its session has begun.
    pub(super) fn admitted(&mut self, model: &mut Model) {
        if model.asks_to_connect && self.token.is_none() {
            model.take_consent(&self.name, Thing::Connect);
            if let Some(user) = model.connected_user(&self.name) {
                self.may_be_user = true;
                self.user = Some((user, None));
            }
        }
    }

    /// The server has ended a subscription: it has expired, or was another user's.
    pub(super) fn unsubscribed(&mut self, message: &Value, model: &mut Model) {
        let channel = message["identifier"].as_str().expect("it names its channel");
        let fair = match message["code"].as_str().expect("it has a reason") {
            "token_expired" => model.subscription_has_expired(&self.name, channel),
            "not_allowed" => model.asks(channel) && self.authenticates,
            _ => false,
        };
        assert!(fair, "{message} has no cause");
        model.note("a subscription ended by the server");
        if let Some(reader) = self.readers.remove(channel) {
            self.ended.insert(channel.to_owned(), reader.seen);
        }
        self.present.remove(channel);
        self.expiring.remove(channel);
        self.joins.remove(channel);
    }

    /// A subscription has begun, about which the application may have decided.
    pub(super) fn subscribed(&mut self, channel: &str, thing: Thing, model: &mut Model) {
        self.expiring.remove(channel);
        if model.asks(channel) {
            model.take_consent(&self.name, thing);
            let expires = model.subscription_expiry(&self.name, channel);
            self.expiring.extend(expires.map(|at| (channel.to_owned(), at)));
        }
    }

    /// Whether as many commands wait for the application as may.
    pub(super) fn has_many_commands(&self) -> bool {
        self.asked.len() + self.unnamed.len() >= 15
    }

    /// What it has asked for is here, and it has heard everything.
    pub(super) fn must_be_satisfied(&self, model: &Model) {
        assert!(self.opened || self.transport == Transport::Poll, "it was never let in");
        for (id, asked) in &self.asked {
            assert!(!asked.must_be_answered(), "{id} was never answered: {asked:?}");
        }
        assert!(self.beginning.is_empty(), "{:?} never began", self.beginning);
        self.readers.values().for_each(|reader| reader.must_be_complete(model));
        let lost = self.unnamed.iter().filter(|number| !model.is_taken(**number)).count();
        assert_eq!(self.refused, lost, "each publication that was refused has its error");
        if let Some(poll) = &self.poll {
            poll.must_wait(model);
        }
    }
}

/// Seconds of leeway for the clocks of those that sign tokens.
pub(super) const LEEWAY: u64 = 10;

/// The code of an error object; empty if it is none.
pub(super) fn code(body: &str) -> String {
    text(&serde_json::from_str(body).unwrap_or_default(), "code")
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}
