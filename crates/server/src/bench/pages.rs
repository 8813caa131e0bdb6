//! The pages of `--bench`: streaming quotes, as in the comparison of 2012, and a chat of Phoenix clients.

use murre_codec::http::Response;

/// A file that is part of the binary.
#[derive(Debug)]
pub(crate) struct Page {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// The path below which the chat page connects.
pub(crate) const CHAT_MOUNT: &str = "/demo/socket";

static PAGES: [Page; 11] = [
    Page {
        path: "/demo/demo.css",
        content_type: "text/css; charset=utf-8",
        body: include_str!("demo.css"),
    },
    Page {
        path: "/demo/chat",
        content_type: "text/html; charset=utf-8",
        body: include_str!("chat/index.html"),
    },
    Page {
        path: "/demo/chat.css",
        content_type: "text/css; charset=utf-8",
        body: include_str!("chat/chat.css"),
    },
    Page {
        path: "/demo/chat.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("chat/chat.js"),
    },
    Page {
        path: "/demo/phoenix.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("phoenix/phoenix.min.js"),
    },
    Page {
        path: "/demo/phoenix.txt",
        content_type: "text/plain; charset=utf-8",
        body: include_str!("phoenix/LICENSE.md"),
    },
    Page {
        path: "/demo/quotes",
        content_type: "text/html; charset=utf-8",
        body: include_str!("quotes/index.html"),
    },
    Page {
        path: "/demo/quotes.css",
        content_type: "text/css; charset=utf-8",
        body: include_str!("quotes/quotes.css"),
    },
    Page {
        path: "/demo/quotes.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("quotes/quotes.js"),
    },
    Page {
        path: "/demo/murre.svg",
        content_type: "image/svg+xml",
        body: include_str!("quotes/murre.svg"),
    },
    Page {
        path: "/demo/murre.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("../../../../clients/js/murre.js"),
    },
];

/// The page at `path`, if there is one.
pub(crate) fn page(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

impl Page {
    /// The answer with the page. Its policy allows it to load only resources of its own origin.
    pub(crate) fn answer(&self) -> Response {
        Response { content_type: self.content_type, ..Response::text(200, self.body) }
            .with("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
            .with("Cache-Control", "no-cache")
            .with("X-Content-Type-Options", "nosniff")
    }
}
