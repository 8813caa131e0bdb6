//! `soak`: connections that use everything that the server offers and then vanish, in every way that
//! there is. When the last has gone nothing may be left: the run compares the server's counters,
//! descriptors and memory, and the kernel's objects, with what they were before.

use std::collections::BTreeMap;

use murre_codec::Kind as MessageKind;
use murre_record::{Scenario as Kind, VisitFacts};
use serde::Serialize;

use crate::cli::args::{self, Targets};
use crate::cli::common::Common;
use crate::client::channel;
use crate::client::scripted::script::{
    End, Reply, Script, Step, expect_status, expect_text, frame, get, open, send, text, websocket,
};
use crate::client::scripted::{ScriptedPeers, SharedScripts};
use crate::engine::workers::{Starting, WorkerConfig};
use crate::scenarios::scenario::{
    FINE_TICK, HoldPlan, Profile, Scenario, Setup, check_fine, check_rate,
};

/// The scenario's arguments.
#[derive(clap::Args, Serialize)]
pub(crate) struct Args {
    /// The server's admin port, whose /stats are compared
    #[arg(long, value_name = "HOST:PORT")]
    admin: Targets,

    /// Connects per second, and pieces of up to 64 KiB that they send
    #[arg(long, value_name = "N/s", default_value = "300", value_parser = args::rate)]
    rate: f64,

    #[arg(skip)]
    #[serde(skip)]
    scripts: SharedScripts,
}

impl Scenario for Args {
    fn profile(&self) -> Profile {
        Profile { tick: FINE_TICK, ..Profile::new(Kind::Soak, ScriptedPeers::PEER_BYTES) }
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

    fn hold_plan(&self, _: &Common) -> HoldPlan {
        HoldPlan::Soak { admin: self.admin.addresses()[0] }
    }

    fn start(&self, setup: &Setup<'_>, config: WorkerConfig) -> Starting {
        self.scripts.start(scripts, self.rate, setup.common.timeout, config)
    }

    fn visit_facts(&self) -> BTreeMap<String, VisitFacts> {
        self.scripts.facts()
    }
}

/// Every use, and uses that are cut off in the middle, each with every way to vanish.
fn scripts() -> Vec<Script> {
    let mut scripts = Vec::new();
    for (name, steps) in uses().into_iter().chain(cut_off()) {
        scripts.push(Script::new(format!("{name}, closed"), steps.clone(), End::Fin));
        scripts.push(Script::new(format!("{name}, reset"), steps, End::Reset));
    }
    scripts.extend(silent());
    scripts
}

/// Uses of the server.
fn uses() -> Vec<(&'static str, Vec<Step>)> {
    let request = r#"{"action":"request","service":"soak","data":1,"id":1}"#;
    let serve = r#"{"action":"serve","service":"soak"}"#;
    let channels = |steps: Vec<Step>| websocket("/ws", steps);
    let asked = |target: &str| vec![send(get(target)), expect_status(200)];
    let subscribed = |channel: &str| {
        vec![text(channel::subscribe(channel, None)), expect_text("\"subscribed\"")]
    };
    let published = |channel: &str| {
        vec![text(channel::publish(channel, "[1]", Some(1))), expect_text("\"published\"")]
    };
    vec![
        ("nothing", vec![]),
        ("HTTP", asked("/healthz")),
        ("HTTP, kept alive", vec![asked("/?length=4096"); 5].concat()),
        ("echo", {
            let small = frame(MessageKind::Binary.opcode(), b"soak");
            let large = frame(MessageKind::Text.opcode(), "soak".repeat(5000).as_bytes());
            let steps = [send(small), expect_text("soak"), send(large), expect_text("soak")];
            websocket("/echo", steps)
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
        ("event stream", {
            let mut stream = asked("/sse?topic=soak&topic=kept:soak");
            stream.push(expect_text("subscribed"));
            stream
        }),
        ("poll for a position", asked("/poll?topic=kept:soak")),
        ("poll", asked("/poll?topic=kept:soak&position=1-1")),
    ]
}

const HALF_A_HEAD: &str = "GET /ws HTTP/1.1\r\nHost: murre\r\nUpgrade: webs";

/// Ends in the middle of a handshake, a frame, a message or an answer.
fn cut_off() -> Vec<(&'static str, Vec<Step>)> {
    let body = "POST / HTTP/1.1\r\nHost: murre\r\nContent-Length: 1000\r\n\r\nhalf";
    // Fragments of which the last never comes; a frame of which only a part does.
    let mut fragment = frame(MessageKind::Binary.opcode(), &[7; 3000]);
    fragment[0] &= 0x7f;
    let part = frame(MessageKind::Binary.opcode(), &[7; 30_000])[..20_000].to_vec();
    let large = frame(MessageKind::Binary.opcode(), &[7; 300_000]);
    vec![
        ("half a head", vec![send(HALF_A_HEAD)]),
        ("half a body", vec![send(body)]),
        ("handshake not read", open("/ws")[..1].to_vec()),
        ("half a message", websocket("/echo", [send(fragment)])),
        ("half a frame", websocket("/echo", [send(part)])),
        ("answers not read", vec![send(get("/?length=4096").repeat(100))]),
        ("echo not read", websocket("/echo", [send(large)])),
        ("event stream not read", vec![send(get("/sse?topic=soak"))]),
    ]
}

/// Connections that stay and send nothing more, which the server must end.
fn silent() -> [Script; 4] {
    const SILENT: End = End::ByServer(&[None, Some(Reply::Status(408))]);
    let half = [&frame(MessageKind::Text.opcode(), b"x")[..], b"\x01"].concat();
    [
        ("silence", vec![]),
        ("silence in a head", vec![send(HALF_A_HEAD)]),
        ("silence on a WebSocket", websocket("/echo", [])),
        ("silence in a message", websocket("/echo", [send(half)])),
    ]
    .map(|(name, steps)| Script::new(name, steps, SILENT))
}
