//! Clients that speak Phoenix over long polls. Their sessions outlive their requests, which go over two
//! connections: one for GETs, which may move to another shard after an answer, and one for POSTs.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use murre_core::GlobalConnId;
use murre_core::ring::sim::{Peer, Read, SimNet};
use serde_json::Value;

use super::client::{Client, Transport};
use super::ends::End;
use super::model::Model;
use super::operations::connect;
use super::wire::{self, Heard, Wire};
use super::world::Node;

/// The session of a client that polls, beside the connection for GETs.
#[derive(Debug)]
pub(super) struct Polls {
    /// The token of the session, once it has begun.
    token: Option<String>,
    /// The connection for POSTs.
    pub(super) shard: usize,
    pub(super) peer: Peer,
    wire: Wire,
    outgoing: VecDeque<u8>,
    /// Messages for the next POST.
    waiting: VecDeque<String>,
    is_posting: bool,
    /// The next GET can be sent, over another connection for clients that move.
    must_get: bool,
    moves: bool,
    /// The name of its publications: its connections may change.
    pub(super) author: (usize, usize),
}

/// What a POST's connection says beside taken messages.
enum Lost {
    Session(End),
    /// The connection: the server closes those that are idle.
    Connection,
}

/// Bytes of the messages of a POST.
const POST_BYTES: usize = 50_000;
const PATH: &str = "/socket/longpoll?vsn=2.0.0";

impl Polls {
    pub(super) fn new(shard: usize, peer: Peer, moves: bool) -> Self {
        Polls {
            token: None,
            shard,
            peer,
            wire: Wire::default(),
            outgoing: VecDeque::new(),
            waiting: VecDeque::new(),
            is_posting: false,
            must_get: false,
            moves,
            author: (shard, peer.index()),
        }
    }

    pub(super) fn say(&mut self, message: String) {
        self.waiting.push_back(message);
    }

    pub(super) fn say_bytes(&mut self, message: &[u8]) {
        self.waiting.push_back(STANDARD.encode(message));
    }

    /// The shard and the slot of the session, which its token names.
    fn place(&self) -> Option<(usize, u32)> {
        let mut parts = self.token.as_ref()?.split('.').skip(1);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    fn target(&self) -> String {
        let token = self.token.as_ref().map_or(String::new(), |token| format!("&token={token}"));
        format!("{PATH}{token}")
    }

    /// Sends the messages that wait, if those before have been handled.
    fn post(&mut self) {
        if self.is_posting || self.token.is_none() || self.waiting.is_empty() {
            return;
        }
        let mut lines = String::new();
        while self.waiting.front().is_some_and(|line| lines.len() + line.len() < POST_BYTES) {
            lines += &self.waiting.pop_front().expect("just seen");
            lines.push('\n');
        }
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: murre\r\nContent-Type: application/x-ndjson\r\n\
             Content-Length: {}\r\n\r\n",
            self.target(),
            lines.len()
        );
        self.outgoing.extend(head.bytes().chain(lines.bytes()));
        self.is_posting = true;
    }

    /// Reads answers to POSTs. Returns whether anything came.
    ///
    /// # Errors
    /// The session or the connection has ended.
    fn read(&mut self, net: &SimNet, fast: bool) -> Result<bool, Lost> {
        let mut came = false;
        loop {
            match net.read(self.peer, usize::MAX) {
                Read::Bytes(bytes) => {
                    came = true;
                    self.wire.push(&bytes);
                }
                Read::Nothing => break,
                Read::End | Read::Reset => return Err(Lost::Connection),
            }
        }
        while let Some(heard) = self.wire.next() {
            let Heard::Answer { status, body, .. } = heard else { panic!("{heard:?} to a POST") };
            if status != 200 {
                return Err(Lost::Session(End::Answer { status, code: String::new() }));
            }
            match wire::json(&body)["status"].as_u64() {
                Some(200) => {}
                // Its messages are handled later.
                Some(408) => assert!(!fast, "{body} to a client that takes its messages"),
                Some(status) => return Err(Lost::Session(End::Poll { status })),
                None => panic!("{body} has no status"),
            }
            self.is_posting = false;
        }
        Ok(came)
    }
}

impl Client {
    pub(super) fn polls_phoenix(&self) -> bool {
        self.transport == Transport::PhoenixPoll
    }

    /// Begins the session.
    pub(super) fn begin_polls(&mut self) {
        let head = connect::request(PATH, self.token.as_deref(), "");
        self.write(head.as_bytes());
    }

    /// The answer to a GET.
    pub(super) fn polled(&mut self, status: u16, body: &str, model: &mut Model) {
        if status != 200 {
            self.end = Some(End::Answer { status, code: String::new() });
            return;
        }
        let answer = wire::json(body);
        let polls = self.polls.as_mut().expect("it polls");
        let told = answer["token"].as_str();
        match (answer["status"].as_u64().expect("it has a status"), &polls.token) {
            (410, None) => {
                polls.token = told.map(str::to_owned);
                polls.must_get = true;
                self.opened = true;
                model.note("a Phoenix session that polls");
            }
            (200 | 204, Some(token)) => {
                assert_eq!(told, Some(&**token), "{body}");
                polls.must_get = true;
                let messages = answer["messages"].as_array().expect("it has messages");
                assert_eq!(messages.is_empty(), answer["status"] == 204, "{body}");
                for message in messages {
                    let message = wire::json(message.as_str().expect("a message is a text"));
                    if let Some(message) = self.translated(&message) {
                        self.message(&message, model);
                    }
                }
            }
            (403, None) => {
                self.end = Some(End::Answer { status: 403, code: "bad_token".to_owned() })
            }
            (status, _) => self.end = Some(End::Poll { status }),
        }
    }

    /// Sends and reads what a client that polls has beside the answers to its GETs. Returns whether anything
    /// happened, and the connections that it has opened.
    pub(super) fn turn_polls(&mut self, nodes: &[Node]) -> (bool, Vec<(usize, Peer)>) {
        let is_there = self.is_there();
        let Some(polls) = &mut self.polls else { return (false, Vec::new()) };
        let net = &nodes[polls.shard].net;
        if !is_there {
            net.close(polls.peer);
            return (false, Vec::new());
        }
        if self.name.is_empty()
            && let Some((shard, slot)) = polls.place()
            && let Some(conn) =
                nodes[shard].shard.as_ref().and_then(|shard| shard.outbox().at(slot))
        {
            self.name = GlobalConnId::new(shard as u16, conn).to_string();
        }
        polls.post();
        let written = net.write(polls.peer, polls.outgoing.make_contiguous());
        polls.outgoing.drain(..written);
        let mut opened = Vec::new();
        let came = match polls.read(net, self.fast) {
            Ok(came) => came,
            Err(Lost::Session(end)) => {
                self.end.get_or_insert(end);
                true
            }
            Err(Lost::Connection) => {
                match net.connect().filter(|_| !polls.is_posting) {
                    Some(peer) => {
                        opened.push((polls.shard, peer));
                        (polls.peer, polls.wire) = (peer, Wire::default());
                        polls.outgoing.clear();
                    }
                    // Nobody knows whether its messages have been taken.
                    None => self.left = true,
                }
                true
            }
        };
        if self.end.is_none() && std::mem::take(&mut polls.must_get) {
            let head = connect::request(&polls.target(), None, "");
            if polls.moves {
                let next = (self.shard + 1) % nodes.len();
                if let Some(peer) = nodes[next].net.connect() {
                    nodes[self.shard].net.close(self.peer);
                    (self.shard, self.peer) = (next, peer);
                    opened.push((next, peer));
                    self.forget_input();
                }
            }
            self.write(head.as_bytes());
        }
        (written > 0 || came, opened)
    }

    /// A publication with bytes, which a long poll has as text.
    pub(super) fn binary_as_text(payload: &Value) -> Option<&Value> {
        payload.get("binary").filter(|binary| binary.is_string())
    }
}
