//! Errors of commands. Protocols have their own names and numbers for them.

use murre_router::services::RequestError;
use murre_router::{channels, services};

use super::auth::BadToken;

/// An error of a command, and its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error<'a> {
    pub(crate) code: ErrorCode,
    /// A sentence that says more than the code: the responder's own, or the fault of a token.
    pub(crate) detail: Option<&'a str>,
    pub(crate) about: Option<About<'a>>,
}

/// The reason for which the hub refuses a command or ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ErrorCode {
    BadChannel,
    /// The prefix of the name is no configured namespace, and `--strict-namespaces` is set.
    UnknownNamespace,
    BadPublication,
    NotAllowed,
    BadToken,
    AlreadySubscribed,
    NotSubscribed,
    AlreadyServing,
    NotServing,
    TooMany,
    NoHistory,
    NoPresence,
    Overloaded,
    NoResponders,
    ResponderGone,
    ResponderFailed,
    Timeout,
    UnknownRequest,
    TooFast,
    TooSlow,
    TokenExpired,
    Disconnected,
    /// An administrator has ended the subscription.
    Unsubscribed,
    /// The application has refused the command. The detail is its sentence.
    Refused,
    /// The application could not be asked, or its answer could not be used.
    BackendFailed,
}

/// The subject of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    Channel(&'a str),
    Service(&'a str),
}

impl<'a> Error<'a> {
    /// The same error with a subject.
    pub(crate) fn about(self, about: About<'a>) -> Self {
        Error { about: Some(about), ..self }
    }
}

impl From<ErrorCode> for Error<'_> {
    fn from(code: ErrorCode) -> Self {
        Error { code, detail: None, about: None }
    }
}

impl From<BadToken> for Error<'_> {
    fn from(why: BadToken) -> Self {
        Error { detail: Some(why.sentence()), ..ErrorCode::BadToken.into() }
    }
}

impl<'a> From<&'a RequestError> for Error<'a> {
    fn from(why: &'a RequestError) -> Self {
        match why {
            RequestError::NoResponders => ErrorCode::NoResponders.into(),
            RequestError::Overloaded => ErrorCode::Overloaded.into(),
            RequestError::ResponderGone => ErrorCode::ResponderGone.into(),
            RequestError::ResponderFailed(why) => {
                Error { detail: Some(why), ..ErrorCode::ResponderFailed.into() }
            }
            RequestError::Timeout => ErrorCode::Timeout.into(),
            RequestError::TooLarge => Error {
                detail: Some(
                    "the request, or its response, is longer than NATS takes (max_payload)",
                ),
                ..ErrorCode::BadPublication.into()
            },
        }
    }
}

impl From<channels::ChannelError> for ErrorCode {
    fn from(why: channels::ChannelError) -> Self {
        match why {
            channels::ChannelError::AlreadySubscribed => ErrorCode::AlreadySubscribed,
            channels::ChannelError::NotSubscribed => ErrorCode::NotSubscribed,
            channels::ChannelError::TooMany => ErrorCode::TooMany,
            channels::ChannelError::NoHistory => ErrorCode::NoHistory,
            channels::ChannelError::Overloaded => ErrorCode::Overloaded,
        }
    }
}

impl From<services::ServiceError> for ErrorCode {
    fn from(why: services::ServiceError) -> Self {
        match why {
            services::ServiceError::AlreadyServing => ErrorCode::AlreadyServing,
            services::ServiceError::NotServing => ErrorCode::NotServing,
            services::ServiceError::TooMany => ErrorCode::TooMany,
            services::ServiceError::Overloaded => ErrorCode::Overloaded,
            services::ServiceError::UnknownRequest => ErrorCode::UnknownRequest,
        }
    }
}
