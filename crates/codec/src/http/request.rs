//! Requests, as a server receives them.

use std::net::Ipv6Addr;

use httparse::Header;

use super::head::{self, BadHead, BodyLength, Fields, Position};

/// How much of a request a server takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the request line and all fields.
    pub head_bytes_max: u32,
    /// Bytes of the request target.
    pub target_bytes_max: u32,
    /// Bytes of the body.
    pub body_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head_bytes_max: 8192, target_bytes_max: 4096, body_bytes_max: 65_536 }
    }
}

/// Where one connection stands in a request. Holds positions, never bytes.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    position: Position,
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

/// A whole request.
#[derive(Debug)]
pub struct Request<'b, 'h> {
    /// As sent: methods are case-sensitive.
    pub method: &'b str,
    /// The target as sent: path and query.
    pub target: &'b str,
    /// The fields in their order.
    pub headers: &'h [Header<'b>],
    /// The body.
    pub body: &'b [u8],
    /// Bytes of input that the request takes up.
    pub size: usize,
    /// The connection may be used for another.
    pub keep_alive: bool,
    /// 0 of HTTP/1.0, 1 of HTTP/1.1.
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

    /// Whether the client asks to speak WebSocket from here on. In HTTP/1.0, and without `Connection`,
    /// an `Upgrade` is to be ignored (RFC 9110 section 7.8).
    pub fn wants_websocket(&self) -> bool {
        self.minor_version >= 1
            && self.lists("upgrade", "websocket")
            && self.lists("connection", "upgrade")
    }
}

/// Why a request is refused. The connection cannot be used for another: where that would begin is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// Not a request, or one with control characters, folded lines or bare line ends.
    Malformed,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// HTTP/1.1 with no `Host`, more than one, or one that is no host.
    Host,
    /// Two lengths, or one that is not a number, or a transfer coding that gives none.
    Length,
    /// A body in chunks, of which we take none.
    Chunked,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The head is longer than the limit, or has too many fields.
    HeadTooLong,
    /// The body is longer than the limit.
    BodyTooLong,
    /// An expectation other than `100-continue`.
    Expectation,
    /// A transfer coding that we do not know.
    Encoded,
    /// A tunnel, of which we open none.
    Tunnel,
}

impl BadRequest {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            BadRequest::Malformed | BadRequest::Host | BadRequest::Length => 400,
            BadRequest::Chunked => 411,
            BadRequest::BodyTooLong => 413,
            BadRequest::TargetTooLong => 414,
            BadRequest::Expectation => 417,
            BadRequest::HeadTooLong => 431,
            BadRequest::Encoded | BadRequest::Tunnel => 501,
            BadRequest::Version => 505,
        }
    }

    /// What to tell the client.
    pub fn reason(self) -> &'static str {
        match self {
            BadRequest::Malformed => "not a well-formed HTTP/1.1 request\n",
            BadRequest::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here\n",
            BadRequest::Host => "an HTTP/1.1 request has exactly one Host\n",
            BadRequest::Length => "the length of the body is not clear\n",
            BadRequest::Chunked => "chunks are not taken: send a Content-Length\n",
            BadRequest::TargetTooLong => "the request target is too long\n",
            BadRequest::HeadTooLong => "the request head is too large\n",
            BadRequest::BodyTooLong => "the body is too large\n",
            BadRequest::Expectation => "only 'Expect: 100-continue' is understood\n",
            BadRequest::Encoded => "this transfer coding is not understood\n",
            BadRequest::Tunnel => "there are no tunnels here\n",
        }
    }
}

impl From<BadHead> for BadRequest {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::TooLong => BadRequest::HeadTooLong,
            BadHead::Malformed => BadRequest::Malformed,
        }
    }
}

impl RequestDecoder {
    /// Reads the request at the front of `input`, which begins with its first byte every time.
    ///
    /// # Errors
    /// Why it is refused. Nothing more can be decoded after it.
    pub fn decode<'b, 'h>(
        &mut self,
        input: &'b [u8],
        fields: &'h mut Fields<'b>,
        limits: &Limits,
    ) -> Result<Progress<'b, 'h>, BadRequest> {
        let lead = empty_lines(input)?;
        let rest = &input[lead..];
        // Half an empty line is counted when it is whole: what is scanned begins behind it. Or the
        // head has been read before, and what follows is not all there.
        if rest == b"\r" || rest.len() < self.position.size as usize {
            return Ok(Progress::Partial);
        }
        self.check_early(rest, limits)?;
        let Some(head) = self.position.head(rest, limits.head_bytes_max)? else {
            return Ok(Progress::Partial);
        };
        let (mut request, wait) = parse(&rest[..head], fields, limits)?;
        let size = head.saturating_add(request.size);
        if rest.len() < size {
            // A head and a body, each within its limit, may together be longer than we can note. Such
            // a request is looked at again with every piece beyond that.
            self.position.size = u32::try_from(size).unwrap_or(u32::MAX);
            return Ok(if wait { Progress::Continue } else { Progress::Partial });
        }
        *self = RequestDecoder::default();
        request.body = &rest[head..size];
        request.size = lead + size;
        Ok(Progress::Request(request))
    }

    /// What a head shows to be wrong before its end is here. Comes before everything else, so that
    /// the answer does not depend on how much of the request is here.
    fn check_early(&self, input: &[u8], limits: &Limits) -> Result<(), BadRequest> {
        // TLS, for instance, begins with a control character.
        if input.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
            return Err(BadRequest::Malformed);
        }
        let target_max = limits.target_bytes_max as usize;
        let line_max = target_max.saturating_add(LINE_BYTES_BESIDE_TARGET);
        let looked = !self.position.has_scanned_at_most(line_max);
        if !looked && input.len() > line_max && !input[..line_max].contains(&b'\n') {
            return Err(BadRequest::TargetTooLong);
        }
        Ok(())
    }

    /// How long the request is that is arriving, once its head has been read.
    pub fn size(&self) -> Option<u32> {
        (self.position.size > 0).then_some(self.position.size)
    }

    /// Whether bytes of a request have been seen and its end has not.
    pub fn in_request(&self) -> bool {
        self.position.has_begun()
    }
}

/// Bytes of empty lines in front of a request, which are let pass (RFC 9112 section 2.2).
fn empty_lines(input: &[u8]) -> Result<usize, BadRequest> {
    let lines = input.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
    if lines > EMPTY_LINES_MAX { Err(BadRequest::Malformed) } else { Ok(2 * lines) }
}

/// Some clients send one after a body; nobody sends many.
const EMPTY_LINES_MAX: usize = 4;
/// A request line's method and version and the spaces between take no more than this.
const LINE_BYTES_BESIDE_TARGET: usize = 64;

/// Reads a whole head and checks it. Gives the request with the body's length as its size, and
/// whether the client waits to be told to go on.
fn parse<'b, 'h>(
    head: &'b [u8],
    fields: &'h mut Fields<'b>,
    limits: &Limits,
) -> Result<(Request<'b, 'h>, bool), BadRequest> {
    let mut parsed = httparse::Request::new(fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(size)) if size == head.len() => {}
        Ok(_) => return Err(BadRequest::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::HeadTooLong),
        Err(httparse::Error::Version) if names_a_version(head) => return Err(BadRequest::Version),
        Err(_) => return Err(BadRequest::Malformed),
    }
    let httparse::Request { method, path, version, headers } = parsed;
    let (Some(method), Some(target), Some(minor_version)) = (method, path, version) else {
        return Err(BadRequest::Malformed);
    };
    if target.len() > limits.target_bytes_max as usize {
        return Err(BadRequest::TargetTooLong);
    }
    // What follows a tunnel's head may be meant for its other end, and not be a request.
    if method == "CONNECT" {
        return Err(BadRequest::Tunnel);
    }
    if !is_target(target, method) {
        return Err(BadRequest::Malformed);
    }
    let headers: &'h [Header<'b>] = headers;
    check_host(headers, minor_version)?;
    let body = match head::body_length(headers) {
        BodyLength::None => 0,
        BodyLength::Bytes(bytes) => bytes,
        BodyLength::Encoded(codings) => return Err(refused_coding(codings, minor_version)),
        BodyLength::Ambiguous => return Err(BadRequest::Length),
    };
    let wait = expects_continue(headers, minor_version)?;
    if body > u64::from(limits.body_bytes_max) {
        return Err(BadRequest::BodyTooLong);
    }
    let keep_alive = head::keep_alive(headers, minor_version);
    let size = body as usize; // At most `body_bytes_max`.
    Ok((Request { method, target, headers, body: &[], size, keep_alive, minor_version }, wait))
}

/// Whether the third part of the request line is an HTTP version (RFC 9112 section 2.3), even if not
/// ours.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    matches!(
        line.splitn(3, |&byte| byte == b' ').nth(2),
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit()
    )
}

/// The forms of RFC 9112 section 3.2: a path, a URI, or what OPTIONS asks of no path. None has a
/// fragment, which some programs cut off and others take for part of the path.
fn is_target(target: &str, method: &str) -> bool {
    let known = (method, target) == ("OPTIONS", "*") || after_authority(target).is_some();
    known && target.is_ascii() && !target.contains('#')
}

/// The path and query of a target that has a path: the target itself, or what follows the host.
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

/// A host, and perhaps a port. Without a host it is to be refused (RFC 9110 section 4.2.1), and so is
/// a user before it (section 4.2.4).
fn is_authority(authority: &str) -> bool {
    !matches!(authority.as_bytes(), [] | [b':', ..]) && is_host(authority.as_bytes())
}

/// A host as a URI has it, and perhaps a port (RFC 3986 sections 3.2.2 and 3.2.3).
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

/// An IPv6 address, and perhaps the zone it is in (RFC 6874).
fn is_address(bytes: &[u8]) -> bool {
    let address = bytes.split(|&byte| byte == b'%').next().unwrap_or_default();
    let text = std::str::from_utf8(address).unwrap_or_default();
    text.parse::<Ipv6Addr>().is_ok() && bytes.iter().all(|byte| is_of_name(byte) || *byte == b':')
}

/// Exactly one `Host` in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 section 3.2).
fn check_host(headers: &[Header<'_>], minor_version: u8) -> Result<(), BadRequest> {
    let mut hosts = head::named(headers, "host");
    let known = hosts.next().map_or(minor_version == 0, is_host);
    if known && hosts.next().is_none() { Ok(()) } else { Err(BadRequest::Host) }
}

/// What is wrong with a request that has a transfer coding. The body ends where chunks end or nobody
/// knows where, and HTTP/1.0 has no codings (RFC 9112 sections 6.1 and 6.3). Chunks need not be taken:
/// a server may ask for a length instead (section 6.3).
fn refused_coding(codings: &[u8], minor_version: u8) -> BadRequest {
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let chunks = head::members(codings).filter(is_chunked).count();
    let chunks_are_last = head::members(codings).next_back().as_ref().is_some_and(is_chunked);
    match head::members(codings).count() {
        _ if minor_version == 0 || chunks != 1 || !chunks_are_last => BadRequest::Length,
        1 => BadRequest::Chunked,
        _ => BadRequest::Encoded,
    }
}

/// HTTP/1.0 knows no expectations (RFC 9110 section 10.1.1).
fn expects_continue(headers: &[Header<'_>], minor_version: u8) -> Result<bool, BadRequest> {
    let mut expected = head::named(headers, "expect").peekable();
    if minor_version == 0 || expected.peek().is_none() {
        return Ok(false);
    }
    let known = expected.all(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if known { Ok(true) } else { Err(BadRequest::Expectation) }
}
