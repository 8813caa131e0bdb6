//! Log lines about sessions, beside those of `murre_core` about connections: `debug` for each session,
//! `warn` once a kind and minute for limits in force.

use murre_codec::http::{Request, Response};
use murre_core::{ConnId, GlobalConnId, LOG_TARGET, LOG_TEXT_BYTES_MAX, Notice, Outbox, ShownPeer};

use crate::hub::auth::User;
use crate::hub::output::DisconnectReason;

/// A session begins with this request, as a user's or as nobody's in particular.
pub(crate) fn session_begins(
    conn: ConnId,
    request: &Request<'_, '_>,
    transport: &'static str,
    user: Option<&User>,
    out: &Outbox,
) {
    tracing::debug!(
        target: LOG_TARGET,
        conn = %out.global_id(conn),
        peer = %out.shown_peer(conn),
        path = path(request),
        transport,
        user = user.map(|user| &*user.name),
        "session begins"
    );
}

/// A request that would begin a session is refused.
pub(crate) fn session_refused(
    conn: ConnId,
    request: &Request<'_, '_>,
    response: &Response,
    out: &Outbox,
) {
    tracing::debug!(
        target: LOG_TARGET,
        conn = %out.global_id(conn),
        peer = %out.shown_peer(conn),
        path = path(request),
        status = response.status,
        why = %String::from_utf8_lossy(&response.body).trim_end(),
        "session refused"
    );
}

/// The beginning of the path of a request.
fn path<'r>(request: &Request<'r, '_>) -> &'r str {
    let path = request.path();
    &path[..path.floor_char_boundary(LOG_TEXT_BYTES_MAX)]
}

/// A session has sent a good token.
pub(crate) fn authenticated(conn: GlobalConnId, user: &User) {
    tracing::debug!(target: LOG_TARGET, %conn, user = &*user.name, "authenticated");
}

/// The server ends a session.
pub(crate) fn session_ended(conn: ConnId, reason: DisconnectReason, out: &Outbox) {
    tracing::debug!(
        target: LOG_TARGET,
        conn = %out.global_id(conn),
        peer = %out.shown_peer(conn),
        ?reason,
        "session ended by the server"
    );
}

/// An address has sent too many bad tokens.
pub(crate) fn too_many_bad_tokens(conn: GlobalConnId, peer: ShownPeer) {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        tracing::warn!(
            target: LOG_TARGET,
            times,
            %conn,
            %peer,
            flag = "--max-bad-tokens-per-second",
            "too many bad tokens from one address: more are refused without a check; raise the flag, or \
             list the address in --trusted-proxy if it is your proxy's"
        );
    }
}

/// A session sends commands too fast.
pub(crate) fn too_many_commands(conn: GlobalConnId, user: Option<&User>) {
    static NOTICE: Notice = Notice::new();
    if let Some(times) = NOTICE.occurred() {
        tracing::warn!(
            target: LOG_TARGET,
            times,
            %conn,
            user = user.map(|user| &*user.name),
            flag = "--max-commands-per-second",
            "a session sends commands too fast: some are refused; raise the flag if it is a client of \
             yours"
        );
    }
}
