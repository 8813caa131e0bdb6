//! Tests on hosts that refuse io_uring, by seccomp filters like those of container engines.
//! `kernel.io_uring_disabled` gives the same error from the same system call as the filter with
//! EPERM.

use std::process::Command;
use std::thread;

use nix::libc;
use nix::sys::signal::Signal;
use seccompiler::{SeccompAction, SeccompFilter, apply_filter};

use crate::server::{Server, TEXT, frame, murre};

/// Runs `doing` on a thread with a seccomp filter, which also holds for the processes that it
/// starts. The filter answers these system `calls` with `action`.
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

/// The command `murre serve` with these flags, on free ports.
fn serve(flags: &[&str]) -> Command {
    let mut command = murre();
    command.args(["serve", "--bench", "--max-conns=1000"]).args(flags);
    command
}

/// Checks that the server works, and its control plane, too.
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

/// If the kernel refuses io_uring, or a part that the server needs, the server uses epoll, and the
/// start line has the kernel's error.
#[test]
fn epoll_takes_the_place_of_a_refused_io_uring() {
    for (calls, errno, expected) in [
        (&[SETUP, ENTER, REGISTER][..], libc::EPERM, "io_uring is refused: "),
        (&[SETUP, ENTER, REGISTER], libc::ENOSYS, "io_uring is refused: "),
        (&[SETUP], libc::EINVAL, "io_uring is refused: "),
        (&[ENTER], libc::EPERM, "io_uring is refused: "),
        // The memory or the descriptors of the process or of the machine are exhausted.
        (&[SETUP], libc::ENOMEM, "no room for io_uring: "),
        (&[SETUP], libc::EMFILE, "no room for io_uring: "),
        (&[SETUP], libc::ENFILE, "no room for io_uring: "),
        (&[ENTER], libc::ENOMEM, "no room for io_uring: "),
    ] {
        let refused = SeccompAction::Errno(errno as u32);
        let server = refusing(calls, refused, || Server::spawn(&mut serve(&[])));
        assert_eq!([&server.start["io"], &server.start["descriptors"]], ["epoll", "normal"]);
        let reason = server.start["io_reason"].as_str().expect("a reason");
        assert!(reason.starts_with(expected), "{reason}");
        serves(server);
    }
}

/// `--io=epoll` never calls io_uring, so it works where a filter kills processes that call it.
#[test]
fn epoll_tries_no_io_uring() {
    let calls = [SETUP, ENTER, REGISTER];
    let server =
        refusing(&calls, SeccompAction::KillProcess, || Server::spawn(&mut serve(&["--io=epoll"])));
    assert_eq!(server.start["io_reason"], "asked for");
    serves(server);
}

/// With `--io=uring`, a refusal and a lack of memory or descriptors each give one line with the
/// remedy, and exit code 1.
#[test]
fn an_io_uring_that_was_asked_for_is_not_replaced() {
    for (flags, errno, remedy) in [
        (&["--io=uring"][..], libc::EPERM, "leave the choice to 'auto'"),
        (&["--io=uring-plain"], libc::ENOSYS, "leave the choice to 'auto'"),
        (&["--io=uring"], libc::ENOMEM, "raise the limits on locked memory"),
        (&["--io=uring"], libc::EMFILE, "and on open files"),
    ] {
        let action = SeccompAction::Errno(errno as u32);
        let output = refusing(&[SETUP], action, || serve(flags).output()).expect("it starts");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(remedy), "{flags:?}: {stderr}");
    }
}

/// A server starts on the port of a server that was killed a moment ago, while the kernel still
/// closes the old listener.
#[test]
fn a_killed_server_is_replaced_at_once() {
    // No other test uses ports of this address.
    let mut address = "127.0.23.1:0".to_owned();
    for _ in 0..10 {
        let mut command = murre();
        command.args(["serve", "--bench", "--max-conns=1000", "--admin=127.0.0.1:0"]);
        let server = Server::spawn_on(command.args(["--listen", &address]));
        server.start["listen"].as_str().expect("an address").clone_into(&mut address);
        assert_eq!(server.connect().get("/?length=5000").body.len(), 5000);
        server.signal(Signal::SIGKILL);
        assert_eq!(server.end().0.code(), None);
    }
}
