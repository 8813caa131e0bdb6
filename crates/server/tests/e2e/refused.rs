//! Hosts that refuse io_uring, by filters as the engines of containers set them. What
//! `kernel.io_uring_disabled` does is the same error from the same call, as of EPERM here.

use std::process::Command;
use std::thread;

use nix::libc;
use nix::sys::signal::Signal;
use seccompiler::{SeccompAction, SeccompFilter, apply_filter};

use crate::server::{Server, TEXT, frame, murre};

/// Does something on a thread, and in the processes it starts, whose `calls` are met by `action`.
fn refusing<T: Send>(calls: &[i64], action: SeccompAction, doing: impl FnOnce() -> T + Send) -> T {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).expect("a filter");
    let filter = (&filter.try_into().expect("a filter")) as &seccompiler::BpfProgram;
    let filtered = || {
        apply_filter(filter).expect("filters are allowed");
        doing()
    };
    thread::scope(|scope| scope.spawn(filtered).join().expect("no panic"))
}

/// `murre serve` with these flags, on free ports.
fn serve(flags: &[&str]) -> Command {
    let mut command = murre();
    command.args(["serve", "--bench", "--max-conns=1000"]).args(flags);
    command
}

/// Everything works, the control plane too.
fn serves(server: Server) {
    let mut client = server.raw_websocket("/upper");
    client.send(&frame(TEXT, b"murre"));
    assert_eq!(client.bytes(7), b"\x81\x05MURRE");
    assert_eq!(server.connect().get("/?length=5000").body.len(), 5000);
    assert_eq!(server.stats()["io"]["reason"], server.start["io_reason"]);
    assert!(server.admin("/metrics").text().ends_with("# EOF\n"));
    drop(client);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0.code(), Some(0));
}

const SETUP: i64 = libc::SYS_io_uring_setup;
const ENTER: i64 = libc::SYS_io_uring_enter;
const REGISTER: i64 = libc::SYS_io_uring_register;

/// Where io_uring is refused, wholly or so that it is of no use, epoll takes its place and says so.
#[test]
fn epoll_takes_the_place_of_a_refused_io_uring() {
    for (calls, errno) in [
        (&[SETUP, ENTER, REGISTER][..], libc::EPERM),
        (&[SETUP, ENTER, REGISTER], libc::ENOSYS),
        (&[SETUP], libc::EINVAL),
        (&[ENTER], libc::EPERM),
    ] {
        let refused = SeccompAction::Errno(errno as u32);
        let server = refusing(calls, refused, || Server::spawn(&mut serve(&[])));
        assert_eq!([&server.start["io"], &server.start["descriptors"]], ["epoll", "normal"]);
        let reason = server.start["io_reason"].as_str().expect("a reason");
        assert!(reason.starts_with("io_uring is refused: "), "{reason}");
        serves(server);
    }
}

/// Who asks for epoll never tries io_uring: not where that is death either.
#[test]
fn epoll_tries_no_io_uring() {
    let calls = [SETUP, ENTER, REGISTER];
    let server =
        refusing(&calls, SeccompAction::KillProcess, || Server::spawn(&mut serve(&["--io=epoll"])));
    assert_eq!(server.start["io_reason"], "asked for");
    serves(server);
}

/// Who asks for io_uring and is refused is told so, and so is who has no room for a ring: either is
/// one line with the remedy, and exit code 1.
#[test]
fn what_is_no_reason_for_epoll_is_told() {
    for (flags, errno, remedy) in [
        (&["--io=uring"][..], libc::EPERM, "leave the choice to 'auto'"),
        (&["--io=uring-plain"], libc::ENOSYS, "leave the choice to 'auto'"),
        (&[], libc::ENOMEM, "raise the limit on locked memory"),
        (&[], libc::EMFILE, "and on open files"),
    ] {
        let action = SeccompAction::Errno(errno as u32);
        let output = refusing(&[SETUP], action, || serve(flags).output()).expect("it starts");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(remedy), "{flags:?}: {stderr}");
    }
}
