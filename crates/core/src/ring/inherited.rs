//! Descriptors that the process was started with.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a service manager passes on (`SD_LISTEN_FDS_START` of sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// Takes `count` descriptors from 3 on, which the service manager has opened for this process.
/// `None` if they were taken before.
///
/// # Errors
/// One of them is not open. None is taken then.
pub(crate) fn take(count: u16) -> io::Result<Option<Vec<OwnedFd>>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.load(Ordering::SeqCst) {
        return Ok(None);
    }
    let all = FIRST..FIRST + RawFd::from(count);
    if let Some(closed) = all.clone().find(|&fd| !is_open(fd)) {
        let problem = format!("descriptor {closed} is not open, and LISTEN_FDS is {count}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    let owned = |fd| {
        // SAFETY: the caller has read in the environment that these descriptors were opened for this
        // process to own, and `TAKEN` makes sure that they get one owner only.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    Ok(Some(all.map(owned).collect()))
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of the descriptor, and fails with EBADF if it is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}
