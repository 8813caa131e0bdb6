//! Reasons of error replies, and close codes.

use murre_codec::CloseCode;

use super::decode::BadMessage;
use crate::hub::ErrorCode;
use crate::hub::output::{Disconnect, DisconnectReason};

/// No channel has this name, or the connection has not joined it. The words are Phoenix's.
pub(crate) const UNMATCHED_TOPIC: &str = "unmatched topic";
/// The connection has joined as many topics as it may. The words are Phoenix's.
pub(crate) const TOO_MANY_CHANNELS: &str = "too many channels joined";
/// A push whose payload is no object, which clients in Swift and Java could not read.
pub(crate) const BAD_PAYLOAD: &str = "bad_payload";
/// A push whose event no publication can have.
pub(crate) const BAD_EVENT: &str = "bad_event";
/// A join whose `position` cannot be read.
pub(crate) const BAD_POSITION: &str = "bad_position";

/// A join whose `presence` or `presence_key` cannot be read.
pub(crate) const BAD_PRESENCE: &str = "bad_presence";

/// A join whose configuration cannot be read.
pub(crate) const BAD_CONFIG: &str = "bad_config";
/// A join that wants changes of a database, of which the server has none.
pub(crate) const NO_POSTGRES_CHANGES: &str = "postgres_changes are not served here";

/// The `reason` of an error reply.
pub(crate) fn reason(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadChannel | ErrorCode::UnknownNamespace => UNMATCHED_TOPIC,
        ErrorCode::BadPublication => "too_long",
        ErrorCode::NotAllowed => "not_allowed",
        ErrorCode::BadToken => "bad_token",
        ErrorCode::AlreadySubscribed => "already_joined",
        ErrorCode::NotSubscribed => "not_joined",
        ErrorCode::AlreadyServing => "already_serving",
        ErrorCode::NotServing => "not_serving",
        ErrorCode::TooMany => TOO_MANY_CHANNELS,
        ErrorCode::NoHistory => "no_history",
        ErrorCode::NoPresence => "no_presence",
        ErrorCode::Overloaded => "overloaded",
        ErrorCode::NoResponders => "no_responders",
        ErrorCode::ResponderGone => "responder_gone",
        ErrorCode::ResponderFailed => "responder_failed",
        ErrorCode::Timeout => "timeout",
        ErrorCode::UnknownRequest => "unknown_request",
        ErrorCode::TooFast => "too_fast",
        ErrorCode::TooSlow => "too_slow",
        ErrorCode::TokenExpired => "token_expired",
        ErrorCode::Disconnected => "disconnected",
        ErrorCode::Unsubscribed => "unsubscribed",
        ErrorCode::Refused => "refused",
        ErrorCode::BackendFailed => "backend_failed",
    }
}

/// The close code of a connection that the server ends. Clients do not come back after 1000, so it is
/// never that.
pub(crate) fn close_code(disconnect: Disconnect<'_>) -> CloseCode {
    if let Some(code) = disconnect.code {
        return CloseCode::from(code);
    }
    match disconnect.reason {
        DisconnectReason::TooFast | DisconnectReason::TokenExpired => CloseCode::Policy,
        DisconnectReason::Administrator => CloseCode::Away,
        DisconnectReason::Application => CloseCode::from(4000),
        DisconnectReason::Slow => CloseCode::Again,
        DisconnectReason::Draining => CloseCode::Restart,
    }
}

/// The close code and the sentence for a message that cannot be read.
pub(crate) fn bad_message(why: BadMessage) -> (CloseCode, &'static str) {
    match why {
        BadMessage::Json => (CloseCode::Invalid, "the message is not JSON"),
        BadMessage::Form => (CloseCode::Policy, "the message has not the form of its version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No connection ends with 1000, after which clients stay away.
    #[test]
    fn ends_have_their_codes() {
        let codes = DisconnectReason::ALL.map(|reason| u16::from(close_code(reason.into())));
        assert_eq!(codes, [1008, 1008, 1001, 4000, 1013, 1012]);
        let codes = [BadMessage::Json, BadMessage::Form].map(|why| u16::from(bad_message(why).0));
        assert_eq!(codes, [1007, 1008]);
    }
}
