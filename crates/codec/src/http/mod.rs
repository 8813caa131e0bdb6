//! HTTP/1.1 heads and bodies (RFC 9110, RFC 9112): bytes in, requests and responses out.
//!
//! A message that two programs in a row could understand differently, as request smuggling needs, is
//! refused and ends the connection.

mod chunks;
mod head;
mod headers;
mod request;
mod response;

pub use chunks::{CHUNK_BYTES_BESIDE_DATA, LAST_CHUNK, write_chunk};
pub use head::{Fields, HEADERS_MAX, fields};
pub use headers::Headers;
pub use request::{Progress, Request, RequestDecoder, RequestError, RequestLimits};
pub use response::{
    CONTINUE, Length, Received, Response, ResponseDecoder, ResponseError, ResponseOptions,
};
