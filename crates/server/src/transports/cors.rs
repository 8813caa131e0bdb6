//! The pages that may read streams and polls. The rule is the same as for WebSockets, and the
//! headers of CORS (Fetch standard, section 3.2) tell it to browsers.

use murre_codec::http::{Request, Response};
use murre_core::Origins;

/// The CORS headers for one request: the origin that may read the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cors(Option<Box<str>>);

impl Cors {
    /// The headers for a request; `None` if it comes from a page of an origin that is not allowed.
    pub(crate) fn of(request: &Request<'_, '_>, origins: &Origins) -> Option<Cors> {
        if *origins == Origins::Any {
            return Some(Cors(Some("*".into())));
        }
        if !origins.allow(request) {
            return None;
        }
        let origin = request.header("origin").and_then(|origin| str::from_utf8(origin).ok());
        Some(Cors(origin.map(Box::from)))
    }

    /// Whether a request is a preflight, by which a browser asks before it sends the request of a
    /// page (Fetch standard, section 3.2.2).
    pub(crate) fn is_preflight(request: &Request<'_, '_>) -> bool {
        let has = |name| request.header(name).is_some();
        request.method == "OPTIONS" && has("origin") && has("access-control-request-method")
    }

    /// The answer to a preflight: the method of the path, and the fields that it reads.
    pub(crate) fn preflight(&self, method: &str, fields: &str) -> Response {
        self.add_to(Response::text(204, ""))
            .with("Access-Control-Allow-Methods", method)
            .with("Access-Control-Allow-Headers", fields)
            .with("Access-Control-Max-Age", "7200")
    }

    /// The answer to a page of an origin that is not allowed.
    pub(crate) fn refused() -> Response {
        Response::text(403, "pages of this origin may not read this; see --allow-origin\n")
    }

    /// Adds the CORS headers to a response.
    pub(crate) fn add_to(&self, response: Response) -> Response {
        match &self.0 {
            None => response,
            Some(origin) => {
                response.with("Access-Control-Allow-Origin", origin).with("Vary", "Origin")
            }
        }
    }
}
