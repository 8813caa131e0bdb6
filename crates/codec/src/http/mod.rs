//! HTTP/1.1 heads and bodies (RFC 9110, RFC 9112): bytes in, requests and responses out.
//!
//! Only what can be read in one way is accepted. Whatever two programs in a row could understand
//! differently, which is what request smuggling lives on, is refused and ends the connection.

mod chunks;
mod head;
mod headers;
mod request;
mod response;

pub use chunks::{CHUNK_BYTES_BESIDE_DATA, LAST_CHUNK, write_chunk};
pub use head::{Fields, HEADERS_MAX, fields};
pub use headers::Headers;
pub use request::{BadRequest, Limits, Progress, Request, RequestDecoder};
pub use response::{BadResponse, CONTINUE, Length, Received, Response, ResponseDecoder};
