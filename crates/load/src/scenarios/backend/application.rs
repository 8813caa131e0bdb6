//! The application that the server asks about connections: an HTTP server on a thread of its own, which
//! answers each call after the same time, as one does that asks its database.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use murre_codec::http::{Request, Response, ResponseOptions};
use murre_core::host::{self, Wanted};
use murre_core::{Answer, CloseReason, ConnId, Handler, Listener, Outbox, Server, ServerConfig};
use serde::Deserialize;
use serde_json::json;

/// Counts of the application's thread, which others read.
#[derive(Default)]
pub(super) struct Counts {
    /// Calls that are answered.
    pub(super) calls: AtomicU64,
    /// The most calls without an answer at one time.
    pub(super) in_flight_max: AtomicU64,
}

/// Connections of the server to the application at most: many more than the server has calls in flight.
const CONNS_MAX: u32 = 2048;

/// Starts the application. It runs until the process ends.
///
/// # Errors
/// The address cannot be had, or the machine has no room for a server.
pub(super) fn start(address: SocketAddr, answer_time: Duration) -> anyhow::Result<Arc<Counts>> {
    let listener = Listener::bind(address)
        .with_context(|| format!("--application {address} cannot be listened on"))?;
    let wanted = Wanted { max_conns: Some(CONNS_MAX), shards: Some(1), ..Wanted::default() };
    let config = ServerConfig::with_plan(host::plan(&wanted)?, listener)?;
    let counts: Arc<Counts> = Arc::default();
    let shared = Arc::clone(&counts);
    let make = move |_| Application { answer_time, in_flight: 0, counts: Arc::clone(&shared) };
    Server::start(config, None, make)?;
    Ok(counts)
}

struct Application {
    answer_time: Duration,
    in_flight: u64,
    counts: Arc<Counts>,
}

/// A call.
struct Call {
    /// The name of the client's connection, which becomes the name of its user.
    client: String,
    keep_alive: bool,
    is_answered: bool,
}

/// The body of a call, as far as the application reads it: docs/backend.md.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    client: Cow<'a, str>,
}

impl Handler for Application {
    type Session = Call;
    type Mail = ();

    fn request(&mut self, _: ConnId, request: &Request<'_, '_>, _: &mut Outbox) -> Answer<Call> {
        let Ok(Body { client }) = serde_json::from_slice(request.body) else {
            return Answer::Now(Response::text(400, "this is no call\n"));
        };
        self.in_flight += 1;
        self.counts.in_flight_max.fetch_max(self.in_flight, Ordering::Relaxed);
        let client = client.into_owned();
        Answer::Later(Call { client, keep_alive: request.keep_alive, is_answered: false })
    }

    fn opened(&mut self, conn: ConnId, _: &mut Call, out: &mut Outbox) {
        out.set_session_timer(conn, self.answer_time);
    }

    fn timer(&mut self, conn: ConnId, call: &mut Call, out: &mut Outbox) {
        call.is_answered = true;
        self.in_flight -= 1;
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let response = Response::text(200, json!({"result": {"user": call.client}}).to_string());
        let options = ResponseOptions { keep_alive: call.keep_alive, ..ResponseOptions::default() };
        // A server that has gone needs no answer.
        let _ = out.write_answer(conn, |bytes| response.write(bytes, &options));
    }

    fn answered(&self, _: ConnId, call: &Call) -> bool {
        call.is_answered
    }

    fn close(&mut self, _: ConnId, call: Call, _: CloseReason, _: &mut Outbox) {
        self.in_flight -= u64::from(!call.is_answered);
    }
}
