//! Signals of the process, as events.

use std::io;
use std::thread;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};

/// The signals that a server handles, blocked so that the kernel does not end the process for them.
///
/// SIGTERM and SIGINT drain the server. SIGUSR1, SIGUSR2 and, without
/// [`Server::on_hang_up`](super::Server::on_hang_up), SIGHUP are logged and change nothing.
/// Others do what signal(7) says; SIGKILL and SIGQUIT end the process without a drain.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Blocks the signals for the calling thread and for all threads that it starts. Another thread
    /// that does not block them would receive them in place of the server, so call this before the
    /// program starts any.
    ///
    /// # Errors
    /// None that a running process sees.
    pub fn block() -> io::Result<Self> {
        handled().thread_block()?;
        Ok(Signals(()))
    }

    /// Runs `work` while SIGTERM and SIGINT end the process at once, because there is nothing to drain
    /// yet. A program runs slow steps of its start here, such as the reading of files. The other signals
    /// wait until `work` returns.
    ///
    /// # Errors
    /// None that a running process sees.
    pub fn end_at_once_during<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let ends: SigSet = handled().iter().filter(|&signal| ends(signal)).collect();
        ends.thread_unblock()?;
        let done = work();
        ends.thread_block()?;
        Ok(done)
    }

    /// Calls `heard` for each signal from now on, with the time at which it came, until that returns
    /// `false`.
    pub(super) fn watch(
        self,
        mut heard: impl FnMut(Signal, Instant) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let wait = move || {
            while let Ok(signal) = handled().wait() {
                if !heard(signal, Instant::now()) {
                    return;
                }
            }
        };
        thread::Builder::new().name("signals".into()).stack_size(STACK_BYTES).spawn(wait)?;
        Ok(())
    }
}

/// Whether the signal asks for the end of the process.
pub(super) fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

fn handled() -> SigSet {
    use Signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2].into_iter().collect()
}

/// The thread does nothing but wait.
const STACK_BYTES: usize = 64 * 1024;
