//! How connections end, and what must have been the cause.

use super::backend::Thing;
use super::client::{Client, Transport};
use super::model::Model;

/// The end of a client's connection, as the client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A close frame, and the error before it.
    WebSocket { code: u16, reason: String, error: Option<String> },
    /// The `error` event of a stream.
    Event { code: String },
    /// The `retry` field of a stream.
    Retry,
    /// An HTTP answer in place of a stream or a WebSocket.
    Answer { status: u16, code: String },
    /// The status that tells a client that polls that its session has ended.
    Poll { status: u64 },
    /// An HTTP connection was closed between two answers.
    Idle,
    /// Nothing was said.
    Abrupt,
}

/// What is known when an end is judged.
pub(super) struct Circumstances {
    /// The shard is being drained.
    pub(super) drained: bool,
    /// The time of the drain is over, so the shard has ended with its connections.
    pub(super) cut_off: bool,
}

impl End {
    /// The end of input, or a reset.
    pub(super) fn of(client: &Client, reset: bool) -> Self {
        match client.transport {
            Transport::Poll if client.poll.is_none() && !reset => End::Idle,
            _ => End::Abrupt,
        }
    }
}

/// Checks that an end has a cause, and the form that belongs to the cause.
pub(super) fn judge(client: &Client, end: &End, known: &Circumstances, model: &mut Model) {
    let expired = client.has_expired(model.wall_max) || model.may_have_expired(&client.name);
    let slow = !client.fast;
    let fair = match end {
        End::WebSocket { code, reason, error: None } if client.is_phoenix() => {
            match (code, reason.as_str()) {
                (1008, "token_expired") => expired,
                (4000..5000, reason) => model.ends(&client.name, *code, reason),
                (1008, "too_fast") => model.limits_commands,
                (1001, "disconnected") => client.may_be_disconnected,
                (1013, "too_slow") => slow,
                (1012, reason) => reason.starts_with("service restart, retry=") && known.drained,
                _ => false,
            }
        }
        End::WebSocket { code, reason, error } => match (code, reason.as_str(), error.as_deref()) {
            (1008, "token_expired", Some("token_expired")) => expired,
            (1008, "too_fast", None) => model.limits_commands,
            (4000, "disconnected", Some("disconnected")) => client.may_be_disconnected,
            (4000..5000, reason, Some("disconnected")) => model.ends(&client.name, *code, reason),
            (1013, "too_slow", Some("too_slow")) => slow,
            (1012, reason, None) => reason.starts_with("service restart, retry=") && known.drained,
            _ => false,
        },
        End::Event { code } => match code.as_str() {
            "token_expired" => expired,
            "disconnected" => client.may_be_disconnected || model.ends_somehow(&client.name),
            "too_slow" => slow,
            // A subscription has expired before it could begin.
            "not_subscribed" => {
                let expired = |of: &String| model.subscription_has_expired(&client.name, of);
                matches!(&client.transport, Transport::Events(of) if of.iter().any(expired))
            }
            _ => false,
        },
        End::Retry => known.drained,
        End::Answer { code, .. } if code == "token_expired" => {
            let expired = |of: &String| model.subscription_has_expired(&client.name, of);
            matches!(&client.transport, Transport::Events(of) if of.iter().any(expired))
        }
        End::Answer { code, .. } if is_refused(client, code, model) => true,
        End::Answer { status: 503, .. } => known.drained,
        End::Answer { status: 403, code } if code.is_empty() => {
            known.drained && client.is_phoenix() && model.asks_to_connect
        }
        End::Answer { status: 401 | 403, code } if code == "bad_token" => {
            assert_eq!(matches!(end, End::Answer { status: 403, .. }), client.is_phoenix());
            !client.may_be_user || expired || client.user.is_some()
        }
        End::Answer { status: 403, code } => {
            let Transport::Events(channels) = &client.transport else { return };
            let needed = channels.iter().any(|channel| super::setup::needs_token(channel));
            let asks = channels.iter().any(|channel| super::setup::asks(channel));
            let nobody =
                needed && !client.may_be_user || asks && (!model.has_backend || known.drained);
            code == "not_allowed" && nobody
        }
        End::Answer { .. } => false,
        End::Poll { status } => {
            let told = client.may_be_disconnected || model.ends_somehow(&client.name);
            let ended = slow || expired || told || model.limits_commands;
            // Without a slot it does not begin.
            matches!(status, 410 | 500)
                && (ended || known.drained || known.cut_off || !client.opened)
        }
        End::Idle => true,
        End::Abrupt if client.polls_phoenix() => known.cut_off || known.drained || slow,
        End::Abrupt => slow || known.cut_off || known.drained && !client.opened,
    };
    assert!(fair, "{end:?} has no cause");
    if client.is_phoenix() {
        model.note("a Phoenix session ended");
    }
    model.note(match end {
        End::WebSocket { code: 1008, error: Some(_), .. } => "a WebSocket ended: token",
        End::WebSocket { code: 1008, .. } => "a WebSocket ended: too fast",
        End::WebSocket { code: 1012, .. } => "a WebSocket ended: drain",
        End::WebSocket { code: 1013, .. } => "a WebSocket ended: slow",
        End::WebSocket { .. } => "a WebSocket ended: administrator",
        End::Event { code } => match code.as_str() {
            "token_expired" => "a stream ended: token",
            "disconnected" => "a stream ended: administrator",
            _ => "a stream ended: slow",
        },
        End::Retry => "a stream ended: drain",
        End::Answer { .. } => "a handshake refused",
        End::Poll { .. } => "a Phoenix session that polls ended",
        End::Idle => "an idle end",
        End::Abrupt => "an abrupt end",
    });
}

/// Whether the application has refused a request for a session.
fn is_refused(client: &Client, code: &str, model: &mut Model) -> bool {
    if !model.has_backend || client.transport == Transport::Poll {
        return false;
    }
    let mut things = vec![Thing::Connect];
    if let Transport::Events(channels) = &client.transport {
        things.extend(channels.iter().cloned().map(Thing::Subscribe));
    }
    let sentence = client.refusal.clone();
    things.iter().any(|thing| model.follows(&client.name, thing, code, &sentence))
}

/// A client that is still there had no reason to have ended at `wall`, in Unix seconds.
pub(super) fn must_be_there(client: &Client, wall: u64, model: &Model) {
    let expired = !client.authenticates && model.must_have_expired(&client.name);
    assert!(!expired || !client.opened, "the application has ended it");
    for (channel, at) in &client.expiring {
        assert!(at + 10 > wall, "{channel} has ended at {at}");
    }
    let wants_session = client.transport != Transport::Poll || client.poll.is_some();
    assert!(!client.has_expired(wall) || !wants_session, "its token has expired");
    assert!(!client.must_be_disconnected || !wants_session, "an administrator has ended it");
}
