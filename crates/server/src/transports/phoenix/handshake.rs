//! The handshake of Phoenix clients: the version, and the token.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use murre_codec::http::Request;
use percent_encoding::percent_decode_str;

use super::super::token;
use crate::protocols::phoenix::supabase::names_user;
use crate::protocols::phoenix::{Dialect, TOKEN_SUBPROTOCOL};

/// The dialect of a request by its parameter `vsn`; `None` for versions that are not served, and for
/// a parameter that is not one text.
pub(crate) fn dialect(request: &Request<'_, '_>) -> Option<Dialect> {
    let (_, query) = request.target.split_once('?').unwrap_or_default();
    let mut versions = query.split('&').filter(|item| {
        let key = item.split_once('=').map_or(*item, |(key, _)| key);
        key == "vsn" || key.starts_with("vsn[") || key.starts_with("vsn%5")
    });
    let (first, more) = (versions.next(), versions.next());
    match (first.map(|item| item.split_once('=')), more) {
        (None, None) => Dialect::of_version(None),
        (Some(Some(("vsn", value))), None) => {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Dialect::of_version(Some(&value))
        }
        _ => None,
    }
}

/// The token of a request of a Phoenix client: in its subprotocol (the option `authToken` of the
/// client), or as other requests have it.
pub(crate) fn token_of<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    let offers = request.headers_named("sec-websocket-protocol");
    let offers = offers.filter_map(|field| str::from_utf8(field).ok());
    let encoded = offers
        .flat_map(|field| field.split(','))
        .find_map(|offer| offer.trim().strip_prefix(TOKEN_SUBPROTOCOL));
    match encoded {
        // What cannot be decoded is kept, and refused as a token.
        Some(encoded) => Some(decoded(encoded).map_or(encoded.into(), Cow::Owned)),
        None => token(request),
    }
}

/// The token of a request of a Supabase client: its key, in the query or in a field, if that names a
/// user.
pub(crate) fn supabase_token<'b>(request: &Request<'b, '_>) -> Option<Cow<'b, str>> {
    let field = request.headers_named("x-api-key").next();
    let field = field.and_then(|field| str::from_utf8(field).ok());
    let (_, query) = request.target.split_once('?').unwrap_or_default();
    let parameter = query.split('&').find_map(|item| item.strip_prefix("apikey="));
    let parameter = parameter.and_then(|value| percent_decode_str(value).decode_utf8().ok());
    let key = field.map(Cow::Borrowed).or(parameter)?;
    names_user(&key).then_some(key)
}

/// Decodes base64 of either alphabet: the prefix names one, and clients use the other.
fn decoded(encoded: &str) -> Option<String> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard = encoded.replace('-', "+").replace('_', "/");
    let bytes = GeneralPurpose::new(&alphabet::STANDARD, config).decode(standard).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    fn with_request<T>(target: &str, field: &str, ask: impl Fn(&Request<'_, '_>) -> T) -> T {
        let head = format!("GET {target} HTTP/1.1\r\nHost: murre\r\n{field}\r\n");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(head.as_bytes(), &mut fields, &RequestLimits::default());
        let Ok(Progress::Request(request)) = decoded else { panic!("{head:?} is no request") };
        ask(&request)
    }

    /// The version decides the dialect. Versions that are not served, and parameters that are not one
    /// text, are refused.
    #[test]
    fn versions() {
        for (query, expected) in [
            ("", Some(Dialect::V1)),
            ("?", Some(Dialect::V1)),
            ("?vsn=1.0.0", Some(Dialect::V1)),
            ("?token=t&vsn=2.0.0&", Some(Dialect::V2)),
            ("?vsn=2%2E0.7", Some(Dialect::V2)),
            ("?vsn=2.1.0", None),
            ("?vsn=2.0", None),
            ("?vsn=3.0.0", None),
            ("?vsn=", None),
            ("?vsn", None),
            ("?vsn[]=2.0.0", None),
            ("?vsn%5B%5D=2.0.0", None),
            ("?vsn=2.0.0&vsn=1.0.0", None),
            ("?vsn=2.0.0-dev", None),
        ] {
            let found = with_request(&format!("/socket/websocket{query}"), "", dialect);
            assert_eq!(found, expected, "{query}");
        }
    }

    /// A key that names a user is a token. Others are no credentials.
    #[test]
    fn supabase_keys() {
        let jwt = |claims: &str| {
            let part = |json: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
            format!("{}.{}.sig", part(r#"{"alg":"HS256"}"#), part(claims))
        };
        let (user, role) =
            (jwt(r#"{"role":"authenticated","sub":"ann"}"#), jwt(r#"{"role":"anon"}"#));
        for (key, found) in [
            (&*user, true),
            (&role, false),
            ("sb_publishable_x", false),
            ("a.b.c", false),
            ("", false),
        ] {
            let expected = found.then(|| key.to_owned());
            let field = format!("X-Api-Key: {key}\r\n");
            let of = |request: &Request<'_, '_>| supabase_token(request).map(Cow::into_owned);
            assert_eq!(with_request("/websocket?vsn=2.0.0", &field, of), expected, "{key}");
            let target = format!("/websocket?apikey={key}&vsn=2.0.0");
            assert_eq!(with_request(&target, "", of), expected, "{key}");
        }
    }

    /// A token in the subprotocol is decoded from either alphabet of base64, and goes before one in
    /// the query.
    #[test]
    fn tokens() {
        for (offer, expected) in [
            ("phoenix, base64url.bearer.phx.MTIzNA", "1234"),
            ("base64url.bearer.phx.MTIzNA==", "1234"),
            ("phoenix,base64url.bearer.phx.Pz8/Pj4+", "???>>>"),
            ("phoenix, base64url.bearer.phx.Pz8_Pj4-", "???>>>"),
            ("phoenix, base64url.bearer.phx.!", "!"),
            ("phoenix", "query"),
        ] {
            let field = format!("Sec-WebSocket-Protocol: {offer}\r\n");
            let found = with_request("/socket/websocket?token=query", &field, |request| {
                token_of(request).map(Cow::into_owned)
            });
            assert_eq!(found.as_deref(), Some(expected), "{offer}");
        }
    }
}
