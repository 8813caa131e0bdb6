//! The token that a request brings.

use std::borrow::Cow;

use murre_codec::http::Request;
use percent_encoding::percent_decode_str;

/// The token that a request brings: as `Authorization: Bearer TOKEN` or else as `?token=TOKEN`.
pub(crate) fn token<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    // Bytes that are not UTF-8 are not a token either, so they may as well be replaced.
    let bearer = request.header("authorization").and_then(bearer).map(String::from_utf8_lossy);
    let query = || Some(percent_decode_str(request.query("token")?).decode_utf8_lossy());
    bearer.or_else(query)
}

/// What follows the scheme `Bearer`, in any case of letters (RFC 9110 section 11.1). Other schemes
/// are not ours.
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
