//! The streams of the cluster: found, made, and brought in line with the configuration.
//!
//! A stream is found by the subjects that it takes. Its name ends with a random number, so that a stream that was
//! deleted and made anew has another name, which everything that comes from it tells.
//!
//! Source: the JetStream API, <https://docs.nats.io/reference/reference-protocols/nats_api_reference>, and ADR-31
//! (direct get of several messages).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::link::{NoReply, Requests};
use super::names::{KeptIndex, Kind, Names};
use super::settings::{Kept, Storage};
use super::time::{self, NatsClock};

/// Makes and finds streams, from tasks on the thread of the link.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) names: Arc<Names>,
    pub(super) requests: Requests,
    pub(super) clock: Arc<NatsClock>,
    pub(super) storage: Storage,
    pub(super) replicas: u8,
}

/// The greatest offset that a node has seen of a stream.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) stream: Arc<str>,
    pub(super) offset: u64,
}

/// The pause before a stream that seems to have lost publications is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait for an answer of the JetStream API.
const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts to make a stream that other nodes make, too.
const ATTEMPTS: u32 = 5;
/// Errors of the JetStream API, from its list of errors (`server/errors.json`).
const SUBJECTS_OVERLAP: u64 = 10065;
const NO_PEERS: u64 = 10005;
/// A stream forgets the ids of publications after this time: longer than a node repeats one.
const DUPLICATES: Duration = Duration::from_secs(60);

impl Streams {
    /// The name of the stream of a namespace, which is made if there is none. One that has lost what this node has
    /// seen of it is no longer used.
    ///
    /// # Errors
    /// Why there is none, and what helps.
    pub(super) async fn find(&self, kept: KeptIndex, seen: Option<Seen>) -> Result<String, String> {
        let wanted = self.wanted(kept);
        for _ in 0..ATTEMPTS {
            let subjects = self.names.all(Kind::ToStream, kept);
            let found = self.ask("STREAM.NAMES", &json!({"subject": subjects})).await?;
            let names = found["streams"].as_array().into_iter().flatten();
            let mut names: Vec<&str> = names.filter_map(Value::as_str).collect();
            names.sort_unstable();
            match *names {
                [] => {}
                [name, ..] => {
                    if names.len() > 1 {
                        tracing::warn!(
                            ?names,
                            "several streams take the publications of one namespace; the first counts"
                        );
                    }
                    let seen = seen.as_ref().filter(|seen| *seen.stream == *name);
                    let mut found = self.info(name).await?;
                    if has_lost(&found, seen) {
                        // The answer may be of a server that leads no longer.
                        sleep(AGAIN).await;
                        found = self.info(name).await?;
                    }
                    if !has_lost(&found, seen) {
                        self.align(name, &found, &wanted).await?;
                        return Ok(name.to_owned());
                    }
                    self.set_aside(name, &found).await?;
                }
            }
            let name = self.names.stream(kept, fastrand::u64(..));
            let mut config = wanted.clone();
            config["name"] = name.as_str().into();
            let made = self.ask(&format!("STREAM.CREATE.{name}"), &config).await?;
            match error(&made) {
                None => {
                    tracing::info!(stream = name, namespace = %self.kept(kept).namespace, "made a stream");
                    return Ok(name);
                }
                // Another node was faster.
                Some((SUBJECTS_OVERLAP, _)) => {}
                // A new name each time would make a new line of the log each time.
                Some((number, why)) => {
                    let remedy = match number {
                        NO_PEERS => format!(
                            "; --cluster-replicas={} needs as many NATS servers with JetStream that are there",
                            self.replicas
                        ),
                        _ => String::new(),
                    };
                    return Err(format!("it cannot be made: {why}{remedy}"));
                }
            }
        }
        Err("other nodes make and delete the stream; trying again".into())
    }

    fn kept(&self, kept: KeptIndex) -> &Kept {
        &self.names.kept()[kept]
    }

    /// The configuration of a stream, without its name.
    fn wanted(&self, kept: KeptIndex) -> Value {
        let &Kept { size, ttl, .. } = self.kept(kept);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        json!({
            "subjects": [self.names.all(Kind::ToStream, kept)],
            "retention": "limits",
            "discard": "old",
            "storage": self.storage.name(),
            "num_replicas": self.replicas,
            "max_msgs_per_subject": size,
            "max_age": nanoseconds(ttl),
            "duplicate_window": nanoseconds(DUPLICATES.min(ttl)),
            "allow_direct": true,
            "republish": {
                "src": self.names.all(Kind::ToStream, kept),
                "dest": self.names.republished(kept),
            },
        })
    }

    /// Has a stream take no more publications. It counts offsets again that it has given before: clients with
    /// positions in it would miss what has them now. Its messages stay.
    async fn set_aside(&self, name: &str, found: &Value) -> Result<(), String> {
        let mut config = config(name, found)?;
        config.insert("subjects".into(), json!([self.names.aside(name)]));
        config.remove("republish");
        let updated = self.ask(&format!("STREAM.UPDATE.{name}"), &Value::Object(config)).await?;
        if let Some((_, why)) = error(&updated) {
            return Err(format!(
                "the stream {name} has lost publications, and cannot be set aside: {why}: delete it to have it made anew"
            ));
        }
        tracing::error!(
            stream = name,
            "this stream has lost publications (by a power loss, or an older copy of its files): it is set aside with what \
             it has, and another one takes its place"
        );
        Ok(())
    }

    /// Brings a stream in line with the configuration, as far as its server allows it.
    async fn align(&self, name: &str, found: &Value, wanted: &Value) -> Result<(), String> {
        let mut merged = config(name, found)?;
        let config = &found["config"];
        let wanted = wanted.as_object().into_iter().flatten();
        let mut keys = Vec::new();
        for (key, value) in wanted.filter(|&(key, value)| config[key] != *value) {
            if key == "storage" {
                tracing::warn!(
                    stream = name,
                    has = %config[key],
                    wanted = %value,
                    "this stream keeps its messages elsewhere than --cluster-storage says, and NATS does not \
                     change it: it is used as it is. Delete it to have it made anew, without its history, or \
                     set what it has"
                );
            } else {
                keys.push(key.as_str());
                merged.insert(key.clone(), value.clone());
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let changed = keys.join(", ");
        let updated = self.ask(&format!("STREAM.UPDATE.{name}"), &Value::Object(merged)).await?;
        let Some((_, why)) = error(&updated) else {
            tracing::info!(stream = name, changed, "changed a stream to the settings");
            return Ok(());
        };
        // Without these, nothing is heard of the stream, or nothing can be read.
        if keys.iter().any(|key| ["republish", "allow_direct"].contains(key)) {
            return Err(format!(
                "the stream {name} cannot be changed ({changed}: {why}): delete it to have it made anew"
            ));
        }
        tracing::warn!(
            stream = name,
            settings = changed,
            why,
            "this stream differs from the settings, and NATS does not change it: it is used as it is"
        );
        Ok(())
    }

    async fn info(&self, name: &str) -> Result<Value, String> {
        self.ask(&format!("STREAM.INFO.{name}"), &json!({})).await
    }

    /// The answer of the JetStream API.
    async fn ask(&self, api: &str, question: &Value) -> Result<Value, String> {
        let subject = format!("$JS.API.{api}");
        let question = question.to_string().into_bytes();
        match self.requests.ask(subject, question, PATIENCE).await {
            Ok(answer) => {
                let answer: Value = serde_json::from_slice(&answer.payload)
                    .map_err(|error| format!("an answer of JetStream is malformed: {error}"))?;
                // The time at which it was written, in answers about one stream.
                if let Some(now) = answer["ts"].as_str().and_then(time::unix_ms) {
                    self.clock.set(now);
                }
                Ok(answer)
            }
            Err(NoReply::NoResponders) => Err("JetStream is not running".into()),
            Err(NoReply::Late) => Err("JetStream does not answer".into()),
        }
    }
}

/// Whether a stream has fewer publications than were seen of it.
fn has_lost(found: &Value, seen: Option<&Seen>) -> bool {
    let last = found["state"]["last_seq"].as_u64();
    last.zip(seen).is_some_and(|(last, seen)| last < seen.offset)
}

/// The configuration of a stream.
fn config(name: &str, found: &Value) -> Result<serde_json::Map<String, Value>, String> {
    found["config"].as_object().cloned().ok_or_else(|| {
        let why = error(found).map_or("no configuration", |(_, why)| why);
        format!("the stream {name} cannot be read: {why}")
    })
}

/// The number and the text of an error of the JetStream API.
fn error(answer: &Value) -> Option<(u64, &str)> {
    let error = answer.get("error")?;
    let number = error["err_code"].as_u64().unwrap_or_default();
    Some((number, error["description"].as_str().unwrap_or_default()))
}
