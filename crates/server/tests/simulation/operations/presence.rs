//! A client subscribes as a watcher of the channel's members or with metadata, replaces its metadata, or
//! asks who is there.

use serde_json::{Value, json};

use super::super::choices::Choices;
use super::super::client::{Asked, Client, Given};
use super::super::model::Model;
use super::super::presence::{Asks, Watch};
use super::super::setup::{has_presence, lists_members};
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Presence {
    client: usize,
    channel: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Subscribe(Asks),
    Update(Option<u64>),
    Leave,
    Read,
    Count,
}

impl Presence {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let (client, channel) = (super::client(choices), super::channel(choices));
        let mut meta = || match choices.number(3) {
            0 => None,
            meta => Some(u64::from(meta)),
        };
        let meta = meta();
        let kind = match choices.number(9) {
            8 => Kind::Leave,
            0..4 => Kind::Subscribe(Asks { watch: Some(Watch::Members), meta }),
            4 => Kind::Subscribe(Asks { watch: Some(Watch::Counts), meta }),
            5 => Kind::Update(meta),
            6 => Kind::Read,
            _ => Kind::Count,
        };
        Presence { client, channel, kind }
    }
}

impl Operation for Presence {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let channel = &self.channel;
        let before = world.first(channel);
        // Elsewhere the pushes of Phoenix for presence are publications.
        let of_phoenix = has_presence(channel) && !matches!(self.kind, Kind::Read | Kind::Count);
        let found = match of_phoenix {
            true => world.subscriber(self.client),
            false => world.websocket(self.client),
        };
        let Some((client, id)) = found else { return };
        let action = match &self.kind {
            Kind::Subscribe(asks) => {
                return client.subscribe_with(channel, id, before, Given::Nothing, asks.clone());
            }
            Kind::Update(_) => "presence_update",
            Kind::Leave => "presence_leave",
            Kind::Read => "presence",
            Kind::Count => "presence_stats",
        };
        let mut message = json!({"action": action, "identifier": channel, "id": id});
        if let Kind::Update(Some(meta)) = self.kind {
            message["meta"] = meta.into();
        }
        client.send(&message);
        client.asked.insert(id, Box::new(self.clone()));
    }
}

impl Asked for Presence {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        let channel = &self.channel;
        match (super::error(message), &self.kind) {
            (Some("too_fast"), _) => {}
            (Some("no_presence"), Kind::Read) => assert!(!lists_members(channel), "{message}"),
            (Some("no_presence"), _) => assert!(!has_presence(channel), "{message}"),
            (Some("not_subscribed"), Kind::Update(_) | Kind::Leave) => {
                assert!(!client.readers.contains_key(channel), "{message}, but it is subscribed");
            }
            (Some("not_allowed"), Kind::Update(_)) if client.user.is_none() => {}
            // It may count members only of channels that it is subscribed to.
            (Some("not_allowed"), _) if model.asks(channel) => {
                assert!(!client.readers.contains_key(channel), "{message}");
            }
            (Some(code), _) => super::must_be_general(code, channel, client, model),
            (None, Kind::Update(meta)) => {
                super::must_be(message, "presence_updated", channel);
                client.updates(channel, *meta);
                model.note("metadata replaced");
            }
            (None, Kind::Leave) => {
                super::must_be(message, "presence_left", channel);
                client.hides(channel);
                model.note("a member hidden");
            }
            (None, Kind::Read) => {
                super::must_be(message, "presence", channel);
                let members = message["members"].as_array().expect("a page has members");
                let all = message["clients"].as_u64().expect("a page has counts");
                assert!(members.len() as u64 <= all, "{message}");
                model.note("a page of members");
            }
            (None, _) => {
                super::must_be(message, "presence_stats", channel);
                assert!(message["users"].as_u64() <= message["clients"].as_u64(), "{message}");
            }
        }
    }
}
