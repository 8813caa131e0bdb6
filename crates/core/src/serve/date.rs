//! The `Date` of answers.

use std::time::{Duration, Instant, SystemTime};

/// The `Date` of answers (RFC 9110 section 6.6.1), written anew at most once a second.
#[derive(Default)]
pub(super) struct Clock {
    date: String,
    written: Option<Instant>,
}

impl Clock {
    pub(super) fn date(&mut self, now: Instant) -> &str {
        let fresh = self.written.is_some_and(|at| now - at < Duration::from_secs(1));
        if !fresh {
            self.date = httpdate::fmt_http_date(SystemTime::now());
            self.written = Some(now);
        }
        &self.date
    }
}
