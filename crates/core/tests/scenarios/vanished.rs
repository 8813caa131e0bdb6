//! Peers that vanish without closing: their machine failed, or the network between.
//!
//! The peers of this test are in a network namespace of their own, whose interface the test shuts
//! down. That needs privileges, and the command `ip`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use murre_core::{CloseReason, ServeMail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use crate::app::{Server, handshake, serve_patiently, setup};
use crate::client::{Client, until_ended};
use crate::world::{Setup, World, real};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// Runs `ip` with these arguments, in the namespace of the calling thread.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A thread in its own network namespace, connected to the creator's namespace by a pair of
/// interfaces.
struct Elsewhere {
    /// The addresses to connect to, and the bytes to send there.
    asks: Sender<Vec<(SocketAddr, Vec<u8>)>>,
    /// Signals that each request has been answered and then the interface shut down.
    gone: Receiver<()>,
}

impl Elsewhere {
    fn new() -> Result<Self, String> {
        let alone =
            || unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare: {error}"));
        alone()?;
        let (joined, join) = channel();
        let (asks, asked) = channel();
        let (tell, gone) = channel();
        thread::spawn(move || {
            let _ = joined.send(alone().map(|()| gettid()));
            run_elsewhere(&asked, &tell);
        });
        let there = join.recv().expect("it says how it went")?;
        ip("link set lo up")?;
        ip("link add here type veth peer name there")?;
        ip(&format!("link set there netns {there}"))?;
        ip("addr add 10.99.0.1/24 dev here")?;
        ip("link set here up")?;
        Ok(Elsewhere { asks, gone })
    }
}

fn run_elsewhere(asked: &Receiver<Vec<(SocketAddr, Vec<u8>)>>, tell: &Sender<()>) {
    // Kept open, so that no socket sends anything when the interface is up again.
    let mut kept = Vec::new();
    while let Ok(asks) = asked.recv() {
        // The address disappears with the interface of the last round, or exists already.
        let _ = ip("addr add 10.99.0.2/24 dev there");
        ip("link set there up").expect("it is there");
        for (to, request) in asks {
            let mut stream = TcpStream::connect(to).expect("it listens");
            stream.write_all(&request).expect("room");
            stream.read_exact(&mut [0; 1]).expect("an answer");
            kept.push(stream);
        }
        ip("link set there down").expect("it is there");
        let _ = tell.send(());
    }
}

/// An event stream and a WebSocket end when data is sent to them and their peers have acknowledged
/// nothing for the time set on the listener. A peer that acknowledges stays connected.
#[test]
fn vanished_peers_are_given_up() {
    let elsewhere = match Elsewhere::new() {
        Ok(elsewhere) => elsewhere,
        Err(error) => return eprintln!("not here: {error}"),
    };
    let give_up = Some(Duration::from_secs(1));
    real(&Setup { address: HERE, give_up, ..setup() }, serve_patiently, |world| {
        let mut stays = Client::new(world);
        stays.send_bytes(b"GET /never HTTP/1.1\r\nHost: m\r\n\r\n");
        let to = world.net.listens_at().expect("it is the kernel's");
        let stream = b"GET /never HTTP/1.1\r\nHost: m\r\n\r\n".to_vec();
        elsewhere.asks.send(vec![(to, stream), (to, handshake("/ws"))]).expect("it listens");
        let mut at = world.net.now();
        let mut tick = |world: &mut World<Server>| {
            stays.step(world);
            if world.net.now() - at > Duration::from_millis(100) {
                at = world.net.now();
                world.post(ServeMail::App(Bytes::from_static(b"ping")));
            }
        };
        world.until("the interface is down", |world| {
            tick(world);
            elsewhere.gone.try_recv().is_ok()
        });
        world.until("both are given up", |world| {
            tick(world);
            world.protocol().closed_for(CloseReason::PeerReset) == 2
        });
        assert_eq!(world.protocol().open.len(), 1, "who acknowledges stays");
        world.post(ServeMail::Drain(Duration::ZERO));
        until_ended(world, std::slice::from_mut(&mut stays));
    });
}
