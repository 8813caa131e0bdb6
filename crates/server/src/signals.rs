//! SIGTERM and SIGINT, as events.

use std::io;
use std::sync::mpsc::Sender;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Keeps the signals from ending the process. Threads started afterwards inherit this.
pub(crate) fn block() -> io::Result<()> {
    Ok(ending().thread_block()?)
}

/// Sends what `event` makes of each signal from now on.
pub(crate) fn watch<E: Send + 'static>(
    events: Sender<E>,
    event: fn(Signal) -> E,
) -> io::Result<()> {
    let wait = move || {
        while let Ok(signal) = ending().wait() {
            if events.send(event(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(STACK_BYTES).spawn(wait)?;
    Ok(())
}

fn ending() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// The thread does nothing but wait.
const STACK_BYTES: usize = 64 * 1024;
