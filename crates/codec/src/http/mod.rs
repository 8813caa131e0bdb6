//! HTTP/1.1 heads and bodies (RFC 9110, RFC 9112): bytes in, requests and responses out.
//!
//! Only what can be read in one way is accepted. Whatever two programs in a row could understand
//! differently, which is what request smuggling lives on, is refused and ends the connection.

mod head;
mod headers;
mod request;
mod response;

pub use headers::Headers;
pub use request::{BadRequest, Limits, Progress, Request, RequestDecoder};
pub use response::{BadResponse, Received, Response, ResponseDecoder};

/// Header fields that a head may have.
pub const HEADERS_MAX: usize = 64;

/// Room for the fields of one head, on the caller's stack.
pub type Fields<'b> = [httparse::Header<'b>; HEADERS_MAX];

/// Empty room for the fields of one head.
pub fn fields<'b>() -> Fields<'b> {
    [httparse::EMPTY_HEADER; HEADERS_MAX]
}

/// The interim answer that asks for the body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
