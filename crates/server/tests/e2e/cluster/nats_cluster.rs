//! Three NATS servers that are one cluster. Each reaches the others through connections that a test can cut.

use std::array;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::nats::Nats;
use crate::server::PATIENCE;

/// The servers, named `0`, `1` and `2`, and the ways from each to each.
pub(crate) struct NatsCluster {
    pub(crate) servers: [Nats; SERVERS],
    ways: [[Arc<Way>; SERVERS]; SERVERS],
}

const SERVERS: usize = 3;
/// A port where nobody listens.
const NOBODY: u16 = 1;

impl NatsCluster {
    /// Starts the servers, and waits until streams with three replicas can be made.
    pub(crate) fn start() -> Self {
        let ways: [[Arc<Way>; SERVERS]; SERVERS] =
            array::from_fn(|_| array::from_fn(|_| Way::open()));
        let servers = array::from_fn(|server| {
            // Of two servers the later one connects to the earlier one: when both do, they may end both connections as
            // one too many.
            let others = (0..SERVERS).filter(|other| *other != server);
            let route =
                |other: usize| if other < server { ways[server][other].port } else { NOBODY };
            let routes = others.map(|other| format!("nats://127.0.0.1:{}", route(other)));
            let routes = format!("--routes={}", routes.collect::<Vec<_>>().join(","));
            let advertised = format!("--cluster_advertise=127.0.0.1:{NOBODY}");
            let name = format!("--server_name={server}");
            let flags = [
                "--jetstream",
                &name,
                "--cluster_name=three",
                "--cluster=nats://127.0.0.1:-1",
                // A server that hears of another one's address must not pass by the ways.
                &advertised,
                &routes,
            ];
            let nats = Nats::spawn("nats-server", &flags);
            ways.iter().for_each(|from| from[server].to.store(nats.route_port, Relaxed));
            nats
        });
        let cluster = NatsCluster { servers, ways };
        let start = Instant::now();
        let is_led = |server: &Nats| server.ask("INFO").is_some_and(|info| info["error"].is_null());
        while !cluster.servers.iter().all(is_led) {
            assert!(start.elapsed() < PATIENCE, "the NATS servers elect no leader");
            thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    /// The addresses of all servers, for a node that may use any of them.
    pub(crate) fn addresses(&self) -> String {
        self.servers.each_ref().map(Nats::address).join(",")
    }

    /// Waits until the only stream has a leader and followers that are not behind, as `asked` sees it. Returns the
    /// leader.
    pub(crate) fn leader(&self, asked: usize) -> usize {
        let start = Instant::now();
        let mut seen = Value::Null;
        loop {
            assert!(start.elapsed() < PATIENCE, "no leader with two followers: {seen}");
            thread::sleep(Duration::from_millis(50));
            let server = &self.servers[asked];
            seen = json!(server.streams());
            let Some(stream) = seen[0].as_str() else { continue };
            let Some(info) = server.ask(&format!("STREAM.INFO.{stream}")) else { continue };
            let cluster = &info["cluster"];
            let followers = cluster["replicas"].as_array().into_iter().flatten();
            let current = followers.filter(|follower| follower["current"] == true).count();
            if Some(current as u64 + 1) == info["config"]["num_replicas"].as_u64()
                && let Some(leader) = cluster["leader"].as_str()
            {
                return leader.parse().expect("a number");
            }
            seen = info;
        }
    }

    /// Cuts a server off from the others, or connects it with them again.
    pub(crate) fn cut(&self, server: usize, is_cut: bool) {
        for other in (0..SERVERS).filter(|other| *other != server) {
            self.ways[server][other].cut(is_cut);
            self.ways[other][server].cut(is_cut);
        }
    }
}

/// What passes connections on to a server.
struct Way {
    port: u16,
    /// The port of the server; 0 before it has started.
    to: AtomicU16,
    is_cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Way {
    fn open() -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let way = Way {
            port,
            to: AtomicU16::new(0),
            is_cut: AtomicBool::new(false),
            open: Mutex::default(),
        };
        let way = Arc::new(way);
        let accepting = Arc::clone(&way);
        thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                // Without its other side it is closed here.
                let _ = accepting.pass(from);
            }
        });
        way
    }

    /// Passes on what both sides of a connection send.
    fn pass(&self, from: TcpStream) -> io::Result<()> {
        let to = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to.load(Relaxed)))?;
        let mut open = self.open.lock().expect("no panic");
        // Looked at under the lock, so that a cut closes all that are open.
        if self.is_cut.load(Relaxed) {
            return Ok(());
        }
        for (mut reader, mut writer) in
            [(from.try_clone()?, to.try_clone()?), (to.try_clone()?, from.try_clone()?)]
        {
            thread::spawn(move || {
                let _ = io::copy(&mut reader, &mut writer);
                let _ = (reader.shutdown(Shutdown::Both), writer.shutdown(Shutdown::Both));
            });
        }
        open.extend([from, to]);
        Ok(())
    }

    fn cut(&self, is_cut: bool) {
        let mut open = self.open.lock().expect("no panic");
        self.is_cut.store(is_cut, Relaxed);
        for stream in open.drain(..) {
            // Its server may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The name of the server that a log line of a node says it is connected to.
pub(crate) fn connected_to(line: &str) -> usize {
    let line: Value = serde_json::from_str(line).expect("JSON");
    line["name"].as_str().and_then(|name| name.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}
