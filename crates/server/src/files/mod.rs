//! Static files: a folder that is read into memory once at start, and served from memory.
//!
//! A shard does no file I/O, so all files are in one map from paths to contents. A request can only
//! find paths in the map, so none can lead out of the folder.

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

/// All files by their paths. The shards share one map.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The entries by path, unescaped and from the first slash on. Names need not be UTF-8.
    paths: HashMap<Box<[u8]>, Entry>,
    /// The page for paths without a file, for single-page applications.
    fallback: Option<Arc<Forms>>,
    count: usize,
    bytes: u64,
}

/// The entry at a path.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A file. A folder's `index.html` is at the folder's path, too.
    File(Arc<Forms>),
    /// A folder whose path in the request lacks the last slash. Browsers need the slash to resolve
    /// links in the folder's page.
    Redirect {
        /// The path of the folder with the slash, escaped.
        location: String,
    },
}

/// A file and its encoded forms.
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
    /// The entity tag, with its quotes. It is a strong tag, because it is made from the content
    /// alone.
    tag: String,
    modified: HttpDate,
    /// The header fields of answers with the content or a part of it.
    headers: Headers,
    /// The header fields of answers 304.
    headers_unchanged: Headers,
}

impl Files {
    /// The entry at `path`, which has the form that the client sent.
    pub(crate) fn find(&self, path: &str) -> Option<&Entry> {
        let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
        // An escaped slash is not a separator (RFC 3986 section 2.2), and no name contains a slash.
        (slashes(&decoded) == slashes(path.as_bytes())).then(|| self.paths.get(&*decoded))?
    }

    /// The answer to a request for a path without a file: the fallback page if the path and
    /// `Accept` show that a browser asks for a page; `None` for a missing script or picture.
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

    /// The number of files.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The bytes of memory that the files take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|&&byte| byte == b'/').count()
}

impl Forms {
    /// The answer to GET or HEAD, in the form that the client prefers.
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
