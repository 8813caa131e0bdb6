//! Tests of the settings of webhooks.

use serde_json::{Value, json};

use super::receiver::{Manner, Receiver};
use super::{File, user};
use crate::guarded::Guarded;
use crate::server::{self, Server};

/// Each endpoint gets the kinds of events and the namespaces that its filter names.
#[test]
fn filters() {
    let receivers = [(); 3].map(|()| Receiver::start(Manner::Take));
    let filters = ["", ",events=channels+members,namespaces=here", ",events=connections"];
    let flag: Vec<String> = receivers
        .iter()
        .zip(filters)
        .map(|(receiver, filter)| receiver.url.clone() + filter)
        .collect();
    let flag = format!("--webhook={}", flag.join(";"));
    let here = "--namespace=here,presence=members,presence-grace=0";
    let guarded = Guarded::start(&[&flag, here, "--webhook-delay=0.1"]);
    let mut ann = user(&guarded.server, "ann");
    for channel in ["here:a", "a", "there:a"] {
        ann.subscribe(channel);
    }
    drop(ann);
    receivers[0].until("told", |state| {
        let events: usize = state
            .requests
            .iter()
            .map(|one| one.body["events"].as_array().expect("a list").len())
            .sum();
        (events == 10).then_some(())
    });
    for (receiver, expected) in [
        (
            &receivers[1],
            ["joined here:a", "left here:a", "occupied here:a", "vacated here:a"].as_slice(),
        ),
        (&receivers[2], &["connected ", "disconnected "]),
    ] {
        let told = receiver.until("told", |state| {
            let events = state
                .requests
                .iter()
                .flat_map(|one| one.body["events"].as_array().expect("a list"));
            let text =
                |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let mut told: Vec<_> = events
                .map(|event| format!("{} {}", text(event, "event"), text(event, "channel")))
                .collect();
            told.sort();
            (told.len() >= expected.len()).then_some(told)
        });
        assert_eq!(told, expected);
    }
}

/// Webhooks with one URL, or with several that differ in their queries, have series of their own.
#[test]
fn each_webhook_has_its_series() {
    let receivers = [(); 2].map(|()| Receiver::start(Manner::Take));
    let [url, other] = receivers.each_ref().map(|receiver| receiver.url.as_str());
    let flag = format!("--webhook={url};{other};{url},events=members");
    let server = Server::start(&[&flag]);
    server.wait_until("all are told of the start", |stats| {
        let webhooks = stats["webhooks"].as_array().expect("a list");
        webhooks.iter().all(|webhook| webhook["webhook_batches"] == 1)
    });
    let shown = |url: &str| url.split('?').next().expect("a URL").to_owned();
    let names = [shown(url), shown(other), format!("{} 2", shown(url))];
    let stats = server.stats()["webhooks"].take();
    let told: Vec<&Value> =
        stats.as_array().expect("a list").iter().map(|webhook| &webhook["endpoint"]).collect();
    assert_eq!(told, names.each_ref());
    let metrics = server.admin("/metrics");
    for name in names {
        let series = format!("murre_webhook_batches_total{{endpoint=\"{name}\"}} 1\n");
        assert_eq!(metrics.text().matches(&series).count(), 1, "{series}");
    }
}

/// Settings that cannot work end the process with one line that says what to do.
#[test]
fn bad_settings() {
    let short = File::new("short", "short");
    let key = format!("--webhook-key-file={}", short.0.display());
    for (flags, code, text) in [
        (&["--webhook=app/hook"][..], 2, "http://HOST/PATH"),
        (&["--webhook=http://a/,events=all"], 2, "there are no `all`"),
        (&["--webhook=http://a/,namespaces=chat"], 2, "no '--namespace'"),
        (&["--webhook-batch=0"], 2, "--webhook-batch"),
        (&["--webhook=http://a/", &key], 1, "shorter than 32 bytes"),
        (&["--webhook=http://a/", "--webhook-key-file=/nowhere"], 1, "check the path"),
    ] {
        let output = server::murre()
            .args(["serve", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"])
            .args(flags)
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {error}");
        assert!(error.contains(text), "{flags:?}: {error}");
    }
    let server = Server::start(&[]);
    assert_eq!(server.stats()["webhooks"], json!([]));
    assert!(!server.admin("/metrics").text().contains("webhook"));
}
