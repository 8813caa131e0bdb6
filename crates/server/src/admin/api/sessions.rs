//! Requests about the sessions of a user, or one session: end them, end their subscriptions, move their expiry.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::shards::Sessions;
use super::{Admin, Answer};
use crate::admin::error::{JsonBody, Known};
use crate::hub::auth::UnixSeconds;
use crate::hub::orders::Action;

/// The body of a request to disconnect.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    connection: Option<String>,
    user: Option<String>,
    except: Option<Vec<String>>,
    code: Option<u16>,
    reason: Option<String>,
}

pub(super) async fn disconnect(
    State(admin): State<Arc<Admin>>,
    JsonBody(Disconnect { connection, user, except, code, reason }): JsonBody<Disconnect>,
) -> Answer {
    if code.is_some_and(|code| !(4000..=4999).contains(&code)) {
        return Err(BAD_CODE.into());
    }
    let sessions = sessions(connection, user, except)?;
    let action = Action::Disconnect { code, reason: checked_reason(reason)? };
    let disconnected = admin.api.channels.order(&sessions, &action).await?;
    Ok(Json(json!({"disconnected": disconnected})))
}

/// The body of a request to unsubscribe. All subscriptions are named by `all`, so that a misspelt member does
/// not end them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unsubscribe {
    connection: Option<String>,
    user: Option<String>,
    except: Option<Vec<String>>,
    identifier: Option<String>,
    #[serde(default)]
    all: bool,
    reason: Option<String>,
}

pub(super) async fn unsubscribe(
    State(admin): State<Arc<Admin>>,
    JsonBody(body): JsonBody<Unsubscribe>,
) -> Answer {
    let Unsubscribe { connection, user, except, identifier, all, reason } = body;
    if identifier.is_some() == all {
        return Err(BAD_CHANNELS.into());
    }
    let channels = &admin.api.channels;
    if let Some(identifier) = &identifier {
        channels.hub.rules(identifier)?;
    }
    let sessions = sessions(connection, user, except)?;
    let channel = identifier.map(String::into_boxed_str);
    let action = Action::Unsubscribe { channel, reason: checked_reason(reason)? };
    let unsubscribed = channels.order(&sessions, &action).await?;
    Ok(Json(json!({"unsubscribed": unsubscribed})))
}

/// The body of a request to move the expiry of sessions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refresh {
    connection: Option<String>,
    user: Option<String>,
    except: Option<Vec<String>>,
    expire_at: Option<u64>,
    #[serde(default)]
    expired: bool,
}

pub(super) async fn refresh(
    State(admin): State<Arc<Admin>>,
    JsonBody(Refresh { connection, user, except, expire_at, expired }): JsonBody<Refresh>,
) -> Answer {
    let action = match (expire_at, expired) {
        (Some(NEVER), false) => Action::Refresh { expires: None },
        (Some(seconds), false) => Action::Refresh { expires: UnixSeconds::new(seconds) },
        (None, true) => Action::Expire,
        _ => return Err(BAD_EXPIRY.into()),
    };
    let sessions = sessions(connection, user, except)?;
    let refreshed = admin.api.channels.order(&sessions, &action).await?;
    Ok(Json(json!({"refreshed": refreshed})))
}

/// `expire_at` of sessions that do not expire.
const NEVER: u64 = 0;

fn sessions(
    connection: Option<String>,
    user: Option<String>,
    except: Option<Vec<String>>,
) -> Result<Sessions, Known> {
    match (connection, user, except) {
        (Some(name), None, None) => Ok(Sessions::Connection(name)),
        (None, Some(name), except) => {
            let except = except.unwrap_or_default();
            if except.len() > EXCEPT_MAX {
                return Err(TOO_MANY_EXCEPTIONS);
            }
            Ok(Sessions::User { name, except })
        }
        _ => Err(BAD_ORDER),
    }
}

/// The most connections that a request leaves out.
const EXCEPT_MAX: usize = 100;

/// A reason as the close frame of a WebSocket can have it (RFC 6455 section 5.5).
fn checked_reason(reason: Option<String>) -> Result<Option<Box<str>>, Known> {
    let fits = |reason: &String| {
        let length = 1..=REASON_BYTES_MAX;
        length.contains(&reason.len()) && !reason.chars().any(char::is_control)
    };
    if reason.as_ref().is_some_and(|reason| !fits(reason)) {
        return Err(BAD_REASON);
    }
    Ok(reason.map(String::into_boxed_str))
}

const REASON_BYTES_MAX: usize = 123;

const BAD_ORDER: Known = (
    StatusCode::BAD_REQUEST,
    "bad_order",
    "name either one connection, or one user and with `except` the connections to leave out",
);
const TOO_MANY_EXCEPTIONS: Known =
    (StatusCode::BAD_REQUEST, "bad_order", "`except` has at most 100 connections");
const BAD_CODE: Known =
    (StatusCode::BAD_REQUEST, "bad_code", "`code` is a close code from 4000 to 4999");
const BAD_REASON: Known = (
    StatusCode::BAD_REQUEST,
    "bad_reason",
    "`reason` has 1 to 123 bytes and no control characters, as a close frame can hold",
);
const BAD_CHANNELS: Known = (
    StatusCode::BAD_REQUEST,
    "bad_channels",
    "name one channel as `identifier`, or all of them by `\"all\": true`",
);
const BAD_EXPIRY: Known = (
    StatusCode::BAD_REQUEST,
    "bad_expiry",
    "say either `expire_at` in Unix seconds (0: never) or `\"expired\": true`",
);
