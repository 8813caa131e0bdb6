//! An HTTP/1.1 client for the server's own requests: key sets, backend calls, webhooks.
//!
//! An [`Endpoint`] is one URL. It keeps connections open between requests, bounds what it reads of an
//! answer, and has one deadline for a whole request. It follows no redirection: the caller gets its
//! status.

mod connection;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use tokio::time::timeout_at;

use self::connection::{Connection, Sent};
use self::tls::Tls;

/// A URL, with the connections to its server that are open and idle.
pub(crate) struct Endpoint {
    url: Uri,
    /// Bytes of the body of an answer at most.
    body_bytes_max: usize,
    tls: Tls,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Connections that are kept for later requests. More are closed after their request.
const IDLE_MAX: usize = 256;
/// The time for which a connection is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// The reason why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HttpError {
    /// There is no connection, for this reason.
    Connect(String),
    /// The answer was not there whole at the deadline. The server may have done what was asked.
    Timeout,
    /// The connection ended before the answer, or in it.
    Closed,
    /// The body of the answer is longer than this number of bytes.
    TooLong(usize),
    /// The answer is no HTTP/1.1.
    Malformed(String),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Connect(why) => f.write_str(why),
            HttpError::Timeout => f.write_str("no answer in time"),
            HttpError::Closed => f.write_str("the server closed the connection without an answer"),
            HttpError::TooLong(max) => write!(f, "the answer is longer than {max} bytes"),
            HttpError::Malformed(why) => write!(f, "the answer is not HTTP/1.1: {why}"),
        }
    }
}

impl Endpoint {
    /// The endpoint at an `http` or `https` URL with a host. It makes no connection yet.
    pub(crate) fn new(url: Uri, body_bytes_max: usize) -> Self {
        Endpoint { url, body_bytes_max, tls: Tls::default(), idle: Mutex::default() }
    }

    /// The URL of the endpoint.
    pub(crate) fn url(&self) -> &Uri {
        &self.url
    }

    /// Sends `GET`, and returns the answer.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub(crate) async fn get(&self, deadline: Instant) -> Result<Answer, HttpError> {
        self.send(Method::GET, HeaderMap::new(), Bytes::new(), deadline).await
    }

    /// Sends `POST` with these header fields and this body, and returns the answer, whose last byte
    /// arrived before the deadline.
    ///
    /// A request is sent once. The exception is a kept connection that the server closes without a byte of
    /// an answer: it closed the connection while the request was on its way. The request is then sent on a
    /// new connection.
    ///
    /// # Errors
    /// There is no whole answer.
    pub(crate) async fn post(
        &self,
        fields: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Answer, HttpError> {
        self.send(Method::POST, fields, body, deadline).await
    }

    async fn send(
        &self,
        method: Method,
        fields: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Answer, HttpError> {
        let sent = timeout_at(deadline.into(), self.try_to_send(method, fields, body));
        sent.await.unwrap_or_else(|_| {
            // The peer may have died without a word: the next request does not try its other connections.
            self.lock().clear();
            Err(HttpError::Timeout)
        })
    }

    async fn try_to_send(
        &self,
        method: Method,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, HttpError> {
        let request = self.request(method, fields, body)?;
        if let Some(mut kept) = self.take_idle() {
            match kept.send(request.clone(), self.body_bytes_max).await {
                Sent::Answered(answer) => return Ok(self.keep(kept, answer)),
                Sent::Failed(why) => return Err(why),
                Sent::ClosedBefore => {}
            }
        }
        let mut new = Connection::open(&self.url, &self.tls).await?;
        match new.send(request, self.body_bytes_max).await {
            Sent::Answered(answer) => Ok(self.keep(new, answer)),
            Sent::Failed(why) => Err(why),
            Sent::ClosedBefore => Err(HttpError::Closed),
        }
    }

    fn request(
        &self,
        method: Method,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        let has_body = method != Method::GET;
        let request = Request::builder().method(method).uri(path).body(Full::new(body));
        let mut request = request.map_err(|error| HttpError::Connect(error.to_string()))?;
        let headers = request.headers_mut();
        *headers = fields;
        let host = HeaderValue::from_str(host);
        headers.insert(header::HOST, host.map_err(|error| HttpError::Connect(error.to_string()))?);
        headers.insert(header::ACCEPT, JSON);
        headers.insert(header::USER_AGENT, USER_AGENT);
        if has_body && !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        Ok(request)
    }

    /// The connection that was used last, of those that the server has not closed.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.elapsed() < IDLE_TIME && connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer is whole.
    fn keep(&self, connection: Connection, answer: Answer) -> Answer {
        let mut idle = self.lock();
        // The first ones are the oldest.
        let old = idle.iter().take_while(|idle| idle.since.elapsed() >= IDLE_TIME).count();
        idle.drain(..old);
        if idle.len() < IDLE_MAX && connection.is_open() {
            idle.push(Idle { connection, since: Instant::now() });
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        // Nothing can panic while the lock is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A URL as logs and metrics show it: without its query, which may hold secrets.
pub(crate) fn without_query(url: &Uri) -> String {
    url.to_string().split('?').next().unwrap_or_default().to_owned()
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("murre/", env!("CARGO_PKG_VERSION")));
