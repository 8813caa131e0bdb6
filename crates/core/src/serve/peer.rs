//! The address of a connection's client, and the limits of that address.

use std::net::SocketAddr;
use std::time::Duration;

use murre_codec::http::{Request, Response};
use murre_codec::proxy_protocol::{self, ProxyHeader, ProxyHeaderError};

use super::stage::{Http, Stage, Step};
use super::{Handler, Serve, notices};
use crate::addresses::Excess;
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// The first stage of a connection from `peer`.
    pub(super) fn arrived(
        &mut self,
        conn: ConnId,
        peer: Option<SocketAddr>,
        out: &mut Outbox,
    ) -> Stage<H::Session> {
        let proxies = &self.limits.proxies;
        if proxies.header && proxies.trust_peer(peer) {
            return Stage::Proxy;
        }
        Stage::Http(self.first_request(conn, peer, out))
    }

    /// Reads the PROXY protocol header, which names the client.
    pub(super) fn proxy_header(
        &mut self,
        conn: ConnId,
        input: &[u8],
        out: &mut Outbox,
    ) -> Step<H::Session> {
        match proxy_protocol::parse(input) {
            Ok(Some(ProxyHeader { size, from })) => {
                out.set_peer(conn, from);
                let http = self.first_request(conn, from, out);
                Step::to(size, Stage::Http(http))
            }
            Ok(None) => Step::stay(0),
            Err(ProxyHeaderError) => {
                self.counters.proxy_headers_bad.add(1);
                notices::no_proxy_header(conn, out);
                out.abort(conn, CloseReason::BadRequest);
                Step::stay(0)
            }
        }
    }

    /// Counts the connection for its address, and begins HTTP. Connections of proxies and of this
    /// machine's own programs do not count. A client that a PROXY protocol header names is not a
    /// proxy, whatever its address: the proxy wrote only the header, and the client can write
    /// anything after it.
    ///
    /// A connection that exceeds a limit of its address is refused only when its request has
    /// arrived, because the request may be the health check of a load balancer.
    fn first_request(&mut self, conn: ConnId, peer: Option<SocketAddr>, out: &mut Outbox) -> Http {
        out.log_accepted(conn);
        let ip = peer.map(|peer| peer.ip());
        let proxies = &self.limits.proxies;
        let proxied = !proxies.header && proxies.trust_peer(peer);
        let counted = ip.filter(|ip| !proxied && !ip.to_canonical().is_loopback());
        let excess = out.count_as(conn, counted).err();
        if let Some(excess) = excess {
            notices::turned_away(conn, excess, out);
        }
        match excess {
            None => {}
            Some(Excess::Flood) => {
                out.turned_away();
                self.turn_away(conn, Excess::Flood, out);
            }
            Some(Excess::Connections | Excess::Handshakes) => {
                out.turned_away();
                out.set_timer(conn, out.ticks(self.limits.handshake_timeout.min(EXCESS_PATIENCE)));
            }
        }
        Http::first(proxied, excess)
    }

    /// A proxy passes on a request that begins a session. While the session lasts, the connection counts
    /// for the client, and so does the token of the request. Returns whether the client's address may have
    /// the session; otherwise the connection is refused.
    pub(super) fn known_by_request(
        &mut self,
        conn: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> bool {
        if out.address(conn).is_some() {
            // The request was held before, and is counted. Between requests no address is.
            return true;
        }
        let client = self.limits.proxies.client(request);
        if let Some(ip) = client {
            out.set_peer(conn, Some(SocketAddr::new(ip, 0)));
        }
        // Only a WebSocket takes a connection of its own. Polls and streams have no limit of their rate.
        let counted = match request.wants_websocket() {
            true => out.count_as(conn, client),
            false => out.count_session_as(conn, client),
        };
        if let Err(excess) = counted {
            notices::turned_away(conn, excess, out);
            self.turn_away(conn, excess, out);
        }
        counted.is_ok()
    }

    /// Refuses a connection that exceeds a limit of its address.
    pub(super) fn turn_away(&mut self, conn: ConnId, excess: Excess, out: &mut Outbox) {
        let response = match excess {
            Excess::Connections => Response::text(429, "too many connections from your address\n"),
            Excess::Handshakes => {
                Response::text(429, "too many new connections from your address\n")
                    .with("Retry-After", &out.retry_after(conn).to_string())
            }
            Excess::Flood => return out.abort(conn, CloseReason::Refused),
        };
        self.last_answer(conn, &response, false, CloseReason::Refused, out);
    }
}

/// How long a connection that exceeds a limit of its address waits for its request. While several
/// such connections wait, the server aborts further connections of the address without a response.
const EXCESS_PATIENCE: Duration = Duration::from_secs(1);
