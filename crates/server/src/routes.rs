//! The data port: the [`Handler`] that joins paths, hub and transports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use murre_codec::handshake::{Refusal, Upgrade};
use murre_codec::http::{Request, Response};
use murre_codec::{CloseCode, Kind};
use murre_core::{
    Answer, CloseReason, ConnId, Handler, Mailbox, Message, Opened, Origins, Outbox, RequestKind,
    ServeMail,
};
use murre_router::Shard;

use crate::bench::{self, Fixtures};
use crate::files::{Entry, Files};
use crate::hub::auth::{User, Verdict};
use crate::hub::links::Mailboxes;
use crate::hub::{ErrorCode, Hub, HubConfig, HubMail, Session as HubSession};
use crate::log::connections as log;
use crate::protocols::murre_v1::SUBPROTOCOL;
use crate::transports::websocket::Incoming;
use crate::transports::{self, Cors, MURRE_WEBSOCKET, Transports, Wires, long_poll, sse};

/// The application on one shard.
pub(crate) struct App {
    hub: Hub,
    transports: Transports,
    incoming: Incoming,
    tokens: Tokens,
    origins: Origins,
    /// Fixtures of the published runs, with `--bench`.
    bench: Option<Fixtures>,
    files: Arc<Files>,
    /// The mailboxes of all shards; empty until all have started.
    boxes: Arc<[AppMailbox]>,
}

/// Mail of a shard.
pub(crate) enum AppMail {
    /// All shards have started: their mailboxes, in order.
    Join(Arc<[AppMailbox]>),
    Hub(HubMail),
    Bench(bench::Mail),
}

/// A shard's mailbox.
pub(crate) type AppMailbox = Arc<Mailbox<ServeMail<AppMail>>>;

/// The mailboxes of all shards, as their hubs use them.
struct HubMailboxes(Arc<[AppMailbox]>);

impl Mailboxes for HubMailboxes {
    fn shards(&self) -> usize {
        self.0.len()
    }

    fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail> {
        self.0[to].post(ServeMail::App(AppMail::Hub(mail))).map_err(|mail| match mail {
            ServeMail::App(AppMail::Hub(mail)) => mail,
            _ => unreachable!("it is the mail that was given"),
        })
    }
}

/// The application's state of an open WebSocket, or of an answer that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Every message comes back.
    Echo,
    /// Every text comes back in upper case.
    Upper,
    /// A session of the hub.
    Hub,
}

/// The meaning of a path, independent of the method.
#[derive(Clone, Copy, Debug)]
enum Route<'f> {
    Health,
    Text,
    Scenario,
    Page(&'static bench::Page),
    Events,
    Poll,
    WebSocket(Session),
    File(&'f Entry),
}

/// Tokens of requests, between the question whether a request can be worked on and the request.
#[derive(Default)]
struct Tokens {
    /// The verdict on the token of the request that comes next.
    verdict: Option<(ConnId, Verdict)>,
    /// Connections whose requests wait for the next turn, when there is time for signature checks.
    put_off: VecDeque<ConnId>,
}

/// Requests that are looked at again in one turn: about as many as it has time to check tokens for.
const RELEASED_MAX: usize = 16;

/// The methods of RFC 9110 section 9 and RFC 5789 but for CONNECT, which the codec refuses; first
/// those that some path takes.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

impl App {
    /// The routes of `shard`, with those of the published runs if `bench` is set, and `files` at all
    /// other paths.
    pub(crate) fn new(
        config: Arc<HubConfig>,
        shard: Shard,
        bench: bool,
        origins: Origins,
        files: Arc<Files>,
    ) -> Self {
        App {
            bench: bench.then(|| Fixtures::new(config.shards, config.began)),
            hub: Hub::new(Arc::clone(&config), shard, (config.backplane)()),
            transports: Transports::default(),
            incoming: Incoming::default(),
            tokens: Tokens::default(),
            origins,
            files,
            boxes: Arc::new([]),
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
            ("requests put off", self.tokens.put_off.len()),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let mut left = self.hub.left();
        left.extend(counts.map(|(name, count)| format!("{count} {name}")));
        left
    }

    fn route(&self, path: &str) -> Option<Route<'_>> {
        let bench = self.bench.is_some();
        match path {
            "/healthz" => Some(Route::Health),
            "/ws" => Some(Route::WebSocket(Session::Hub)),
            "/sse" => Some(Route::Events),
            "/poll" => Some(Route::Poll),
            "/" if bench => Some(Route::Text),
            "/scenario" if bench => Some(Route::Scenario),
            "/echo" if bench => Some(Route::WebSocket(Session::Echo)),
            "/upper" if bench => Some(Route::WebSocket(Session::Upper)),
            _ if bench && let Some(page) = bench::page(path) => Some(Route::Page(page)),
            _ => self.files.find(path).map(Route::File),
        }
    }

    fn answer(&self, request: &Request<'_, '_>) -> Response {
        if !METHODS.contains(&request.method) {
            return Response::text(501, "this method is not known here\n");
        }
        // Of the server as a whole (RFC 9110 section 9.3.7).
        if request.target == "*" {
            return Response::text(204, "").with("Allow", "GET, HEAD");
        }
        let Some(route) = self.route(request.path()) else {
            return Response::text(404, "nothing is here\n");
        };
        match route {
            Route::Events | Route::Poll if Cors::is_preflight(request) => {
                let cors = Cors::of(request, &self.origins);
                return cors.map_or_else(Cors::refused, |cors| cors.preflight());
            }
            _ => {}
        }
        if !["GET", "HEAD"].contains(&request.method) {
            return Response::text(405, "this path takes GET and HEAD\n")
                .with("Allow", "GET, HEAD");
        }
        match route {
            Route::Health => Response::text(200, "ok\n"),
            Route::Text => bench::text_of_length(request.query("length")),
            Route::Scenario => bench::scenario(),
            Route::Page(page) => page.answer(),
            Route::File(entry) => entry.answer(request),
            Route::WebSocket(_) => Refusal::NotAsked.response(),
            // An upgrade request never starts an event stream or a poll.
            Route::Events | Route::Poll => Response::text(400, "this path speaks no WebSocket\n"),
        }
    }

    /// Whether the answer depends on whose the request is: a session of the hub begins with it, or
    /// would if it were a GET.
    fn is_of_user(&self, request: &Request<'_, '_>) -> bool {
        let route = self.route(request.path());
        let begins =
            matches!(route, Some(Route::Events | Route::Poll | Route::WebSocket(Session::Hub)));
        begins && matches!(request.method, "GET" | "HEAD")
    }

    /// Whose a request is, by its token.
    fn user(&mut self, conn: ConnId, request: &Request<'_, '_>) -> Result<Option<User>, Response> {
        let verdict = self.tokens.verdict.take().filter(|(of, _)| *of == conn);
        let cors = || Cors::of(request, &self.origins).unwrap_or_default();
        match verdict.map(|(_, verdict)| verdict) {
            None => Ok(None),
            Some(Verdict::Good(user)) => Ok(Some(user)),
            Some(Verdict::Bad(why)) => Err(transports::refusal(why.into(), &cors())),
            Some(Verdict::TooMany | Verdict::NotNow) => {
                Err(transports::refusal(ErrorCode::TooFast.into(), &cors()))
            }
        }
    }

    /// Begins the session of a WebSocket, or says why not.
    fn open_websocket(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        upgrade: &Upgrade<'_>,
    ) -> Result<Opened<Session>, Response> {
        match self.route(request.path()) {
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
            Some(Route::WebSocket(session)) => Ok(Opened::new(session)),
            // A path that does not speak WebSocket answers as if the upgrade had not been offered.
            _ => Err(self.answer(request)),
        }
    }

    fn begin(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let user = self.user(conn, request)?;
        let App { hub, transports, origins, .. } = self;
        let wires = &mut Wires { out, transports };
        let (transport, begun) = match request.path() {
            "/sse" => ("sse", sse::begin(conn, request, user, origins, hub, wires)),
            _ => ("long poll", long_poll::begin(conn, request, user, origins, hub, wires)),
        };
        begun.inspect(|()| log::session_begins(conn, request, transport, hub.user(conn), out))
    }

    /// The answer to HEAD of an event stream or a poll.
    fn answer_to_head(&mut self, conn: ConnId, request: &Request<'_, '_>) -> Response {
        let user = match self.user(conn, request) {
            Ok(user) => user,
            Err(refusal) => return refusal,
        };
        let App { hub, origins, .. } = self;
        match request.path() {
            "/sse" => sse::answer_to_head(request, user.as_ref(), origins, hub),
            _ => long_poll::answer_to_head(request, user.as_ref(), origins, hub),
        }
    }

    /// Sessions that have come to their end, and input that can go on, because of what the hub said.
    fn follow_up(&mut self, out: &mut Outbox) {
        let App { hub, transports, incoming, .. } = self;
        loop {
            while let Some(conn) = transports.answered() {
                hub.close(conn, &mut Wires { out, transports });
            }
            let Some(conn) = transports.resumed() else { return };
            incoming.resume(conn, hub, &mut Wires { out, transports });
        }
    }

    fn end(&mut self, conn: ConnId, out: &mut Outbox) {
        self.transports.forget(conn);
        self.incoming.forget(conn);
        self.hub.close(conn, &mut Wires { out, transports: &mut self.transports });
        self.follow_up(out);
    }
}

impl Handler for App {
    type Session = Session;
    type Mail = AppMail;

    fn admits(&mut self, conn: ConnId, request: &Request<'_, '_>, out: &mut Outbox) -> bool {
        self.tokens.verdict = None;
        if !self.is_of_user(request) {
            return true;
        }
        let Some(token) = transports::token(request) else { return true };
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
        true
    }

    fn kind(&self, request: &Request<'_, '_>) -> RequestKind {
        match (self.route(request.path()), request.method) {
            (Some(Route::Health), _) => RequestKind::HealthCheck,
            (Some(Route::Events | Route::Poll), "GET") => RequestKind::Session,
            _ => RequestKind::Plain,
        }
    }

    fn request(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Answer<Session> {
        Answer::Now(match (self.route(request.path()), request.method) {
            (Some(route @ (Route::Events | Route::Poll)), "GET") => {
                let begun = match route {
                    Route::Events => Answer::Stream(Session::Hub),
                    _ => Answer::Later(Session::Hub),
                };
                let refused = self.begin(conn, request, out);
                self.follow_up(out);
                match refused {
                    Ok(()) => return begun,
                    Err(refusal) => {
                        if !self.origins.allow(request) {
                            out.warn_of_origin(conn, request);
                        }
                        log::session_refused(conn, request, &refusal, out);
                        refusal
                    }
                }
            }
            (Some(Route::Events | Route::Poll), "HEAD") => self.answer_to_head(conn, request),
            (Some(Route::Health), _) if !out.is_ready() => out.unavailable(conn, "draining\n"),
            (Some(Route::Health), _) if !out.admits() => out.unavailable(conn, "short of memory\n"),
            _ => self.answer(request),
        })
    }

    fn open(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        upgrade: &Upgrade<'_>,
        out: &mut Outbox,
    ) -> Result<Opened<Session>, Response> {
        let opened = self.open_websocket(conn, request, upgrade);
        match &opened {
            Ok(_) => log::session_begins(conn, request, "websocket", self.hub.user(conn), out),
            Err(refusal) => log::session_refused(conn, request, refusal, out),
        }
        opened
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
        // The transport counts what became of it; there is nobody to tell.
        let _ = out.message(conn, message.kind, answer);
    }

    fn answered(&self, conn: ConnId, _: &Session) -> bool {
        self.hub.session(conn).is_none()
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
            (Session::Hub, Some(session)) => {
                self.hub.drain(session, &mut Wires { out, transports: &mut self.transports });
                self.follow_up(out);
            }
            // A poll that has been answered.
            (Session::Hub, None) => {}
            (Session::Echo | Session::Upper, _) => out.close_restart(conn),
        }
    }

    fn drained(&mut self, conn: ConnId, session: &mut Session, out: &mut Outbox) {
        if *session == Session::Hub {
            let App { hub, transports, incoming, .. } = self;
            let wires = &mut Wires { out, transports };
            incoming.resume(conn, hub, wires);
            hub.drained(conn);
            self.follow_up(out);
        }
    }

    fn close(&mut self, conn: ConnId, session: Session, _: CloseReason, out: &mut Outbox) {
        if session == Session::Hub {
            self.end(conn, out);
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
            AppMail::Bench(mail) => {
                if let Some(bench) = &mut self.bench {
                    bench.mail(mail, out.now());
                }
            }
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        let App { hub, transports, incoming, tokens, bench, boxes, .. } = self;
        for conn in tokens.put_off.drain(..tokens.put_off.len().min(RELEASED_MAX)) {
            out.release(conn);
        }
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
        hub.turn(wires);
        self.follow_up(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        let bench = self.bench.as_ref().and_then(Fixtures::wake_at);
        self.hub.wake_at().into_iter().chain(bench).min()
    }

    fn may_end(&mut self) -> bool {
        self.hub.may_end()
    }
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Limits, Progress, RequestDecoder};

    use super::*;
    use crate::config::Config;

    fn app(bench: bool) -> App {
        let config = HubConfig::new(&Config::default(), &[0], 100).expect("the defaults are right");
        App::new(Arc::new(config), 0, bench, Origins::default(), Arc::default())
    }

    /// What an app answers to a request without a body.
    fn answer(app: &App, method: &str, target: &str) -> Response {
        of_request(method, target, |request| app.answer(request))
    }

    fn of_request<T>(method: &str, target: &str, ask: impl Fn(&Request<'_, '_>) -> T) -> T {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: murre\r\n\r\n");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        match decoder.decode(head.as_bytes(), &mut fields, &Limits::default()) {
            Ok(Progress::Request(request)) => ask(&request),
            _ => panic!("{head:?} is no whole request"),
        }
    }

    /// Every path answers GET and HEAD with its own status, and other methods with 405.
    #[test]
    fn every_path_has_its_answer() {
        let app = app(true);
        for (target, status) in [
            ("/healthz", 200),
            ("/healthz?verbose", 200),
            ("/ws", 426),
            ("/", 200),
            ("/?length=7", 200),
            ("/?length=seven", 400),
            ("/scenario", 200),
            ("/echo", 426),
            ("/upper", 426),
        ] {
            assert_eq!(answer(&app, "GET", target).status, status, "{target}");
            assert_eq!(answer(&app, "HEAD", target).status, status, "{target}");
            let refused = answer(&app, "PUT", target);
            assert_eq!(refused.status, 405, "{target}");
            assert!(refused.headers.get("Allow").is_some(), "{target}");
        }
        for target in ["/nowhere", "/healthz/", "/Echo", "//"] {
            assert_eq!(answer(&app, "GET", target).status, 404, "{target}");
            assert_eq!(answer(&app, "PUT", target).status, 404, "{target}");
        }
    }

    /// Requests that begin sessions, and those of load balancers, are known to the limits.
    #[test]
    fn kinds_of_requests() {
        let app = app(true);
        for (method, target, kind) in [
            ("GET", "/sse?channel=a", RequestKind::Session),
            ("GET", "/poll", RequestKind::Session),
            ("HEAD", "/sse?channel=a", RequestKind::Plain),
            ("GET", "/healthz", RequestKind::HealthCheck),
            ("HEAD", "http://m/healthz?x", RequestKind::HealthCheck),
            ("GET", "/", RequestKind::Plain),
            ("GET", "/healthz/", RequestKind::Plain),
        ] {
            assert_eq!(of_request(method, target, |request| app.kind(request)), kind, "{target}");
        }
    }

    /// The length decides the body.
    #[test]
    fn the_query_decides_the_length() {
        let app = app(true);
        assert_eq!(answer(&app, "GET", "/?a=b&length=7&length=8").body, "abcdefg");
        assert_eq!(answer(&app, "GET", "/?lengths=7").body.len(), 1024);
    }

    /// What a session costs every open WebSocket.
    #[test]
    fn a_session_is_one_byte() {
        assert_eq!(size_of::<Session>(), 1);
    }

    /// Only what is always there is there without `bench`.
    #[test]
    fn bench_adds_routes() {
        let app = app(false);
        for (target, status) in [("/healthz", 200), ("/ws", 426), ("/", 404), ("/echo", 404)] {
            assert_eq!(answer(&app, "GET", target).status, status, "{target}");
        }
    }
}
