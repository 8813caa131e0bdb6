//! A client asks for what follows its position, and waits for it.

use murre_router::channels::Position;
use serde_json::Value;

use super::super::backend::Thing;
use super::super::choices::Choices;
use super::super::client::{self, Client, Transport};
use super::super::model::Model;
use super::super::setup::{asks, keeps_history, needs_token};
use super::super::wire;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct SendPoll {
    client: usize,
    channel: String,
    /// With the position that the client has reached.
    after: bool,
    /// With something that is no position.
    unreadable: bool,
}

/// A poll that has not been answered.
#[derive(Clone, Debug)]
pub(in super::super) struct Poll {
    channel: String,
    after: Option<Position>,
    unreadable: bool,
}

impl SendPoll {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let (client, channel) = (super::client(choices), super::channel(choices));
        let after = choices.number(4) > 0;
        SendPoll { client, channel, after, unreadable: choices.number(16) == 0 }
    }
}

impl Operation for SendPoll {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let fits = |client: &Client| client.transport == Transport::Poll && client.poll.is_none();
        let Some(found) = world.find(self.client, fits) else { return };
        let client = world.clients[found].as_mut().expect("just found");
        // Mostly it goes on where it was.
        let known = client.memory.positions.keys().next().cloned();
        let channel = known.filter(|_| self.after).unwrap_or(self.channel.clone());
        let after = client.memory.positions.get(&channel).copied().filter(|_| self.after);
        let mut target = format!("/poll?topic={channel}");
        let unreadable = self.unreadable;
        if unreadable {
            target += "&position=1-2-3";
        } else if let Some(Position { epoch, offset }) = after {
            target += &format!("&position={epoch}-{offset}");
        }
        let head = super::connect::request(&target, client.token.as_deref(), "");
        client.write(head.as_bytes());
        client.poll = Some(Poll { channel, after, unreadable });
    }
}

impl Poll {
    /// There is nothing yet that it could be answered with.
    pub(in super::super) fn must_wait(&self, model: &Model) {
        assert!(!self.unreadable, "{self:?} was never answered");
        let after = self.after.unwrap_or_else(|| panic!("{self:?} was never answered"));
        let next = model.index_after(&self.channel, after);
        let len = model.len(&self.channel);
        assert!(next.is_none_or(|next| next >= len), "{self:?} waits, though there is more");
    }
}

/// The answer is here.
pub(in super::super) fn answered(client: &mut Client, status: u16, body: &str, model: &mut Model) {
    let Poll { channel, after, unreadable } = client.poll.take().expect("an answer to a poll");
    let code = client::code(body);
    match code.as_str() {
        "token_expired" => model.note("a poll ended: token"),
        "disconnected" => model.note("a poll ended: administrator"),
        "too_fast" => model.note("a poll refused: too fast"),
        "bad_command" => model.note("an unreadable position"),
        _ => {}
    }
    let fair = match (status, code.as_str()) {
        (200, "") if !unreadable => {
            client.admitted(model);
            if model.asks(&channel) {
                model.take_consent(&client.name, Thing::Subscribe(channel.clone()));
            }
            return page(client, &channel, after, body, model);
        }
        _ if is_refused(client, &channel, body, model) => true,
        (400, "bad_command") => unreadable,
        (429, "too_fast") => model.limits_commands,
        (400, "no_history") => !keeps_history(&channel),
        (401, "bad_token") => {
            // A token that expires may have done so, or the clock may have been set back and forth.
            client.user.as_ref().is_none_or(|(_, expires)| expires.is_some())
        }
        (401, "token_expired") => {
            client.has_expired(model.wall_max) || model.may_have_expired(&client.name)
        }
        (403, "not_allowed") => {
            let drained = model.drained[client.shard];
            let asks = asks(&channel) && (!model.has_backend || drained);
            asks || needs_token(&channel) && client.token.is_none()
        }
        (403, "disconnected") => {
            model.ends_somehow(&client.name) || std::mem::take(&mut client.may_be_disconnected)
        }
        (503, "") => model.drained[client.shard],
        _ => false,
    };
    assert!(fair, "{status} {body} is no answer to {after:?} of {channel}");
}

/// Whether the application has refused the poll.
fn is_refused(client: &Client, channel: &str, body: &str, model: &mut Model) -> bool {
    let said = serde_json::from_str(body).unwrap_or(Value::Null);
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let (code, sentence) = (text("code"), text("message"));
    let things = [Thing::Connect, Thing::Subscribe(channel.to_owned())];
    model.has_backend
        && things.iter().any(|thing| model.follows(&client.name, thing, &code, &sentence))
}

fn page(
    client: &mut Client,
    channel: &str,
    after: Option<Position>,
    body: &str,
    model: &mut Model,
) {
    let page = wire::json(body);
    assert_eq!(page["identifier"], channel, "{page}");
    let offsets = super::history::page(channel, &page, model);
    let here = super::subscribe::position(&page).expect("a page has a position");
    let recovered = page["recovered"] == true;
    model.note(if offsets.is_empty() { "an empty poll" } else { "a poll with publications" });
    let seen = match after {
        None => {
            assert!(offsets.is_empty() && recovered, "{page} says where the channel is");
            here
        }
        Some(after) if recovered => {
            assert_eq!(here.epoch, after.epoch, "{page}: positions of one epoch");
            let first = offsets.first();
            assert!(first.is_none_or(|&first| first == after.offset + 1), "{page} after {after:?}");
            Position { offset: offsets.last().copied().unwrap_or(after.offset), ..here }
        }
        Some(after) => {
            let kept = model.must_recover(channel, after);
            assert!(!kept, "{page}, though everything behind {after:?} is kept");
            here
        }
    };
    client.memory.positions.insert(channel.to_owned(), seen);
}
