//! Descriptors that the process was started with.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a service manager passes on (`SD_LISTEN_FDS_START` of sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// Takes `count` descriptors from 3 on, which the service manager has opened for this process.
/// `None` if they were taken before.
pub(crate) fn take(count: u16) -> Option<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    let owned = |fd| {
        // SAFETY: the caller has read in the environment that these descriptors were opened for this
        // process to own, and `TAKEN` makes sure that they get one owner only.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    Some((FIRST..FIRST + RawFd::from(count)).map(owned).collect())
}
