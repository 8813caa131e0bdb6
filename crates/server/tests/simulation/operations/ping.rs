//! A client asks whether the server hears it, and learns its connection's name.

use serde_json::{Value, json};

use super::super::choices::Choices;
use super::super::client::{Asked, Client};
use super::super::model::Model;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Ping {
    client: usize,
}

#[derive(Debug)]
struct Pinging;

impl Ping {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        Ping { client: super::client(choices) }
    }
}

impl Operation for Ping {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let Some((client, id)) = world.subscriber(self.client) else { return };
        client.send(&json!({"action": "ping", "id": id}));
        client.asked.insert(id, Box::new(Pinging));
    }
}

impl Asked for Pinging {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            Some(code) => super::must_be_general(code, "", client, model),
            None => {
                assert_eq!(message["type"], "pong", "{message}");
                let name = message["connection"].as_str().expect("a connection has a name");
                let shard = name.split('-').next().and_then(|shard| shard.parse().ok());
                assert_eq!(shard, Some(client.shard), "{message}");
            }
        }
    }
}
