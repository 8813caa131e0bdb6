//! `soak`: connections that use everything that the server offers and then vanish, in every way that
//! there is. When the last has gone nothing may be left: the run compares the server's counters,
//! descriptors and memory, and the kernel's objects, with what they were before.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use murre_codec::Kind as MessageKind;
use murre_record::{Scenario as Kind, VisitFacts};
use serde::Serialize;

use crate::cli::args::{self, Targets};
use crate::cli::common::Common;
use crate::client::channel;
use crate::client::script::{
    End, Reply, Script, Step, expect_status, expect_text, frame, get, open, send, text,
};
use crate::client::scripted::{ScriptedPeers, Scripts};
use crate::engine::workers::{self, Starting, WorkerConfig};
use crate::scenarios::scenario::{FINE_TICK, HoldPlan, Scenario, Setup, check_fine, check_rate};

/// The scenario's arguments.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct Args {
    /// The server's admin port, whose /stats are compared
    #[arg(long, value_name = "HOST:PORT")]
    admin: Targets,

    /// Connects per second, and pieces of up to 64 KiB that they send
    #[arg(long, value_name = "N/s", default_value = "300", value_parser = args::rate)]
    rate: f64,

    #[arg(skip)]
    #[serde(skip)]
    scripts: OnceLock<Arc<Scripts>>,
}

impl Scenario for Args {
    fn kind(&self) -> Kind {
        Kind::Soak
    }

    fn check(&self, common: &Common) -> Result<(), String> {
        check_rate(Some(self.rate))?;
        check_fine(common.timeout.as_secs_f64())
    }

    fn conns_all(&self, _: &Common) -> u64 {
        0
    }

    fn visitors(&self, common: &Common) -> u32 {
        common.conns
    }

    fn conns(&self, common: &Common, _: usize, _: usize) -> u32 {
        common.conns
    }

    fn tick(&self) -> Duration {
        FINE_TICK
    }

    fn hold_plan(&self, _: &Common) -> HoldPlan {
        HoldPlan::Soak { admin: self.admin.addresses()[0] }
    }

    fn bytes_per_connection(&self) -> usize {
        ScriptedPeers::PEER_BYTES
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        let scripts = self.scripts.get_or_init(|| Arc::new(Scripts::new(scripts())));
        let (scripts, rate, timeout) = (Arc::clone(scripts), self.rate, setup.common.timeout);
        workers::start(config, move |parts| ScriptedPeers::new(scripts, rate, timeout, parts))
    }

    fn visit_facts(&self) -> BTreeMap<String, VisitFacts> {
        self.scripts.get().map(|scripts| scripts.facts()).unwrap_or_default()
    }
}

/// Every use with every way to vanish from it, and uses that are cut off in the middle.
fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for (name, steps) in uses() {
        scripts.push(Script::new(format!("{name}, closed"), steps.clone(), End::Fin));
        scripts.push(Script::new(format!("{name}, reset"), steps, End::Reset));
    }
    scripts.extend(cut_off());
    scripts
}

/// Uses of the server.
fn uses() -> Vec<(&'static str, Vec<Step>)> {
    let request = r#"{"action":"request","service":"soak","data":1,"id":1}"#;
    let serve = r#"{"action":"serve","service":"soak"}"#;
    let channels = |steps: Vec<Step>| [open("/ws").to_vec(), steps].concat();
    let subscribed = |channel: &str| {
        vec![text(channel::subscribe(channel, None)), expect_text("\"subscribed\"")]
    };
    let published = |channel: &str| {
        vec![text(channel::publish(channel, "[1]", Some(1))), expect_text("\"published\"")]
    };
    vec![
        ("nothing", vec![]),
        ("HTTP", vec![send(get("/healthz")), expect_status(200)]),
        ("HTTP, kept alive", vec![[send(get("/?length=4096")), expect_status(200)]; 5].concat()),
        ("echo", {
            let small = frame(MessageKind::Binary.opcode(), b"soak");
            let large = frame(MessageKind::Text.opcode(), "soak".repeat(5000).as_bytes());
            let heard = [send(small), expect_text("soak"), send(large), expect_text("soak")];
            [open("/echo").to_vec(), heard.to_vec()].concat()
        }),
        ("subscribe", channels(subscribed("soak"))),
        ("subscribe with history", channels(subscribed("kept:soak"))),
        ("subscribe, publish", channels([subscribed("soak"), published("soak")].concat())),
        ("publish with history", channels(published("kept:soak"))),
        ("a channel of its own", channels([subscribed("own"), published("own")].concat())),
        ("unsubscribe", {
            let unsubscribed =
                [text(channel::unsubscribe("soak")), expect_text("\"unsubscribed\"")];
            channels([subscribed("soak"), unsubscribed.to_vec()].concat())
        }),
        // One of the connections that serve gets it; none replies.
        ("serve, request", channels(vec![text(serve), expect_text("\"serving\""), text(request)])),
        (
            "event stream",
            vec![
                send(get("/sse?topic=soak&topic=kept:soak")),
                expect_status(200),
                expect_text("subscribed"),
            ],
        ),
        ("poll for a position", vec![send(get("/poll?topic=kept:soak")), expect_status(200)]),
        ("poll", vec![send(get("/poll?topic=kept:soak&position=1-1")), expect_status(200)]),
    ]
}

/// In the middle of a handshake, of a frame, of a message, of an answer; or without a sign.
fn cut_off() -> Vec<Script> {
    const SILENT: End = End::ByServer(&[None, Some(Reply::Status(408))]);
    let head = "GET /ws HTTP/1.1\r\nHost: murre\r\nUpgrade: webs";
    let body = "POST / HTTP/1.1\r\nHost: murre\r\nContent-Length: 1000\r\n\r\nhalf";
    let websocket = |steps: Vec<Step>| [open("/echo").to_vec(), steps].concat();
    // Fragments of which the last never comes; a frame of which only a part does.
    let mut fragment = frame(MessageKind::Binary.opcode(), &[7; 3000]);
    fragment[0] &= 0x7f;
    let part = frame(MessageKind::Binary.opcode(), &[7; 30_000])[..20_000].to_vec();
    let large = frame(MessageKind::Binary.opcode(), &[7; 300_000]);
    let cut = [
        ("half a head", vec![send(head)]),
        ("half a body", vec![send(body)]),
        ("handshake not read", open("/ws")[..1].to_vec()),
        ("half a message", websocket(vec![send(fragment)])),
        ("half a frame", websocket(vec![send(part)])),
        ("answers not read", vec![send(get("/?length=4096").repeat(100))]),
        ("echo not read", websocket(vec![send(large)])),
        ("event stream not read", vec![send(get("/sse?topic=soak"))]),
    ];
    let mut scripts = Vec::new();
    for (name, steps) in cut {
        scripts.push(Script::new(format!("{name}, closed"), steps.clone(), End::Fin));
        scripts.push(Script::new(format!("{name}, reset"), steps, End::Reset));
    }
    let silent = [
        ("silence", vec![]),
        ("silence in a head", vec![send(head)]),
        ("silence on a WebSocket", websocket(vec![])),
        (
            "silence in a message",
            websocket(vec![send([&frame(MessageKind::Text.opcode(), b"x")[..], b"\x01"].concat())]),
        ),
    ];
    scripts.extend(silent.map(|(name, steps)| Script::new(name, steps, SILENT)));
    scripts
}
