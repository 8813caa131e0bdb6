//! A process without a free file descriptor. The test has its own binary, because the limit holds
//! for the whole process.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use murre_core::host::{self, Descriptors, Io, Wanted};
use murre_core::ring::{KernelRing, RingConfig};
use murre_core::{CloseReason, ConnId, Listener, Outbox, Protocol, Shard, ShardConfig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Closes connections on request, and counts the closed ones.
#[derive(Default)]
struct Closing {
    open: Vec<ConnId>,
    closed: usize,
}

/// How to close all connections.
enum Mail {
    Close,
    Abort,
}

impl Protocol for Closing {
    type State = ();
    type Mail = Mail;

    fn opened(&mut self, id: ConnId, _: Option<SocketAddr>, _: &mut Outbox) {
        self.open.push(id);
    }

    fn received(&mut self, _: ConnId, (): &mut (), input: &mut [u8], _: &mut Outbox) -> usize {
        input.len()
    }

    fn expired(&mut self, _: ConnId, (): &mut (), _: &mut Outbox) {}

    fn closed(&mut self, _: ConnId, (): (), _: CloseReason, _: &mut Outbox) {
        self.closed += 1;
    }

    fn mail(&mut self, mail: Mail, out: &mut Outbox) {
        for id in self.open.drain(..) {
            match mail {
                Mail::Close => out.close(id, CloseReason::Finished),
                Mail::Abort => out.abort(id, CloseReason::Finished),
            }
        }
    }
}

const CLIENTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(180);

/// Connections end for their clients, and the shard does not spin, although no descriptor is free
/// for shutting down their sockets.
#[test]
fn connections_end_without_descriptors() {
    let rings = [
        (Io::Uring, Descriptors::Direct),
        (Io::Uring, Descriptors::Normal),
        (Io::Epoll, Descriptors::Normal),
    ];
    for (io, descriptors) in rings {
        let max_conns = CLIENTS as u32 + 8;
        let wanted = Wanted {
            max_conns: Some(max_conns),
            descriptors: Some(descriptors),
            io: Some(io),
            ..Wanted::default()
        };
        if let Err(error) = host::plan(&wanted) {
            eprintln!("not here: {} descriptors of {}: {error}", descriptors.name(), io.name());
            continue;
        }
        let listener = Listener::bind("127.0.0.1:0".parse().expect("valid")).expect("a port");
        let to = listener.address().expect("bound");
        let listeners = vec![listener];
        let ring = RingConfig { io, descriptors, max_conns, listeners, ..RingConfig::default() };
        let ring = KernelRing::new(ring).expect("a ring");
        let config = ShardConfig { max_conns, ..ShardConfig::default() };
        let mut shard = Shard::new(ring, Closing::default(), &config);
        for mail in [Mail::Close, Mail::Abort] {
            let clients = (0..CLIENTS).map(|_| TcpStream::connect(to).expect("it listens"));
            end_without_descriptors(&mut shard, clients.collect(), mail);
        }
    }
}

fn end_without_descriptors(
    shard: &mut Shard<KernelRing, Closing>,
    mut clients: Vec<TcpStream>,
    mail: Mail,
) {
    let started = Instant::now();
    while shard.protocol().open.len() < CLIENTS {
        assert!(started.elapsed() < PATIENCE, "not everybody is accepted");
        shard.turn().expect("the ring works");
    }
    for client in &mut clients {
        client.set_nonblocking(true).expect("a socket");
    }
    let (closed, before) = (shard.protocol().closed, shard.counters().completions.get());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("less than before");
    assert!(shard.mailbox().post(mail).is_ok(), "the mailbox has room");
    let started = Instant::now();
    while shard.protocol().closed < closed + CLIENTS && started.elapsed() < PATIENCE {
        shard.turn().expect("the ring works");
        // A client that has read the end closes its side.
        let waits = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        clients.retain(|mut client| client.read(&mut [0; 1]).is_err_and(waits));
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("as before");
    let completions = shard.counters().completions.get() - before;
    assert!(started.elapsed() < PATIENCE, "not closed after {completions} completions");
    assert!(completions < 20 * CLIENTS as u64, "{completions} completions");
}
