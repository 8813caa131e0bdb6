//! Paths of the data port: what each means, which methods it takes, and the answers that need no
//! session.

use std::sync::Arc;

use murre_codec::handshake::HandshakeError;
use murre_codec::http::{Request, Response};
use murre_core::{Origins, RequestKind};

use crate::bench;
use crate::config::Mount;
use crate::files::{Entry, Files};
use crate::transports::Cors;
use crate::transports::phoenix::supabase_rest::API_PATH;
use crate::transports::phoenix::{long_poll, supabase_rest};

/// The paths of one shard's data port.
pub(super) struct Paths {
    /// Whether the paths of the published runs and the demos exist.
    pub(super) bench: bool,
    pub(super) origins: Origins,
    /// The paths below which Phoenix clients connect.
    pub(super) phoenix: Arc<[Mount]>,
    /// The paths below which Supabase clients connect.
    pub(super) supabase: Arc<[Mount]>,
    /// The files at all other paths.
    pub(super) files: Arc<Files>,
}

/// The meaning of a path, independent of the method.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route<'f> {
    Health,
    /// A text about the server, at `/` where nothing else is served.
    About,
    Text,
    Scenario,
    Page(&'static bench::Page),
    Events,
    Poll,
    PhoenixPoll,
    WebSocket(Session),
    /// A WebSocket of a Supabase client.
    Supabase,
    /// Broadcasts of Supabase clients over HTTP.
    SupabaseApi,
    File(&'f Entry),
}

/// The application's state of an open WebSocket, or of an answer that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Every message is sent back.
    Echo,
    /// Every text is sent back in upper case.
    Upper,
    /// A session of the hub.
    Hub,
    /// A session of the hub, of a Phoenix client.
    Phoenix,
    /// A request of a Phoenix client that polls, whose session is of no connection.
    PhoenixPoll,
}

/// The answer to `/` on a server without files.
const ABOUT: &str = "\
This is Murre, a server of WebSockets and other connections.

  /ws                  WebSocket, subprotocol murre.v1
  /sse?channel=NAME    Server-Sent Events
  /poll?channel=NAME   long polls
  /healthz             health

There are no pages here. `murre serve --files DIR` serves those of a folder, and
`murre serve --bench` adds demos at /demo/quotes and /demo/chat.
";

/// The methods of RFC 9110 section 9 and RFC 5789 except CONNECT, which the codec refuses. GET and
/// HEAD come first: some paths take them.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

impl Paths {
    /// The route at `path`, if there is one.
    pub(super) fn route(&self, path: &str) -> Option<Route<'_>> {
        match path {
            "/healthz" => Some(Route::Health),
            "/ws" => Some(Route::WebSocket(Session::Hub)),
            "/sse" => Some(Route::Events),
            "/poll" => Some(Route::Poll),
            _ if self.is_phoenix(path, "/websocket") => Some(Route::WebSocket(Session::Phoenix)),
            _ if self.is_phoenix(path, "/longpoll") => Some(Route::PhoenixPoll),
            _ if is_below(&self.supabase, path, "/websocket") => Some(Route::Supabase),
            _ if self.below_supabase_api(path).is_some() => Some(Route::SupabaseApi),
            "/" if self.bench => Some(Route::Text),
            "/scenario" if self.bench => Some(Route::Scenario),
            "/echo" if self.bench => Some(Route::WebSocket(Session::Echo)),
            "/upper" if self.bench => Some(Route::WebSocket(Session::Upper)),
            _ if self.bench
                && let Some(page) = bench::page(path) =>
            {
                Some(Route::Page(page))
            }
            "/" if self.files.count() == 0 => Some(Route::About),
            _ => self.files.find(path).map(Route::File),
        }
    }

    /// The rest of a path behind that of broadcasts of Supabase clients over HTTP, with its first slash.
    pub(super) fn below_supabase_api<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = |Mount(mount): &Mount| path.strip_prefix(&**mount)?.strip_prefix(API_PATH);
        let is_whole = |rest: &&str| rest.is_empty() || rest.starts_with('/');
        self.supabase.iter().filter_map(rest).find(is_whole)
    }

    /// Whether a path is `below` one of the paths of Phoenix clients.
    fn is_phoenix(&self, path: &str, below: &str) -> bool {
        let of_chat = self.bench && path.strip_prefix(bench::CHAT_MOUNT) == Some(below);
        of_chat || is_below(&self.phoenix, path, below)
    }

    /// The kind of a request, for the limits of connections.
    pub(super) fn kind(&self, request: &Request<'_, '_>) -> RequestKind {
        match (self.route(request.path()), request.method) {
            (Some(Route::Health), _) => RequestKind::HealthCheck,
            // The answer to HEAD depends on the user, too.
            (Some(Route::Events | Route::Poll), "GET" | "HEAD") => RequestKind::Session,
            (Some(Route::PhoenixPoll), _) if long_poll::begins(request) => RequestKind::Session,
            (Some(Route::PhoenixPoll), _) if long_poll::continues(request) => {
                RequestKind::Continues
            }
            (Some(Route::SupabaseApi), "POST") => RequestKind::Session,
            (Some(Route::WebSocket(Session::Hub | Session::Phoenix) | Route::Supabase), _)
                if request.wants_websocket() =>
            {
                RequestKind::Session
            }
            _ => RequestKind::Plain,
        }
    }

    /// The answer to a request that begins no session.
    pub(super) fn answer(&self, request: &Request<'_, '_>) -> Response {
        if !METHODS.contains(&request.method) {
            return Response::text(501, "this method is not known here\n");
        }
        // The request is for the server as a whole (RFC 9110 section 9.3.7).
        if request.target == "*" {
            return Response::text(204, "").with("Allow", "GET, HEAD");
        }
        let Some(route) = self.route(request.path()) else {
            let page = self.files.fallback(request);
            return page.unwrap_or_else(|| Response::text(404, "nothing is here\n"));
        };
        let preflight = match route {
            Route::Events | Route::Poll => Some(("GET", EVENT_FIELDS)),
            Route::SupabaseApi => Some(("POST", supabase_rest::FIELDS)),
            _ => None,
        };
        if let Some((method, fields)) = preflight.filter(|_| Cors::is_preflight(request)) {
            let cors = Cors::of(request, &self.origins);
            return cors.map_or_else(Cors::refused, |cors| cors.preflight(method, fields));
        }
        if let Route::SupabaseApi = route {
            return Response::text(405, "this path takes POST\n").with("Allow", "POST, OPTIONS");
        }
        if !["GET", "HEAD"].contains(&request.method) {
            return Response::text(405, "this path takes GET and HEAD\n")
                .with("Allow", "GET, HEAD");
        }
        match route {
            Route::Health => Response::text(200, "ok\n"),
            Route::About => Response::text(200, ABOUT),
            Route::Text => bench::text_of_length(request.query("length")),
            Route::Scenario => bench::scenario(),
            Route::Page(page) => page.answer(),
            Route::File(entry) => entry.answer(request),
            Route::WebSocket(_) | Route::Supabase => HandshakeError::NotAsked.response(),
            // An upgrade request never starts an event stream or a poll.
            Route::Events | Route::Poll | Route::PhoenixPoll | Route::SupabaseApi => {
                Response::text(400, "this path speaks no WebSocket\n")
            }
        }
    }
}

/// The fields that a page may send for an event stream or a poll.
const EVENT_FIELDS: &str = "Authorization, Cache-Control, Last-Event-ID";

/// Whether a path is `below` one of the mounts.
fn is_below(mounts: &[Mount], path: &str, below: &str) -> bool {
    mounts.iter().any(|Mount(mount)| path.strip_prefix(&**mount) == Some(below))
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    fn paths(bench: bool) -> Paths {
        let phoenix = Arc::new([Mount("/socket".into()), Mount(String::new())]);
        let supabase = Arc::new([Mount("/realtime/v1".into())]);
        Paths { bench, origins: Origins::default(), phoenix, supabase, files: Arc::default() }
    }

    /// The answer to a request without a body.
    fn answer(paths: &Paths, method: &str, target: &str) -> Response {
        of_request(method, target, |request| paths.answer(request))
    }

    fn of_request<T>(method: &str, target: &str, ask: impl Fn(&Request<'_, '_>) -> T) -> T {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: murre\r\n\r\n");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        match decoder.decode(head.as_bytes(), &mut fields, &RequestLimits::default()) {
            Ok(Progress::Request(request)) => ask(&request),
            _ => panic!("{head:?} is no whole request"),
        }
    }

    /// Every path answers GET and HEAD with its own status, and other methods with 405.
    #[test]
    fn every_path_has_its_answer() {
        let paths = paths(true);
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
            ("/socket/websocket?vsn=2.0.0", 426),
            ("/websocket", 426),
            ("/realtime/v1/websocket?apikey=k", 426),
        ] {
            assert_eq!(answer(&paths, "GET", target).status, status, "{target}");
            assert_eq!(answer(&paths, "HEAD", target).status, status, "{target}");
            let refused = answer(&paths, "PUT", target);
            assert_eq!(refused.status, 405, "{target}");
            assert!(refused.headers.get("Allow").is_some(), "{target}");
        }
        for target in [
            "/nowhere",
            "/healthz/",
            "/Echo",
            "//",
            "/socket",
            "/socket/websocket/",
            "/a/websocket",
        ] {
            assert_eq!(answer(&paths, "GET", target).status, 404, "{target}");
            assert_eq!(answer(&paths, "PUT", target).status, 404, "{target}");
        }
    }

    /// Requests that begin sessions, and those of load balancers, are known to the limits.
    #[test]
    fn kinds_of_requests() {
        let paths = paths(true);
        for (method, target, kind) in [
            ("GET", "/sse?channel=a", RequestKind::Session),
            ("GET", "/poll", RequestKind::Session),
            ("HEAD", "/sse?channel=a", RequestKind::Session),
            ("HEAD", "/poll", RequestKind::Session),
            ("GET", "/ws", RequestKind::Plain),
            ("OPTIONS", "/sse?channel=a", RequestKind::Plain),
            ("GET", "/echo", RequestKind::Plain),
            ("GET", "/healthz", RequestKind::HealthCheck),
            ("HEAD", "http://m/healthz?x", RequestKind::HealthCheck),
            ("GET", "/", RequestKind::Plain),
            ("GET", "/healthz/", RequestKind::Plain),
            ("GET", "/socket/longpoll?token=x", RequestKind::Session),
            (
                "GET",
                "/socket/longpoll?token=phx.0.0.00000000000000000000000000000000",
                RequestKind::Continues,
            ),
            ("POST", "/socket/longpoll", RequestKind::Plain),
        ] {
            assert_eq!(of_request(method, target, |request| paths.kind(request)), kind, "{target}");
        }
    }

    /// The length decides the body.
    #[test]
    fn the_query_decides_the_length() {
        let paths = paths(true);
        assert_eq!(answer(&paths, "GET", "/?a=b&length=7&length=8").body, "abcdefg");
        assert_eq!(answer(&paths, "GET", "/?lengths=7").body.len(), 1024);
    }

    /// Broadcasts of Supabase clients have paths below the mount, which take POST.
    #[test]
    fn paths_of_broadcasts() {
        let paths = paths(false);
        for (path, rest) in [
            ("/realtime/v1/api/broadcast", Some("")),
            ("/realtime/v1/api/broadcast/", Some("/")),
            ("/realtime/v1/api/broadcast/a%2Fb/events/e", Some("/a%2Fb/events/e")),
            ("/realtime/v1/api/broadcasts", None),
            ("/api/broadcast", None),
        ] {
            assert_eq!(paths.below_supabase_api(path), rest, "{path}");
            let status = if rest.is_some() { 405 } else { 404 };
            assert_eq!(answer(&paths, "GET", path).status, status, "{path}");
        }
        let refused = answer(&paths, "DELETE", "/realtime/v1/api/broadcast");
        assert_eq!(refused.headers.get("Allow"), Some("POST, OPTIONS"));
    }

    /// What a session costs every open WebSocket.
    #[test]
    fn a_session_is_one_byte() {
        assert_eq!(size_of::<Session>(), 1);
    }

    /// Without `bench` and files, `/` says what the server is, and the paths of the published runs do not
    /// exist.
    #[test]
    fn bench_adds_routes() {
        let paths = paths(false);
        for (target, status) in [("/healthz", 200), ("/ws", 426), ("/", 200), ("/echo", 404)] {
            assert_eq!(answer(&paths, "GET", target).status, status, "{target}");
        }
        assert_eq!(answer(&paths, "GET", "/").body, ABOUT);
        for path in ["/ws", "/sse", "/poll", "/healthz"] {
            assert!(ABOUT.contains(path) && paths.route(path).is_some(), "{path}");
        }
    }
}
