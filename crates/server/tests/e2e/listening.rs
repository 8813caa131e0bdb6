//! Tests of listeners: several addresses, names, Unix sockets and sockets of a service manager.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::server::{PATIENCE, Server, murre};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";

/// Whether the server behind this connection answers that it is healthy.
fn is_healthy(mut stream: impl Read + Write) -> bool {
    let mut answer = String::new();
    let _ = stream.write_all(HEALTH).and_then(|()| stream.read_to_string(&mut answer));
    answer.starts_with("HTTP/1.1 200 ")
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("possible");
    stream
}

fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("possible");
    stream
}

fn socket_path(name: &str) -> PathBuf {
    let folder = env::temp_dir().join(format!("murre-e2e-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("room");
    folder.join(name)
}

fn listening(server: &Server) -> Vec<String> {
    let listen = server.start["listen"].as_str().expect("a list");
    listen.split(',').map(str::to_owned).collect()
}

/// Every shard serves every address, on io_uring and on epoll. A drain closes all listeners and
/// removes the file of a Unix socket.
#[test]
fn several_addresses_are_served() {
    for io in ["--io=auto", "--io=epoll"] {
        let path = socket_path(&format!("several{io}"));
        let mut command = murre();
        command.args(["serve", "--max-conns=100", "--shards=2", "--drain-timeout=0.2", io]);
        command.arg(format!("--listen=127.0.0.1:0,unix:{}", path.display()));
        command.args(["--listen=127.0.0.1:0", "--admin=localhost:0", "--unix-mode=0620"]);
        let server = Server::spawn_on(&mut command);
        let file = fs::metadata(&path).expect("it is there");
        assert_eq!(file.permissions().mode() & 0o7777, 0o620);
        let listen = listening(&server);
        assert_eq!((listen.len(), &listen[1]), (3, &format!("unix:{}", path.display())));
        let [first, last] = [0, 2].map(|at: usize| listen[at].parse().expect("an address"));
        // More connections than one ring has accepts for a listener.
        for _ in 0..20 {
            assert!(is_healthy(tcp(first)) && is_healthy(tcp(last)) && is_healthy(unix(&path)));
        }
        assert_eq!(server.stats()["listen"].as_str(), Some(&*listen.join(",")));
        // Open connections at one address do not prevent connections at another.
        let held: Vec<_> = (0..40).map(|_| unix(&path)).collect();
        server.wait_until("all accepted", |stats| stats["connections"] == 40);
        assert!(is_healthy(tcp(first)) && is_healthy(tcp(last)));
        drop(held);
        server.signal(Signal::SIGTERM);
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(!path.exists());
        assert!(TcpStream::connect(first).is_err() && TcpStream::connect(last).is_err());
    }
}

/// With a name the server listens at all addresses of the name, and with a port alone at all
/// addresses of the machine.
#[test]
fn names_and_all_addresses() {
    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--listen=localhost:0", "--admin=:0"]);
    let server = Server::spawn_on(&mut command);
    for address in listening(&server) {
        let address: SocketAddr = address.parse().expect("an address");
        assert!(address.ip().is_loopback() && is_healthy(tcp(address)), "{address}");
    }
    assert!(server.admin.ip().is_unspecified());

    let mut command = murre();
    command.args(["serve", "--max-conns=100", "--listen=:0", "--admin=127.0.0.1:0"]);
    let server = Server::spawn_on(&mut command);
    assert!(server.data.ip().is_unspecified());
    assert!(is_healthy(tcp((Ipv4Addr::LOCALHOST, server.data.port()).into())));
}

/// The server replaces the Unix socket of a killed server, but not a socket in use.
#[test]
fn a_unix_socket_is_taken_over_from_the_dead() {
    let path = socket_path("taken");
    let listen = format!("--listen=127.0.0.1:0,unix:{}", path.display());
    let start = || {
        let mut command = murre();
        command.args(["serve", "--max-conns=100", "--admin=127.0.0.1:0", &listen]);
        Server::spawn_on(&mut command)
    };
    // Dropping the server kills it.
    drop(start());
    assert!(path.exists());
    let server = start();
    assert!(is_healthy(unix(&path)));
    let second =
        murre().args(["serve", "--max-conns=100", "--admin=127.0.0.1:0", &listen]).output();
    let second = second.expect("the binary starts");
    assert_eq!(second.status.code(), Some(1));
    assert!(is_healthy(unix(&path)));
    drop(server);
}

/// If the proxy at a Unix socket is trusted, the limits apply to the clients that it names, by
/// `X-Forwarded-For` or by the PROXY protocol.
#[test]
fn proxies_at_a_unix_socket_name_their_clients() {
    let path = socket_path("proxied");
    let start = |flags: &[&str]| {
        let mut command = murre();
        command.args(["serve", "--bench", "--max-conns=100", "--max-conns-per-address=2"]);
        command.arg(format!("--listen=127.0.0.1:0,unix:{}", path.display()));
        Server::spawn_on(command.arg("--admin=127.0.0.1:0").args(flags))
    };
    let upgrade = "GET /echo HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut open = Vec::new();
    let mut statuses = |requests: [String; 3]| {
        open.clear();
        requests.map(|request| {
            let mut socket = unix(&path);
            socket.write_all(request.as_bytes()).expect("it reads");
            let mut line = [0; 12];
            socket.read_exact(&mut line).expect("it answers");
            open.push(socket);
            String::from_utf8_lossy(&line[9..]).into_owned()
        })
    };
    let forwarded = || [(); 3].map(|()| format!("{upgrade}X-Forwarded-For: 203.0.113.7\r\n\r\n"));
    let server = start(&[]);
    assert_eq!(statuses(forwarded()), ["101", "101", "101"]);
    drop(server);
    let server = start(&["--trusted-proxy=10.0.0.0/8,unix"]);
    assert_eq!(statuses(forwarded()), ["101", "101", "429"]);
    drop(server);
    let server = start(&["--trusted-proxy=unix", "--proxy-protocol"]);
    let header = "PROXY TCP4 203.0.113.7 198.51.100.1 50000 80\r\n";
    assert_eq!(statuses([(); 3].map(|()| format!("{header}{upgrade}\r\n"))), ["101", "101", "429"]);
    drop(server);
}

/// A server that inherits `data` as descriptor 3 and `admin` as 4, as from systemd.
fn activated(data: &TcpListener, admin: &TcpListener, io: &str) -> Server {
    // A shell assigns the numbers of the descriptors, and its process becomes the server.
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; \
                  LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:admin exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.env_clear().envs(env::vars_os().filter(|(name, _)| name == "MURRE_IO"));
    command.args(["-c", script, env!("CARGO_BIN_EXE_murre"), "serve", "--max-conns=100", io]);
    command.args(["--drain-timeout=0.2", "--shards=2"]);
    let pass = |listener: &TcpListener| {
        Stdio::from(OwnedFd::from(listener.try_clone().expect("a descriptor")))
    };
    Server::spawn(command.stdin(pass(data)).stdout(pass(admin)))
}

/// The server uses sockets of a service manager in place of the addresses of the flags. They stay
/// open when the server ends, so the next server answers a client that connects between the two.
#[test]
fn sockets_of_a_service_manager_outlive_the_server() {
    for io in ["--io=auto", "--io=epoll"] {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (data, admin) = (listener(), listener());
        // Sockets of systemd are non-blocking.
        data.set_nonblocking(true).expect("possible");
        let (to, admin_at) =
            (data.local_addr().expect("bound"), admin.local_addr().expect("bound"));
        let server = activated(&data, &admin, io);
        assert_eq!((server.data, server.admin), (to, admin_at));
        for _ in 0..20 {
            assert!(is_healthy(tcp(to)));
        }
        server.signal(Signal::SIGTERM);
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log:?}");

        let waiting = tcp(to);
        let server = activated(&data, &admin, io);
        assert!(is_healthy(waiting) && is_healthy(tcp(to)));
        drop(server);
    }
}

/// A descriptor that is not open or not a listening socket, and a variable that cannot be read, give
/// one line that names it, and exit code 1. Sockets for another process are ignored.
#[test]
fn wrong_sockets_are_refused() {
    let start = |environment: &str, flag: &str| {
        let script = format!("exec 3</dev/null; {environment} exec \"$0\" serve {flag}");
        let mut command = Command::new("/bin/sh");
        command.env_clear().args(["-c", &script, env!("CARGO_BIN_EXE_murre")]);
        let output = command.output().expect("a shell");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        stderr
    };
    for (environment, named) in [
        ("LISTEN_PID=$$ LISTEN_FDS=1", "descriptor 3 is not a listening stream socket"),
        ("LISTEN_PID=$$ LISTEN_FDS=500", "descriptor 4 is not open"),
        ("LISTEN_PID=$$ LISTEN_FDS=one", "LISTEN_FDS is \"one\""),
        ("LISTEN_PID=x LISTEN_FDS=1", "LISTEN_PID is \"x\""),
        ("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web:admin", "LISTEN_FDNAMES is"),
    ] {
        let stderr = start(environment, "");
        assert!(stderr.contains(named) && stderr.contains("socket unit"), "{stderr}");
    }
    let stderr = start("LISTEN_PID=1 LISTEN_FDS=1", "--listen=192.0.2.1:80");
    assert!(stderr.contains("192.0.2.1:80"), "{stderr}");
}

/// If the limit of open files allows few connections, a line at start says so, with the remedy.
#[test]
fn few_places_are_reported() {
    let start = |script: &str, flags: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command.env_clear().args(["-c", script, env!("CARGO_BIN_EXE_murre"), "serve"]);
        let server = Server::spawn(command.args(["--drain-timeout=0.1"]).args(flags));
        server.signal(Signal::SIGTERM);
        server.end().1
    };
    let warns = |log: &[String]| {
        log.iter().any(|line| line.contains("room for few connections") && line.contains("ulimit"))
    };
    let few = start("ulimit -n 256; exec \"$0\" \"$@\"", &[]);
    assert!(warns(&few), "{few:?}");
    let asked = start("exec \"$0\" \"$@\"", &["--max-conns=10"]);
    assert!(!warns(&asked), "{asked:?}");
}
