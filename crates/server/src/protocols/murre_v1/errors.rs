//! Errors of `murre.v1`: names for programs, sentences for people, close codes and statuses.

use murre_codec::CloseCode;

use crate::hub::output::{Disconnect, DisconnectReason};
use crate::hub::{About, Error, ErrorCode};

/// The reason for which a message is refused or a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    BadJson,
    BadCommand,
    UnknownAction,
    BatchTooLong,
    /// A reason of the hub.
    Hub(ErrorCode),
}

/// An `error` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireError<'a> {
    pub(crate) code: Code,
    pub(crate) message: &'a str,
    pub(crate) about: Option<About<'a>>,
}

impl<'a> WireError<'a> {
    /// An error with a sentence of its own.
    pub(crate) fn new(code: Code, message: &'a str) -> Self {
        WireError { code, message, about: None }
    }

    /// The same error with a subject.
    pub(crate) fn about(self, about: About<'a>) -> Self {
        WireError { about: Some(about), ..self }
    }
}

impl From<Code> for WireError<'_> {
    fn from(code: Code) -> Self {
        WireError::new(code, code.sentence())
    }
}

impl From<ErrorCode> for WireError<'_> {
    fn from(code: ErrorCode) -> Self {
        Code::Hub(code).into()
    }
}

impl<'a> From<Error<'a>> for WireError<'a> {
    fn from(Error { code, detail, about }: Error<'a>) -> Self {
        let code = Code::Hub(code);
        WireError { code, message: detail.unwrap_or(code.sentence()), about }
    }
}

/// The close code of a WebSocket that the server ends (RFC 6455 section 7.4, and the registry there).
pub(crate) fn close_code(disconnect: Disconnect<'_>) -> CloseCode {
    if let Some(code) = disconnect.code {
        return CloseCode::from(code);
    }
    match disconnect.reason {
        DisconnectReason::TooFast | DisconnectReason::TokenExpired => CloseCode::Policy,
        DisconnectReason::Administrator | DisconnectReason::Application => CloseCode::from(4000),
        DisconnectReason::Slow => CloseCode::Again,
        DisconnectReason::Draining => CloseCode::Restart,
    }
}

impl Code {
    /// All codes, in the order of the protocol's table.
    #[cfg(test)]
    pub(crate) const ALL: [Code; 29] = [
        Code::BadJson,
        Code::BadCommand,
        Code::UnknownAction,
        Code::Hub(ErrorCode::BadChannel),
        Code::Hub(ErrorCode::UnknownNamespace),
        Code::BatchTooLong,
        Code::Hub(ErrorCode::BadPublication),
        Code::Hub(ErrorCode::NotAllowed),
        Code::Hub(ErrorCode::BadToken),
        Code::Hub(ErrorCode::AlreadySubscribed),
        Code::Hub(ErrorCode::NotSubscribed),
        Code::Hub(ErrorCode::AlreadyServing),
        Code::Hub(ErrorCode::NotServing),
        Code::Hub(ErrorCode::TooMany),
        Code::Hub(ErrorCode::NoHistory),
        Code::Hub(ErrorCode::NoPresence),
        Code::Hub(ErrorCode::Overloaded),
        Code::Hub(ErrorCode::NoResponders),
        Code::Hub(ErrorCode::ResponderGone),
        Code::Hub(ErrorCode::ResponderFailed),
        Code::Hub(ErrorCode::Timeout),
        Code::Hub(ErrorCode::UnknownRequest),
        Code::Hub(ErrorCode::TooFast),
        Code::Hub(ErrorCode::TooSlow),
        Code::Hub(ErrorCode::TokenExpired),
        Code::Hub(ErrorCode::Disconnected),
        Code::Hub(ErrorCode::Unsubscribed),
        Code::Hub(ErrorCode::Refused),
        Code::Hub(ErrorCode::BackendFailed),
    ];

    /// The `code` of an `error` message.
    pub(crate) fn name(self) -> &'static str {
        self.text().0
    }

    /// The `message` of an `error` message without a sentence of its own: the fault and a remedy.
    pub(crate) fn sentence(self) -> &'static str {
        self.text().1
    }

    /// The status of an HTTP answer with this error.
    pub(crate) fn status(self) -> u16 {
        let Code::Hub(code) = self else { return 400 };
        match code {
            ErrorCode::BadToken | ErrorCode::TokenExpired => 401,
            ErrorCode::NotAllowed
            | ErrorCode::Disconnected
            | ErrorCode::Unsubscribed
            | ErrorCode::Refused => 403,
            ErrorCode::TooFast => 429,
            ErrorCode::Overloaded | ErrorCode::TooSlow | ErrorCode::BackendFailed => 503,
            _ => 400,
        }
    }

    fn text(self) -> (&'static str, &'static str) {
        let code = match self {
            Code::BadJson => {
                return (
                    "bad_json",
                    "the message is not JSON in UTF-8; send one object, or an array of them",
                );
            }
            Code::BadCommand => {
                return (
                    "bad_command",
                    "the command lacks a member or has one of the wrong type; see the table of commands",
                );
            }
            Code::UnknownAction => {
                return (
                    "unknown_action",
                    "there is no such `action`; it is one of subscribe, unsubscribe, publish, history, \
                 presence, presence_stats, presence_update, presence_leave, ping, auth, serve, unserve, request, reply",
                );
            }
            Code::BatchTooLong => {
                return ("batch_too_long", "a batch has 1 to 100 commands; send several batches");
            }
            Code::Hub(code) => code,
        };
        match code {
            ErrorCode::BadChannel => (
                "bad_identifier",
                "no channel or service can have this name; it has at least one byte, no control \
                 characters, and no more bytes than the server takes (255 unless set lower)",
            ),
            ErrorCode::UnknownNamespace => (
                "unknown_namespace",
                "the part of the name before `:` is no namespace of this server; use one that is, or a \
                 name without `:`",
            ),
            ErrorCode::BadPublication => (
                "bad_publication",
                "the data is longer than the server takes; send less, or say where to fetch it",
            ),
            ErrorCode::NotAllowed => (
                "not_allowed",
                "this connection may not do that here; authenticate with a token that grants it, or ask \
                 who runs the server",
            ),
            ErrorCode::BadToken => {
                ("bad_token", "the token is not valid here; get a new one and send it with `auth`")
            }
            ErrorCode::AlreadySubscribed => (
                "already_subscribed",
                "this connection is subscribed to the channel; unsubscribe first to start anew",
            ),
            ErrorCode::NotSubscribed => {
                ("not_subscribed", "this connection is not subscribed to the channel")
            }
            ErrorCode::AlreadyServing => {
                ("already_serving", "this connection offers the service already")
            }
            ErrorCode::NotServing => ("not_serving", "this connection does not offer the service"),
            ErrorCode::TooMany => (
                "too_many",
                "this connection has as many of these as it may have; end some, or wait for answers",
            ),
            ErrorCode::NoHistory => (
                "no_history",
                "the channel keeps no history; ask who runs the server for a namespace that does",
            ),
            ErrorCode::NoPresence => (
                "no_presence",
                "the channel does not know who is there; ask who runs the server for a namespace that does",
            ),
            ErrorCode::Overloaded => {
                ("overloaded", "the server is behind; try again in some seconds")
            }
            ErrorCode::NoResponders => {
                ("no_responders", "nobody offers the service now; try again later")
            }
            ErrorCode::ResponderGone => (
                "responder_gone",
                "the one who had the request disconnected; it may or may not have been obeyed",
            ),
            ErrorCode::ResponderFailed => {
                ("responder_failed", "the one who had the request could not answer it")
            }
            ErrorCode::Timeout => {
                ("timeout", "nobody answered in time; it may or may not have been obeyed")
            }
            ErrorCode::UnknownRequest => (
                "unknown_request",
                "no such request is with this connection; perhaps its time was over",
            ),
            ErrorCode::TooFast => (
                "too_fast",
                "more commands than a connection may send per second; wait, then send them again",
            ),
            ErrorCode::TooSlow => (
                "too_slow",
                "this connection reads too slowly for a channel; connect again, and recover with the position",
            ),
            ErrorCode::TokenExpired => {
                ("token_expired", "the token has expired; connect again with a new one")
            }
            ErrorCode::Disconnected => (
                "disconnected",
                "an administrator ended this connection; ask who runs the server before you connect again",
            ),
            ErrorCode::Unsubscribed => (
                "unsubscribed",
                "an administrator ended this subscription; ask who runs the server before you subscribe again",
            ),
            ErrorCode::Refused => ("refused", "the application has refused it"),
            ErrorCode::BackendFailed => {
                ("backend_failed", "the application could not be asked; try again in some seconds")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The table of the protocol's document has these codes, in this order, and no other.
    #[test]
    fn the_document_has_the_same_codes() {
        let document = include_str!("../../../../../docs/protocol.md");
        let (_, errors) = document.split_once("\n## Errors\n").expect("there is such a section");
        let (errors, _) = errors.split_once("\n## ").expect("there is one after it");
        let first_cells = errors.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = first_cells.map(|line| line.split_once('|').expect("a cell ends").0);
        let names = cells.flat_map(|cell| cell.split(|c| "`,/ ".contains(c)));
        let documented: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        assert_eq!(documented, Code::ALL.map(Code::name));
    }

    /// No two codes share a name, and each has a sentence.
    #[test]
    fn codes_differ() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.sentence().len() > 20 && code.sentence().is_ascii(), "{code:?}");
        }
    }

    /// Close codes and statuses are those of the document.
    #[test]
    fn ends_have_their_numbers() {
        let codes = DisconnectReason::ALL.map(|reason| u16::from(close_code(reason.into())));
        assert_eq!(codes, [1008, 1008, 4000, 4000, 1013, 1012]);
        for (code, status) in [
            (ErrorCode::BadToken, 401),
            (ErrorCode::NotAllowed, 403),
            (ErrorCode::NoHistory, 400),
            (ErrorCode::Overloaded, 503),
        ] {
            assert_eq!(Code::Hub(code).status(), status);
        }
        assert_eq!(Code::BadJson.status(), 400);
    }
}
