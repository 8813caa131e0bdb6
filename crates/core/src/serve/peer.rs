//! Who a connection is from, and whether its address may have one more.

use std::net::IpAddr;

use murre_codec::http::Response;

use super::{Handler, Serve};
use crate::addresses::Excess;
use crate::conn::CloseReason;
use crate::id::ConnId;
use crate::outbox::Outbox;

impl<H: Handler> Serve<H> {
    /// A connection from `ip`. Those of this machine are not counted: they are its own programs, and
    /// proxies.
    pub(super) fn arrived(&mut self, id: ConnId, ip: IpAddr, out: &mut Outbox) {
        if ip.to_canonical().is_loopback() {
            return;
        }
        if let Err(excess) = out.count_as(id, ip) {
            self.turn_away(id, excess, out);
        }
    }

    /// Not even its first request is read.
    fn turn_away(&mut self, id: ConnId, excess: Excess, out: &mut Outbox) {
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
