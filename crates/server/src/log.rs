//! Log lines: their form, and their way to stderr.
//!
//! One thread writes them. A shard hands its line over and goes on, however slowly stderr is read: of
//! lines that find [`WAITING_MAX`] others waiting, only the number is logged.

pub(crate) mod connections;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::LogFormat;

/// Lines that wait to be written, at most: a megabyte or less.
const WAITING_MAX: usize = 4096;
/// How long [`Log::end`] waits for a stderr that nobody reads.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// The log of the process.
pub(crate) struct Log {
    lines: Lines,
    /// Disconnected once the last line is written.
    written: Receiver<()>,
}

/// The way of a line to the thread that writes it.
#[derive(Clone)]
struct Lines {
    to_writer: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

enum Entry {
    Line(Vec<u8>),
    End,
}

/// Logs to stderr from now on.
///
/// # Errors
/// There can be no more threads.
pub(crate) fn start(format: LogFormat, filter: Targets) -> io::Result<Log> {
    let (lines, written) = Lines::to(io::stderr())?;
    let layer = fmt::layer().with_writer(lines.clone()).with_ansi(io::stderr().is_terminal());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    Ok(Log { lines, written })
}

impl Log {
    /// Waits until what was logged is written, unless nobody reads it.
    pub(crate) fn end(self) {
        let deadline = Instant::now().checked_add(END_PATIENCE).expect("a second from now");
        let mut end = Entry::End;
        while let Err(mpsc::TrySendError::Full(entry)) = self.lines.to_writer.try_send(end) {
            if Instant::now() >= deadline {
                return;
            }
            end = entry;
            thread::sleep(Duration::from_millis(1));
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        // Nothing is ever sent: the thread ends, or takes too long.
        let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
            self.written.recv_timeout(rest);
    }
}

impl Lines {
    /// Starts the thread that writes lines to `out`. The receiver is disconnected when it ends.
    fn to(out: impl Write + Send + 'static) -> io::Result<(Self, Receiver<()>)> {
        let (to_writer, entries) = mpsc::sync_channel(WAITING_MAX);
        let (ended, written) = mpsc::channel();
        let lines = Lines { to_writer, dropped: Arc::default() };
        let dropped = Arc::clone(&lines.dropped);
        // Signals are for the thread that waits for them: this one inherits that all are blocked.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let thread = thread::Builder::new().name("log".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            write_lines(&entries, &dropped, out);
            drop::<mpsc::Sender<()>>(ended);
        });
        before.thread_set_mask()?;
        started?;
        Ok((lines, written))
    }
}

fn write_lines(entries: &Receiver<Entry>, dropped: &AtomicU64, mut out: impl Write) {
    while let Ok(Entry::Line(line)) = entries.recv() {
        // Where stderr is closed there is nobody to tell.
        let _ = out.write_all(&line);
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "log lines were dropped: stderr is read too slowly");
        }
    }
}

/// Formatting is done elsewhere but for the warning above.
const STACK_BYTES: usize = 128 * 1024;

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Lines;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

/// Takes one whole line each time.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to_writer.try_send(Entry::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// An output that is not read at first.
    struct Stuck {
        until: Receiver<()>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // Disconnected: it is read from now on.
            let _ = self.until.recv();
            self.lines.send(line.to_vec()).expect("the test reads");
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logging does not wait for an output that is stuck: lines beyond the bound are counted instead,
    /// and the others are written in order once it goes on.
    #[test]
    fn a_stuck_output_blocks_nobody() {
        let (release, until) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let (lines, ended) = Lines::to(Stuck { until, lines: sender }).expect("a thread");
        let logged = 3 * WAITING_MAX;
        for line in 0..logged {
            (&lines).write_all(line.to_string().as_bytes()).expect("it is handed over or dropped");
        }
        let dropped = lines.dropped.load(Ordering::Relaxed) as usize;
        // The thread has taken one, and perhaps not yet.
        assert!((logged - WAITING_MAX - 1..=logged - WAITING_MAX).contains(&dropped), "{dropped}");
        drop(release);
        let log = Log { lines, written: ended };
        let mut next = 0;
        for count in 0..logged - dropped {
            let text = String::from_utf8(written.recv().expect("it is written")).expect("digits");
            let line: usize = text.parse().expect("a number");
            // The place of the line that the thread took may have been given to any later one.
            assert!(if count < WAITING_MAX { line == next } else { line >= next }, "{line}");
            next = line + 1;
        }
        log.end();
        assert!(written.recv().is_err(), "no more lines than were handed over");
    }
}
