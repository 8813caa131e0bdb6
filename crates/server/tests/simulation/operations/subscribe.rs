//! A client subscribes to a channel: from now on, or from where it was.

use murre_router::channels::Position;
use serde_json::{Value, json};

use super::super::client::{Asked, Client};
use super::super::dice::Dice;
use super::super::model::{Model, Reader};
use super::super::setup::keeps_history;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Subscribe {
    client: usize,
    channel: String,
    /// From the position that the client has reached.
    recover: bool,
}

#[derive(Debug)]
struct Subscribing {
    channel: String,
    /// Publications that had been taken then.
    before: usize,
    position: Option<Position>,
}

impl Subscribe {
    pub(in super::super) fn draw(dice: &mut Dice) -> Self {
        Subscribe {
            client: super::client(dice),
            channel: super::channel(dice),
            recover: dice.bool(),
        }
    }
}

impl Operation for Subscribe {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let before = world.model.len(&self.channel);
        let Some((client, id)) = world.websocket(self.client) else { return };
        let position = client.memory.positions.get(&self.channel).copied();
        let position = position.filter(|_| self.recover);
        client.subscribe(&self.channel, id, before, position);
    }
}

impl Client {
    /// Subscribes to a channel of which `before` publications have been taken.
    pub(in super::super) fn subscribe(
        &mut self,
        channel: &str,
        id: u64,
        before: usize,
        position: Option<Position>,
    ) {
        let mut message = json!({"action": "subscribe", "identifier": channel, "id": id});
        if let Some(Position { epoch, offset }) = position {
            message["position"] = json!({"epoch": epoch, "offset": offset});
        }
        self.send(&message);
        let channel = channel.to_owned();
        self.asked.insert(id, Box::new(Subscribing { channel, before, position }));
    }
}

impl Asked for Subscribing {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            // The session has asked before, or has withdrawn it since: the model follows the answers.
            Some("already_subscribed") => {}
            Some("not_subscribed") => {}
            Some(code) => super::must_be_general(code, &self.channel, client),
            None => {
                super::must_be(message, "subscribed", &self.channel);
                let known = client.readers.contains_key(&self.channel);
                assert!(!known, "{message}, and it was subscribed before");
                begin(client, &self.channel, (self.before, self.position), message, model);
            }
        }
    }
}

/// A subscription begins, as `said` says: before it `before` publications had been taken, and it asked
/// for what follows a position.
pub(in super::super) fn begin(
    client: &mut Client,
    channel: &str,
    (before, asked): (usize, Option<Position>),
    said: &Value,
    model: &mut Model,
) {
    let here = position(said);
    assert_eq!(here.is_some(), keeps_history(channel), "{said}: history has positions");
    let recovered = said.get("recovered").map(|recovered| recovered == true);
    assert_eq!(recovered.is_some(), here.is_some() && asked.is_some(), "{said}: asked {asked:?}");
    let reader = match (recovered, asked, here) {
        (Some(true), Some(asked), Some(here)) => {
            assert_eq!(here.epoch, asked.epoch, "{said}: positions of one epoch follow each other");
            model.note("a recovery");
            Reader::recovered(channel, asked, model)
        }
        _ => {
            model.note("a subscription from now on");
            let lost = asked.filter(|_| recovered == Some(false));
            let kept = lost.is_some_and(|asked| model.must_recover(channel, asked));
            assert!(!kept, "{said}, though everything behind {asked:?} is kept");
            Reader::live(channel, before, here, model)
        }
    };
    if let Some(seen) = reader.seen {
        client.memory.positions.insert(channel.to_owned(), seen);
    }
    client.readers.insert(channel.to_owned(), reader);
}

/// The position in a message.
pub(in super::super) fn position(message: &Value) -> Option<Position> {
    let position = message.get("position")?;
    let number = |key: &str| position[key].as_u64().expect("a position has two numbers");
    Some(Position { epoch: number("epoch") as u32, offset: number("offset") })
}
