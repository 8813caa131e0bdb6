//! The header `Host` of requests to an admin port on loopback.
//!
//! The owner of a web page can change the address of the page's host name to loopback after a
//! browser on this machine has loaded the page (DNS rebinding). The requests of the page carry that
//! name in `Host`, so the admin port refuses public names.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Known};

/// Answers 421 (RFC 9110 section 15.5.20) if `Host` is a public name.
pub(super) async fn require_local(request: Request, next: Next) -> Response {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_local = hosts.all(|host| host.to_str().is_ok_and(is_local));
    if is_local { next.run(request).await } else { ApiError::from(BAD_HOST).into_response() }
}

const BAD_HOST: Known = (
    StatusCode::MISDIRECTED_REQUEST,
    "bad_host",
    "use an IP address, localhost or a name without a dot; for other names let --admin be an address \
     that is not loopback",
);

/// Whether the host, with or without a port, is an IP address, a name of one label, or a name below
/// `localhost` (RFC 6761 section 6.3).
fn is_local(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    host.parse::<IpAddr>().is_ok() || !name.contains('.') || last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses and names without a public owner are local; all other names are not.
    #[test]
    fn which_hosts_are_local() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8001",
            "[::1]",
            "[::1]:8001",
            "localhost",
            "LocalHost:8001",
            "localhost.:8001",
            "a.localhost",
            "murre",
            "murre:8001",
            "192.0.2.1:80",
            "",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "rebound.example",
            "rebound.example:8001",
            "rebound.example.",
            "127.0.0.1.example",
            "localhost.example:8001",
            "1.2.3.4.5",
            "127.0.0.1.nip.io:8001",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
