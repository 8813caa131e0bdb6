//! A client publishes: one message or a batch, JSON or bytes, with a request id or without.

use serde_json::{Value, json};

use super::super::backend::{Thing, refused};
use super::super::choices::Choices;
use super::super::client::{Asked, Client};
use super::super::model::{Model, Request};
use super::super::setup::{is_called, keeps_history};
use super::super::world::World;
use super::Operation;
use super::service::Requiring;

#[derive(Clone, Debug)]
pub(in super::super) struct Publish {
    client: usize,
    channel: String,
    count: u32,
    /// Bytes behind the number in each.
    filling: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    /// Without a request id.
    Unnamed,
    Binary,
}

#[derive(Debug)]
struct Publishing {
    channel: String,
    number: u64,
}

impl Publish {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        Publish {
            client: super::client(choices),
            channel: super::channel(choices),
            count: count(choices),
            filling: filling(choices),
            form: [Form::Json, Form::Unnamed, Form::Binary][choices.index(3)],
        }
    }
}

/// How many publications come together.
pub(super) fn count(choices: &mut Choices) -> u32 {
    match choices.number(8) {
        0..5 => 1,
        5 => 2 + choices.number(4),
        6 => 10 + choices.number(10),
        _ => 40 + choices.number(61),
    }
}

/// Bytes of a payload.
pub(super) fn filling(choices: &mut Choices) -> usize {
    [0, 20, 100, 400, 2000][choices.index(5)]
}

/// The payload of a publication.
pub(in super::super) fn payload(number: u64, filling: usize) -> String {
    format!("{number}:{}", "x".repeat(filling))
}

impl Operation for Publish {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let mut batch = Vec::new();
        for _ in 0..self.count {
            let Some(found) = world.subscriber(self.client).map(|(client, _)| client.author())
            else {
                return;
            };
            let number = world.model.hand_in(self.filling, Some(found));
            let Some((client, id)) = world.subscriber(self.client) else { return };
            let (channel, payload) = (&self.channel, payload(number, self.filling));
            if client.is_phoenix() && is_called(channel) {
                let service = channel.clone();
                batch.push(
                    json!({"action": "call", "identifier": channel, "data": payload, "id": id}),
                );
                client.asked.insert(id, Box::new(Requiring { service: service.clone(), number }));
                world.model.requests.insert(number, Request { service, ..Request::default() });
                continue;
            }
            match self.form {
                Form::Json => {
                    batch.push(json!({"action": "publish", "identifier": channel, "data": payload, "id": id}));
                    let asked = Publishing { channel: channel.clone(), number };
                    client.asked.insert(id, Box::new(asked));
                }
                Form::Unnamed => {
                    batch
                        .push(json!({"action": "publish", "identifier": channel, "data": payload}));
                    client.unnamed.push(number);
                }
                Form::Binary => {
                    client.publish_bytes(channel, &payload);
                    client.unnamed.push(number);
                }
            }
        }
        // What a WebSocket message of this run may have.
        let Some((client, _)) = world.subscriber(self.client) else { return };
        let messages = 60_000 / (self.filling + 100);
        for batch in batch.chunks(messages.max(1)) {
            match batch {
                [single] => client.send(single),
                several => client.send(&several.into()),
            }
        }
    }
}

impl Asked for Publishing {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        let taken = model.is_taken(self.number);
        let thing = Thing::Number(self.number);
        match super::error(message) {
            Some(_) if model.asks(&self.channel) && refused(message, &thing, client, model) => {
                model.refuse(self.number);
            }
            Some("overloaded") => {
                model.note("a publication refused");
                assert!(!taken, "{message}, but {} was taken", self.number);
                model.refuse(self.number);
            }
            Some(code) => {
                super::must_be_general(code, &self.channel, client, model);
                model.refuse(self.number);
            }
            None => {
                super::must_be(message, "published", &self.channel);
                let index = model.index(&self.channel, self.number);
                match super::subscribe::position(message) {
                    Some(position) => model.learn(&self.channel, position, index),
                    // Nobody hears it, now or later, so it has no place in a history. Phoenix tells none.
                    None => {
                        assert!(!keeps_history(&self.channel) || client.is_phoenix(), "{message}");
                    }
                }
            }
        }
    }
}
