//! What Murre answers: the [`Handler`] behind the data port.

use murre_codec::http::{Request, Response};
use murre_codec::upgrade::Upgrade;
use murre_codec::{CloseCode, Kind};
use murre_core::{Answer, CloseReason, ConnId, Handler, Message, Opened, Outbox};

use crate::bench;

/// The routes of the data port.
pub(crate) struct App {
    bench: bool,
}

/// What is remembered of an open WebSocket: what its path promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Every message comes back.
    Echo,
    /// Every text comes back in upper case.
    Upper,
}

/// What a path stands for, whatever is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Health,
    Channels,
    Text,
    Scenario,
    WebSocket(Session),
}

impl App {
    /// The routes, with those of the published runs if `bench` is set.
    pub(crate) fn new(bench: bool) -> Self {
        App { bench }
    }

    fn route(&self, path: &str) -> Option<Route> {
        match path {
            "/healthz" => Some(Route::Health),
            "/ws" => Some(Route::Channels),
            "/" if self.bench => Some(Route::Text),
            "/scenario" if self.bench => Some(Route::Scenario),
            "/echo" if self.bench => Some(Route::WebSocket(Session::Echo)),
            "/upper" if self.bench => Some(Route::WebSocket(Session::Upper)),
            _ => None,
        }
    }

    fn answer(&self, request: &Request<'_, '_>) -> Response {
        let Some(route) = self.route(request.path()) else {
            return Response::text(404, "nothing is here\n");
        };
        if !matches!(request.method, "GET" | "HEAD") {
            let headers = &[("Allow", "GET, HEAD")];
            return Response { headers, ..Response::text(405, "this path takes GET and HEAD\n") };
        }
        match route {
            Route::Health => Response::text(200, "ok\n"),
            Route::Channels => Response::text(501, "channels over /ws are not in this version\n"),
            Route::Text => bench::text_of_length(request.query("length")),
            Route::Scenario => bench::scenario(),
            Route::WebSocket(_) => {
                let headers = &[("Upgrade", "websocket"), ("Connection", "Upgrade")];
                Response { headers, ..Response::text(426, "this path speaks WebSocket\n") }
            }
        }
    }
}

impl Handler for App {
    type Session = Session;
    type Mail = ();

    fn request(&mut self, _: ConnId, request: &Request<'_, '_>, _: &mut Outbox) -> Answer<Session> {
        Answer::Now(self.answer(request))
    }

    fn open(
        &mut self,
        _: ConnId,
        request: &Request<'_, '_>,
        _: &Upgrade<'_>,
    ) -> Result<Opened<Session>, Response> {
        match self.route(request.path()) {
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
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Limits, Progress, RequestDecoder};

    use super::*;

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
        let app = App::new(true);
        for (target, status) in [
            ("/healthz", 200),
            ("/healthz?verbose", 200),
            ("/ws", 501),
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
            assert!(refused.headers.contains(&("Allow", "GET, HEAD")), "{target}");
        }
        for target in ["/nowhere", "/healthz/", "/Echo", "//"] {
            assert_eq!(answer(&app, "GET", target).status, 404, "{target}");
            assert_eq!(answer(&app, "PUT", target).status, 404, "{target}");
        }
    }

    /// The length decides the body.
    #[test]
    fn the_query_decides_the_length() {
        let app = App::new(true);
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
        let app = App::new(false);
        for (target, status) in [("/healthz", 200), ("/ws", 501), ("/", 404), ("/echo", 404)] {
            assert_eq!(answer(&app, "GET", target).status, status, "{target}");
        }
    }
}
