//! The API for other programs: they publish, list channels, look at connections, and
//! end them or their subscriptions.
//!
//! Every request carries the key that `--api-key-file` names. `openapi.json` describes the API.

mod key;
mod session_log;
mod sessions;
mod shards;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use murre_router::channels::{ChannelInfo, Origin, Position};
use murre_router::presence::{HERE, PresentMember};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(crate) use self::key::ApiKey;
use self::key::authorize;
use self::shards::Channels;
use super::Admin;
use super::error::{ApiError, JsonBody, NOT_FOUND, PathName, QueryMembers};
use crate::hub::HubConfig;
use crate::hub::member_names::MemberName;
use crate::hub::presence::connection_of;
use crate::protocols::murre_v1::errors::Code;
use crate::routes::AppMailbox;

/// The channels of the server, and the key that clients of the API need.
pub(crate) struct Api {
    channels: Channels,
    /// The key; `None` turns the API off.
    key: Option<ApiKey>,
    /// The longest body of a request, in bytes.
    body_bytes_max: usize,
}

impl Api {
    /// The API for the shards with these mailboxes. Without a key it is off.
    pub(crate) fn new(key: Option<ApiKey>, hub: Arc<HubConfig>, boxes: Arc<[AppMailbox]>) -> Self {
        let limits = hub.limits;
        let name = limits.max_name_bytes.saturating_mul(ESCAPED).saturating_add(NAME_QUOTES);
        let names = name.saturating_mul(BROADCAST_MAX);
        Api {
            key,
            body_bytes_max: limits
                .max_publication_bytes
                .saturating_add(names)
                .saturating_add(BODY_REST),
            channels: Channels { boxes, hub },
        }
    }
}

/// The most channels of one broadcast.
const BROADCAST_MAX: usize = 1000;
/// The most bytes of JSON for one byte of a name, as in `\u0007`.
const ESCAPED: usize = 6;
/// The bytes of the quotes, the comma and a space around a name.
const NAME_QUOTES: usize = 4;
/// The bytes of the keys of a body, and of white space between its parts.
const BODY_REST: usize = 64 << 10;

/// The routes below `/api`.
pub(super) fn routes(admin: &Arc<Admin>) -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/publish", post(publish))
        .route("/api/broadcast", post(broadcast))
        .route("/api/disconnect", post(sessions::disconnect))
        .route("/api/unsubscribe", post(sessions::unsubscribe))
        .route("/api/refresh", post(sessions::refresh))
        .route("/api/channels", get(channels))
        .route("/api/channels/{channel}", get(channel))
        // The earlier names of these routes.
        .route("/api/topics", get(topics))
        .route("/api/topics/{channel}", get(channel))
        .route("/api/presence/{channel}", get(presence))
        .route("/api/users/{user}", get(user))
        .route("/api/connections/{connection}", get(connection))
        .route("/api/sessions", get(session_log::list))
        .route("/api/sessions/online", get(session_log::online))
        .route("/api/sessions/days", get(session_log::days))
        .route("/api/sessions/peaks", get(session_log::peaks))
        .layer(DefaultBodyLimit::max(admin.api.body_bytes_max))
        .layer(middleware::from_fn_with_state(Arc::clone(admin), authorize))
        // The description needs no key, because it is the same as the public documentation.
        .route("/api/openapi.json", get(openapi))
}

const OPENAPI: &str = include_str!("../openapi.json");

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

type Answer = Result<Json<Value>, ApiError>;

/// The body of a request to publish to one channel.
#[derive(Deserialize)]
struct Publish {
    identifier: String,
    data: Box<RawValue>,
    event: Option<String>,
}

/// The body of a request to publish to many channels.
#[derive(Deserialize)]
struct Broadcast {
    identifiers: Vec<String>,
    data: Box<RawValue>,
    event: Option<String>,
}

/// The position of a publication in the history of its channel.
#[derive(Serialize)]
struct Placed {
    identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<ConnPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Serialize)]
struct ConnPlace {
    epoch: u32,
    offset: u64,
}

impl From<Position> for ConnPlace {
    fn from(Position { epoch, offset }: Position) -> Self {
        ConnPlace { epoch, offset }
    }
}

async fn publish(
    State(admin): State<Arc<Admin>>,
    JsonBody(Publish { identifier, data, event }): JsonBody<Publish>,
) -> Result<Json<Placed>, ApiError> {
    let channels = &admin.api.channels;
    let position =
        channels.publish(&identifier, channels.payload(&data, event.as_deref())?).await?;
    Ok(Json(Placed { identifier, position: position.map(ConnPlace::from), error: None }))
}

/// Publishes to many channels. The answer has one result for each channel.
async fn broadcast(
    State(admin): State<Arc<Admin>>,
    JsonBody(Broadcast { identifiers, data, event }): JsonBody<Broadcast>,
) -> Answer {
    if !(1..=BROADCAST_MAX).contains(&identifiers.len()) {
        return Err(Code::BatchTooLong.into());
    }
    let channels = &admin.api.channels;
    let payload = channels.payload(&data, event.as_deref())?;
    let mut outcomes = Vec::with_capacity(identifiers.len());
    for identifier in identifiers {
        let outcome = channels.publish(&identifier, payload.clone()).await;
        outcomes.push(match outcome {
            Ok(position) => {
                Placed { identifier, position: position.map(ConnPlace::from), error: None }
            }
            Err(refused) => Placed { identifier, position: None, error: Some(refused.code) },
        });
    }
    Ok(Json(json!({"published": outcomes})))
}

/// The query of a request for a page of channels.
#[derive(Deserialize)]
struct Page {
    /// The value of `next` in the page before.
    from: Option<String>,
    limit: Option<usize>,
}

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

async fn channels(State(admin): State<Arc<Admin>>, page: QueryMembers<Page>) -> Answer {
    page_of_channels(&admin, page, "channels").await
}

async fn topics(State(admin): State<Arc<Admin>>, page: QueryMembers<Page>) -> Answer {
    page_of_channels(&admin, page, "topics").await
}

/// A page of channels, in the member `name`.
async fn page_of_channels(
    admin: &Admin,
    QueryMembers(Page { from, limit }): QueryMembers<Page>,
    name: &str,
) -> Answer {
    let limit = limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let (found, next) = admin.api.channels.page(from.as_deref(), limit).await?;
    let channels: Vec<_> = found.iter().map(info).collect();
    Ok(Json(json!({name: channels, "next": next})))
}

async fn channel(State(admin): State<Arc<Admin>>, PathName(name): PathName) -> Answer {
    let found = admin.api.channels.channel(&name).await?.ok_or(NOT_FOUND)?;
    Ok(Json(info(&found)))
}

fn info(channel: &ChannelInfo) -> Value {
    json!({
        "identifier": &*channel.name,
        "subscribers": channel.subscribers,
        "position": channel.position.map(ConnPlace::from),
        "kept": channel.kept,
        "bytes": channel.history_bytes,
    })
}

/// The query of a request for a page of members.
#[derive(Deserialize)]
struct MembersPage {
    /// The value of `next` in the page before.
    from: Option<u64>,
    limit: Option<u32>,
}

const MEMBERS_MAX: u32 = 1000;

async fn presence(
    State(admin): State<Arc<Admin>>,
    QueryMembers(MembersPage { from, limit }): QueryMembers<MembersPage>,
    PathName(name): PathName,
) -> Answer {
    let limit = limit.unwrap_or(PAGE_DEFAULT as u32).min(MEMBERS_MAX);
    let page = admin.api.channels.presence(&name, from.unwrap_or(0), limit).await?;
    let members: Vec<_> = page.members.iter().map(member).collect();
    Ok(Json(json!({
        "identifier": name,
        "clients": page.count.clients,
        "users": page.count.users,
        "members": members,
        "next": page.next,
        "unanswered": page.unanswered,
    })))
}

fn member(member: &PresentMember) -> Value {
    let meta = member.meta.as_ref().and_then(|meta| serde_json::from_slice(meta.bytes()).ok());
    let (key, name) = match MemberName::of(&member.user) {
        MemberName::User(user) => ("user", user),
        MemberName::Key(key) => ("key", key),
    };
    json!({
        key: name,
        "connection": connection_of(member.node, member.origin),
        "meta": meta.unwrap_or(Value::Null),
    })
}

/// Whether a user is connected, and the names of the connections, in a cluster by node.
async fn user(State(admin): State<Arc<Admin>>, PathName(name): PathName) -> Answer {
    let names = |of: &[Origin]| of.iter().map(|of| connection_of(HERE, *of)).collect::<Vec<_>>();
    if let Some(found) = admin.api.channels.whereabouts_of(&name).await? {
        let here = found.nodes.first().filter(|_| found.is_here);
        let nodes = found.nodes.iter();
        let nodes = nodes.map(|(node, of)| json!({"node": **node, "connections": names(of)}));
        return Ok(Json(json!({
            "user": name,
            "online": !found.nodes.is_empty(),
            "connections": here.map(|(_, of)| names(of)).unwrap_or_default(),
            "nodes": nodes.collect::<Vec<_>>(),
            "unanswered": found.unanswered,
        })));
    }
    let connections = admin.api.channels.connections_of(&name).await?;
    Ok(Json(json!({"user": name, "online": !connections.is_empty(), "connections": connections})))
}

async fn connection(State(admin): State<Arc<Admin>>, PathName(name): PathName) -> Answer {
    Ok(Json(admin.api.channels.connection(&name).await?.ok_or(NOT_FOUND)?))
}
