//! A client connects: a WebSocket, an event stream from now on or from where it was cut off, or a
//! connection for polls.

use super::super::choices::Choices;
use super::super::client::{Client, Given, Transport};
use super::super::long_poll::Polls;
use super::super::wire;
use super::super::world::World;
use super::Operation;
use super::authenticate::Token;
use super::control::Question;

#[derive(Clone, Debug)]
pub(in super::super) struct Connect {
    client: usize,
    shard: usize,
    transport: Transport,
    /// It begins with the channels of the connection before, where that was cut off.
    resume: bool,
    /// The order of the channels of a stream that is resumed. See [`reordered`].
    order: usize,
    /// It gives this as the id of its last event, which is none.
    unreadable: Option<&'static str>,
    token: Option<Token>,
    /// Waits until the server has answered.
    wait: bool,
}

impl Connect {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let transport = match choices.number(8) {
            0..3 => Transport::WebSocket,
            3 => Transport::Phoenix,
            4 => Transport::PhoenixPoll,
            5 => Transport::Events(vec![super::channel(choices)]),
            6 => {
                let count = 2 + choices.number(3);
                let mut channels: Vec<_> = (0..count).map(|_| super::channel(choices)).collect();
                channels.sort();
                channels.dedup();
                Transport::Events(channels)
            }
            _ => Transport::Poll,
        };
        Connect {
            client: super::client(choices),
            shard: choices.index(4),
            transport,
            resume: choices.bool(),
            order: choices.index(8),
            unreadable: (choices.number(8) == 0)
                .then(|| UNREADABLE[choices.index(UNREADABLE.len())]),
            token: (choices.number(4) == 0).then(|| Token::draw(choices)),
            wait: choices.number(4) > 0,
        }
    }
}

impl Operation for Connect {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let place = &world.clients[self.client];
        let shard = self.shard % world.nodes.len();
        if place.as_ref().is_some_and(Client::is_there) {
            return;
        }
        let memory = place.as_ref().map(|client| client.memory.clone()).unwrap_or_default();
        let Some(peer) = world.nodes[shard].net.connect() else { return };
        world.peers.push((shard, peer));
        let (mut transport, mut last) = (self.transport.clone(), None);
        // What the id says of each channel.
        let mut given = Vec::new();
        if let (Transport::Events(_), true) = (&transport, self.resume)
            && let Some((channels, id)) = &memory.stream
        {
            let places = id.split(',').map(|part| wire::place(part, channels.len()));
            given = channels.iter().cloned().zip(places).collect();
            transport = Transport::Events(reordered(channels, self.order));
            last = Some(self.unreadable.map_or(id.clone(), str::to_owned));
        }
        let mut client = Client::new(shard, peer, transport.clone(), memory);
        if transport == Transport::PhoenixPoll {
            let shard = (shard + self.order) % world.nodes.len();
            let Some(posts) = world.nodes[shard].net.connect() else { return };
            world.peers.push((shard, posts));
            let moves = world.has_room() && self.order.is_multiple_of(2);
            client.polls = Some(Box::new(Polls::new(shard, posts, moves)));
        }
        // The order may reach the shard after the client does.
        let ordered = |question: &Question| matches!(question, Question::Disconnect { .. });
        client.may_be_disconnected = world.questions.iter().any(ordered);
        let wall = world.model.wall;
        // The connect call of such a client would be about its first connection.
        let needed = Token::lasting();
        let has_call = client.polls_phoenix() && world.model.asks_to_connect;
        if let Some(token) = self.token.as_ref().or(has_call.then_some(&needed)) {
            client.token = Some(token.text(wall));
            client.names.insert(token.user.clone());
            client.may_be_user = token.is_good() || token.expires(wall).is_some();
            let user = client.may_be_user.then(|| (token.user.clone(), token.expires(wall)));
            client.user = user;
        }
        let token = client.token.clone();
        match &transport {
            Transport::WebSocket => {
                client.write(request("/ws", token.as_deref(), UPGRADE).as_bytes());
            }
            Transport::Phoenix => {
                let target = "/socket/websocket?vsn=2.0.0";
                client.write(request(target, token.as_deref(), UPGRADE).as_bytes());
            }
            Transport::PhoenixPoll => client.begin_polls(),
            Transport::Events(channels) => {
                for channel in channels {
                    let of = given.iter().find(|(of, _)| of == channel);
                    let start = match of.map_or(Given::Nothing, |(_, given)| *given) {
                        _ if last.is_some() && self.unreadable.is_some() => Given::Unreadable,
                        given => given,
                    };
                    let before = world.first(channel);
                    client.beginning.insert(channel.clone(), (before, start));
                }
                let target = format!("/sse?topic={}", channels.join("&topic="));
                let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
                client.write(request(&target, token.as_deref(), &last).as_bytes());
            }
            Transport::Poll => {}
        }
        world.clients[self.client] = Some(client);
        for _ in 0..if self.wait { ROUNDS } else { 0 } {
            world.round(std::time::Duration::ZERO);
            let client = world.clients[self.client].as_ref().expect("just come");
            if client.opened || client.end.is_some() || transport == Transport::Poll {
                break;
            }
        }
        if self.resume
            && matches!(
                transport,
                Transport::WebSocket | Transport::Phoenix | Transport::PhoenixPoll
            )
        {
            self.recover(world);
        }
    }
}

impl Connect {
    /// The client subscribes to what it knows, from where it was.
    fn recover(&self, world: &mut World) {
        let client = world.clients[self.client].as_mut().expect("just come");
        if !client.opened || !client.is_there() {
            return;
        }
        for (channel, position) in client.memory.positions.clone() {
            let (id, before) = (world.model.next_id(), world.model.first(&channel, world.now));
            client.subscribe(&channel, id, before, Given::Position(position));
        }
    }
}

/// Turns in which a handshake is over, mostly.
const ROUNDS: usize = 30;
pub(in super::super) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: murre.v1\r\n";

/// The head of a request.
pub(in super::super) fn request(target: &str, token: Option<&str>, fields: &str) -> String {
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    format!("GET {target} HTTP/1.1\r\nHost: murre\r\n{token}{fields}\r\n")
}

/// Ids that are none, for streams of one channel and of several.
const UNREADABLE: [&str; 4] = ["garbage", "1-2-3", ",", "7"];

/// The channels in another order, or all but the last of them.
fn reordered(channels: &[String], order: usize) -> Vec<String> {
    let mut channels = channels.to_vec();
    let first = order % channels.len();
    channels.rotate_left(first);
    if order == 7 && channels.len() > 1 {
        channels.pop();
    }
    channels
}
