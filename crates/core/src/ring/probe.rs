//! Finds out what this kernel's io_uring can do, by doing it.
//!
//! The kernel's version does not say: distributions backport, containers forbid, and some kernels
//! accept a flag and get it wrong. So each form is set up and used once on a pair of sockets.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};

use super::setup::{Tier, tolerate};
use crate::retry::is_shortage;

/// The best form that works here.
///
/// # Errors
/// Memory or descriptors are short, or not even the plain form works: the error of that.
pub(crate) fn best_tier() -> io::Result<Tier> {
    static BEST: OnceLock<Tier> = OnceLock::new();
    if let Some(&best) = BEST.get() {
        return Ok(best);
    }
    let mut best = Err(io::Error::other("no form was tried"));
    for tier in [Tier::Deferred, Tier::Cooperative, Tier::Plain] {
        best = round_trip(tier).map(|()| tier);
        // Where memory is short now, a better form may work the next time.
        if best.as_ref().map_or_else(is_shortage, |_| true) {
            break;
        }
    }
    best.map(|tier| *BEST.get_or_init(|| tier))
}

/// Waits for bytes, receives them and answers on a ring of this form, as a connection does.
///
/// # Errors
/// The error of the first step that fails.
pub(crate) fn round_trip(tier: Tier) -> io::Result<()> {
    let mut ring = tier.build(8, 16)?;
    let (mut near, far) = UnixStream::pair()?;
    let file = Fd(far.as_raw_fd());
    near.write_all(b"?")?;
    // Leaked: if a step fails, the kernel may write to it after we have returned.
    let byte = Box::leak(Box::new([0u8; 1]));
    run(&mut ring, &opcode::PollAdd::new(file, libc::POLLIN as u32).build())?;
    run(&mut ring, &opcode::Recv::new(file, byte.as_mut_ptr(), 1).build())?;
    run(&mut ring, &opcode::Send::new(file, byte.as_ptr(), 1).build())?;
    near.set_read_timeout(Some(Duration::from_secs(1)))?;
    near.read_exact(byte)?;
    if byte == b"?" { Ok(()) } else { Err(io::Error::other("io_uring changed a byte")) }
}

/// Whether sockets may live in a ring's own table of files.
///
/// Before 6.13 a socket that is closed there stays open as long as an operation that was begun earlier
/// on another socket of the table waits (liburing issue 1192), which idle connections always do.
///
/// # Errors
/// The step that does not work, in words.
pub(crate) fn direct_descriptors() -> io::Result<()> {
    let mut ring = best_tier()?.build(8, 16)?;
    ring.submitter().register_files_sparse(2).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("no table of files to fill later, since 5.19: {error}"),
        )
    })?;
    let (_idle_peer, idle) = UnixStream::pair()?;
    let (mut peer, closing) = UnixStream::pair()?;
    ring.submitter().register_files_update(0, &[idle.as_raw_fd(), closing.as_raw_fd()])?;
    drop((idle, closing));
    let wait = opcode::PollAdd::new(Fixed(0), libc::POLLIN as u32).build().user_data(WAITS);
    push(&mut ring, &wait);
    run(&mut ring, &opcode::Close::new(Fixed(1)).build())?;
    peer.set_read_timeout(Some(Duration::from_secs(1)))?;
    match peer.read(&mut [0; 1]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(io::Error::other("a closed socket sent bytes")),
        Err(_) => Err(io::Error::other(
            "closed sockets stay open while others wait (liburing issue 1192, fixed in 6.13)",
        )),
    }
}

const WAITS: u64 = 1;
const RUNS: u64 = 2;

fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the byte that an entry may point to is never freed.
    unsafe { ring.submission().push(entry) }.expect("the queue has room for two");
}

/// Runs one operation to its end.
fn run(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<u32> {
    push(ring, &entry.clone().user_data(RUNS));
    loop {
        tolerate(ring.submit_and_wait(1))?;
        while let Some(cqe) = ring.completion().next() {
            if cqe.user_data() == RUNS {
                let result = u32::try_from(cqe.result());
                return result.map_err(|_| io::Error::from_raw_os_error(-cqe.result()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms that tests are written for work on the machine that runs them.
    #[test]
    fn the_plain_form_works_wherever_another_does() {
        if best_tier().is_ok() {
            round_trip(Tier::Plain).expect("the plain form");
        }
    }
}
