//! Times of NATS, as `2026-12-01T01:02:03.123456789Z` (RFC 3339 in UTC), and its clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The clock of NATS, by which it stamps messages and drops old ones. The clock of this machine may be another one, and
/// may jump.
pub(super) struct NatsClock {
    began: Instant,
    /// The time of NATS at `began`, in milliseconds since 1970.
    zero: AtomicU64,
}

impl NatsClock {
    pub(super) fn new() -> Self {
        NatsClock { began: Instant::now(), zero: AtomicU64::new(0) }
    }

    /// NATS says that it is so many milliseconds after 1970 now.
    pub(super) fn set(&self, unix_ms: u64) {
        self.zero.store(unix_ms.saturating_sub(self.passed()), Relaxed);
    }

    /// How long ago this was; no time if it is to come.
    pub(super) fn since(&self, unix_ms: u64) -> Duration {
        let now = self.zero.load(Relaxed).saturating_add(self.passed());
        Duration::from_millis(now.saturating_sub(unix_ms))
    }

    fn passed(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

/// Milliseconds since 1970; `None` for a text that is no such time, and for times before.
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_range =
        (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    let millis: u64 = millis.parse().ok()?;
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": days from years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times as the server writes them, on both sides of a leap day. Other texts are none.
    #[test]
    fn times_of_headers() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00.5Z", 951_825_600_500),
            ("2000-03-01T00:00:00.123456789Z", 951_868_800_123),
            ("2026-12-01T01:02:03.004Z", 1_796_086_923_004),
        ] {
            assert_eq!(unix_ms(text), Some(ms), "{text}");
        }
        for wrong in [
            "",
            "Z",
            "2026-12-01",
            "2026-12-01T01:02:03",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
            "2026-12-01T24:00:00Z",
            "99999999999999999999-01-01T00:00:00Z",
            "2026-12-01T01:02:03.xZ",
        ] {
            assert_eq!(unix_ms(wrong), None, "{wrong:?}");
        }
    }
}
