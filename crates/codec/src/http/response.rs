//! Responses, as a server sends and a client receives them.

use bytes::Bytes;
use httparse::Header;

use super::head::{self, BodyLength, Fields, HeadError, HeadPosition};
use super::headers::Headers;
use super::request::Request;

/// The interim answer that asks for the body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A response with its body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The media type of the body (RFC 9110 section 8.3).
    pub content_type: &'static str,
    /// The body; empty unless its length is that of [`Length::Body`].
    pub body: Bytes,
    /// How the client finds the end of the body.
    pub length: Length,
    /// Further header fields.
    pub headers: Headers,
}

/// How a response says where its body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// By `Content-Length`: the body is here.
    Body,
    /// By chunks, which are to follow: [`write_chunk`](super::write_chunk).
    Chunks,
    /// Not at all: the body, if there is one, ends with the connection. Also for answers to HEAD
    /// where the length of the answer to GET is not known (RFC 9110 section 9.3.2).
    Untold,
}

/// The properties of a request and its connection that change the bytes of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions<'a> {
    /// It answers a HEAD request: the body is not sent (RFC 9110 section 9.3.2).
    pub to_head: bool,
    /// The connection is kept for another request.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.`minor_version`.
    pub minor_version: u8,
    /// The time as an IMF-fixdate, which a server with a clock sends (RFC 9110 section 6.6.1).
    pub date: Option<&'a str>,
}

impl Default for ResponseOptions<'_> {
    /// To a GET request of HTTP/1.1, on a connection that is kept.
    fn default() -> Self {
        ResponseOptions { to_head: false, keep_alive: true, minor_version: 1, date: None }
    }
}

impl ResponseOptions<'_> {
    /// Those of an answer to `request`, on a connection that is kept.
    pub fn to(request: &Request<'_, '_>) -> Self {
        let to_head = request.method == "HEAD";
        ResponseOptions { to_head, minor_version: request.minor_version, ..Self::default() }
    }
}

impl Response {
    /// A response in plain text.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Response {
            status,
            content_type: "text/plain",
            body: body.into(),
            length: Length::Body,
            headers: Headers::default(),
        }
    }

    /// The response with one more header field.
    ///
    /// # Panics
    /// As [`Headers::with`] does.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers = self.headers.with(name, value);
        self
    }

    /// Whether the body follows the head.
    pub fn sends_body(&self, options: &ResponseOptions<'_>) -> bool {
        !options.to_head && !self.is_bodiless()
    }

    /// These end with their head (RFC 9110 sections 8.6, 15.3.5 and 15.4.5).
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Appends the head, and the body if that is sent.
    pub fn write(&self, out: &mut Vec<u8>, options: &ResponseOptions<'_>) {
        let body = if self.sends_body(options) { &self.body[..] } else { &[] };
        out.reserve(HEAD_BYTES_USUAL + body.len());
        self.write_head(out, options);
        out.extend_from_slice(body);
    }

    /// Appends the head alone.
    pub fn write_head(&self, out: &mut Vec<u8>, options: &ResponseOptions<'_>) {
        let mut put = |part: &str| out.extend_from_slice(part.as_bytes());
        put("HTTP/1.1 ");
        put(Decimal::default().write(usize::from(self.status)));
        put(" ");
        put(reason_phrase(self.status));
        if !self.is_bodiless() {
            put("\r\nContent-Type: ");
            put(self.content_type);
            match self.length {
                Length::Body => {
                    put("\r\nContent-Length: ");
                    put(Decimal::default().write(self.body.len()));
                }
                Length::Chunks => put("\r\nTransfer-Encoding: chunked"),
                Length::Untold => {}
            }
        }
        if let Some(date) = options.date {
            put("\r\nDate: ");
            put(date);
        }
        out.extend_from_slice(self.headers.lines());
        // Keeping alive goes without saying in HTTP/1.1, closing in HTTP/1.0.
        let end: &[u8] = match (options.keep_alive, options.minor_version) {
            (true, 0) => b"\r\nConnection: keep-alive\r\n\r\n",
            (false, 1..) => b"\r\nConnection: close\r\n\r\n",
            _ => b"\r\n\r\n",
        };
        out.extend_from_slice(end);
    }
}

/// Room for a head without many fields of its own.
const HEAD_BYTES_USUAL: usize = 256;

/// A number in decimal digits, written without the formatting machinery.
#[derive(Default)]
struct Decimal([u8; 20]);

impl Decimal {
    fn write(&mut self, mut number: usize) -> &str {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        std::str::from_utf8(&self.0[at..]).expect("digits")
    }
}

/// The reason phrase of a status (RFC 9110 section 15).
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // A client does not need them (RFC 9112 section 4).
        _ => "",
    }
}

/// A client's position in a response. Holds positions, never bytes.
#[derive(Debug, Default)]
pub struct ResponseDecoder {
    position: HeadPosition,
}

/// A complete response, as a client receives it.
#[derive(Debug)]
pub struct Received<'b, 'h> {
    /// The status code.
    pub status: u16,
    /// The fields in their order.
    pub headers: &'h [Header<'b>],
    /// The body.
    pub body: &'b [u8],
    /// Size of the response in bytes of input.
    pub size: usize,
    /// Whether the connection may be used for another request (RFC 9112 section 9.3).
    pub keep_alive: bool,
}

impl<'b> Received<'b, '_> {
    /// The value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        head::named(self.headers, name).next()
    }

    /// Whether a field of this name lists this member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        head::lists(self.headers, name, member)
    }
}

/// The reason that a client cannot read a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// Not an HTTP/1.x response.
    Malformed,
    /// A head longer than a client takes.
    HeadTooLong,
    /// No clear length: chunked, or until the connection ends.
    Length,
}

impl From<HeadError> for ResponseError {
    fn from(bad: HeadError) -> Self {
        match bad {
            HeadError::TooLong => ResponseError::HeadTooLong,
            HeadError::Malformed => ResponseError::Malformed,
        }
    }
}

/// Largest size of a head in bytes.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

impl ResponseDecoder {
    /// Reads the response to a request other than HEAD at the front of `input`, which begins with
    /// its first byte every time. `None`: it is not all there; call again with bytes added.
    ///
    /// # Errors
    /// What is wrong with it. Nothing more can be decoded after it.
    pub fn decode<'b, 'h>(
        &mut self,
        input: &'b [u8],
        fields: &'h mut Fields<'b>,
    ) -> Result<Option<Received<'b, 'h>>, ResponseError> {
        if input.len() < self.position.size as usize {
            return Ok(None);
        }
        let Some(head) = self.position.head(input, HEAD_BYTES_MAX)? else { return Ok(None) };
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let whole = parser.parse_response_with_uninit_headers(&mut parsed, &input[..head], fields);
        let httparse::Response { version, code, headers, .. } = parsed;
        let (Ok(httparse::Status::Complete(_)), Some(minor_version), Some(status)) =
            (whole, version, code)
        else {
            return Err(ResponseError::Malformed);
        };
        let headers: &'h [Header<'b>] = headers;
        let body = body_length(status, headers)?;
        let size = head.checked_add(body).ok_or(ResponseError::Length)?;
        if input.len() < size {
            self.position.size = u32::try_from(size).map_err(|_| ResponseError::Length)?;
            return Ok(None);
        }
        *self = ResponseDecoder::default();
        let keep_alive = head::keep_alive(headers, minor_version);
        Ok(Some(Received { status, headers, body: &input[head..size], size, keep_alive }))
    }

    /// Whether a response has begun and is incomplete.
    pub fn in_response(&self) -> bool {
        self.position.has_begun()
    }
}

/// RFC 9112 section 6.3, for answers that say how long they are.
fn body_length(status: u16, headers: &[Header<'_>]) -> Result<usize, ResponseError> {
    match (status, head::body_length(headers)) {
        (100..=199 | 204 | 304, _) => Ok(0),
        (_, BodyLength::Bytes(bytes)) => usize::try_from(bytes).map_err(|_| ResponseError::Length),
        _ => Err(ResponseError::Length),
    }
}
