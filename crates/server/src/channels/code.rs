//! Every way in which a command can fail, with the name that programs go by and the sentence that
//! people read.

use murre_codec::CloseCode;

/// Why a command was not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    BadJson,
    BadCommand,
    UnknownAction,
    BadIdentifier,
    BatchTooLong,
    BadPublication,
    NotAllowed,
    BadToken,
    AlreadySubscribed,
    NotSubscribed,
    AlreadyServing,
    NotServing,
    TooMany,
    NoHistory,
    Overloaded,
    NoResponders,
    ResponderGone,
    ResponderFailed,
    Timeout,
    UnknownRequest,
    TooFast,
    TokenExpired,
}

impl Code {
    /// All of them, in the order of the protocol's table.
    #[cfg(test)]
    pub(crate) const ALL: [Code; 22] = [
        Code::BadJson,
        Code::BadCommand,
        Code::UnknownAction,
        Code::BadIdentifier,
        Code::BatchTooLong,
        Code::BadPublication,
        Code::NotAllowed,
        Code::BadToken,
        Code::AlreadySubscribed,
        Code::NotSubscribed,
        Code::AlreadyServing,
        Code::NotServing,
        Code::TooMany,
        Code::NoHistory,
        Code::Overloaded,
        Code::NoResponders,
        Code::ResponderGone,
        Code::ResponderFailed,
        Code::Timeout,
        Code::UnknownRequest,
        Code::TooFast,
        Code::TokenExpired,
    ];

    /// As `code` of an `error`.
    pub(crate) fn name(self) -> &'static str {
        self.text().0
    }

    /// As `message` of an `error`, where nothing more is known: what is wrong and what helps.
    pub(crate) fn sentence(self) -> &'static str {
        self.text().1
    }

    /// How the connection is closed, if not being able to go on is part of it.
    pub(crate) fn close(self) -> Option<CloseCode> {
        match self {
            Code::TooFast | Code::TokenExpired => Some(CloseCode::Policy),
            _ => None,
        }
    }

    /// The status of an answer without WebSocket.
    pub(crate) fn status(self) -> u16 {
        match self {
            Code::BadToken | Code::TokenExpired => 401,
            Code::NotAllowed => 403,
            _ => 400,
        }
    }

    fn text(self) -> (&'static str, &'static str) {
        match self {
            Code::BadJson => (
                "bad_json",
                "the message is not JSON in UTF-8; send one object, or an array of them",
            ),
            Code::BadCommand => (
                "bad_command",
                "the command lacks a member or has one of the wrong type; see the table of commands",
            ),
            Code::UnknownAction => (
                "unknown_action",
                "there is no such `action`; it is one of subscribe, unsubscribe, publish, history, \
                 ping, auth, serve, unserve, request, reply",
            ),
            Code::BadIdentifier => (
                "bad_identifier",
                "no channel or service can have this name; it has at least one byte, no control \
                 characters, and no more bytes than the server takes (255 unless set lower)",
            ),
            Code::BatchTooLong => {
                ("batch_too_long", "a batch has 1 to 100 commands; send several batches")
            }
            Code::BadPublication => (
                "bad_publication",
                "the data is longer than the server takes; send less, or say where to fetch it",
            ),
            Code::NotAllowed => (
                "not_allowed",
                "this connection may not do that here; authenticate, or ask who runs the server",
            ),
            Code::BadToken => {
                ("bad_token", "the token is not valid here; get a new one and send it with `auth`")
            }
            Code::AlreadySubscribed => (
                "already_subscribed",
                "this connection is subscribed to the channel; unsubscribe first to start anew",
            ),
            Code::NotSubscribed => {
                ("not_subscribed", "this connection is not subscribed to the channel")
            }
            Code::AlreadyServing => {
                ("already_serving", "this connection offers the service already")
            }
            Code::NotServing => ("not_serving", "this connection does not offer the service"),
            Code::TooMany => (
                "too_many",
                "this connection has as many of these as it may have; end some, or wait for answers",
            ),
            Code::NoHistory => (
                "no_history",
                "the channel keeps no history; ask who runs the server for a namespace that does",
            ),
            Code::Overloaded => ("overloaded", "the server is behind; try again in some seconds"),
            Code::NoResponders => {
                ("no_responders", "nobody offers the service now; try again later")
            }
            Code::ResponderGone => (
                "responder_gone",
                "the one who had the request disconnected; it may or may not have been obeyed",
            ),
            Code::ResponderFailed => {
                ("responder_failed", "the one who had the request could not answer it")
            }
            Code::Timeout => {
                ("timeout", "nobody answered in time; it may or may not have been obeyed")
            }
            Code::UnknownRequest => (
                "unknown_request",
                "no such request is with this connection; perhaps its time was over",
            ),
            Code::TooFast => (
                "too_fast",
                "more commands than a connection may send per second; wait, then send them again",
            ),
            Code::TokenExpired => {
                ("token_expired", "the token has expired; connect again with a new one")
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
        let document = include_str!("../../../../docs/protocol.md");
        let (_, errors) = document.split_once("\n## Errors\n").expect("there is such a section");
        let (errors, _) = errors.split_once("\n## ").expect("there is one after it");
        let first_cells = errors.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = first_cells.map(|line| line.split_once('|').expect("a cell ends").0);
        let names = cells.flat_map(|cell| cell.split(|c| "`,/ ".contains(c)));
        let documented: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        assert_eq!(documented, Code::ALL.map(Code::name));
    }

    /// No two codes share a name, and each says something.
    #[test]
    fn codes_differ() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.sentence().len() > 20 && code.sentence().is_ascii(), "{code:?}");
        }
    }

    /// What ends a connection and what HTTP answers, as the document says.
    #[test]
    fn some_end_the_connection() {
        let ending = Code::ALL.into_iter().filter(|code| code.close().is_some());
        assert_eq!(ending.collect::<Vec<_>>(), [Code::TooFast, Code::TokenExpired]);
        assert_eq!(Code::BadToken.status(), 401);
        assert_eq!(Code::NotAllowed.status(), 403);
        assert_eq!(Code::NoHistory.status(), 400);
    }
}
