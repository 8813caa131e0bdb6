//! The forms of an io_uring, and the errors of `io_uring_enter` that pass by themselves.

use std::io;

use io_uring::IoUring;

/// Setup flags of a ring, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// `SINGLE_ISSUER | DEFER_TASKRUN` (6.1): the kernel finishes operations when the shard asks.
    Deferred,
    /// `COOP_TASKRUN` (5.19): no interrupt for a completion.
    Cooperative,
    /// No more than 5.10 has: a completion queue of our size.
    Plain,
}

impl Tier {
    /// The reason for choosing this form, for the start of the log.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Tier::Deferred => "single issuer and deferred task work, tried out",
            Tier::Cooperative => "cooperative task work, tried out; deferred does not work",
            Tier::Plain => "only the plain forms work",
        }
    }

    /// Makes a ring of this form, with queues of these sizes.
    pub(super) fn build(self, sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(cq_entries);
        match self {
            Tier::Deferred => builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all(),
            Tier::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all()
            }
            Tier::Plain => &mut builder,
        };
        builder.build(sq_entries)
    }
}

/// Takes an enter that did nothing for a passing reason for a success: the next one goes on.
pub(super) fn tolerate(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // The time is over; a signal; completions must be read first; memory is short for now.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed enter is fatal unless its error passes by itself.
    #[test]
    fn passing_errors_are_tolerated() {
        for errno in [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN] {
            assert!(tolerate(Err(io::Error::from_raw_os_error(errno))).is_ok(), "{errno}");
        }
        for errno in [libc::EBADF, libc::EEXIST, libc::EFAULT, libc::EINVAL, libc::EPERM] {
            assert!(tolerate(Err(io::Error::from_raw_os_error(errno))).is_err(), "{errno}");
        }
        assert!(tolerate(Ok(0)).is_ok());
    }
}
