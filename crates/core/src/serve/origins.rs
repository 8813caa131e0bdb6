//! From which pages a browser may open WebSockets.
//!
//! A browser lets any page open a WebSocket to anywhere, with whatever rights the user's machine has
//! there, and says which page it was in `Origin` (RFC 6455 section 10.2). Other programs do not say,
//! or say what they like: this protects users of browsers, and nobody else.

use std::str::FromStr;
use std::sync::Arc;

use murre_codec::http::Request;

/// Whose pages may open WebSockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Those that come from the host that the WebSocket is opened to.
    #[default]
    Own,
    /// Those of these origins.
    Listed(Arc<[Origin]>),
    /// All.
    Any,
}

/// An origin as a browser writes it (RFC 6454 section 6.1), or all subdomains of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// With the `://` behind it.
    scheme: String,
    /// After it: the host and, where it is not the scheme's own, the port. With the dot before it if
    /// it stands for all subdomains.
    host: String,
}

impl FromStr for Origin {
    type Err = &'static str;

    /// Reads `https://example.com`, `http://localhost:3000` or `https://*.example.com`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, host) = text.split_once("://").ok_or(FORM)?;
        let host = host.strip_prefix('*').unwrap_or(host);
        let plain = |part: &str, also: &[u8]| {
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
        };
        let subdomains = text.contains("://*") == host.starts_with('.');
        if scheme.is_empty() || !plain(scheme, b"+-.") || host.is_empty() || !subdomains {
            return Err(FORM);
        }
        if !plain(host, b"-._:[]") {
            return Err(FORM);
        }
        Ok(Origin { scheme: format!("{scheme}://"), host: host.to_owned() })
    }
}

const FORM: &str = "it is a scheme and a host, as https://example.com, http://localhost:3000 or \
                    https://*.example.com";

impl Origin {
    fn has(&self, origin: &str) -> bool {
        let Some((scheme, host)) = origin.split_at_checked(self.scheme.len()) else { return false };
        let end = if self.host.starts_with('.') {
            let before = host.len().checked_sub(self.host.len()).filter(|&before| before > 0);
            before.and_then(|before| host.get(before..))
        } else {
            Some(host)
        };
        scheme.eq_ignore_ascii_case(&self.scheme)
            && end.is_some_and(|end| end.eq_ignore_ascii_case(&self.host))
    }
}

impl Origins {
    /// Whether this handshake may go on. One that names no origin is not a browser's.
    pub(super) fn allow(&self, request: &Request<'_, '_>) -> bool {
        let mut origins = request.headers_named("origin");
        let Some(origin) = origins.next() else { return true };
        let origin = std::str::from_utf8(origin).unwrap_or_default();
        let known = match self {
            Origins::Any => return true,
            Origins::Own => request.header("host").is_some_and(|own| {
                let (_, host) = origin.split_once("://").unwrap_or_default();
                !host.is_empty() && host.as_bytes().eq_ignore_ascii_case(own)
            }),
            Origins::Listed(listed) => listed.iter().any(|one| one.has(origin)),
        };
        known && origins.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use murre_codec::http::{self, Limits, Progress, RequestDecoder};

    use super::*;

    fn allow(origins: &Origins, fields: &str) -> bool {
        let head = format!("GET /ws HTTP/1.1\r\nHost: murre.example:8000\r\n{fields}\r\n");
        let mut parsed = http::fields();
        let mut decoder = RequestDecoder::default();
        match decoder.decode(head.as_bytes(), &mut parsed, &Limits::default()) {
            Ok(Progress::Request(request)) => origins.allow(&request),
            _ => panic!("{head:?} is no whole request"),
        }
    }

    fn listed(list: &[&str]) -> Origins {
        Origins::Listed(list.iter().map(|text| text.parse().expect(text)).collect())
    }

    /// Every origin, against every rule.
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
            ("://murre.example:8000", true, false),
            ("https://é.murre.example", false, true),
        ] {
            let fields = format!("Origin: {origin}\r\n");
            assert_eq!(allow(&Origins::Own, &fields), own, "{origin} here");
            assert_eq!(allow(&list, &fields), on_the_list, "{origin} on the list");
            assert!(allow(&Origins::Any, &fields));
        }
    }

    /// Who names none is not a browser; who names two is up to something.
    #[test]
    fn none_and_several() {
        let twice = "Origin: https://app.example\r\nOrigin: https://app.example\r\n";
        for origins in [Origins::Own, listed(&["https://app.example"])] {
            assert!(allow(&origins, ""));
            assert!(!allow(&origins, twice));
        }
    }

    /// What is no origin is told at start.
    #[test]
    fn what_is_no_origin() {
        for text in
            ["", "example.com", "https://", "://x", "https://a/b", "https://*", "https://*a"]
        {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert!("https://.example.com".parse::<Origin>().is_err());
        assert!("https://[::1]:8000".parse::<Origin>().is_ok());
    }
}
