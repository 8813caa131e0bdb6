//! Static files: a folder that is read into memory once, at start, and served from there.
//!
//! A shard does no file I/O, so all there is to be served is in one map from paths to contents. No
//! path leads out of the folder, because there is nothing to be led out of: what is not in the map is
//! not there.

mod answer;
mod encodings;
mod load;
mod media_types;
mod range;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use httpdate::HttpDate;
use murre_codec::http::{Headers, Request, Response};
use percent_encoding::percent_decode_str;

use encodings::Coding;
pub(crate) use load::FilesError;

/// All that can be asked for, by its path: the same for all shards.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// By path as it is written without escapes, from the first slash on. Names need not be UTF-8.
    paths: HashMap<Box<[u8]>, Entry>,
    /// The page of paths at which there is nothing, for applications of one page.
    fallback: Option<Arc<Forms>>,
    count: usize,
    bytes: u64,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A file. A folder's `index.html` is at the folder's path, too.
    File(Arc<Forms>),
    /// A folder that was named without its last slash, against which links in its page are resolved.
    Redirect {
        /// The whole path with the slash, escaped.
        location: String,
    },
}

/// A file, and its encoded forms.
#[derive(Debug)]
pub(crate) struct Forms {
    file: File,
    encoded: Vec<(Coding, File)>,
}

/// A file as it was at start.
#[derive(Debug)]
pub(crate) struct File {
    content: Bytes,
    content_type: &'static str,
    /// The entity tag, with its quotes: strong, as it is made from the content alone.
    tag: String,
    modified: HttpDate,
    /// What goes with the content, or a part of it.
    headers: Headers,
    /// What goes with the word that it has not changed.
    headers_unchanged: Headers,
}

impl Files {
    /// What is at `path`, which is as the client sent it.
    pub(crate) fn find(&self, path: &str) -> Option<&Entry> {
        let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
        // An escaped slash is not one that separates (RFC 3986 section 2.2), and no name has one.
        (slashes(&decoded) == slashes(path.as_bytes())).then(|| self.paths.get(&*decoded))?
    }

    /// The page for a request of a path at which there is nothing: where a browser asks for a page, as the
    /// path and `Accept` say, not for a script or a picture that is missing.
    pub(crate) fn fallback(&self, request: &Request<'_, '_>) -> Option<Response> {
        let forms = self.fallback.as_ref()?;
        let name = request.path().rsplit('/').next().unwrap_or_default();
        let mut accepted = request.headers_named("accept").peekable();
        let takes_page = accepted.peek().is_none()
            || accepted.flat_map(|list| list.split(|&byte| byte == b',')).any(|range| {
                let range = range.split(|&byte| byte == b';').next().unwrap_or_default();
                [&b"text/html"[..], b"text/*", b"*/*"].contains(&range.trim_ascii())
            });
        let is_page = matches!(request.method, "GET" | "HEAD") && !name.contains('.') && takes_page;
        is_page.then(|| forms.answer(request))
    }

    /// How many files there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|&&byte| byte == b'/').count()
}

impl Forms {
    /// The answer to GET or HEAD, in the form that the client likes best.
    fn answer(&self, request: &Request<'_, '_>) -> Response {
        encodings::selected(&self.file, &self.encoded, request).answer(request)
    }
}

impl Entry {
    /// The answer to GET or HEAD.
    pub(crate) fn answer(&self, request: &Request<'_, '_>) -> Response {
        match self {
            Entry::File(forms) => forms.answer(request),
            Entry::Redirect { location } => {
                let to = match request.target.split_once('?') {
                    Some((_, query)) if query.bytes().all(|byte| byte.is_ascii_graphic()) => {
                        &format!("{location}?{query}")
                    }
                    _ => location,
                };
                let moved = Response::text(301, "a folder's path ends with a slash\n");
                moved.with("Location", to).with("Cache-Control", "no-cache")
            }
        }
    }
}
