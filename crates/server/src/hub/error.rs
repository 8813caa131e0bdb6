//! Errors of commands. Protocols have their own names and numbers for them.

use murre_router::services::Failure;
use murre_router::{channels, services};

use super::auth::BadToken;

/// An error and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error<'a> {
    pub(crate) code: ErrorCode,
    /// More than the code says: the responder's own words, or what is wrong with a token.
    pub(crate) detail: Option<&'a str>,
    pub(crate) about: Option<About<'a>>,
}

/// Every way in which the hub refuses or ends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ErrorCode {
    BadChannel,
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
    TooSlow,
    TokenExpired,
    Disconnected,
}

/// The subject of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    Channel(&'a str),
    Service(&'a str),
}

impl<'a> Error<'a> {
    /// The same, about something.
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

impl<'a> From<&'a Failure> for Error<'a> {
    fn from(why: &'a Failure) -> Self {
        match why {
            Failure::NoResponders => ErrorCode::NoResponders.into(),
            Failure::Overloaded => ErrorCode::Overloaded.into(),
            Failure::ResponderGone => ErrorCode::ResponderGone.into(),
            Failure::ResponderFailed(why) => {
                Error { detail: Some(why), ..ErrorCode::ResponderFailed.into() }
            }
            Failure::Timeout => ErrorCode::Timeout.into(),
        }
    }
}

impl From<channels::Refused> for ErrorCode {
    fn from(why: channels::Refused) -> Self {
        match why {
            channels::Refused::AlreadySubscribed => ErrorCode::AlreadySubscribed,
            channels::Refused::NotSubscribed => ErrorCode::NotSubscribed,
            channels::Refused::TooMany => ErrorCode::TooMany,
            channels::Refused::NoHistory => ErrorCode::NoHistory,
            channels::Refused::Overloaded => ErrorCode::Overloaded,
        }
    }
}

impl From<services::Refused> for ErrorCode {
    fn from(why: services::Refused) -> Self {
        match why {
            services::Refused::AlreadyServing => ErrorCode::AlreadyServing,
            services::Refused::NotServing => ErrorCode::NotServing,
            services::Refused::TooMany => ErrorCode::TooMany,
            services::Refused::Overloaded => ErrorCode::Overloaded,
            services::Refused::UnknownRequest => ErrorCode::UnknownRequest,
        }
    }
}
