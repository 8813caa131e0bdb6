//! What Murre answers: the [`Handler`] behind the data port.

use std::sync::Arc;
use std::time::Instant;

use murre_codec::http::{Request, Response};
use murre_codec::upgrade::{Refusal, Upgrade};
use murre_codec::{CloseCode, Kind};
use murre_core::{Answer, CloseReason, ConnId, Handler, Message, Opened, Outbox};
use murre_router::Shard;

use crate::bench::{self, feed};
use crate::channels::{Channels, Mail, Setting};
use crate::files::{Entry, Files};

/// The routes of the data port.
pub(crate) struct App {
    channels: Channels,
    /// What a server of the published runs has beside them.
    feed: Option<feed::Feed>,
    files: Arc<Files>,
}

/// What is remembered of an open WebSocket: what its path promised. Or of an answer to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Every message comes back.
    Echo,
    /// Every text comes back in upper case.
    Upper,
    /// `murre.v1`.
    Channels,
    /// An event stream, or a poll.
    Stream,
}

/// What a path stands for, whatever is asked of it.
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

/// Those of RFC 9110 section 9 and RFC 5789, less tunnels, which the codec refuses; first those that
/// some path takes.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

/// The subprotocol of `/ws`.
const PROTOCOL: &str = "murre.v1";

impl App {
    /// The routes of `shard`, with those of the published runs if `bench` is set, and what there is
    /// of `files` at other paths.
    pub(crate) fn new(setting: Arc<Setting>, shard: Shard, bench: bool, files: Arc<Files>) -> Self {
        let feed = bench.then(|| feed::Feed::new(setting.shards, setting.began));
        App { channels: Channels::new(setting, shard), feed, files }
    }

    /// The channels of this shard.
    pub(crate) fn channels(&self) -> &Channels {
        &self.channels
    }

    fn route(&self, path: &str) -> Option<Route<'_>> {
        let bench = self.feed.is_some();
        match path {
            "/healthz" => Some(Route::Health),
            "/ws" => Some(Route::WebSocket(Session::Channels)),
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
        let (allowed, refusal) = match route {
            Route::Events | Route::Poll => (&METHODS[..1], "this path takes GET\n"),
            _ => (&METHODS[..2], "this path takes GET and HEAD\n"),
        };
        if !allowed.contains(&request.method) {
            return Response::text(405, refusal).with("Allow", &allowed.join(", "));
        }
        match route {
            Route::Health => Response::text(200, "ok\n"),
            Route::Text => bench::text_of_length(request.query("length")),
            Route::Scenario => bench::scenario(),
            Route::Page(page) => page.answer(),
            Route::File(entry) => entry.answer(request),
            Route::WebSocket(_) => Refusal::NotAsked.response(),
            // What only GET gets is not begun by who would rather speak WebSocket.
            Route::Events | Route::Poll => Response::text(400, "this path speaks no WebSocket\n"),
        }
    }

    /// A message on `/ws`: for the bench, or for the channels.
    fn say(&mut self, id: ConnId, message: Message<'_>, out: &mut Outbox) {
        if let Some(feed) = &mut self.feed
            && let Some(rate) = feed::command(message.bytes)
        {
            feed.set(rate, out.now());
            self.channels.tell_others(|| Mail::Feed(rate));
            let _ = out.message(id, Kind::Text, br#"{"type":"feed"}"#);
            return;
        }
        self.channels.message(id, message, out);
    }
}

impl Handler for App {
    type Session = Session;
    type Mail = Mail;

    fn request(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Answer<Session> {
        let begun = match self.route(request.path()) {
            Some(Route::Events) if request.method == "GET" => {
                self.channels.events(id, request, out)
            }
            Some(Route::Poll) if request.method == "GET" => self.channels.poll(id, request, out),
            Some(Route::Health) if out.is_draining() => {
                return Answer::Now(out.unavailable(id, "draining\n"));
            }
            Some(Route::Health) if !out.admits() => {
                return Answer::Now(out.unavailable(id, "short of memory\n"));
            }
            _ => return Answer::Now(self.answer(request)),
        };
        begun.map_or_else(Answer::Now, |()| Answer::Later(Session::Stream))
    }

    fn open(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        upgrade: &Upgrade<'_>,
    ) -> Result<Opened<Session>, Response> {
        match self.route(request.path()) {
            Some(Route::WebSocket(Session::Channels)) => {
                let offers = upgrade.protocols().next().is_some();
                let protocol = upgrade.protocols().find(|&offered| offered == PROTOCOL);
                if offers && protocol.is_none() {
                    return Err(Response::text(400, "the subprotocol of this path is murre.v1\n"));
                }
                self.channels.enter(id, request)?;
                Ok(Opened { session: Session::Channels, protocol: protocol.map(|_| PROTOCOL) })
            }
            Some(Route::WebSocket(session)) => Ok(Opened::new(session)),
            // A path that does not speak WebSocket answers as if the upgrade had not been offered.
            _ => Err(self.answer(request)),
        }
    }

    fn message(
        &mut self,
        id: ConnId,
        session: &mut Session,
        message: Message<'_>,
        out: &mut Outbox,
    ) {
        let upper;
        let answer: &[u8] = match (session, message.kind) {
            (Session::Channels | Session::Stream, _) => return self.say(id, message, out),
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
                return out.close_websocket(id, CloseCode::Unsupported, why, CloseReason::Finished);
            }
        };
        // What became of it is the transport's to count; there is nobody to tell.
        let _ = out.message(id, message.kind, answer);
    }

    fn answered(&self, id: ConnId, _: &Session) -> bool {
        self.channels.has_answered(id)
    }

    fn waited(&mut self, id: ConnId, _: &mut Session, out: &mut Outbox) {
        self.channels.waited(id, out);
    }

    fn leave(&mut self, id: ConnId, session: &mut Session, out: &mut Outbox) {
        match session {
            Session::Stream => self.channels.say_goodbye(id, out),
            _ => out.close_restart(id),
        }
    }

    fn drained(&mut self, id: ConnId, session: &mut Session, out: &mut Outbox) {
        if matches!(session, Session::Channels | Session::Stream) {
            self.channels.drained(id, out);
        }
    }

    fn close(&mut self, id: ConnId, session: Session, _: CloseReason, _: &mut Outbox) {
        if matches!(session, Session::Channels | Session::Stream) {
            self.channels.leave(id);
        }
    }

    fn mail(&mut self, mail: Mail, out: &mut Outbox) {
        match (mail, &mut self.feed) {
            (Mail::Feed(rate), Some(feed)) => feed.set(rate, out.now()),
            (mail, _) => self.channels.mail(mail, out),
        }
    }

    fn turn(&mut self, out: &mut Outbox) {
        if let Some(feed) = &mut self.feed {
            feed.turn(&mut self.channels, out);
        }
        self.channels.turn(out);
    }

    fn wake_at(&self) -> Option<Instant> {
        let feed = self.feed.as_ref().and_then(feed::Feed::wake_at);
        self.channels.wake_at().into_iter().chain(feed).min()
    }
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Limits, Progress, RequestDecoder};

    use super::*;
    use crate::config::Config;

    fn app(bench: bool) -> App {
        let setting = Setting::new(&Config::default(), &[0], 100).expect("the defaults are right");
        App::new(Arc::new(setting), 0, bench, Arc::default())
    }

    /// What an app answers to a request without a body.
    fn answer(app: &App, method: &str, target: &str) -> Response {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: murre\r\n\r\n");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        match decoder.decode(head.as_bytes(), &mut fields, &Limits::default()) {
            Ok(Progress::Request(request)) => app.answer(&request),
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
