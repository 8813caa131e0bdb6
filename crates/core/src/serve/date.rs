//! The `Date` field of responses.

use std::time::{Duration, Instant, SystemTime};

/// Formats the `Date` field (RFC 9110 section 6.6.1), at most once a second.
#[derive(Debug, Default)]
pub struct DateClock {
    date: String,
    formatted: Option<Instant>,
}

impl DateClock {
    /// The date at `now`, as an IMF-fixdate.
    pub fn date(&mut self, now: Instant) -> &str {
        let fresh = self.formatted.is_some_and(|at| now - at < Duration::from_secs(1));
        if !fresh {
            self.date = httpdate::fmt_http_date(SystemTime::now());
            self.formatted = Some(now);
        }
        &self.date
    }
}
