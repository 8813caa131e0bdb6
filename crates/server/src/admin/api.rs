//! What other programs ask of the channels through the admin port: publish, look, disconnect.
//!
//! Every request carries the key that `--api-key-file` names. What it wants is posted to the shard
//! it concerns, or to all, and answered when they have answered.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use murre_core::ConnId;
use murre_router::topics::{Cursor, Form, Payload, Position, TopicInfo};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::Admin;
use crate::channels::code::Code;
use crate::channels::command;
use crate::channels::{Control, Mail};
use crate::config::Config;
use crate::mesh::ShardMailbox;

/// Where questions to the channels go, and who may ask.
pub(crate) struct Api {
    /// By shard.
    boxes: Arc<[ShardMailbox<Mail>]>,
    /// None: nobody may.
    key: Option<String>,
    limits: command::Limits,
}

impl Api {
    /// Asks these shards, for whoever has the key that `config` names.
    ///
    /// # Errors
    /// The key cannot be read: what helps.
    pub(crate) fn new(config: &Config, boxes: Arc<[ShardMailbox<Mail>]>) -> Result<Self, String> {
        let key = config.api_key_file.as_deref().map(read_key).transpose()?;
        Ok(Api { boxes, key, limits: config.command_limits() })
    }
}

/// The first line of a file. A key that can be guessed is worse than none.
fn read_key(path: &std::path::Path) -> Result<String, String> {
    let told = |what: &str| format!("--api-key-file {}: {what}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| told(&format!("{error}; check the path and its permissions")))?;
    let key = text.lines().next().unwrap_or_default();
    if key.len() < KEY_BYTES_MIN {
        return Err(told("the key, its first line, is shorter than 12 bytes; make a longer one"));
    }
    Ok(key.to_owned())
}

const KEY_BYTES_MIN: usize = 12;

/// Why a request was not obeyed: the code and sentence of the channels' protocol, or of HTTP.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

/// The routes below `/api`.
pub(super) fn routes(admin: &Arc<Admin>) -> Router<Arc<Admin>> {
    Router::new()
        .route("/api/publish", post(publish))
        .route("/api/broadcast", post(broadcast))
        .route("/api/disconnect", post(disconnect))
        .route("/api/topics", get(topics))
        .route("/api/topics/{topic}", get(topic))
        .route("/api/connections/{connection}", get(connection))
        .layer(middleware::from_fn_with_state(Arc::clone(admin), authorize))
        // It tells nothing that is not in the documentation.
        .route("/api/openapi.json", get(openapi))
}

const OPENAPI: &str = include_str!("openapi.json");

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn authorize(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let Some(key) = &admin.api.key else { return NO_KEY.into_response() };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|given| given.strip_prefix("Bearer ")) {
        Some(given) if same(given.as_bytes(), key.as_bytes()) => next.run(request).await,
        _ => WRONG_KEY.into_response(),
    }
}

/// Compares in a time that does not tell where the difference is.
fn same(given: &[u8], key: &[u8]) -> bool {
    let differences = given.iter().zip(key).fold(0, |sum, (given, key)| sum | (given ^ key));
    given.len() == key.len() && differences == 0
}

const NO_KEY: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    code: "no_key",
    message: "the API is off; start the server with --api-key-file to turn it on",
};
const WRONG_KEY: Refusal = Refusal {
    status: StatusCode::UNAUTHORIZED,
    code: "wrong_key",
    message: "send the server's API key as `Authorization: Bearer KEY`",
};
const NOT_FOUND: Refusal = Refusal {
    status: StatusCode::NOT_FOUND,
    code: "not_found",
    message: "there is nothing of this name now",
};
const BAD_CONNECTION: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    code: "bad_connection",
    message: "a connection has a name as `pong` gives it: SHARD-SLOT-USE",
};
const BAD_PAGE: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    code: "bad_page",
    message: "`from` is what `next` of the page before says",
};
const BAD_ORDER: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    code: "bad_order",
    message: "say which connection or which user to disconnect, one of the two",
};

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        let status = match code {
            Code::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Refusal { status, code: code.name(), message: code.sentence() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"type": "error", "code": self.code, "message": self.message});
        (self.status, Json(body)).into_response()
    }
}

/// What to publish where.
#[derive(Deserialize)]
struct Publish {
    identifier: String,
    data: Box<RawValue>,
}

/// What to publish to many.
#[derive(Deserialize)]
struct Broadcast {
    identifiers: Vec<String>,
    data: Box<RawValue>,
}

/// Where a publication stands.
#[derive(Serialize)]
struct Placed {
    identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Serialize)]
struct Place {
    epoch: u32,
    offset: u64,
}

impl From<Position> for Place {
    fn from(Position { epoch, offset }: Position) -> Self {
        Place { epoch, offset }
    }
}

async fn publish(
    State(admin): State<Arc<Admin>>,
    Json(Publish { identifier, data }): Json<Publish>,
) -> Result<Json<Placed>, Refusal> {
    let position = admin.api.publish(&identifier, admin.api.payload(&data)?).await?;
    Ok(Json(Placed { identifier, position: position.map(Place::from), error: None }))
}

/// Each channel has its own outcome.
async fn broadcast(
    State(admin): State<Arc<Admin>>,
    Json(Broadcast { identifiers, data }): Json<Broadcast>,
) -> Result<Json<serde_json::Value>, Refusal> {
    if !(1..=BROADCAST_MAX).contains(&identifiers.len()) {
        return Err(Code::BatchTooLong.into());
    }
    let payload = admin.api.payload(&data)?;
    let mut outcomes = Vec::with_capacity(identifiers.len());
    for identifier in identifiers {
        let outcome = admin.api.publish(&identifier, payload.clone()).await;
        outcomes.push(match outcome {
            Ok(position) => Placed { identifier, position: position.map(Place::from), error: None },
            Err(refusal) => Placed { identifier, position: None, error: Some(refusal.code) },
        });
    }
    Ok(Json(json!({"published": outcomes})))
}

/// Channels of one broadcast at most.
const BROADCAST_MAX: usize = 1000;

/// Whom to disconnect.
#[derive(Deserialize)]
struct Disconnect {
    connection: Option<String>,
    user: Option<String>,
}

async fn disconnect(
    State(admin): State<Arc<Admin>>,
    Json(order): Json<Disconnect>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let api = &admin.api;
    let mut disconnected = 0;
    match order {
        Disconnect { connection: Some(name), user: None } => {
            let (shard, id) = api.connection(&name)?;
            disconnected = api.ask(shard, |answer| Control::Disconnect { id, answer }).await?;
        }
        Disconnect { connection: None, user: Some(user) } => {
            for shard in 0..api.boxes.len() {
                let user = user.as_str().into();
                let order = |answer| Control::DisconnectUser { user, answer };
                disconnected += api.ask(shard, order).await?;
            }
        }
        _ => return Err(BAD_ORDER),
    }
    Ok(Json(json!({"disconnected": disconnected})))
}

/// Which part of the list of channels.
#[derive(Deserialize)]
struct Page {
    /// `next` of the page before: a shard and a place there.
    from: Option<String>,
    limit: Option<usize>,
}

const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

async fn topics(
    State(admin): State<Arc<Admin>>,
    Query(page): Query<Page>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let limit = page.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let (shard, place) = page.from.as_deref().map_or(Some((0, 0)), place).ok_or(BAD_PAGE)?;
    if shard >= admin.api.boxes.len() {
        return Err(BAD_PAGE);
    }
    let question = |answer| Control::Topics { from: Cursor(place), limit, answer };
    let (found, more) = admin.api.ask(shard, question).await?;
    let next = match more {
        Some(Cursor(place)) => Some(format!("{shard}-{place}")),
        None if shard + 1 < admin.api.boxes.len() => Some(format!("{}-0", shard + 1)),
        None => None,
    };
    let topics: Vec<_> = found.iter().map(info).collect();
    Ok(Json(json!({"topics": topics, "next": next})))
}

fn place(text: &str) -> Option<(usize, u32)> {
    let (shard, place) = text.split_once('-')?;
    Some((shard.parse().ok()?, place.parse().ok()?))
}

async fn topic(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<serde_json::Value>, Refusal> {
    for shard in 0..admin.api.boxes.len() {
        let name = name.as_str().into();
        if let Some(found) = admin.api.ask(shard, |answer| Control::Topic { name, answer }).await? {
            return Ok(Json(info(&found)));
        }
    }
    Err(NOT_FOUND)
}

fn info(topic: &TopicInfo) -> serde_json::Value {
    json!({
        "identifier": &*topic.name,
        "subscribers": topic.subscribers,
        "position": topic.position.map(Place::from),
        "kept": topic.kept,
        "bytes": topic.history_bytes,
    })
}

async fn connection(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let (shard, id) = admin.api.connection(&name)?;
    let found = admin.api.ask(shard, |answer| Control::Connection { id, answer }).await?;
    let info = found.ok_or(NOT_FOUND)?;
    Ok(Json(json!({
        "connection": name,
        "user": info.user,
        "expires": info.expires,
        "subscriptions": info.subscriptions,
        "queued_bytes": info.queued,
    })))
}

impl Api {
    /// Asks a shard and waits for its answer.
    async fn ask<T>(
        &self,
        shard: usize,
        question: impl FnOnce(oneshot::Sender<T>) -> Control,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let mail = murre_core::ServeMail::App(Mail::Control(question(answer)));
        // A shard that is behind, or one that ends before it answers.
        self.boxes[shard].post(mail).map_err(|_| Code::Overloaded)?;
        answered.await.map_err(|_| Code::Overloaded.into())
    }

    async fn publish(
        &self,
        identifier: &str,
        payload: Payload,
    ) -> Result<Option<Position>, Refusal> {
        let topic = command::identifier(identifier, &self.limits).map_err(|why| why.code)?.into();
        let published = self.ask(0, |answer| Control::Publish { topic, payload, answer }).await?;
        published.map_err(Refusal::from)
    }

    fn payload(&self, data: &RawValue) -> Result<Payload, Refusal> {
        let mut bytes = Vec::new();
        command::compact(data.get().as_bytes(), &mut bytes);
        if bytes.len() > self.limits.publication_bytes_max {
            return Err(Code::BadPublication.into());
        }
        Ok(Payload { form: Form::Json, bytes: bytes.into() })
    }

    /// The shard and the name there of a connection.
    fn connection(&self, name: &str) -> Result<(usize, ConnId), Refusal> {
        let (shard, id) = name.split_once('-').ok_or(BAD_CONNECTION)?;
        let shard = shard.parse().ok().filter(|&shard| shard < self.boxes.len());
        Ok((shard.ok_or(BAD_CONNECTION)?, id.parse().map_err(|()| BAD_CONNECTION)?))
    }
}
