//! The thread that answers questions of this program, and cares for what all nodes share.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::SessionLog;
use crate::postgres::Care;
use crate::questions::{Asker, Reader};
use crate::settings::Place;
use crate::store::StoreError;

/// What the thread is told.
pub(crate) enum Message {
    /// A question, which gets a reader or the reason why there is none. It returns whether the reader is of further
    /// use.
    Ask(Question),
    /// The log ends.
    End,
}

pub(crate) type Question = Box<dyn FnOnce(Result<&mut Reader, &StoreError>) -> bool + Send>;

/// The time between two looks for dead nodes, or less with a short lease.
const INTERVAL: Duration = Duration::from_secs(10);

/// Answers questions until the log ends.
pub(crate) fn run(log: &SessionLog, messages: &Receiver<Message>) {
    let settings = &log.settings;
    let mut keeper = Keeper {
        log,
        reader: None,
        care: Care::new(settings.lease, settings.retention),
        failed: false,
    };
    let interval = INTERVAL.min(settings.lease / 3);
    let mut next = Instant::now() + interval;
    loop {
        match messages.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Message::Ask(question)) => keeper.answer(question),
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if log.writer().ends_at.is_some() {
            return;
        }
        if Instant::now() >= next {
            if matches!(settings.place, Place::Postgres(_)) {
                keeper.care();
            }
            next = Instant::now() + interval;
        }
    }
}

struct Keeper<'l> {
    log: &'l SessionLog,
    reader: Option<Reader>,
    care: Care,
    /// Whether the last care failed, and a log line says so.
    failed: bool,
}

impl Keeper<'_> {
    fn answer(&mut self, question: Question) {
        let is_good = match open(&mut self.reader, self.log) {
            Ok(reader) => question(Ok(reader)),
            Err(error) => question(Err(&error)),
        };
        if !is_good {
            self.reader = None;
        }
    }

    fn care(&mut self) {
        let cared = match open(&mut self.reader, self.log) {
            Ok(reader) => reader.care(&mut self.care),
            Err(error) => Err(error),
        };
        match &cared {
            Ok(cleaned) => _ = self.log.numbers.cleaned.fetch_add(*cleaned, Ordering::Relaxed),
            Err(error) if !self.failed => {
                tracing::warn!(%error, "the session log looks for no dead nodes: it is tried again");
            }
            Err(_) => {}
        }
        self.failed = cared.is_err();
    }
}

fn open<'r>(
    reader: &'r mut Option<Reader>,
    log: &SessionLog,
) -> Result<&'r mut Reader, StoreError> {
    match reader {
        Some(reader) => Ok(reader),
        reader => Ok(reader.insert(Reader::open_for(&log.settings.place, Asker::Server)?)),
    }
}
