//! The progress of a run on stderr: a bar on a terminal; otherwise plain
//! lines as http-kit's client printed them, spelling included, so that both can be read by the
//! same tools.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::score::Totals;

/// The reporter.
pub(crate) enum Progress {
    Bar { bar: ProgressBar, conns: u64, hold: Duration, holding: bool },
    Lines { printed: Duration },
}

impl Progress {
    pub(crate) fn new(conns: u64, hold: Duration) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines { printed: Duration::ZERO };
        }
        let bar = ProgressBar::with_draw_target(Some(conns), ProgressDrawTarget::stderr());
        bar.set_style(style("connecting {bar:30} {pos}/{len} {per_sec} ETA {eta} {msg}"));
        Progress::Bar { bar, conns, hold, holding: false }
    }

    /// Called once a second, and at the end of a phase with `now`: the counts, the time since the first connect,
    /// and that of the hold phase, zero before it.
    pub(crate) fn show(&mut self, totals: &Totals, elapsed: Duration, held: Duration, now: bool) {
        match self {
            Progress::Lines { printed } => {
                let lines = |elapsed: Duration| elapsed.as_secs() / LINES_EVERY_SECONDS;
                if now || lines(elapsed) > lines(*printed) {
                    *printed = elapsed;
                    eprintln!("{}", line(totals, elapsed));
                }
            }
            Progress::Bar { bar, conns, hold, holding } => {
                if !*holding && !held.is_zero() {
                    *holding = true;
                    bar.reset();
                    bar.set_length(hold.as_secs().max(1));
                    bar.set_style(style("holding {bar:30} {pos}/{len} s ETA {eta} {msg}"));
                }
                match *holding {
                    false => bar.set_position(totals.ready.min(*conns)),
                    true if held.is_zero() => bar.set_position(hold.as_secs()),
                    true => bar.set_position(held.as_secs()),
                }
                bar.set_message(message(totals, elapsed));
            }
        }
    }

    /// Puts a line above the bar.
    pub(crate) fn print(&self, line: &str) {
        match self {
            Progress::Lines { .. } => eprintln!("{line}"),
            Progress::Bar { bar, .. } => bar.println(line),
        }
    }

    /// Leaves the last line as it is and gives the terminal back.
    pub(crate) fn finish(&self) {
        if let Progress::Bar { bar, .. } = self {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("constant templates that are valid")
}

/// `time 930s, concurrency: 600000, total requests: 17457773, thoughput: 38.64M/s, 18763.53
/// requests/seconds`: averages from the first connect on, as there.
fn line(totals: &Totals, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    format!(
        "time {}s, concurrency: {}, total requests: {}, thoughput: {:.2}M/s, \
         {:.2} requests/seconds",
        elapsed.as_secs(),
        totals.ready,
        totals.answered,
        totals.bytes_in as f64 / seconds / f64::from(1 << 20),
        totals.answered as f64 / seconds,
    )
}

fn message(totals: &Totals, elapsed: Duration) -> String {
    let Totals { ready, answered, .. } = totals;
    let rate = *answered as f64 / elapsed.as_secs_f64().max(0.001);
    let mut message = format!("| {ready} open, {answered} requests, {rate:.0}/s");
    if totals.faults_all() > 0 {
        message += &format!(", {} FAULTS", totals.faults_all());
    }
    message
}

const LINES_EVERY_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows the format of a plain line, on the article's own figures.
    #[test]
    fn lines_are_http_kits() {
        let totals = Totals {
            ready: 600_000,
            answered: 17_457_773,
            bytes_in: 37_697_000_000,
            ..Totals::default()
        };
        assert_eq!(
            line(&totals, Duration::from_millis(930_410)),
            "time 930s, concurrency: 600000, total requests: 17457773, thoughput: 38.64M/s, \
             18763.53 requests/seconds"
        );
    }
}
