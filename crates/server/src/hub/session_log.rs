//! What the session log is told: the users that come and go. Anonymous sessions are not logged.

use super::{Hub, Session};

impl Hub {
    /// A session has begun, or has another user from now on.
    pub(super) fn log_session_begin(&self, session: Session) {
        if let Some(log) = &self.config.session_log
            && let Some(user) = self.user(session.conn)
        {
            log.connected(&user.name);
        }
    }

    /// A session ends, or is about to have another user. It still has its user.
    pub(super) fn log_session_end(&self, session: Session) {
        if let Some(log) = &self.config.session_log
            && let Some(user) = self.user(session.conn)
        {
            log.disconnected(&user.name);
        }
    }
}
