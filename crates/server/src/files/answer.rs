//! Answers to requests for a file: the whole file, a part, or 304 if the client has it already.

use httpdate::HttpDate;
use murre_codec::http::{Request, Response};

use super::File;
use super::range::{Requested, requested};

impl File {
    /// The answer to GET or HEAD.
    pub(super) fn answer(&self, request: &Request<'_, '_>) -> Response {
        if !self.is_meant(request) {
            return Response::text(412, "it is not what you expect\n");
        }
        if self.is_known(request) {
            let headers = self.headers_unchanged.clone();
            return Response { headers, ..Response::text(304, "") };
        }
        let whole = Response {
            content_type: self.content_type,
            headers: self.headers.clone(),
            ..Response::text(200, self.content.clone())
        };
        let size = self.content.len();
        match self.requested(request) {
            Requested::Whole => whole,
            Requested::Part(part) => {
                let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                let whole = whole.with("Content-Range", &range);
                Response { status: 206, body: self.content.slice(part), ..whole }
            }
            Requested::Beyond => Response::text(416, "it has no such bytes\n")
                .with("Content-Range", &format!("bytes */{size}")),
        }
    }

    /// Whether the preconditions of the request hold. As in [`is_known`](File::is_known), a tag
    /// takes precedence over a date (RFC 9110 section 13.2.2).
    fn is_meant(&self, request: &Request<'_, '_>) -> bool {
        match self.is_listed(request, "if-match", |tag| tag) {
            Some(listed) => listed,
            None => date(request, "if-unmodified-since").is_none_or(|since| self.modified <= since),
        }
    }

    /// Whether the client has the current version of the file already.
    fn is_known(&self, request: &Request<'_, '_>) -> bool {
        match self.is_listed(request, "if-none-match", strengthened) {
            Some(listed) => listed,
            None => date(request, "if-modified-since").is_some_and(|since| self.modified <= since),
        }
    }

    /// Whether the fields of this name list the file's tag; `None` if the request has no such
    /// field. The tag has no comma and is in quotes, so no part of another tag can be taken for it.
    fn is_listed(
        &self,
        request: &Request<'_, '_>,
        name: &str,
        compared: fn(&[u8]) -> &[u8],
    ) -> Option<bool> {
        let mut fields = request.headers_named(name).peekable();
        fields.peek()?;
        let mut tags = fields.flat_map(|field| field.split(|&byte| byte == b','));
        Some(tags.any(|tag| match tag.trim_ascii() {
            b"*" => true,
            tag => compared(tag) == self.tag.as_bytes(),
        }))
    }

    /// The requested range. With `If-Range` it counts only if the client has a part of this
    /// version.
    fn requested(&self, request: &Request<'_, '_>) -> Requested {
        // A date in `If-Range` never fits, because two versions may have the same date (section
        // 13.1.5).
        let begun = request.headers_named("if-range").all(|tag| tag == self.tag.as_bytes());
        let mut fields = request.headers_named("range");
        match (request.method, fields.next(), fields.next()) {
            // Other methods ignore `Range` (section 14.2).
            ("GET", Some(field), None) if begun => requested(field, self.content.len()),
            _ => Requested::Whole,
        }
    }
}

/// The tag without the mark of a weak tag. `If-None-Match` compares weakly (section 13.1.2),
/// because a proxy may have weakened the tag.
fn strengthened(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The date in the only field of this name; `None` if the date is malformed.
fn date(request: &Request<'_, '_>, name: &str) -> Option<HttpDate> {
    let mut fields = request.headers_named(name);
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    /// A file with the content `0123456789` and a fixed time of modification.
    fn digits() -> File {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        File::new(b"0123456789".to_vec(), "text/plain; charset=utf-8", modified, None)
    }

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    /// The status and the answer to a request with these fields.
    fn answer(method: &str, fields: &str) -> (u16, Response) {
        let file = digits();
        let fields = fields.replace("TAG", &file.tag);
        let head = format!("{method} / HTTP/1.1\r\nHost: m\r\n{fields}\r\n");
        let mut room = http::fields();
        let mut decoder = RequestDecoder::default();
        match decoder.decode(head.as_bytes(), &mut room, &RequestLimits::default()) {
            Ok(Progress::Request(request)) => {
                let response = file.answer(&request);
                (response.status, response)
            }
            _ => panic!("{head:?} is no whole request"),
        }
    }

    /// Without conditions the answer is the whole file, with the fields for later conditional
    /// requests.
    #[test]
    fn the_whole_says_how_to_ask_again() {
        for method in ["GET", "HEAD"] {
            let (status, response) = answer(method, "");
            assert_eq!((status, &response.body[..]), (200, &b"0123456789"[..]));
            for (name, value) in [
                ("ETag", digits().tag.as_str()),
                ("Last-Modified", MODIFIED),
                ("Accept-Ranges", "bytes"),
                ("Cache-Control", "no-cache"),
                ("X-Content-Type-Options", "nosniff"),
            ] {
                assert_eq!(response.headers.get(name), Some(value), "{name}");
            }
        }
    }

    /// Every condition of RFC 9110 section 13.1 is obeyed, and tags take precedence over dates.
    #[test]
    fn conditions_are_obeyed() {
        let dates = |name: &str, date: &str| format!("{name}: {date}\r\n");
        for (fields, status) in [
            ("If-None-Match: TAG\r\n".to_owned(), 304),
            ("If-None-Match: W/TAG\r\n".into(), 304),
            ("If-None-Match: \"x\", \"a,b\" ,,TAG\r\n".into(), 304),
            ("If-None-Match: \"x\"\r\nIf-None-Match: TAG\r\n".into(), 304),
            ("If-None-Match: *\r\n".into(), 304),
            ("If-None-Match: \"x\", W/\"y\"\r\n".into(), 200),
            ("If-None-Match: \r\n".into(), 200),
            ("If-None-Match: w/TAG\r\n".into(), 200),
            ("If-Match: TAG\r\n".into(), 200),
            ("If-Match: *\r\n".into(), 200),
            ("If-Match: W/TAG\r\n".into(), 412),
            ("If-Match: \"x\"\r\n".into(), 412),
            ("If-Match: \"x\"\r\nIf-None-Match: TAG\r\n".into(), 412),
            (dates("If-Modified-Since", MODIFIED), 304),
            (dates("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT"), 304),
            (dates("If-Modified-Since", EARLIER), 200),
            (dates("If-Modified-Since", "yesterday"), 200),
            (dates("If-Modified-Since", MODIFIED).repeat(2), 200),
            (dates("If-Modified-Since", MODIFIED) + "If-None-Match: \"x\"\r\n", 200),
            (dates("If-Unmodified-Since", MODIFIED), 200),
            (dates("If-Unmodified-Since", EARLIER), 412),
            (dates("If-Unmodified-Since", "tomorrow"), 200),
            (dates("If-Unmodified-Since", EARLIER) + "If-Match: TAG\r\n", 200),
        ] {
            assert_eq!(answer("GET", &fields).0, status, "{fields:?}");
            assert_eq!(answer("HEAD", &fields).0, status, "{fields:?}");
        }
    }

    /// An answer 304 has the tag of the current version (section 15.4.5) and no fields about its
    /// content.
    #[test]
    fn unchanged_is_said_with_the_tag() {
        let (_, response) = answer("GET", "If-None-Match: *\r\n");
        assert_eq!(response.headers.get("ETag"), Some(digits().tag.as_str()));
        assert_eq!(response.headers.get("Cache-Control"), Some("no-cache"));
        assert_eq!(response.headers.get("Last-Modified"), None);
        assert!(response.body.is_empty());
    }

    /// An answer with a part names its range, and shares its bytes with the whole file.
    #[test]
    fn parts_are_told_by_their_place() {
        for (field, status, body, place) in [
            ("bytes=0-0", 206, "0", Some("bytes 0-0/10")),
            ("bytes=8-99", 206, "89", Some("bytes 8-9/10")),
            ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
            ("bytes=0-", 206, "0123456789", Some("bytes 0-9/10")),
            ("bytes=0-1,5-6", 200, "0123456789", None),
            ("bytes=10-", 416, "it has no such bytes\n", Some("bytes */10")),
        ] {
            let (answered, response) = answer("GET", &format!("Range: {field}\r\n"));
            assert_eq!((answered, &response.body[..]), (status, body.as_bytes()), "{field}");
            assert_eq!(response.headers.get("Content-Range"), place, "{field}");
            let tag = (status != 416).then(|| digits().tag);
            assert_eq!(response.headers.get("ETag"), tag.as_deref(), "{field}");
        }
    }

    /// A range counts only if it is the only one, in a GET, and of the version that the client has.
    /// The conditions are checked first.
    #[test]
    fn ranges_have_conditions() {
        for (method, fields, status) in [
            ("GET", "If-Range: TAG\r\n".to_owned(), 206),
            ("GET", "If-Range: W/TAG\r\n".into(), 200),
            ("GET", "If-Range: \"x\"\r\n".into(), 200),
            ("GET", format!("If-Range: {MODIFIED}\r\n"), 200),
            ("GET", "Range: bytes=3-4\r\n".into(), 200),
            ("GET", "If-None-Match: TAG\r\n".into(), 304),
            ("GET", "If-Match: \"x\"\r\n".into(), 412),
            ("HEAD", String::new(), 200),
        ] {
            let fields = format!("{fields}Range: bytes=1-2\r\n");
            assert_eq!(answer(method, &fields).0, status, "{method} {fields:?}");
        }
        assert_eq!(answer("GET", "If-Range: \"x\"\r\nRange: bytes=99-\r\n").0, 200);
    }
}
