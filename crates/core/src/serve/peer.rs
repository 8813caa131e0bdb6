//! Who a connection is from, and whether its address may have one more.

use std::net::SocketAddr;
use std::time::Duration;

use murre_codec::http::{Request, Response};
use murre_codec::proxy_protocol::{self, ProxyHeader, ProxyHeaderError};

use super::stage::Speaks;
use super::{Handler, Serve, notices};
use crate::addresses::Excess;
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// A connection from `peer`: HTTP begins, or a proxy says first who is behind it.
    pub(super) fn arrived(
        &mut self,
        id: ConnId,
        peer: Option<SocketAddr>,
        out: &mut Outbox,
    ) -> Speaks<H::Session> {
        let proxies = &self.limits.proxies;
        if proxies.header && peer.is_some_and(|peer| proxies.trust(peer.ip())) {
            return Speaks::Proxy;
        }
        self.known(id, peer, out)
    }

    /// A proxy says who has connected to it. Returns what was consumed; 0 if that is not all there.
    pub(super) fn introduced(
        &mut self,
        id: ConnId,
        state: &mut Speaks<H::Session>,
        input: &[u8],
        out: &mut Outbox,
    ) -> usize {
        match proxy_protocol::parse(input) {
            Ok(Some(ProxyHeader { size, from })) => {
                out.set_peer(id, from);
                *state = self.known(id, from, out);
                size
            }
            Ok(None) => 0,
            Err(ProxyHeaderError) => {
                self.counters.proxy_headers_bad.add(1);
                notices::no_proxy_header(id, out);
                out.abort(id, CloseReason::BadRequest);
                0
            }
        }
    }

    /// HTTP begins. Connections of proxies are not counted, nor are those of this machine: they are its
    /// own programs, and proxies. A client that a header of the PROXY protocol names is no proxy, wherever
    /// it is: the proxy's word is the header, and the client can write what it likes behind it.
    ///
    /// A connection that its address may not have is answered when its request is here, which may be that
    /// of a load balancer that looks whether the server is well.
    fn known(
        &mut self,
        id: ConnId,
        peer: Option<SocketAddr>,
        out: &mut Outbox,
    ) -> Speaks<H::Session> {
        out.log_accepted(id);
        let ip = peer.map(|peer| peer.ip());
        let proxies = &self.limits.proxies;
        let proxied = !proxies.header && ip.is_some_and(|ip| proxies.trust(ip));
        let counted = ip.filter(|ip| !proxied && !ip.to_canonical().is_loopback());
        let excess = out.count_as(id, counted).err();
        if let Some(excess) = excess {
            notices::turned_away(id, excess, out);
        }
        match excess {
            None => {}
            Some(Excess::Flood) => {
                out.turned_away();
                self.turn_away(id, Excess::Flood, out);
            }
            Some(Excess::Connections | Excess::Handshakes) => {
                out.turned_away();
                out.set_timer(id, out.ticks(self.limits.handshake.min(EXCESS_PATIENCE)));
            }
        }
        Speaks::Http {
            decoder: Default::default(),
            begun: true,
            continued: false,
            answered: false,
            proxied,
            excess,
        }
    }

    /// A proxy passes on a handshake: from here on the connection is its client's. Returns whether
    /// that may have one more.
    pub(super) fn known_by_request(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> bool {
        let client = self.limits.proxies.client(request);
        if let Some(ip) = client {
            out.set_peer(id, Some(SocketAddr::new(ip, 0)));
        }
        let counted = out.count_as(id, client);
        if let Err(excess) = counted {
            notices::turned_away(id, excess, out);
            self.turn_away(id, excess, out);
        }
        counted.is_ok()
    }

    /// Nothing of it is served.
    pub(super) fn turn_away(&mut self, id: ConnId, excess: Excess, out: &mut Outbox) {
        let response = match excess {
            Excess::Connections => Response::text(429, "too many connections from your address\n"),
            Excess::Handshakes => {
                Response::text(429, "too many new connections from your address\n")
                    .with("Retry-After", &out.retry_after(id).to_string())
            }
            Excess::Flood => return out.abort(id, CloseReason::Refused),
        };
        self.last_answer(id, &response, false, CloseReason::Refused, out);
    }
}

/// How long a connection that its address may not have waits for its request: other connections of the
/// address are refused without an answer while there are several of these.
const EXCESS_PATIENCE: Duration = Duration::from_secs(1);
