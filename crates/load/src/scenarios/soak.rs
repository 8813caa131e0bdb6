//! `soak`: visitors who use everything that the server offers and then vanish, in every way that
//! there is. When the last has gone nothing may be left: the run compares the server's counters,
//! descriptors and memory, and the kernel's objects, with what they were before.

use murre_codec::Kind;

use crate::client::channel;
use crate::client::visit::{End, Step, Visit, Word, frame, get, hear, hear_text, open, say, text};

/// Every use with every way to vanish from it, and those that are cut off in the middle.
pub(crate) fn visits() -> Vec<Visit> {
    let mut visits = Vec::new();
    for (name, steps) in uses() {
        visits.push(Visit::new(format!("{name}, closed"), steps.clone(), End::Fin));
        visits.push(Visit::new(format!("{name}, reset"), steps, End::Reset));
    }
    visits.extend(cut_off());
    visits
}

/// What the server is used for.
fn uses() -> Vec<(&'static str, Vec<Step>)> {
    let request = r#"{"action":"request","service":"soak","data":1,"id":1}"#;
    let serve = r#"{"action":"serve","service":"soak"}"#;
    let channels = |steps: Vec<Step>| [open("/ws").to_vec(), steps].concat();
    let subscribed =
        |channel: &str| vec![text(channel::subscribe(channel, None)), hear_text("\"subscribed\"")];
    let published = |channel: &str| {
        vec![text(channel::publish(channel, "[1]", Some(1))), hear_text("\"published\"")]
    };
    vec![
        ("nothing", vec![]),
        ("HTTP", vec![say(get("/healthz")), hear(200)]),
        ("HTTP, kept alive", vec![[say(get("/?length=4096")), hear(200)]; 5].concat()),
        ("echo", {
            let small = frame(Kind::Binary.opcode(), b"soak");
            let large = frame(Kind::Text.opcode(), "soak".repeat(5000).as_bytes());
            let heard = [say(small), hear_text("soak"), say(large), hear_text("soak")];
            [open("/echo").to_vec(), heard.to_vec()].concat()
        }),
        ("subscribe", channels(subscribed("soak"))),
        ("subscribe with history", channels(subscribed("kept:soak"))),
        ("subscribe, publish", channels([subscribed("soak"), published("soak")].concat())),
        ("publish with history", channels(published("kept:soak"))),
        ("a channel of its own", channels([subscribed("own"), published("own")].concat())),
        ("unsubscribe", {
            let unsubscribed = [text(channel::unsubscribe("soak")), hear_text("\"unsubscribed\"")];
            channels([subscribed("soak"), unsubscribed.to_vec()].concat())
        }),
        // One of those who serve gets it, if not this one; nobody replies.
        ("serve, request", channels(vec![text(serve), hear_text("\"serving\""), text(request)])),
        (
            "event stream",
            vec![say(get("/sse?topic=soak&topic=kept:soak")), hear(200), hear_text("subscribed")],
        ),
        ("poll for a position", vec![say(get("/poll?topic=kept:soak")), hear(200)]),
        ("poll", vec![say(get("/poll?topic=kept:soak&position=1-1")), hear(200)]),
    ]
}

/// In the middle of a handshake, of a frame, of a message, of an answer; or without a sign.
fn cut_off() -> Vec<Visit> {
    const SILENT: End = End::Theirs(&[None, Some(Word::Status(408))]);
    let head = "GET /ws HTTP/1.1\r\nHost: murre\r\nUpgrade: webs";
    let body = "POST / HTTP/1.1\r\nHost: murre\r\nContent-Length: 1000\r\n\r\nhalf";
    let websocket = |steps: Vec<Step>| [open("/echo").to_vec(), steps].concat();
    // Fragments of which the last never comes; a frame of which only a part does.
    let mut fragment = frame(Kind::Binary.opcode(), &[7; 3000]);
    fragment[0] &= 0x7f;
    let part = frame(Kind::Binary.opcode(), &[7; 30_000])[..20_000].to_vec();
    let large = frame(Kind::Binary.opcode(), &[7; 300_000]);
    let cut = [
        ("half a head", vec![say(head)]),
        ("half a body", vec![say(body)]),
        ("handshake not read", open("/ws")[..1].to_vec()),
        ("half a message", websocket(vec![say(fragment)])),
        ("half a frame", websocket(vec![say(part)])),
        ("answers not read", vec![say(get("/?length=4096").repeat(100))]),
        ("echo not read", websocket(vec![say(large)])),
        ("event stream not read", vec![say(get("/sse?topic=soak"))]),
    ];
    let mut visits = Vec::new();
    for (name, steps) in cut {
        visits.push(Visit::new(format!("{name}, closed"), steps.clone(), End::Fin));
        visits.push(Visit::new(format!("{name}, reset"), steps, End::Reset));
    }
    let silent = [
        ("silence", vec![]),
        ("silence in a head", vec![say(head)]),
        ("silence on a WebSocket", websocket(vec![])),
        (
            "silence in a message",
            websocket(vec![say([&frame(Kind::Text.opcode(), b"x")[..], b"\x01"].concat())]),
        ),
    ];
    visits.extend(silent.map(|(name, steps)| Visit::new(name, steps, SILENT)));
    visits
}
