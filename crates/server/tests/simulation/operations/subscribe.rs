//! A client subscribes to a channel: from now on, or from where it was.

use murre_router::channels::Position;
use serde_json::{Value, json};

use super::super::backend::{Thing, refused};
use super::super::choices::Choices;
use super::super::client::{Asked, Client, Given};
use super::super::model::{Model, Reader};
use super::super::presence::{Asks, Watch};
use super::super::setup::{has_presence, keeps_history, lists_members};
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Subscribe {
    client: usize,
    channel: String,
    /// From the position that the client has reached.
    recover: bool,
    /// With something that is no position.
    unreadable: bool,
}

#[derive(Debug)]
struct Subscribing {
    channel: String,
    /// The first publication that it could hear then.
    before: usize,
    given: Given,
    asks: Asks,
    id: u64,
}

impl Subscribe {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        Subscribe {
            client: super::client(choices),
            channel: super::channel(choices),
            recover: choices.bool(),
            unreadable: choices.number(16) == 0,
        }
    }
}

impl Operation for Subscribe {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let before = world.first(&self.channel);
        let Some((client, id)) = world.subscriber(self.client) else { return };
        let position = client.memory.positions.get(&self.channel).copied();
        let given = match position.filter(|_| self.recover) {
            _ if self.unreadable => Given::Unreadable,
            position => position.map_or(Given::Nothing, Given::Position),
        };
        client.subscribe(&self.channel, id, before, given);
    }
}

impl Client {
    /// Subscribes to a channel whose first publication to hear is `before`.
    pub(in super::super) fn subscribe(
        &mut self,
        channel: &str,
        id: u64,
        before: usize,
        given: Given,
    ) {
        self.subscribe_with(channel, id, before, given, Asks::default());
    }

    /// The same, and asks something of presence.
    pub(in super::super) fn subscribe_with(
        &mut self,
        channel: &str,
        id: u64,
        before: usize,
        given: Given,
        asks: Asks,
    ) {
        let mut message = json!({"action": "subscribe", "identifier": channel, "id": id});
        if let Some(watch) = asks.watch {
            message["presence"] = watch.name().into();
        }
        if let Some(meta) = asks.meta {
            message["meta"] = meta.into();
        }
        match given {
            Given::Nothing => {}
            Given::Position(Position { epoch, offset }) => {
                message["position"] = json!({"epoch": epoch, "offset": offset});
            }
            Given::Unreadable => message["position"] = json!("1-1"),
        }
        self.send(&message);
        let channel = channel.to_owned();
        self.asked.insert(id, Box::new(Subscribing { channel, before, given, asks, id }));
    }
}

impl Asked for Subscribing {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        let (name, thing) = (client.name.clone(), self.thing(client));
        match super::error(message) {
            Some(_) if model.asks(&self.channel) && refused(message, &thing, client, model) => {}
            Some("bad_command") if self.given == Given::Unreadable => {
                model.note("an unreadable position");
            }
            Some("token_expired") if model.asks(&self.channel) => {
                assert!(model.subscription_has_expired(&name, &self.channel), "{message}");
                model.take_consent(&name, thing.clone());
            }
            Some("too_fast") => {}
            Some("too_many") => super::must_be_general("too_many", &self.channel, client, model),
            _ if self.given == Given::Unreadable => panic!("{message} to a position that is none"),
            Some("no_presence") => {
                let asks = self.asks.watch.is_some() || self.asks.meta.is_some();
                assert!(asks && !has_presence(&self.channel), "{message}");
            }
            Some("not_allowed") if self.asks.meta.is_some() && client.user.is_none() => {}
            // The session has asked before, or has withdrawn it since: the model follows the answers.
            Some("already_subscribed") => {}
            Some("not_subscribed") => {}
            Some(code) => super::must_be_general(code, &self.channel, client, model),
            None => {
                super::must_be(message, "subscribed", &self.channel);
                // A second join of Phoenix takes the place of the first.
                let known = client.readers.contains_key(&self.channel) && !client.is_phoenix();
                assert!(!known, "{message}, and it was subscribed before");
                client.subscribed(&self.channel, thing.clone(), model);
                begin(client, &self.channel, (self.before, self.given), message, model);
                let mut asks = self.asks.clone();
                if client.is_phoenix() {
                    asks.watch = lists_members(&self.channel).then_some(Watch::Members);
                }
                assert!(asks.meta.is_none() || client.user.is_some(), "{message}: it is nobody");
                client.appears(&self.channel, self.id, asks);
            }
        }
        let channel = Some(&*self.channel);
        if !client.asked.values().any(|asked| asked.subscribes_to() == channel) {
            model.drop_consents(&name, thing);
        }
    }

    fn subscribes_to(&self) -> Option<&str> {
        Some(&self.channel)
    }
}

impl Subscribing {
    fn thing(&self, client: &Client) -> Thing {
        match client.is_phoenix() {
            true => Thing::Join(self.id),
            false => Thing::Subscribe(self.channel.clone()),
        }
    }
}

/// A subscription begins, as `said` says: before it `before` publications had been taken, and the
/// client gave a start.
pub(in super::super) fn begin(
    client: &mut Client,
    channel: &str,
    (before, given): (usize, Given),
    said: &Value,
    model: &mut Model,
) {
    let here = position(said);
    assert_eq!(here.is_some(), keeps_history(channel), "{said}: history has positions");
    let recovered = said.get("recovered").map(|recovered| recovered == true);
    let must_say = here.is_some() && given != Given::Nothing;
    assert_eq!(recovered.is_some(), must_say, "{said}: given {given:?}");
    let asked = given.position();
    let mut reader = match (recovered, asked, here) {
        (Some(true), Some(asked), Some(here)) => {
            assert_eq!(here.epoch, asked.epoch, "{said}: positions of one epoch follow each other");
            model.note("a recovery");
            Reader::recovered(channel, asked, model)
        }
        _ => {
            model.note("a subscription from now on");
            assert_ne!(recovered, Some(true), "{said}: given {given:?}");
            if given == Given::Unreadable {
                model.note("an unreadable position");
            }
            let lost = asked.filter(|_| recovered == Some(false));
            let kept = lost.is_some_and(|asked| model.must_recover(channel, asked));
            assert!(!kept, "{said}, though everything behind {asked:?} is kept");
            Reader::live(channel, before, here, model)
        }
    };
    if let Some(seen) = reader.seen {
        client.memory.positions.insert(channel.to_owned(), seen);
    }
    if client.is_phoenix() {
        // Its publications have no offsets.
        reader.seen = None;
    }
    client.readers.insert(channel.to_owned(), reader);
}

/// The position in a message.
pub(in super::super) fn position(message: &Value) -> Option<Position> {
    let position = message.get("position")?;
    let number = |key: &str| position[key].as_u64().expect("a position has two numbers");
    Some(Position { epoch: number("epoch") as u32, offset: number("offset") })
}
