//! The check of how memory is attributed: `murre-load memory --check`.
//!
//! Opens a known number of connections to itself and charges one end of each, by the method of
//! `memory.rs`. Then it opens sockets that have no other end, so that nothing has to
//! be attributed: what one of those costs is what an end must have cost. The kernel counts the
//! sockets of the whole machine, so this waits until nothing else opens or closes any, and says so
//! if that does not come.

use std::fmt;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use murre_core::host::Descriptors::Normal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::Serialize;

use crate::measure::attribution::{Bill, Ends, bill};
use crate::measure::slab::Slabs;

/// How it went. Bytes are of the kernel's slabs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    pairs: u64,
    /// Charged to one end of a connection.
    attributed_bytes: f64,
    /// What a socket without another end costs.
    alone_bytes: f64,
    pub(crate) agrees: bool,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections: {:.1} B charged to one end; a socket without another end costs \
             {:.1} B: {}",
            self.pairs,
            self.attributed_bytes,
            self.alone_bytes,
            if self.agrees { "they agree" } else { "they do NOT agree" }
        )
    }
}

pub(crate) fn run(pairs: u64) -> anyhow::Result<Check> {
    // The sockets of both ends and some that are there.
    let files = 2 * pairs + 100;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if files > most {
        bail!("{pairs} connections need {files} open files, the limit is {most}: --conns less");
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        match attempt(pairs)? {
            Ok(check) => return Ok(check),
            Err(disturbed) => why = disturbed,
        }
    }
    bail!("other programs open and close sockets, tried {ATTEMPTS} times: {why}")
}

/// The inner error says what else happened on the machine meanwhile.
fn attempt(pairs: u64) -> anyhow::Result<Result<Check, String>> {
    let both = Ends { client: Some(Normal), client_in_epoll: false, server: Normal };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let before = settled()?;
    let held = (0..pairs)
        .map(|_| Ok((TcpStream::connect(address)?, listener.accept()?)))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("opening {pairs} connections"))?;
    let attributed = charged(&before, &settled()?, pairs, both);
    drop(held);

    let one = Ends { client: None, client_in_epoll: false, server: Normal };
    let before = settled()?;
    let single = (0..2 * pairs)
        .map(|_| socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None))
        .collect::<nix::Result<Vec<_>>>()
        .with_context(|| format!("opening {} sockets", 2 * pairs))?;
    let alone = charged(&before, &settled()?, 2 * pairs, one);
    drop(single);

    Ok(attributed.and_then(|attributed_bytes| {
        let alone_bytes = alone?;
        let agrees = (attributed_bytes / alone_bytes - 1.0).abs() < TOLERANCE;
        Ok(Check { pairs, attributed_bytes, alone_bytes, agrees })
    }))
}

/// Bytes charged per connection, or why they make no sense.
fn charged(before: &Slabs, full: &Slabs, conns: u64, ends: Ends) -> Result<f64, String> {
    let Bill { charged, disturbed, .. } = bill(before, full, conns, ends);
    if !disturbed.is_empty() {
        return Err(disturbed.join("; "));
    }
    Ok(charged.iter().map(|(_, charge)| charge.server_bytes).sum())
}

/// The slabs, once two readings in turn have the same sockets: inodes and files are freed a while
/// after they are closed, and other programs may be busy.
fn settled() -> anyhow::Result<Slabs> {
    let read = || Slabs::read(Path::new("/sys/kernel/slab"));
    let sockets = |slabs: &Slabs| {
        let cache = slabs.0.values().find(|cache| cache.is("sock_inode_cache"));
        cache.map(|cache| cache.objects)
    };
    let mut before = read().context("the kernel's slabs cannot be read: root is needed")?;
    for _ in 0..ATTEMPTS {
        thread::sleep(SETTLE);
        let now = read()?;
        if sockets(&now) == sockets(&before) {
            return Ok(now);
        }
        before = now;
    }
    bail!("the number of sockets on this machine does not stand still")
}

const ATTEMPTS: usize = 10;

/// Longer than what the kernel waits before it frees inodes.
const SETTLE: Duration = Duration::from_secs(1);

/// How far the two may be apart.
const TOLERANCE: f64 = 0.05;
