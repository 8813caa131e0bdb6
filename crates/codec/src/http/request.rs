//! Requests, as a server receives them.

use std::net::Ipv6Addr;

use httparse::Header;

use super::head::{self, BodyLength, Fields, HeadError, HeadPosition};

/// How much of a request a server takes.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of the request line and all fields.
    pub max_head_bytes: u32,
    /// Bytes of the request target.
    pub max_target_bytes: u32,
    /// Bytes of the body.
    pub max_body_bytes: u32,
    /// Header fields, up to [`HEADERS_MAX`](super::HEADERS_MAX).
    pub max_header_fields: u16,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            max_head_bytes: 32 * 1024,
            max_target_bytes: 28 * 1024,
            max_body_bytes: 1 << 20,
            max_header_fields: 100,
        }
    }
}

/// The position of one connection in a request. Holds positions, never bytes.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    position: HeadPosition,
}

const _: () = assert!(size_of::<RequestDecoder>() <= 16);

/// What there is of a request.
#[derive(Debug)]
pub enum Progress<'b, 'h> {
    /// Not all of it: call again with bytes added.
    Partial,
    /// The head, and the client waits for [`CONTINUE`](super::CONTINUE) before it sends the body.
    /// Send that once, and call again with bytes added.
    Continue,
    /// All of it.
    Request(Request<'b, 'h>),
}

/// A complete request.
#[derive(Debug)]
pub struct Request<'b, 'h> {
    /// The method as sent: methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'b str,
    /// The target as sent: path and query.
    pub target: &'b str,
    /// The fields in their order.
    pub headers: &'h [Header<'b>],
    /// The body.
    pub body: &'b [u8],
    /// Size of the request in bytes of input.
    pub size: usize,
    /// Whether the connection may be used for another request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// The minor version of HTTP/1: 0 or 1.
    pub minor_version: u8,
}

impl<'b> Request<'b, '_> {
    /// The value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers_named(name).next()
    }

    /// The values of all fields of this name.
    pub fn headers_named(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        head::named(self.headers, name)
    }

    /// Whether a field of this name lists this member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        head::lists(self.headers, name, member)
    }

    /// The target up to its query, and without scheme and host if it has them (RFC 9112 section
    /// 3.2.2).
    pub fn path(&self) -> &'b str {
        let target = after_authority(self.target).unwrap_or(self.target);
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// The value of the query's first parameter of this name, as sent: escapes are left alone.
    pub fn query(&self, name: &str) -> Option<&'b str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (pair == name).then_some(""),
        })
    }

    /// Whether the client asks for an upgrade to WebSocket. A server must ignore `Upgrade` in HTTP/1.0,
    /// and without `Connection: upgrade` (RFC 9110 section 7.8).
    pub fn wants_websocket(&self) -> bool {
        self.minor_version >= 1
            && self.lists("upgrade", "websocket")
            && self.lists("connection", "upgrade")
    }
}

/// The reason that a request is refused. The connection must be closed, because the beginning of the
/// next request is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Not a request, or one with control characters, folded lines or bare line feeds.
    Malformed,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// HTTP/1.1 without `Host`, with several, or with a value that is no host (RFC 9112 section 3.2).
    Host,
    /// The length of the body is ambiguous: several lengths, one that is no number, or a transfer coding
    /// that gives none (RFC 9112 section 6.3).
    Length,
    /// A body in chunks, which is not supported.
    Chunked,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The head is longer than [`RequestLimits::max_head_bytes`], or has more fields than
    /// [`RequestLimits::max_header_fields`].
    HeadTooLong,
    /// The body is longer than the limit.
    BodyTooLong,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// A transfer coding that is not supported.
    Encoded,
    /// The method `CONNECT`, which is not supported.
    Tunnel,
}

impl RequestError {
    /// The status of the response (RFC 9110 section 15).
    pub fn status(self) -> u16 {
        match self {
            RequestError::Malformed | RequestError::Host | RequestError::Length => 400,
            RequestError::Chunked => 411,
            RequestError::BodyTooLong => 413,
            RequestError::TargetTooLong => 414,
            RequestError::Expectation => 417,
            RequestError::HeadTooLong => 431,
            RequestError::Encoded | RequestError::Tunnel => 501,
            RequestError::Version => 505,
        }
    }

    /// The body of the response: one line of text.
    pub fn reason(self) -> &'static str {
        match self {
            RequestError::Malformed => "not a well-formed HTTP/1.1 request\n",
            RequestError::Version => "only HTTP/1.0 and HTTP/1.1 are supported\n",
            RequestError::Host => "an HTTP/1.1 request must have exactly one Host\n",
            RequestError::Length => "the length of the body is ambiguous\n",
            RequestError::Chunked => "chunks are not supported: send a Content-Length\n",
            RequestError::TargetTooLong => "the request target is too long\n",
            RequestError::HeadTooLong => "the request head is too large\n",
            RequestError::BodyTooLong => "the body is too large\n",
            RequestError::Expectation => "only 'Expect: 100-continue' is supported\n",
            RequestError::Encoded => "this transfer coding is not supported\n",
            RequestError::Tunnel => "CONNECT is not supported\n",
        }
    }
}

impl From<HeadError> for RequestError {
    fn from(bad: HeadError) -> Self {
        match bad {
            HeadError::TooLong => RequestError::HeadTooLong,
            HeadError::Malformed => RequestError::Malformed,
        }
    }
}

impl RequestDecoder {
    /// Reads the request at the front of `input`, which must begin with the request's first byte at
    /// every call.
    ///
    /// # Errors
    /// The reason that the request is refused. The decoder must not be used after an error.
    pub fn decode<'b, 'h>(
        &mut self,
        input: &'b [u8],
        fields: &'h mut Fields<'b>,
        limits: &RequestLimits,
    ) -> Result<Progress<'b, 'h>, RequestError> {
        let lead = empty_lines(input)?;
        let rest = &input[lead..];
        // Half an empty line: the scan begins behind whole ones. Or the head has been read before, and
        // the body is incomplete.
        if rest == b"\r" || rest.len() < self.position.size as usize {
            return Ok(Progress::Partial);
        }
        self.check_early(rest, limits)?;
        let Some(head) = self.position.head(rest, limits.max_head_bytes)? else {
            return Ok(Progress::Partial);
        };
        let (mut request, wait) = parse(&rest[..head], fields, limits)?;
        let size = head.saturating_add(request.size);
        if rest.len() < size {
            // Head and body, each within its limit, may together exceed 4 GiB. Such a request is parsed
            // again with every piece beyond that.
            self.position.size = u32::try_from(size).unwrap_or(u32::MAX);
            return Ok(if wait { Progress::Continue } else { Progress::Partial });
        }
        *self = RequestDecoder::default();
        request.body = &rest[head..size];
        request.size = lead + size;
        Ok(Progress::Request(request))
    }

    /// Finds errors of a head before its end is here. Runs before every other check, so that the result
    /// does not depend on where the input is cut.
    fn check_early(&self, input: &[u8], limits: &RequestLimits) -> Result<(), RequestError> {
        // TLS, for instance, begins with a control character.
        if input.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
            return Err(RequestError::Malformed);
        }
        let target_max = limits.max_target_bytes as usize;
        // A line that leaves no room for fields is too long, whatever the limit of the target is.
        let head_max = (limits.max_head_bytes as usize).saturating_sub(1);
        let line_max = target_max.saturating_add(LINE_BYTES_BESIDE_TARGET).min(head_max);
        let looked = !self.position.has_scanned_at_most(line_max);
        if !looked && input.len() > line_max && !input[..line_max].contains(&b'\n') {
            return Err(RequestError::TargetTooLong);
        }
        Ok(())
    }

    /// Size in bytes of the request in progress, once its head has been read.
    pub fn size(&self) -> Option<u32> {
        (self.position.size > 0).then_some(self.position.size)
    }

    /// Whether a request has begun and is incomplete.
    pub fn in_request(&self) -> bool {
        self.position.has_begun()
    }
}

/// The number of bytes of empty lines before a request, which a server ignores (RFC 9112 section 2.2).
fn empty_lines(input: &[u8]) -> Result<usize, RequestError> {
    let lines = input.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
    if lines > EMPTY_LINES_MAX { Err(RequestError::Malformed) } else { Ok(2 * lines) }
}

/// Largest number of empty lines: some clients send one after a body.
const EMPTY_LINES_MAX: usize = 4;
/// Largest number of bytes of method, version and spaces in a request line.
const LINE_BYTES_BESIDE_TARGET: usize = 64;

/// Reads a complete head and checks it. Returns the request, with the body's length as its size, and
/// whether the client waits for [`CONTINUE`](super::CONTINUE).
fn parse<'b, 'h>(
    head: &'b [u8],
    fields: &'h mut Fields<'b>,
    limits: &RequestLimits,
) -> Result<(Request<'b, 'h>, bool), RequestError> {
    let room = fields.len().min(limits.max_header_fields.into());
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields[..room]) {
        Ok(httparse::Status::Complete(size)) if size == head.len() => {}
        Ok(_) => return Err(RequestError::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::HeadTooLong),
        Err(httparse::Error::Version) if names_a_version(head) => {
            return Err(RequestError::Version);
        }
        Err(_) => return Err(RequestError::Malformed),
    }
    let httparse::Request { method, path, version, headers } = parsed;
    let (Some(method), Some(target), Some(minor_version)) = (method, path, version) else {
        return Err(RequestError::Malformed);
    };
    if target.len() > limits.max_target_bytes as usize {
        return Err(RequestError::TargetTooLong);
    }
    // The bytes that follow the head of a tunnel need not be a request.
    if method == "CONNECT" {
        return Err(RequestError::Tunnel);
    }
    if !is_target(target, method) {
        return Err(RequestError::Malformed);
    }
    let headers: &'h [Header<'b>] = headers;
    check_host(headers, minor_version)?;
    let body = match head::body_length(headers) {
        BodyLength::None => 0,
        BodyLength::Bytes(bytes) => bytes,
        BodyLength::Encoded(codings) => return Err(refused_coding(codings, minor_version)),
        BodyLength::Ambiguous => return Err(RequestError::Length),
    };
    let wait = expects_continue(headers, minor_version)?;
    if body > u64::from(limits.max_body_bytes) {
        return Err(RequestError::BodyTooLong);
    }
    let keep_alive = head::keep_alive(headers, minor_version);
    let size = body as usize; // At most `max_body_bytes`.
    Ok((Request { method, target, headers, body: &[], size, keep_alive, minor_version }, wait))
}

/// Whether the third part of the request line is an HTTP version (RFC 9112 section 2.3), supported or
/// not.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    matches!(
        line.splitn(3, |&byte| byte == b' ').nth(2),
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit()
    )
}

/// Whether a target has a form of RFC 9112 section 3.2: a path, a URI, or `*` of OPTIONS. No form has a
/// fragment, which some programs cut off and others take for a part of the path.
fn is_target(target: &str, method: &str) -> bool {
    let known = (method, target) == ("OPTIONS", "*") || after_authority(target).is_some();
    known && target.is_ascii() && !target.contains('#')
}

/// The path and query of a target: the target itself, or the part after the host of a URI.
fn after_authority(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority) {
        return None;
    }
    // A host without a path stands for the root.
    Some(if path.starts_with('/') { path } else { "/" })
}

/// Whether this is a host with an optional port. A URI without a host is invalid (RFC 9110 section
/// 4.2.1), and so is one with user information (section 4.2.4).
fn is_authority(authority: &str) -> bool {
    !matches!(authority.as_bytes(), [] | [b':', ..]) && is_host(authority.as_bytes())
}

/// Whether this is a host as in a URI, with an optional port (RFC 3986 sections 3.2.2 and 3.2.3).
fn is_host(bytes: &[u8]) -> bool {
    let port = match bytes.strip_prefix(b"[") {
        None => &bytes[bytes.iter().take_while(|byte| is_of_name(byte)).count()..],
        Some(rest) => match rest.iter().position(|&byte| byte == b']') {
            Some(end) if is_address(&rest[..end]) => &rest[end + 1..],
            _ => return false,
        },
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn is_of_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte)
}

/// Whether this is an IPv6 address with an optional zone (RFC 6874).
fn is_address(bytes: &[u8]) -> bool {
    let address = bytes.split(|&byte| byte == b'%').next().unwrap_or_default();
    let text = std::str::from_utf8(address).unwrap_or_default();
    text.parse::<Ipv6Addr>().is_ok() && bytes.iter().all(|byte| is_of_name(byte) || *byte == b':')
}

/// Checks for exactly one `Host` in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 section 3.2).
fn check_host(headers: &[Header<'_>], minor_version: u8) -> Result<(), RequestError> {
    let mut hosts = head::named(headers, "host");
    let known = hosts.next().map_or(minor_version == 0, is_host);
    if known && hosts.next().is_none() { Ok(()) } else { Err(RequestError::Host) }
}

/// The error of a request with a transfer coding. Only chunks give the end of a body, and HTTP/1.0 has
/// no codings (RFC 9112 sections 6.1 and 6.3). A server need not support chunks: it may ask for a
/// length instead (section 6.3).
fn refused_coding(codings: &[u8], minor_version: u8) -> RequestError {
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let chunks = head::members(codings).filter(is_chunked).count();
    let chunks_are_last = head::members(codings).next_back().as_ref().is_some_and(is_chunked);
    match head::members(codings).count() {
        _ if minor_version == 0 || chunks != 1 || !chunks_are_last => RequestError::Length,
        1 => RequestError::Chunked,
        _ => RequestError::Encoded,
    }
}

/// Whether the client waits for [`CONTINUE`](super::CONTINUE). HTTP/1.0 has no expectations (RFC 9110
/// section 10.1.1).
fn expects_continue(headers: &[Header<'_>], minor_version: u8) -> Result<bool, RequestError> {
    let mut expected = head::named(headers, "expect").peekable();
    if minor_version == 0 || expected.peek().is_none() {
        return Ok(false);
    }
    let known = expected.all(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if known { Ok(true) } else { Err(RequestError::Expectation) }
}
