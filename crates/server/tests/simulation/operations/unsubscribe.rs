//! A client unsubscribes from a channel.

use serde_json::{Value, json};

use super::super::choices::Choices;
use super::super::client::{Asked, Client};
use super::super::model::Model;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Unsubscribe {
    client: usize,
    channel: String,
}

#[derive(Debug)]
struct Unsubscribing {
    channel: String,
}

impl Unsubscribe {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        Unsubscribe { client: super::client(choices), channel: super::channel(choices) }
    }
}

impl Operation for Unsubscribe {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let Some((client, id)) = world.subscriber(self.client) else { return };
        let channel = self.channel.clone();
        client.send(&json!({"action": "unsubscribe", "identifier": channel, "id": id}));
        client.asked.insert(id, Box::new(Unsubscribing { channel }));
    }
}

impl Asked for Unsubscribing {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            Some("not_subscribed") => {
                let known = client.readers.contains_key(&self.channel);
                assert!(!known, "{message}, but it is subscribed");
            }
            Some(code) => super::must_be_general(code, &self.channel, client, model),
            None => {
                super::must_be(message, "unsubscribed", &self.channel);
                // Nothing more is heard of the channel from here on.
                client.readers.remove(&self.channel);
                client.present.remove(&self.channel);
                client.expiring.remove(&self.channel);
            }
        }
    }
}
