//! Warnings about connections that a limit or a rule refuses or closes. Each kind logs at most one
//! line a minute, with the address and the flag of `murre serve` that changes the limit.

use murre_codec::CloseCode;
use murre_codec::http::{Request, RequestError};

use crate::addresses::Excess;
use crate::conn::CloseReason;
use crate::conn::id::ConnId;
use crate::notice::Notice;
use crate::outbox::Outbox;
use crate::peers::{LOG_TARGET, LOG_TEXT_BYTES_MAX};

/// Logs a warning, at most once a minute for each place that uses this macro, with the connection's
/// id and address.
macro_rules! notice {
    ($id:expr, $out:expr, flag = $flag:expr, $($rest:tt)*) => {{
        static NOTICE: Notice = Notice::new();
        if let Some(times) = NOTICE.occurred() {
            tracing::warn!(
                target: LOG_TARGET,
                times,
                conn = %$out.global_id($id),
                peer = %$out.shown_peer($id),
                flag = $flag,
                $($rest)*
            );
        }
    }};
}

impl Outbox {
    /// Logs, at most once a minute, that the origin of a page is not allowed.
    pub fn warn_of_origin(&self, conn: ConnId, request: &Request<'_, '_>) {
        refused_origin(conn, request, self);
    }
}

/// The server refuses a connection because its address exceeds a limit.
pub(super) fn turned_away(id: ConnId, excess: Excess, out: &Outbox) {
    match excess {
        Excess::Connections | Excess::Flood => notice!(
            id,
            out,
            flag = "--max-conns-per-address",
            "too many connections from one address: more are refused; raise the flag, or list the \
             address in --trusted-proxy if it is your proxy's"
        ),
        Excess::Handshakes => notice!(
            id,
            out,
            flag = "--max-handshakes-per-second",
            "too many new connections from one address: some are refused; raise the flag, or list \
             the address in --trusted-proxy if it is your proxy's"
        ),
    }
}

/// A request with `X-Forwarded-For` from an address that is not a trusted proxy: the server ignores
/// the field, so all clients behind that address count as one.
pub(super) fn unlisted_proxy(id: ConnId, request: &Request<'_, '_>, out: &Outbox) {
    if let Some(field) = request.header("x-forwarded-for") {
        notice!(
            id, out, flag = "--trusted-proxy",
            forwarded_for = %text(field),
            "X-Forwarded-For is ignored: its sender is no trusted proxy, so all its clients count as \
             one address; list the address if it is your proxy's"
        );
    }
}

/// A connection of a trusted proxy does not begin with a PROXY protocol header.
pub(super) fn no_proxy_header(id: ConnId, out: &Outbox) {
    notice!(
        id,
        out,
        flag = "--proxy-protocol",
        "a trusted proxy sends no valid PROXY protocol header: its connections are ended; configure the \
         proxy to send it, or remove the flag"
    );
}

/// A page whose origin is not allowed asks for a WebSocket.
pub(super) fn refused_origin(id: ConnId, request: &Request<'_, '_>, out: &Outbox) {
    notice!(
        id, out, flag = "--allow-origin",
        origin = %text(request.header("origin").unwrap_or_default()),
        host = %text(request.header("host").unwrap_or_default()),
        "a page is refused because of its origin; add the origin to the flag if it is yours"
    );
}

/// The server cannot serve a request: the peer sends the PROXY protocol but is not a trusted proxy,
/// or the request breaks a rule or exceeds a limit.
pub(super) fn bad_request(id: ConnId, bad: RequestError, input: &[u8], out: &Outbox) {
    match bad {
        RequestError::HeadTooLong => notice!(
            id,
            out,
            flag = "--max-head-bytes, --max-header-fields",
            "a request is refused because its head is too long or has too many fields; raise the flag if it \
             is a client of yours"
        ),
        RequestError::TargetTooLong => notice!(
            id,
            out,
            flag = "--max-target-bytes",
            "a request is refused because its target is too long; raise the flag if it is a client of yours"
        ),
        RequestError::BodyTooLong => notice!(
            id,
            out,
            flag = "--max-body-bytes",
            "a request is refused because its body is too long; raise the flag if it is a client of yours"
        ),
        _ if input.starts_with(b"PROXY ") || input.starts_with(PROXY_V2) => notice!(
            id,
            out,
            flag = "--trusted-proxy",
            "a PROXY protocol header is refused: its sender is no trusted proxy; set --proxy-protocol \
             and list the address if it is your proxy's"
        ),
        _ => {}
    }
}

/// The first bytes of a binary PROXY protocol header (section 2.2 of its specification).
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A frame or message breaks the protocol or exceeds a limit.
pub(super) fn violation(id: ConnId, code: CloseCode, why: &str, out: &Outbox) {
    if code == CloseCode::Size {
        notice!(
            id,
            out,
            flag = "--max-message-bytes",
            "a WebSocket is closed because a message is too long; raise the flag if it is a client of \
             yours"
        );
    }
    tracing::debug!(target: LOG_TARGET, conn = %out.global_id(id), why, "the peer broke the protocol");
}

/// A connection closes because it exceeded a limit that the server checks while it is open.
pub(super) fn closed(id: ConnId, reason: CloseReason, out: &Outbox) {
    match reason {
        CloseReason::SlowConsumer => notice!(
            id,
            out,
            flag = "--max-send-bytes",
            "a connection is ended because its peer reads too slowly: more was queued for it than the \
             flag or the rules of the channel allow"
        ),
        CloseReason::TooSlow => notice!(
            id,
            out,
            flag = "--slow-timeout, --min-bytes-per-second",
            "a connection is ended because its peer takes nothing of what is queued for it, or sends a \
             message too slowly"
        ),
        CloseReason::TooManyFragments => notice!(
            id,
            out,
            flag = "--max-fragments",
            "a WebSocket is closed because a message has too many frames"
        ),
        CloseReason::TooManyPings => notice!(
            id,
            out,
            flag = "--max-pings-per-second",
            "a WebSocket is closed because it sends too many pings and pongs"
        ),
        _ => {}
    }
}

/// The beginning of a field as text, without characters that control a terminal.
fn text(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(&field[..field.len().min(LOG_TEXT_BYTES_MAX)]);
    text.chars().filter(|char| !char.is_control()).collect()
}
