//! A client reads a page of a channel's history.

use murre_router::channels::Position;
use serde_json::{Value, json};

use super::super::choices::Choices;
use super::super::client::{Asked, Client};
use super::super::model::Model;
use super::super::setup::keeps_history;
use super::super::wire;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct History {
    client: usize,
    channel: String,
    limit: u32,
    /// What follows the position that the client has reached.
    after: bool,
}

#[derive(Debug)]
struct Reading {
    channel: String,
    limit: u32,
    after: Option<Position>,
}

impl History {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let (client, channel) = (super::client(choices), super::channel(choices));
        History { client, channel, limit: [100, 0, 1, 5][choices.index(4)], after: choices.bool() }
    }
}

impl Operation for History {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let Some((client, id)) = world.websocket(self.client) else { return };
        let (channel, limit) = (self.channel.clone(), self.limit);
        let after = client.memory.positions.get(&channel).copied().filter(|_| self.after);
        let mut message =
            json!({"action": "history", "identifier": channel, "limit": limit, "id": id});
        if let Some(Position { epoch, offset }) = after {
            message["position"] = json!({"epoch": epoch, "offset": offset});
        }
        client.send(&message);
        client.asked.insert(id, Box::new(Reading { channel, limit, after }));
    }
}

impl Asked for Reading {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            Some("no_history") => assert!(!keeps_history(&self.channel), "{message}"),
            // Those may read who are subscribed.
            Some("not_allowed") if model.asks(&self.channel) => {
                assert!(!client.readers.contains_key(&self.channel), "{message}");
            }
            Some(code) => super::must_be_general(code, &self.channel, client, model),
            None => {
                super::must_be(message, "history", &self.channel);
                let page = page(&self.channel, message, model);
                assert!(page.len() <= self.limit as usize, "{message} has more than {self:?}");
                // What follows a position that is still known begins right behind it.
                if let (Some(after), Some(&first)) = (self.after, page.first())
                    && model.must_recover(&self.channel, after)
                {
                    assert_eq!(first, after.offset + 1, "{message} follows {after:?}");
                }
            }
        }
    }
}

/// The offsets of a page, which are of the channel's order, without a gap and up to its position.
pub(super) fn page(channel: &str, page: &Value, model: &mut Model) -> Vec<u64> {
    let here = super::subscribe::position(page).expect("a page has a position");
    let publications = page["publications"].as_array().expect("a page has publications");
    let mut offsets: Vec<u64> = Vec::new();
    for publication in publications {
        let publication = wire::publication(publication, Some(channel));
        let offset = publication.offset.expect("it has an offset");
        assert!(offset <= here.offset, "{page} ends at its position");
        assert!(offsets.last().is_none_or(|last| last + 1 == offset), "{page} has a gap");
        let index = model.index(channel, publication.number);
        model.learn(channel, Position { offset, ..here }, index);
        offsets.push(offset);
    }
    offsets
}
