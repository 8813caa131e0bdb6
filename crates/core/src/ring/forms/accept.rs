//! Measures the cost of each form of accepting, and of the peer's address.
//!
//! `cargo run --release --package murre-core --example accept_forms`
//!
//! Two rings accept from one listener. A multishot accept stays at the front of the listener's wait
//! queue, so one of the rings gets every connection; a one-shot accept goes to the end each time it
//! is armed again, which spreads connections evenly. And a multishot accept takes connections for
//! which there may be no slot, so the shard would have to drop them. Needs Linux 6.1.

mod setup;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{cqueue, opcode};
use murre_core::Listener;

/// Connections in one run: two descriptors each within the usual limits.
const CONNS: usize = 8000;
const TIMEOUT: Timespec = Timespec::new().nsec(20_000_000);

const FORMS: [Form; 5] =
    [Form::Multishot, Form::OneShot(1), Form::OneShot(8), Form::Addressed(8), Form::OneShot(64)];

#[derive(Clone, Copy, Debug)]
enum Form {
    Multishot,
    OneShot(u32),
    /// One-shot, with the address of each peer.
    Addressed(u32),
}

/// Prints the share of each ring and the CPU time of one accept, for each form in turn.
fn main() -> io::Result<()> {
    for _ in 0..3 {
        for form in FORMS {
            let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
            let address = listener.address()?;
            let accepted = Arc::new(AtomicUsize::new(0));
            let over = Arc::new(AtomicBool::new(false));
            let rings = [(); 2].map(|()| {
                let (listener, accepted, over) =
                    (listener.clone(), Arc::clone(&accepted), Arc::clone(&over));
                thread::spawn(move || accept(&listener, form, &accepted, &over))
            });
            let held: Vec<TcpStream> = connect(address)?;
            while accepted.load(Ordering::Relaxed) < CONNS {
                thread::sleep(Duration::from_millis(1));
            }
            over.store(true, Ordering::Relaxed);
            let [one, two] = rings.map(|ring| ring.join().expect("no panic"));
            let ((one, cpu_one), (two, cpu_two)) = (one?, two?);
            drop(held);
            let cpu = (cpu_one + cpu_two).as_secs_f64() * 1e6 / CONNS as f64;
            println!("{{\"accept\":\"{form:?}\",\"shares\":[{one},{two}],\"cpu_us\":{cpu:.2}}}");
        }
    }
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    (0..CONNS).map(|_| TcpStream::connect(address)).collect()
}

fn accept(
    listener: &Listener,
    form: Form,
    accepted: &AtomicUsize,
    over: &AtomicBool,
) -> io::Result<(usize, Duration)> {
    // One for all accepts: the addresses are not read. Leaked, because the kernel cancels accepts in
    // flight only after the ring is closed, at a time of its own.
    let peer = Box::leak(Box::new([0_u8; size_of::<libc::sockaddr_in6>()]));
    let peer_len = Box::leak(Box::new(peer.len() as libc::socklen_t));
    let mut ring = setup::ring(256, 4096)?;
    let file = Fd(listener.as_fd().as_raw_fd());
    let (wanted, entry) = match form {
        Form::Multishot => (1, opcode::AcceptMulti::new(file).build()),
        Form::OneShot(count) => (count, opcode::Accept::new(file, null_mut(), null_mut()).build()),
        Form::Addressed(count) => {
            let peer = peer.as_mut_ptr().cast();
            (count, opcode::Accept::new(file, peer, peer_len).build())
        }
    };
    let (mut armed, mut sockets) = (0, Vec::new());
    while !over.load(Ordering::Relaxed) {
        while armed < wanted {
            // SAFETY: the memory for addresses is never freed.
            unsafe { ring.submission().push(&entry) }.expect("room for every accept");
            armed += 1;
        }
        // Only the time can be over.
        let _ = ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&TIMEOUT));
        while let Some(cqe) = ring.completion().next() {
            let fd: RawFd = cqe.result();
            assert!(fd >= 0, "accepting failed: {fd}");
            // SAFETY: the kernel has just made this descriptor for us.
            sockets.push(unsafe { OwnedFd::from_raw_fd(fd) });
            accepted.fetch_add(1, Ordering::Relaxed);
            armed -= u32::from(!cqueue::more(cqe.flags()));
        }
    }
    Ok((sockets.len(), setup::cpu_time()?))
}
