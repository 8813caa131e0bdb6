//! What this kernel's io_uring can do, found out by doing it.
//!
//! Versions do not tell: distributions backport, containers forbid, and some kernels accept a flag
//! and get it wrong. So each form is set up and used once on a pair of sockets.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};

use super::uring::tolerate;

/// Forms of setting up a ring, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// `SINGLE_ISSUER | DEFER_TASKRUN` (6.1): completions are worked off when the shard asks.
    Deferred,
    /// `COOP_TASKRUN` (5.19): no interrupt for a completion.
    Cooperative,
    /// What 5.10 has: a completion queue of our size and nothing else.
    Plain,
}

impl Tier {
    /// The best form that works here.
    ///
    /// # Errors
    /// What the plain form fails with: io_uring cannot be used.
    pub(crate) fn best() -> io::Result<Tier> {
        static BEST: OnceLock<Tier> = OnceLock::new();
        if let Some(&best) = BEST.get() {
            return Ok(best);
        }
        let works = |tier: &Tier| tier.round_trip().is_ok();
        let best = [Tier::Deferred, Tier::Cooperative].into_iter().find(works);
        let best = match best {
            Some(tier) => tier,
            None => Tier::Plain.round_trip().map(|()| Tier::Plain)?,
        };
        Ok(*BEST.get_or_init(|| best))
    }

    /// What is special about it, for people.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Tier::Deferred => "single issuer and deferred task work, tried out",
            Tier::Cooperative => "cooperative task work, tried out; deferred does not work",
            Tier::Plain => "only the plain forms work",
        }
    }

    /// Makes a ring of this form.
    pub(crate) fn build(self, sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
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

    /// Waits for bytes, receives them and answers, as a connection does.
    pub(crate) fn round_trip(self) -> io::Result<()> {
        let mut ring = self.build(8, 16)?;
        let (mut near, far) = UnixStream::pair()?;
        let file = Fd(far.as_raw_fd());
        near.write_all(b"?")?;
        // Leaked: where a probe fails half-way the kernel may write to it later.
        let byte = Box::leak(Box::new([0u8; 1]));
        run(&mut ring, &opcode::PollAdd::new(file, libc::POLLIN as u32).build())?;
        run(&mut ring, &opcode::Recv::new(file, byte.as_mut_ptr(), 1).build())?;
        run(&mut ring, &opcode::Send::new(file, byte.as_ptr(), 1).build())?;
        near.set_read_timeout(Some(Duration::from_secs(1)))?;
        near.read_exact(byte)?;
        if byte == b"?" { Ok(()) } else { Err(io::Error::other("io_uring changed a byte")) }
    }
}

/// Whether sockets may live in a ring's own table of files.
///
/// Before 6.13 one that is closed there stays open as long as an operation that was begun earlier
/// on another of them waits (liburing issue 1192), which idle connections always do.
///
/// # Errors
/// What did not work, in words.
pub(crate) fn direct_descriptors() -> io::Result<()> {
    let mut ring = Tier::best()?.build(8, 16)?;
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
        Ok(_) => Err(io::Error::other("a closed socket spoke")),
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
        if Tier::best().is_ok() {
            Tier::Plain.round_trip().expect("the plain form");
        }
    }
}
