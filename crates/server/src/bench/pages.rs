//! The pages of `--bench`: streaming quotes, as the comparison of 2012 had them.

use murre_codec::http::Response;

/// A file that is part of the binary.
#[derive(Debug)]
pub(crate) struct Page {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

static PAGES: [Page; 0] = [];

/// The page at `path`, if there is one.
pub(crate) fn page(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

impl Page {
    /// The page, which may load what is its own and nothing else.
    pub(crate) fn answer(&self) -> Response {
        Response { content_type: self.content_type, ..Response::text(200, self.body) }
            .with("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
            .with("Cache-Control", "no-cache")
            .with("X-Content-Type-Options", "nosniff")
    }
}
