//! The [`Handler`] of the data port: it joins paths with the hub and its transports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use murre_codec::handshake::Upgrade;
use murre_codec::http::{Request, Response};
use murre_codec::{CloseCode, Kind};
use murre_core::{
    Answer, CloseReason, ConnId, Handler, Message, Opened, Origins, Outbox, RequestKind, ServeMail,
};
use murre_router::Shard;

use super::consult::Consultations;
use super::mail::{AppMail, AppMailbox, HubMailboxes};
use super::paths::{Paths, Route, Session};
use crate::bench::{self, Fixtures};
use crate::config::Mount;
use crate::files::Files;
use crate::hub::auth::{User, Verdict};
use crate::hub::{ErrorCode, Hub, HubConfig, Session as HubSession};
use crate::log::connections as log;
use crate::protocols::murre_v1::SUBPROTOCOL;
use crate::protocols::phoenix::{Dialect, SUBPROTOCOL as PHOENIX_SUBPROTOCOL};
use crate::transports::websocket::Incoming;
use crate::transports::{
    self, Cors, MURRE_WEBSOCKET, PHOENIX_V1_WEBSOCKET, PHOENIX_V2_WEBSOCKET, SUPABASE_V1_WEBSOCKET,
    SUPABASE_V2_WEBSOCKET, Transports, Wires, long_poll, phoenix, sse,
};

/// The application on one shard.
pub(crate) struct App {
    pub(super) hub: Hub,
    pub(super) transports: Transports,
    incoming: Incoming,
    pub(super) phoenix: phoenix::incoming::Incoming,
    tokens: Tokens,
    pub(super) consultations: Consultations,
    pub(super) paths: Paths,
    /// Fixtures of the published runs, with `--bench`.
    bench: Option<Fixtures>,
    /// The mailboxes of all shards; empty until all have started.
    pub(super) boxes: Arc<[AppMailbox]>,
    /// When mail about polls that found a full mailbox is posted again.
    pub(super) retry_polls_at: Option<Instant>,
}

/// Tokens of requests, from [`Handler::admits`] to [`Handler::request`] or [`Handler::open`].
#[derive(Default)]
struct Tokens {
    /// The verdict on the token of the request that comes next.
    verdict: Option<(ConnId, Verdict)>,
    /// Connections whose requests wait for the next turn, because this turn has spent its time for
    /// signature checks.
    put_off: VecDeque<ConnId>,
}

/// Requests that are released in one turn: about as many as it has time to check tokens for.
const RELEASED_MAX: usize = 16;

impl App {
    /// The routes of `shard`, with those of the published runs if `bench` is set, those of Phoenix clients
    /// below the paths `phoenix`, those of Supabase clients below `supabase`, and `files` at all other
    /// paths.
    pub(crate) fn new(
        config: Arc<HubConfig>,
        shard: Shard,
        bench: bool,
        origins: Origins,
        phoenix: Arc<[Mount]>,
        supabase: Arc<[Mount]>,
        files: Arc<Files>,
    ) -> Self {
        let hub = Hub::new(Arc::clone(&config), shard, (config.backplane)(&config, shard));
        App {
            bench: bench.then(|| Fixtures::new(config.shards, config.began)),
            transports: Transports::new(shard, &config, hub.counters()),
            hub,
            incoming: Incoming::default(),
            phoenix: phoenix::incoming::Incoming::default(),
            tokens: Tokens::default(),
            consultations: Consultations::default(),
            paths: Paths { bench, origins, phoenix, supabase, files },
            boxes: Arc::new([]),
            retry_polls_at: None,
        }
    }

    /// The hub of this shard.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Sizes of all collections, by name: zero once all sessions have ended and time has passed.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn left(&self) -> Vec<String> {
        let counts = [
            ("entries of transports", self.transports.entries()),
            ("paused messages", self.incoming.paused()),
            ("paused Phoenix sessions", self.phoenix.paused()),
            ("requests put off", self.tokens.put_off.len()),
            ("requests that wait for the backend", self.consultations.len()),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let mut left = self.hub.left();
        left.extend(counts.map(|(name, count)| format!("{count} {name}")));
        left
    }

    /// The user that a request's token names; `None` for a request without a token.
    ///
    /// # Errors
    /// The answer to a token that is refused.
    pub(super) fn user(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
    ) -> Result<Option<User>, Response> {
        let connected = self.consultations.connected.take().filter(|(of, _)| *of == conn);
        if let Some((_, outcome)) = connected {
            return outcome;
        }
        let verdict = self.tokens.verdict.take().filter(|(of, _)| *of == conn);
        let cors = || Cors::of(request, &self.paths.origins).unwrap_or_default();
        match verdict.map(|(_, verdict)| verdict) {
            None => Ok(None),
            Some(Verdict::Good(user)) => Ok(Some(user)),
            Some(Verdict::Bad(why)) => Err(transports::refusal(why.into(), &cors())),
            Some(Verdict::TooMany | Verdict::NotNow) => {
                Err(transports::refusal(ErrorCode::TooFast.into(), &cors()))
            }
        }
    }

    /// The user of a request whose token has been found good.
    pub(super) fn user_of_token(&self, conn: ConnId) -> Option<&User> {
        match &self.tokens.verdict {
            Some((of, Verdict::Good(user))) if *of == conn => Some(user),
            _ => None,
        }
    }

    /// Begins the session of a WebSocket, or says why not.
    fn open_websocket(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        upgrade: &Upgrade<'_>,
        out: &Outbox,
    ) -> Result<Opened<Session>, Response> {
        match self.paths.route(request.path()) {
            Some(Route::WebSocket(Session::Hub)) => {
                let offers = upgrade.protocols().next().is_some();
                let protocol = upgrade.protocols().find(|&offered| offered == SUBPROTOCOL);
                if offers && protocol.is_none() {
                    return Err(Response::text(400, "the subprotocol of this path is murre.v1\n"));
                }
                let user = self.user(conn, request)?;
                self.hub.open(HubSession { conn, wire: MURRE_WEBSOCKET }, user);
                Ok(Opened { session: Session::Hub, protocol: protocol.map(|_| SUBPROTOCOL) })
            }
            Some(Route::WebSocket(Session::Phoenix)) => {
                let dialect = phoenix::handshake::dialect(request);
                self.open_phoenix(conn, request, upgrade, dialect)
            }
            Some(Route::Supabase) => {
                let dialect = phoenix::handshake::dialect(request).map(Dialect::with_supabase);
                self.open_phoenix(conn, request, upgrade, dialect)
            }
            Some(Route::WebSocket(session)) => Ok(Opened::new(session)),
            // A path that does not speak WebSocket answers as if the upgrade had not been offered.
            _ => Err(self.answer(conn, request, out)),
        }
    }

    /// Begins the session of a Phoenix client, or says why not: by 403, as its clients expect.
    fn open_phoenix(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        upgrade: &Upgrade<'_>,
        dialect: Option<Dialect>,
    ) -> Result<Opened<Session>, Response> {
        let user = self.user(conn, request).map_err(|refusal| Response { status: 403, ..refusal });
        let wire = match dialect {
            Some(Dialect::V1) => PHOENIX_V1_WEBSOCKET,
            Some(Dialect::V2 | Dialect::V2Text) => PHOENIX_V2_WEBSOCKET,
            Some(Dialect::SupabaseV1) => SUPABASE_V1_WEBSOCKET,
            Some(Dialect::SupabaseV2) => SUPABASE_V2_WEBSOCKET,
            None => return Err(Response::text(403, "this version is not served; vsn=2.0.0 is\n")),
        };
        self.hub.open(HubSession { conn, wire }, user?);
        // A browser that has offered subprotocols takes no answer without one.
        let offered = upgrade.protocols().any(|offered| offered == PHOENIX_SUBPROTOCOL);
        let protocol = offered.then_some(PHOENIX_SUBPROTOCOL);
        Ok(Opened { session: Session::Phoenix, protocol })
    }

    /// The answer to a request that begins no session.
    fn answer(&self, conn: ConnId, request: &Request<'_, '_>, out: &Outbox) -> Response {
        match self.paths.route(request.path()) {
            Some(Route::Health) if !out.is_ready() => out.unavailable(conn, "draining\n"),
            Some(Route::Health) if !out.admits() => out.unavailable(conn, "short of memory\n"),
            _ => self.paths.answer(request),
        }
    }

    fn begin(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let user = self.user(conn, request)?;
        let App { hub, transports, paths: Paths { origins, .. }, .. } = self;
        let wires = &mut Wires { out, transports };
        let (transport, begun) = match request.path() {
            "/sse" => ("sse", sse::begin(conn, request, user, origins, hub, wires)),
            _ => ("long poll", long_poll::begin(conn, request, user, origins, hub, wires)),
        };
        begun.inspect(|()| log::session_begins(conn, request, transport, hub.user(conn), out))
    }

    /// The answer to a POST of a Supabase client, whose messages are published.
    fn supabase_broadcast(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Response {
        let user = match self.user(conn, request) {
            Ok(user) => user,
            Err(refusal) => return refusal,
        };
        let App { hub, transports, paths, .. } = self;
        if !paths.origins.allow(request) {
            out.warn_of_origin(conn, request);
        }
        let path = paths.below_supabase_api(request.path()).unwrap_or_default();
        let wires = &mut Wires { out, transports };
        phoenix::supabase_rest::request(conn, request, path, user, &paths.origins, hub, wires)
    }

    /// The answer to HEAD of an event stream or a poll.
    fn answer_to_head(&mut self, conn: ConnId, request: &Request<'_, '_>) -> Response {
        let user = match self.user(conn, request) {
            Ok(user) => user,
            Err(refusal) => return refusal,
        };
        let App { hub, paths: Paths { origins, .. }, .. } = self;
        match request.path() {
            "/sse" => sse::answer_to_head(conn, request, user.as_ref(), origins, hub),
            _ => long_poll::answer_to_head(conn, request, user.as_ref(), origins, hub),
        }
    }

    /// Closes the sessions of answered polls and resumes held input, after the hub has acted.
    pub(super) fn follow_up(&mut self, out: &mut Outbox) {
        let App { hub, transports, incoming, phoenix, .. } = self;
        loop {
            while let Some(conn) = transports.answered() {
                hub.close(conn, &mut Wires { out, transports });
            }
            while let Some((conn, why)) = transports.phoenix.polls.take_ended() {
                if let Some(why) = why {
                    log::session_ended(conn, why, out);
                }
                phoenix.forget(conn);
                transports.forget(conn);
                hub.close(conn, &mut Wires { out, transports });
                out.free_slot(conn);
            }
            while let Some(conn) = hub.take_answered_request() {
                out.release(conn);
            }
            let Some(conn) = transports.resumed() else { return };
            let wires = &mut Wires { out, transports };
            incoming.resume(conn, hub, wires);
            phoenix.resume(conn, hub, wires);
            hub.proceed_all(conn, wires);
        }
    }

    fn end(&mut self, conn: ConnId, out: &mut Outbox) {
        self.transports.forget(conn);
        self.incoming.forget(conn);
        self.phoenix.forget(conn);
        self.hub.close(conn, &mut Wires { out, transports: &mut self.transports });
        self.follow_up(out);
    }
}

impl Handler for App {
    type Session = Session;
    type Mail = AppMail;

    fn admits(&mut self, conn: ConnId, request: &Request<'_, '_>, out: &mut Outbox) -> bool {
        self.tokens.verdict = None;
        if self.paths.kind(request) != RequestKind::Session {
            return true;
        }
        let token = match self.paths.route(request.path()) {
            Some(Route::WebSocket(Session::Phoenix)) => phoenix::handshake::token_of(request),
            Some(Route::PhoenixPoll) => phoenix::long_poll::user_token(request),
            Some(Route::Supabase) => {
                phoenix::handshake::supabase_token(request).filter(|_| self.hub.has_keys())
            }
            Some(Route::SupabaseApi) => {
                phoenix::supabase_rest::user_token(request).filter(|_| self.hub.has_keys())
            }
            _ => transports::token(request),
        };
        let Some(token) = token else { return self.consult(conn, request, false, out) };
        let wires = Wires { out, transports: &mut self.transports };
        let verdict = self.hub.verify(&token, conn, &wires);
        match verdict {
            Verdict::NotNow => {
                self.tokens.put_off.push_back(conn);
                return false;
            }
            Verdict::TooMany => log::too_many_bad_tokens(out.global_id(conn), out.shown_peer(conn)),
            Verdict::Good(_) | Verdict::Bad(_) => {}
        }
        self.tokens.verdict = Some((conn, verdict));
        self.consult(conn, request, true, out)
    }

    fn kind(&self, request: &Request<'_, '_>) -> RequestKind {
        self.paths.kind(request)
    }

    fn request(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Answer<Session> {
        Answer::Now(match (self.paths.route(request.path()), request.method) {
            (Some(Route::PhoenixPoll), _) => {
                let answer = self.phoenix_poll(conn, request, out);
                self.consulted(conn);
                return answer;
            }
            (Some(Route::SupabaseApi), "POST") => {
                let answer = self.supabase_broadcast(conn, request, out);
                self.consulted(conn);
                self.follow_up(out);
                answer
            }
            (Some(route @ (Route::Events | Route::Poll)), "GET") => {
                let begun = match route {
                    Route::Events => Answer::Stream(Session::Hub),
                    _ => Answer::Later(Session::Hub),
                };
                let refused = self.begin(conn, request, out);
                self.consulted(conn);
                self.follow_up(out);
                match refused {
                    Ok(()) => return begun,
                    Err(refusal) => {
                        if !self.paths.origins.allow(request) {
                            out.warn_of_origin(conn, request);
                        }
                        log::session_refused(conn, request, &refusal, out);
                        refusal
                    }
                }
            }
            (Some(Route::Events | Route::Poll), "HEAD") => {
                let answer = self.answer_to_head(conn, request);
                self.consulted(conn);
                answer
            }
            _ => self.answer(conn, request, out),
        })
    }

    fn open(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        upgrade: &Upgrade<'_>,
        out: &mut Outbox,
    ) -> Result<Opened<Session>, Response> {
        let opened = self.open_websocket(conn, request, upgrade, out);
        self.consulted(conn);
        match &opened {
            Ok(_) => log::session_begins(conn, request, "websocket", self.hub.user(conn), out),
            Err(refusal) => log::session_refused(conn, request, refusal, out),
        }
        opened
    }

    fn opened(&mut self, conn: ConnId, session: &mut Session, out: &mut Outbox) {
        if *session == Session::Hub
            && let Some(session) = self.hub.session(conn)
        {
            self.hub.greet(session, &mut Wires { out, transports: &mut self.transports });
        }
    }

    fn message(
        &mut self,
        conn: ConnId,
        session: &mut Session,
        message: Message<'_>,
        out: &mut Outbox,
    ) {
        let upper;
        let answer: &[u8] = match (session, message.kind) {
            (Session::Hub, kind) => {
                if let Some(bench) = &mut self.bench
                    && bench.message(conn, message.bytes, &self.hub, out)
                {
                    return;
                }
                let App { hub, transports, incoming, .. } = self;
                let session = hub.session(conn).expect("open since the handshake");
                incoming.message(session, kind, message.bytes, hub, &mut Wires { out, transports });
                return self.follow_up(out);
            }
            (Session::Phoenix, kind) => {
                let App { hub, transports, phoenix, .. } = self;
                let session = hub.session(conn).expect("open since the handshake");
                phoenix.message(session, kind, message.bytes, hub, &mut Wires { out, transports });
                return self.follow_up(out);
            }
            (Session::PhoenixPoll, _) => unreachable!("a poll is no WebSocket"),
            (Session::Echo, _) => message.bytes,
            (Session::Upper, Kind::Text) => match bench::upper(message.bytes) {
                None => message.bytes,
                Some(text) => {
                    upper = text;
                    upper.as_bytes()
                }
            },
            (Session::Upper, Kind::Binary) => {
                let why = "only text has an upper case";
                return out.close_websocket(
                    conn,
                    CloseCode::Unsupported,
                    why,
                    CloseReason::Finished,
                );
            }
        };
        // The transport counts the outcome; no caller needs it.
        let _ = out.message(conn, message.kind, answer);
    }

    fn ping_interval(&self, session: &Session) -> Option<Duration> {
        (*session == Session::Phoenix).then_some(self.hub.config().phoenix_ping_interval)
    }

    fn answered(&self, conn: ConnId, session: &Session) -> bool {
        match session {
            Session::PhoenixPoll => !self.transports.phoenix.requests.waits(conn),
            _ => self.hub.session(conn).is_none(),
        }
    }

    fn ends_with_answer(&mut self, conn: ConnId, _: &mut Session) {
        self.transports.ends_with_answer(conn);
    }

    fn waited(&mut self, conn: ConnId, _: &mut Session, out: &mut Outbox) {
        if let Some(session) = self.hub.session(conn) {
            Wires { out, transports: &mut self.transports }.waited(session);
            self.follow_up(out);
        }
    }

    fn leave(&mut self, conn: ConnId, session: &mut Session, out: &mut Outbox) {
        match (*session, self.hub.session(conn)) {
            (Session::Hub | Session::Phoenix, Some(session)) => {
                self.hub.drain(session, &mut Wires { out, transports: &mut self.transports });
                self.follow_up(out);
            }
            // A poll that has been answered.
            (Session::Hub | Session::Phoenix, None) => {}
            (Session::PhoenixPoll, _) => self.transports.poll_leaves(conn, out),
            (Session::Echo | Session::Upper, _) => out.close_restart(conn),
        }
    }

    fn drained(&mut self, conn: ConnId, session: &mut Session, out: &mut Outbox) {
        let App { hub, transports, incoming, phoenix, .. } = self;
        // This runs once for each delivery, and nearly always nothing waits.
        let nothing_waits = hub.nobody_waits() && incoming.is_idle() && phoenix.is_idle();
        if matches!(session, Session::Hub | Session::Phoenix) && !nothing_waits {
            let wires = &mut Wires { out, transports };
            incoming.resume(conn, hub, wires);
            phoenix.resume(conn, hub, wires);
            hub.drained(conn);
            self.follow_up(out);
        }
    }

    fn close(&mut self, conn: ConnId, session: Session, _: CloseReason, out: &mut Outbox) {
        match session {
            Session::Hub | Session::Phoenix => self.end(conn, out),
            Session::PhoenixPoll => self.transports.phoenix.requests.forget(conn),
            Session::Echo | Session::Upper => {}
        }
    }

    fn mail(&mut self, mail: AppMail, out: &mut Outbox) {
        match mail {
            AppMail::Join(boxes) => {
                self.hub.join(Arc::new(HubMailboxes(Arc::clone(&boxes))));
                self.boxes = boxes;
            }
            AppMail::Hub(mail) => {
                let wires = &mut Wires { out, transports: &mut self.transports };
                self.hub.mail(mail, wires);
                self.follow_up(out);
            }
            AppMail::PhoenixPoll(mail) => self.transports.poll_mail(mail, out),
            AppMail::Bench(mail) => {
                if let Some(bench) = &mut self.bench {
                    bench.mail(mail, out.now());
                }
            }
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        let App { hub, transports, incoming, phoenix, tokens, consultations, bench, boxes, .. } =
            self;
        for conn in tokens.put_off.drain(..tokens.put_off.len().min(RELEASED_MAX)) {
            out.release(conn);
        }
        consultations.turn(out);
        let wires = &mut Wires { out, transports };
        if let Some(bench) = bench {
            if let Some(mail) = bench.mail_for_others() {
                for mailbox in &**boxes {
                    // A shard whose mailbox is full misses it: this is for a bench.
                    let _ = mailbox.post(ServeMail::App(AppMail::Bench(mail)));
                }
            }
            bench.turn(hub, wires);
        }
        hub.begin_turn(wires);
        incoming.turn(hub, wires);
        phoenix.turn(hub, wires);
        self.handle_posts(out);
        self.hub.turn(&mut Wires { out, transports: &mut self.transports });
        self.follow_up(out);
        self.answer_polls(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        let bench = self.bench.as_ref().and_then(Fixtures::wake_at);
        let (put_off, polls) = (self.consultations.wake_at(), self.wake_for_polls());
        self.hub.wake_at().into_iter().chain(bench).chain(put_off).chain(polls).min()
    }

    fn may_end(&mut self) -> bool {
        self.hub.may_end()
    }
}
