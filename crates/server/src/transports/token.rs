//! The token of a request.

use std::borrow::Cow;

use murre_codec::http::Request;
use percent_encoding::percent_decode_str;

/// The token of a request: `Authorization: Bearer TOKEN`, or else `?token=TOKEN`. Beside the field with
/// the token may be others, such as the credentials for a proxy; two tokens are none that is valid.
pub(crate) fn token<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    let mut bearers = request.headers_named("authorization").filter_map(bearer);
    let bearer = match (bearers.next(), bearers.next()) {
        (Some(_), Some(_)) => Some(&b""[..]),
        (one, _) => one,
    };
    // Bytes that are not UTF-8 are replaced, which never makes a valid token of them.
    let bearer = bearer.map(String::from_utf8_lossy);
    let query = || Some(percent_decode_str(request.query("token")?).decode_utf8_lossy());
    bearer.or_else(query)
}

/// The credentials behind the scheme `Bearer`, in any case of letters (RFC 9110 section 11.1);
/// empty if there are no credentials. `None` for other schemes.
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(6)?;
    let ends = token.first().is_none_or(|&byte| byte == b' ');
    (ends && scheme.eq_ignore_ascii_case(b"bearer")).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    /// The token is found in the header field and in the query; the field takes precedence.
    #[test]
    fn tokens_of_requests() {
        for (target, field, expected) in [
            ("/ws", "", None),
            ("/ws?token=a.b.c", "", Some("a.b.c")),
            ("/ws?x=1&token=a%2Eb.c", "", Some("a.b.c")),
            ("/ws?token=", "", Some("")),
            ("/ws?token=%ff%zz", "", Some("\u{fffd}%zz")),
            ("/ws", "Authorization: Bearer a.b.c\r\n", Some("a.b.c")),
            ("/ws", "authorization:bEARER   a.b.c  \r\n", Some("a.b.c")),
            ("/ws?token=query", "Authorization: Bearer field\r\n", Some("field")),
            ("/ws?token=query", "Authorization: Basic eDp5\r\n", Some("query")),
            ("/ws", "Authorization: Basic eDp5\r\n", None),
            ("/ws", "Authorization: Bearer\r\n", Some("")),
            ("/ws", "Authorization: Bearertoken\r\n", None),
            ("/ws", "Authorization: Basic eDp5\r\nAuthorization: Bearer a\r\n", Some("a")),
            ("/ws?token=b", "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n", Some("")),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: murre\r\n{field}\r\n");
            let mut fields = http::fields();
            let mut decoder = RequestDecoder::default();
            let decoded = decoder.decode(head.as_bytes(), &mut fields, &RequestLimits::default());
            let Ok(Progress::Request(request)) = decoded else { panic!("{head:?} is no request") };
            assert_eq!(token(&request).as_deref(), expected, "{head:?}");
        }
    }
}
