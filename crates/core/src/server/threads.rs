//! Threads whose end is reported, whether by return, error or panic.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

/// How a thread ended: `Err` has the error, or the message of the panic.
pub type Ended = Result<(), String>;

/// Runs `run` on a new thread, then calls `ended` there with how it ended.
///
/// # Errors
/// `EAGAIN`: the limit on processes (`ulimit -u`) or on memory allows no other thread.
pub fn start(
    name: String,
    stack_bytes: usize,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> io::Result<()> {
    let body = move || {
        // After a panic only `ended` runs, which shares nothing with `run`.
        let outcome = panic::catch_unwind(AssertUnwindSafe(run));
        ended(match outcome {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(panicked(&*panic)),
        });
    };
    thread::Builder::new().name(name).stack_size(stack_bytes).spawn(body)?;
    Ok(())
}

/// The message of a panic, as an error's text.
pub fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn end_of(run: fn() -> io::Result<()>) -> Ended {
        let (sender, receiver) = mpsc::channel();
        let ended = move |how| sender.send(how).expect("the test waits");
        start("test".into(), 256 * 1024, run, ended).expect("a thread");
        receiver.recv().expect("its end is told")
    }

    /// A thread's return, error and panic are reported.
    #[test]
    fn every_end_is_told() {
        assert_eq!(end_of(|| Ok(())), Ok(()));
        assert_eq!(end_of(|| Err(io::Error::other("no ring"))), Err("no ring".into()));
        assert_eq!(
            end_of(|| panic!("slot {} is lost", 7)),
            Err("it panicked: slot 7 is lost".into())
        );
    }
}
