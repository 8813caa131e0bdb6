//! Runs every scenario against murre-core's own server in this process, on every kind of descriptor
//! and ring.

use std::net::SocketAddr;
use std::time::Duration;

use murre_codec::handshake::Upgrade;
use murre_codec::http::{Request, Response};
use murre_core::{
    Answer, ConnId, Handler, Listener, Message, Opened, Outbox, Server, ServerConfig,
};
use serde_json::Value;

/// The handler of the paths that the scenarios request.
struct Bench;

impl Handler for Bench {
    /// Whether the server answers messages in upper case.
    type Session = bool;
    type Mail = ();

    fn request(
        &mut self,
        _id: ConnId,
        request: &Request<'_, '_>,
        _out: &mut Outbox,
    ) -> Answer<bool> {
        let Some(Ok(length)) = request.query("length").map(str::parse) else {
            return Answer::Now(Response::text(404, "no length\n"));
        };
        let body: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        Answer::Now(Response::text(200, body))
    }

    fn open(
        &mut self,
        _id: ConnId,
        request: &Request<'_, '_>,
        _upgrade: &Upgrade<'_>,
        _out: &mut Outbox,
    ) -> Result<Opened<bool>, Response> {
        Ok(Opened::new(request.path() == "/upper"))
    }

    fn message(&mut self, id: ConnId, upper: &mut bool, message: Message<'_>, out: &mut Outbox) {
        if *upper {
            message.bytes.make_ascii_uppercase();
        }
        // The connection is closed or too slow: the checks of the run find this.
        let _ = out.message(id, message.kind, message.bytes);
    }
}

/// Starts a server that pings silent peers often, and returns its targets. It runs until the test process
/// ends.
fn serve() -> String {
    let listener = Listener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).expect("a free port");
    let port = listener.address().expect("bound").port();
    let mut config = ServerConfig::new(listener).expect("a plan");
    config.limits.ping_interval = Duration::from_millis(300);
    std::mem::forget(Server::start(config, None, |_shard| Bench).expect("a server"));
    format!("127.0.0.1-3:{port}")
}

#[track_caller]
fn passes(arguments: &str) -> Value {
    crate::passes(&format!("{arguments} --target {}", serve()))
}

const SCENARIOS: [&str; 5] = [
    "http-keepalive --conns 40 --idle 0.1-0.3 --duration 1s",
    "ws-upper --conns 40 --every 200ms --duration 1s",
    "ws-idle --conns 40 --sample 0.2 --every 300ms --duration 1s",
    "ws-echo --conns 10 --pipeline 4 --payload 5000 --duration 1s --idle-conns 30",
    "ws-echo --conns 10 --rate 300 --duration 1s --idle-conns 30",
];

/// Shows that client and server agree on every byte, with pings of the server in between.
#[test]
fn every_scenario_passes() {
    for scenario in SCENARIOS {
        let record = passes(scenario);
        assert_eq!(record["connect"]["connections"], 40, "{scenario}");
    }
}

/// Shows two small storms: all closed connections return and get answers, and those that stayed get
/// answers in every phase; only these count in the latency.
#[test]
fn killed_connections_reconnect() {
    let record = passes(
        "storm --conns 40 --sample 0.1 --every 100ms --duration 300ms --jitter 300ms --shards 3",
    );
    let phases: Vec<_> = record["phases"].as_array().expect("phases").iter().collect();
    let names: Vec<_> =
        phases.iter().map(|phase| phase["phase"].as_str().expect("a name")).collect();
    assert_eq!(names, ["quiet", "kill", "return", "quiet", "kill", "return", "quiet"]);
    let of_stayers =
        phases.iter().map(|phase| phase["latency_us"]["count"].as_u64().expect("a number"));
    assert_eq!(of_stayers.sum::<u64>(), record["latency_us"]["count"].as_u64().expect("a number"));
    assert_eq!(record["storm"]["stayed"], 4);
    assert_eq!(record["storm"]["storms"].as_array().map(Vec::len), Some(2));
    assert_eq!(record["storm"]["storms"][1]["jitter_seconds"], 0.3);
    // Three, and one for the connections that stay.
    assert_eq!(record["client"]["shards"], 4);
}

/// Shows that a server which tolerates silence for too long fails the run with the kinds of abuse
/// that it does not end, and that the other kinds end as they must.
#[test]
fn abuse_that_is_not_ended_is_found() {
    let abuse = "abuse --conns 4 --hostile 40 --duration 1500ms --timeout 500ms --rate 1000";
    let record = crate::fails(&format!("{abuse} --target {}", serve()), "");
    let reasons = record["reasons"].to_string();
    for found in ["connect and hold", "half a head", "pings not answered"] {
        assert!(reasons.contains(found), "{found}: {reasons}");
    }
    for right in ["garbage", "unmasked", "huge head", "handshake and reset"] {
        let visits = &record["visits"][right];
        assert!(visits["as_it_must"].as_u64() > Some(0), "{right}: {visits}");
    }
    assert_eq!(record["lost"], 0);
    assert!(record["abuse"]["abused_us"]["count"].as_u64() > Some(0));
}

/// Shows that the operations of Linux 5.10 and the rings' own tables of sockets carry the same
/// load.
#[test]
fn every_kind_of_ring_and_descriptor_passes() {
    passes(&format!("{} --io uring-plain", SCENARIOS[1]));
    passes(&format!("{} --descriptors normal --shards 1", SCENARIOS[2]));
    let record = passes(&format!("{} --descriptors direct --shards 3", SCENARIOS[0]));
    assert_eq!(record["client"]["descriptors"], "direct");
    assert_eq!(record["client"]["shards"], 3);
}

/// Shows that a record has the server's processor time and memory if its process is given. The
/// server is this process, whose other tests add to its memory, so only the presence of figures is
/// compared.
#[test]
fn the_server_is_measured() {
    let pid = std::process::id();
    let record = passes(&format!("{} --server-pid {pid}", SCENARIOS[2]));
    assert_eq!(record["memory"]["connections"], 40);
    assert!(record["memory"]["user"].is_number() && record["memory"]["socket"].is_number());
    assert!(record["memory"]["sockstat_full"]["inuse"].is_number());
    assert!(record["hold"]["server_cpu_seconds"].is_number());
}

/// Shows that connections are spread over all source addresses and targets.
#[test]
fn several_sources_are_used() {
    passes(&format!("{} --source 127.0.0.7,127.0.0.8", SCENARIOS[1]));
}
