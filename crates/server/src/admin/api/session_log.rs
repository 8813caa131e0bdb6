//! Questions to the session log: who is online, sessions, time per day, the peak of each hour. The thread of the log
//! answers them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use murre_session_log::{Reader, Session, StoreError, Wanted, now};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Admin, Answer, PAGE_DEFAULT, PAGE_MAX};
use crate::admin::error::{ApiError, Known, QueryMembers};
use crate::session_log::listed;

/// The query of a question. Times are milliseconds since 1970.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    user: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
    /// The value of `next` in the page before.
    after: Option<String>,
    limit: Option<u32>,
}

impl Question {
    /// What is wanted, and the size of a page.
    fn wanted(self) -> Result<(Wanted, usize), Known> {
        let Question { user, from, to, after, limit } = self;
        let after = match after.as_deref().map(|after| after.split_once('-')) {
            None => None,
            Some(Some((join_at, user))) => {
                Some((join_at.parse().map_err(|_| BAD_AFTER)?, user.to_owned()))
            }
            Some(None) => return Err(BAD_AFTER),
        };
        let limit = limit.unwrap_or(PAGE_DEFAULT as u32).clamp(1, PAGE_MAX as u32);
        // One more says whether there is another page.
        let more = limit.saturating_add(1);
        let wanted = Wanted { user, from: from.unwrap_or_default(), to, after, limit: Some(more) };
        Ok((wanted, limit as usize))
    }

    /// What is wanted by a question whose answer is not in pages.
    fn wanted_whole(self) -> Result<Wanted, Known> {
        match (&self.after, self.limit) {
            (None, None) => Ok(Wanted { limit: None, ..self.wanted()?.0 }),
            _ => Err(NO_PAGES),
        }
    }
}

pub(super) async fn online(
    State(admin): State<Arc<Admin>>,
    QueryMembers(question): QueryMembers<Question>,
) -> Answer {
    let object = |session: &Session| json!({"user": session.user, "since": session.join_at});
    let read =
        |reader: &mut Reader, wanted: &Wanted, each: Each| reader.online(wanted, now(), each);
    page(&admin, question, read, object).await
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    QueryMembers(question): QueryMembers<Question>,
) -> Answer {
    let read = |reader: &mut Reader, wanted: &Wanted, each: Each| reader.sessions(wanted, each);
    page(&admin, question, read, listed).await
}

/// Takes the sessions of a page.
type Each<'p> = &'p mut dyn FnMut(Session);

/// A page of the sessions that `read` finds, as JSON.
async fn page(
    admin: &Admin,
    question: Question,
    read: impl FnOnce(&mut Reader, &Wanted, Each) -> Result<(), StoreError> + Send + 'static,
    object: impl Fn(&Session) -> Value,
) -> Answer {
    let (wanted, limit) = question.wanted()?;
    let found = ask(admin, move |reader| {
        let mut found = Vec::new();
        read(reader, &wanted, &mut |session| found.push(session))?;
        Ok(found)
    });
    let mut found = found.await?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| is_more);
    let next = last.map(|session| format!("{}-{}", session.join_at, session.user));
    let sessions: Vec<Value> = found.iter().map(object).collect();
    Ok(Json(json!({"sessions": sessions, "next": next})))
}

pub(super) async fn days(
    State(admin): State<Arc<Admin>>,
    QueryMembers(question): QueryMembers<Question>,
) -> Answer {
    let wanted = question.wanted_whole()?;
    let days = ask(&admin, move |reader| reader.days(&wanted, now())).await?;
    let days =
        days.iter().map(|day| json!({"day": day.begins, "seconds": day.online as f64 / 1000.0}));
    Ok(Json(json!({"days": days.collect::<Vec<_>>()})))
}

pub(super) async fn peaks(
    State(admin): State<Arc<Admin>>,
    QueryMembers(question): QueryMembers<Question>,
) -> Answer {
    let wanted = question.wanted_whole()?;
    let hours = ask(&admin, move |reader| reader.peaks(&wanted, now())).await?;
    let hours = hours.iter().map(|hour| json!({"hour": hour.begins, "users": hour.users}));
    Ok(Json(json!({"hours": hours.collect::<Vec<_>>()})))
}

/// Has a question answered by the thread of the log.
async fn ask<T: Send + 'static>(
    admin: &Admin,
    question: impl FnOnce(&mut Reader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let log = admin.others.session_log.as_ref().ok_or(NO_LOG)?;
    let (tell, told) = oneshot::channel();
    // A client that waits no longer is not told.
    let answer = move |answer| _ = tell.send(answer);
    log.ask(question, answer).map_err(|_| BUSY)?;
    let answered = told.await.map_err(|_| BUSY)?;
    answered.map_err(|problem| ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "session_log_away",
        message: problem.into(),
    })
}

const BAD_AFTER: Known =
    (StatusCode::BAD_REQUEST, "bad_query", "`after` is the `next` of the page before");
const NO_PAGES: Known =
    (StatusCode::BAD_REQUEST, "bad_query", "the answer is no page: leave `after` and `limit` out");
const NO_LOG: Known = (
    StatusCode::NOT_FOUND,
    "no_session_log",
    "the server keeps no session log: start it with `--sessions`",
);
const BUSY: Known =
    (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many questions wait: try again later");
