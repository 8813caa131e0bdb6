//! Parts that both measurements share.

use std::io;
use std::time::Duration;

use io_uring::IoUring;
use nix::time::{ClockId, clock_gettime};

/// A ring as a shard has it on a current kernel (6.1).
pub(crate) fn ring(sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_cqsize(cq_entries)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(sq_entries)
}

/// CPU time that the calling thread has used.
pub(crate) fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
