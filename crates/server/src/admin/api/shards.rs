//! The API's access to the channels of the shards. Each request is posted to a shard, which answers
//! it between two turns.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use murre_core::{ConnId, GlobalConnId, ServeMail};
use murre_router::Shard;
use murre_router::channels::{ChannelInfo, Cursor, Form, Payload, Position};
use murre_router::presence::{PresencePage, PresenceQuery};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admin::error::{ApiError, Known};
use crate::backplane::presence::Whereabouts;
use crate::hub::control::Control;
use crate::hub::event::{BAD_EVENT, Event};
use crate::hub::orders::{Action, Order, Selection};
use crate::hub::rules::PresenceMode;
use crate::hub::{ErrorCode, HubConfig, HubMail};
use crate::protocols::json::{self, JsonError};
use crate::protocols::murre_v1::errors::Code;
use crate::routes::{AppMail, AppMailbox};

/// The channels of all shards.
pub(super) struct Channels {
    /// The mailboxes of the shards, in the order of the shards.
    pub(super) boxes: Arc<[AppMailbox]>,
    pub(super) hub: Arc<HubConfig>,
}

/// The sessions that a request is about.
pub(super) enum Sessions {
    /// That of the connection of this name.
    Connection(String),
    /// Those of a user, except those of the connections of these names.
    User { name: String, except: Vec<String> },
}

/// The name of a connection is malformed.
pub(super) const BAD_CONNECTION: Known = (
    StatusCode::BAD_REQUEST,
    "bad_connection",
    "a connection has a name as `pong` gives it: SHARD-SLOT-USE",
);
/// The parameter `from` of a page is malformed.
pub(super) const BAD_PAGE: Known =
    (StatusCode::BAD_REQUEST, "bad_page", "`from` is what `next` of the page before says");

const TOO_DEEP: Known = (
    StatusCode::BAD_REQUEST,
    "bad_json",
    "`data` is nested more than 32 deep; send a flatter value",
);

/// Bytes of one page of members, about.
const PAGE_BYTES_MAX: u32 = 1 << 20;

const NO_EVENT: Known = (StatusCode::BAD_REQUEST, "bad_event", BAD_EVENT);

/// The longest time for which the API waits for a shard.
const PATIENCE: Duration = Duration::from_secs(10);

impl Channels {
    /// Posts a request to a shard and waits for its answer.
    ///
    /// # Errors
    /// `overloaded`: the mailbox of the shard is full, the shard has ended, or it does not answer
    /// in time.
    async fn ask<T>(
        &self,
        shard: usize,
        question: impl FnOnce(oneshot::Sender<T>) -> Control,
    ) -> Result<T, ApiError> {
        answered(self.post(shard, question)?).await
    }

    /// Posts a request to a shard.
    fn post<T>(
        &self,
        shard: usize,
        question: impl FnOnce(oneshot::Sender<T>) -> Control,
    ) -> Result<oneshot::Receiver<T>, ApiError> {
        let (answer, answered) = oneshot::channel();
        let mail = ServeMail::App(AppMail::Hub(HubMail::Control(question(answer))));
        self.boxes[shard].post(mail).map_err(|_| ErrorCode::Overloaded)?;
        Ok(answered)
    }

    /// Publishes. Returns the position of the publication if its channel has history.
    pub(super) async fn publish(
        &self,
        identifier: &str,
        payload: Payload,
    ) -> Result<Option<Position>, ApiError> {
        self.hub.rules(identifier)?;
        let channel = identifier.into();
        let owner = self.owner(identifier);
        let question = |answer| Control::Publish { channel, payload, answer };
        let published = self.ask(owner, question).await?;
        published.map_err(ApiError::from)
    }

    /// The data of a publication, without white space, with its event. The rules for messages of clients apply to
    /// it, because clients must be able to read it.
    pub(super) fn payload(
        &self,
        data: &RawValue,
        event: Option<&str>,
    ) -> Result<Payload, ApiError> {
        let text = data.get().as_bytes();
        json::check(text).map_err(|why| match why {
            JsonError::Malformed => ApiError::from(Code::BadJson),
            JsonError::TooDeep => ApiError::from(TOO_DEEP),
        })?;
        let mut bytes = Vec::new();
        json::compact(text, &mut bytes);
        self.hub.limits.size(bytes.len())?;
        match event {
            None => Ok(Payload::new(Form::Json, bytes)),
            Some(event) => {
                let event = Event::new(event).ok_or(ApiError::from(NO_EVENT))?;
                Ok(event.payload(Form::Json, &bytes))
            }
        }
    }

    /// The shard that owns a channel.
    fn owner(&self, channel: &str) -> usize {
        usize::from(murre_router::channels::owner(channel, self.hub.shards, self.hub.seed))
    }

    /// Does something to sessions, and returns the number of sessions of this node to which it was done. All
    /// shards are asked at once, and for a user all nodes.
    ///
    /// # Errors
    /// `bad_connection`, and `overloaded`: some shards or nodes may not have done it, so the caller asks again.
    pub(super) async fn order(
        &self,
        sessions: &Sessions,
        action: &Action,
    ) -> Result<u32, ApiError> {
        let mut asked = Vec::new();
        for (shard, sessions) in self.selections(sessions)? {
            let action = action.clone();
            let order = |answer| Control::Order(Order { sessions, action, answer });
            asked.push(self.post(shard, order)?);
        }
        let mut sum: u32 = 0;
        for answer in asked {
            sum = sum.saturating_add(answered(answer).await?);
        }
        if let (Sessions::User { name, .. }, Some(nats)) = (sessions, &self.hub.nats)
            && !nats.order(name, action)
        {
            return Err(ErrorCode::Overloaded.into());
        }
        Ok(sum)
    }

    /// The sessions by shard.
    fn selections(&self, sessions: &Sessions) -> Result<Vec<(usize, Selection)>, ApiError> {
        match sessions {
            Sessions::Connection(name) => {
                let (shard, conn) = self.connection_id(name)?;
                Ok(vec![(shard, Selection::Connection(conn))])
            }
            Sessions::User { name, except } => {
                let except = except.iter().map(|name| self.connection_id(name));
                let except = except.collect::<Result<Vec<_>, _>>()?;
                let of = |shard: usize| {
                    let here = except.iter().filter(|(of, _)| *of == shard);
                    let except = here.map(|&(_, conn)| conn).collect();
                    (shard, Selection::User { name: name.as_str().into(), except })
                };
                Ok((0..self.boxes.len()).map(of).collect())
            }
        }
    }

    /// A page of channels, and the start of the next page.
    pub(super) async fn page(
        &self,
        from: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<ChannelInfo>, Option<String>), ApiError> {
        let (shard, place) = from.map_or(Some((0, 0)), place).ok_or(BAD_PAGE)?;
        if shard >= self.boxes.len() {
            return Err(BAD_PAGE.into());
        }
        let question = |answer| Control::Channels { from: Cursor(place), limit, answer };
        let (found, more) = self.ask(shard, question).await?;
        let next = match more {
            Some(Cursor(place)) => Some(format!("{shard}-{place}")),
            None => {
                let next = shard.saturating_add(1);
                (next < self.boxes.len()).then(|| format!("{next}-0"))
            }
        };
        Ok((found, next))
    }

    /// The channel of this name, if it exists.
    pub(super) async fn channel(&self, name: &str) -> Result<Option<ChannelInfo>, ApiError> {
        let owner = self.owner(name);
        let name = name.into();
        self.ask(owner, |answer| Control::Channel { name, answer }).await
    }

    /// A page of the members of a channel.
    ///
    /// # Errors
    /// `bad_identifier`, `unknown_namespace` and `no_presence`.
    pub(super) async fn presence(
        &self,
        name: &str,
        from: u64,
        limit: u32,
    ) -> Result<PresencePage, ApiError> {
        let limit = match self.hub.rules(name)?.presence {
            PresenceMode::Off => return Err(ErrorCode::NoPresence.into()),
            PresenceMode::Count => 0,
            PresenceMode::Members => limit,
        };
        let query = PresenceQuery { from, limit, bytes_max: PAGE_BYTES_MAX };
        if let Some(nodes) = &self.hub.nodes {
            return answered(nodes.read_for_api(name, query)).await;
        }
        let (owner, channel) = (self.owner(name), name.into());
        self.ask(owner, |answer| Control::Presence { channel, query, answer }).await
    }

    /// The connections of a user on all nodes; `None` if this node is alone.
    pub(super) async fn whereabouts_of(&self, user: &str) -> Result<Option<Whereabouts>, ApiError> {
        match &self.hub.nodes {
            Some(nodes) => answered(nodes.find(user)).await.map(Some),
            None => Ok(None),
        }
    }

    /// The connections of a user on this node.
    pub(super) async fn connections_of(&self, user: &str) -> Result<Vec<String>, ApiError> {
        let mut connections = Vec::new();
        for shard in 0..self.boxes.len() {
            let user = user.into();
            let found = self.ask(shard, |answer| Control::ConnectionsOf { user, answer }).await?;
            connections.extend(found.iter().map(ToString::to_string));
        }
        Ok(connections)
    }

    /// The description of the connection of this name; `None` if it is not open.
    pub(super) async fn connection(&self, name: &str) -> Result<Option<Value>, ApiError> {
        let (shard, conn) = self.connection_id(name)?;
        let found = self.ask(shard, |answer| Control::Connection { conn, answer }).await?;
        Ok(found.map(|info| {
            json!({
                "connection": name,
                "user": info.user,
                "expires": info.expires,
                "subscriptions": info.subscriptions,
                "queued_bytes": info.queued,
            })
        }))
    }

    /// The shard of a connection, and its id there.
    fn connection_id(&self, name: &str) -> Result<(usize, ConnId), ApiError> {
        let (shard, id) = name.split_once('-').ok_or(BAD_CONNECTION)?;
        let shard = shard.parse().ok().filter(|&shard| usize::from(shard) < self.boxes.len());
        let shard: Shard = shard.ok_or(BAD_CONNECTION)?;
        let conn = id.parse().map_err(|()| BAD_CONNECTION)?;
        // A connection has one name: `parse` takes `+0` and `00`, too.
        let is_name = GlobalConnId::new(shard, conn).to_string() == name;
        is_name.then_some((usize::from(shard), conn)).ok_or(BAD_CONNECTION.into())
    }
}

/// Waits for the answer of a shard.
async fn answered<T>(answer: oneshot::Receiver<T>) -> Result<T, ApiError> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(ErrorCode::Overloaded.into()),
    }
}

/// Parses `next` of a page: a shard and a place in its list of channels.
fn place(text: &str) -> Option<(usize, u32)> {
    let (shard, place) = text.split_once('-')?;
    Some((shard.parse().ok()?, place.parse().ok()?))
}
