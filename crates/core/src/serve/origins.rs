//! The origins whose pages may use the server.
//!
//! A browser lets any page open a WebSocket to any host with the rights of the user's machine, and
//! names the page's origin in the `Origin` field (RFC 6455 section 10.2). Other programs omit the
//! field or send any value, so this check protects only users of browsers.

use std::str::FromStr;
use std::sync::Arc;

use murre_codec::http::Request;

/// The origins whose pages may use the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Pages from the host to which they open the WebSocket.
    #[default]
    Own,
    /// Pages of the listed origins.
    Listed(Arc<[Origin]>),
    /// Pages of any origin.
    Any,
}

/// An entry of a list of origins: one origin as a browser writes it (RFC 6454 section 6.1), all
/// subdomains of a host, or all ports of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Starts with a dot if the entry covers all subdomains; empty for `null` and `file://`.
    host: String,
    port: Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Any,
    /// `None` if the scheme has no default port and the entry names none.
    One(Option<u16>),
}

impl FromStr for Origin {
    type Err = &'static str;

    /// Reads `https://example.com`, `http://localhost:3000`, `https://*.example.com`,
    /// `http://localhost:*`, `null` or `file://`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (text, any_port) = match text.strip_suffix(":*") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let Tuple { scheme, host, port } = Tuple::read(text).ok_or(FORM)?;
        let opaque = host.is_empty() && matches!(scheme, "null" | "file") && !any_port;
        let all = host.strip_prefix('*');
        let plain = |part: &str, also: &[u8]| {
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        };
        let host = all.unwrap_or(host);
        let known = !host.is_empty() && all.is_some() == host.starts_with('.');
        if !(opaque || known) || scheme.is_empty() || !plain(scheme, b"+-.") {
            return Err(FORM);
        }
        if !plain(host, b"-._:[]") {
            return Err(FORM);
        }
        let port = if any_port { Port::Any } else { Port::One(port) };
        Ok(Origin { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }
}

const FORM: &str = "an origin is a scheme and a host, as https://example.com, http://localhost:3000, \
                    https://*.example.com or http://localhost:*, or it is null or file://";

impl Origin {
    fn has(&self, origin: Tuple<'_>) -> bool {
        let end = if self.host.starts_with('.') {
            let before = origin.host.len().checked_sub(self.host.len()).filter(|&at| at > 0);
            before.and_then(|before| origin.host.get(before..))
        } else {
            Some(origin.host)
        };
        origin.scheme.eq_ignore_ascii_case(&self.scheme)
            && end.is_some_and(|end| end.eq_ignore_ascii_case(&self.host))
            && (self.port == Port::Any || self.port == Port::One(origin.port))
    }
}

/// The scheme, host and port of an origin (RFC 6454 section 4). Letters compare without case, and
/// an omitted port is the default port of the scheme (RFC 9110 section 4.2.3).
#[derive(Clone, Copy)]
struct Tuple<'t> {
    scheme: &'t str,
    host: &'t str,
    port: Option<u16>,
}

impl<'t> Tuple<'t> {
    fn read(origin: &'t str) -> Option<Self> {
        match origin {
            "null" => Some(Tuple { scheme: origin, host: "", port: None }),
            _ => Tuple::of(origin.split_once("://")?),
        }
    }

    fn of((scheme, authority): (&'t str, &'t str)) -> Option<Self> {
        // The colons of an IPv6 address are within brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let port = match port {
            "" => default_port(scheme),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Tuple { scheme, host, port })
    }

    /// Returns whether `own`, the value of `Host`, names the origin of the page. `Host` has no
    /// scheme, so an omitted port is the default port of the page's scheme.
    fn is_of(self, own: &[u8]) -> bool {
        let own = std::str::from_utf8(own).ok().and_then(|own| Tuple::of((self.scheme, own)));
        let same =
            |own: Tuple<'_>| own.host.eq_ignore_ascii_case(self.host) && own.port == self.port;
        !self.scheme.is_empty() && !self.host.is_empty() && own.is_some_and(same)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("http") {
        Some(80)
    } else if is("https") {
        Some(443)
    } else {
        None
    }
}

impl Origins {
    /// Returns whether the page that sent this request, if any, may use the server. A request
    /// without `Origin` does not come from a page, or goes to the page's own origin.
    pub fn allow(&self, request: &Request<'_, '_>) -> bool {
        let mut origins = request.headers_named("origin");
        let Some(origin) = origins.next() else { return true };
        if *self == Origins::Any {
            return true;
        }
        let origin = std::str::from_utf8(origin).ok().and_then(Tuple::read);
        let known = origin.is_some_and(|origin| match self {
            Origins::Any => true,
            Origins::Own => request.header("host").is_some_and(|own| origin.is_of(own)),
            Origins::Listed(listed) => listed.iter().any(|one| one.has(origin)),
        });
        known && origins.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    fn allow(origins: &Origins, fields: &str) -> bool {
        let head = format!("GET /ws HTTP/1.1\r\nHost: murre.example:8000\r\n{fields}\r\n");
        allow_head(origins, &head)
    }

    fn allow_head(origins: &Origins, head: &str) -> bool {
        let mut parsed = http::fields();
        let mut decoder = RequestDecoder::default();
        match decoder.decode(head.as_bytes(), &mut parsed, &RequestLimits::default()) {
            Ok(Progress::Request(request)) => origins.allow(&request),
            _ => panic!("{head:?} is no whole request"),
        }
    }

    fn listed(list: &[&str]) -> Origins {
        Origins::Listed(list.iter().map(|text| text.parse().expect(text)).collect())
    }

    /// Compares every origin with every rule.
    #[test]
    fn origins_are_compared_whole() {
        let list =
            listed(&["https://app.example", "http://localhost:3000", "https://*.murre.example"]);
        for (origin, own, on_the_list) in [
            ("http://murre.example:8000", true, false),
            ("https://Murre.Example:8000", true, false),
            ("http://murre.example", false, false),
            ("http://evil.example", false, false),
            ("http://murre.example:8000.evil.example", false, false),
            ("https://app.example", false, true),
            ("HTTPS://APP.EXAMPLE", false, true),
            ("http://app.example", false, false),
            ("https://app.example:8443", false, false),
            ("https://app.example.evil.example", false, false),
            ("https://evil-app.example", false, false),
            ("http://localhost:3000", false, true),
            ("http://localhost:30000", false, false),
            ("https://a.murre.example", false, true),
            ("https://a.b.murre.example", false, true),
            ("https://murre.example", false, false),
            ("https://.murre.example", false, false),
            ("https://evilmurre.example", false, false),
            ("null", false, false),
            ("", false, false),
            ("://murre.example:8000", false, false),
            ("http://murre.example:08000", true, false),
            ("http://murre.example:73536", false, false),
            ("http://murre.example:8000:", false, false),
            ("https://app.example:443", false, true),
            ("https://app.example:", false, true),
            ("https://app.example:80", false, false),
            ("https://a.murre.example:443", false, true),
            ("file://", false, false),
            ("https://é.murre.example", false, true),
        ] {
            let fields = format!("Origin: {origin}\r\n");
            assert_eq!(allow(&Origins::Own, &fields), own, "{origin} here");
            assert_eq!(allow(&list, &fields), on_the_list, "{origin} on the list");
            assert!(allow(&Origins::Any, &fields));
        }
    }

    /// An omitted port is the default port of the page's scheme, in `Origin` and in `Host`.
    #[test]
    fn ports_have_defaults() {
        for (host, origin, same) in [
            ("m", "https://m", true),
            ("m:443", "https://m", true),
            ("m", "https://m:443", true),
            ("M:", "https://m", true),
            ("m:80", "http://m", true),
            ("m:80", "https://m", false),
            ("m:443", "http://m", false),
            ("m:8443", "https://m", false),
            ("[::1]", "http://[::1]:80", true),
            ("[::1]:8000", "http://[::1]:8000", true),
            ("[::1]:8000", "http://[::1]", false),
            ("m", "ext://m", true),
            ("m:1", "ext://m", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
            assert_eq!(allow_head(&Origins::Own, &head), same, "{origin} at {host}");
        }
    }

    /// A list can allow origins without a host, and all ports of a host.
    #[test]
    fn opaque_origins_and_any_port_can_be_listed() {
        for (listing, allowed, refused) in [
            ("null", &["null"][..], &["file://", "https://null", "NULL"][..]),
            ("file://", &["file://"], &["null", "file://host"]),
            (
                "http://localhost:*",
                &["http://localhost", "http://localhost:3000", "http://LOCALHOST:80"],
                &[
                    "https://localhost:3000",
                    "http://localhost.evil.example:80",
                    "http://localhost:x",
                ],
            ),
            ("https://*.m.example:*", &["https://a.m.example:1"], &["https://m.example:1"]),
            ("https://m.example:443", &["https://m.example"], &["https://m.example:444"]),
        ] {
            let list = listed(&[listing]);
            for origin in allowed {
                assert!(allow(&list, &format!("Origin: {origin}\r\n")), "{origin}: {listing}");
            }
            for origin in refused {
                assert!(!allow(&list, &format!("Origin: {origin}\r\n")), "{origin}: {listing}");
            }
        }
    }

    /// A request without `Origin` is allowed; a request with two `Origin` fields is refused.
    #[test]
    fn none_and_several() {
        let twice = "Origin: https://app.example\r\nOrigin: https://app.example\r\n";
        for origins in [Origins::Own, listed(&["https://app.example"])] {
            assert!(allow(&origins, ""));
            assert!(!allow(&origins, twice));
        }
    }

    /// Invalid entries give an error at start.
    #[test]
    fn what_is_no_origin() {
        for text in [
            "",
            "example.com",
            "https://",
            "://x",
            "https://a/b",
            "https://*",
            "https://*a",
            "null:*",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        for text in
            ["https://.example.com", "http://a:x", "http://a:65536", "file://:*", "http://:*"]
        {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert!("https://[::1]:8000".parse::<Origin>().is_ok());
    }
}
