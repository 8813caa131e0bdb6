//! Errors of the kernel that pass within a moment.
//!
//! The kernel frees the rings of a process after the process has ended: until then their memory
//! counts as locked, and they hold the listener that they accept from. So a server that replaces one
//! that was killed may find memory short and its port in use for some milliseconds.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The time for which an operation is repeated while its error may pass.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(10);

/// Repeats `attempt` until it succeeds, it fails with an error that does not pass, or `span` is over.
pub(crate) fn retry<T>(
    span: Duration,
    passes: impl Fn(&io::Error) -> bool,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let end = Instant::now() + span;
    loop {
        match attempt() {
            Err(error) if passes(&error) && Instant::now() < end => thread::sleep(INTERVAL),
            result => return result,
        }
    }
}

/// Whether the machine or the process is short of memory or of descriptors.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOBUFS))
}

/// Whether another socket has the address.
pub(crate) fn is_in_use(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRINUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(errno: i32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(errno))
    }

    /// An error that passes is retried until it has passed, any other is returned at once.
    #[test]
    fn passing_errors_are_retried() {
        let mut errors = vec![libc::EADDRINUSE; 3];
        let attempt = || errors.pop().map_or(Ok("bound"), |errno| fail(errno).map(|()| ""));
        assert_eq!(retry(Duration::MAX / 4, is_in_use, attempt).expect("it has passed"), "bound");
        let mut attempts = 0;
        let error = retry(RETRY_MAX, is_in_use, || {
            attempts += 1;
            fail(libc::EACCES)
        });
        assert_eq!((error.expect_err("refused").raw_os_error(), attempts), (Some(libc::EACCES), 1));
    }

    /// An error that does not pass in time is returned.
    #[test]
    fn retries_end() {
        let error = retry(Duration::ZERO, is_shortage, || fail(libc::ENFILE));
        assert_eq!(error.expect_err("a shortage").raw_os_error(), Some(libc::ENFILE));
    }

    /// Every error by which the kernel says that memory or descriptors are short, and no other.
    #[test]
    fn shortages_are_told_from_refusals() {
        let is_shortage = |errno| is_shortage(&io::Error::from_raw_os_error(errno));
        for errno in [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOBUFS] {
            assert!(is_shortage(errno), "{errno}");
        }
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL, libc::EADDRINUSE] {
            assert!(!is_shortage(errno), "{errno}");
        }
    }
}
