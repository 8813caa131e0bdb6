//! What a run is made of, a file for each operation: how it is drawn, what it does, and what must
//! come of it.

pub(super) mod authenticate;
pub(super) mod connect;
pub(super) mod control;
pub(super) mod drain;
pub(super) mod history;
pub(super) mod leave;
pub(super) mod mood;
pub(super) mod pace;
pub(super) mod ping;
pub(super) mod poll;
pub(super) mod presence;
pub(super) mod publish;
pub(super) mod service;
pub(super) mod subscribe;
pub(super) mod time;
pub(super) mod unsubscribe;

use serde_json::Value;

use super::choices::Choices;
use super::client::Client;
use super::model::Model;
use super::world::World;

/// One operation of a run.
pub(super) trait Operation {
    /// Does it, if it can be done now.
    fn play(&self, world: &mut World);

    /// The client that does it, if it is one.
    #[cfg_attr(not(test), expect(dead_code, reason = "for making a run smaller"))]
    fn client(&self) -> Option<usize> {
        None
    }
}

/// Clients of a run at one time.
pub(super) const CLIENTS: usize = 6;

fn channel(choices: &mut Choices) -> String {
    choices.channel()
}

fn client(choices: &mut Choices) -> usize {
    choices.index(CLIENTS)
}

/// The code of an error; `None` if the message is none.
fn error(message: &Value) -> Option<&str> {
    (message["type"] == "error").then(|| message["code"].as_str().expect("an error has a code"))
}

/// The message is of this type, and about this channel.
fn must_be(message: &Value, kind: &str, channel: &str) {
    assert_eq!(message["type"], kind, "{message}");
    assert_eq!(message["identifier"], channel, "{message}");
}

/// The error is one that comes whatever is asked for.
fn must_be_general(code: &str, channel: &str, client: &Client, model: &Model) {
    let fair = match code {
        // Whether it may be is judged where it is heard.
        "too_fast" => true,
        "unmatched topic" => client.is_phoenix() && !client.readers.contains_key(channel),
        "not_allowed" if super::setup::needs_token(channel) => client.user.is_none(),
        // Without an application nobody may.
        "not_allowed" => {
            let asks = super::setup::asks(channel) || super::setup::is_called(channel);
            asks && !model.has_backend
        }
        // Commands may wait behind others about which the application decides.
        "too_many" => model.has_backend && client.has_many_commands(),
        _ => false,
    };
    assert!(fair, "{code} about {channel} has no cause");
}
