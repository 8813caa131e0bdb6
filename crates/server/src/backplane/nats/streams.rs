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

use super::link::{NoReply, Requests};
use super::names::{KeptIndex, Kind, Names};
use super::settings::{Kept, Storage};

/// Makes and finds streams, from tasks on the thread of the link.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) names: Arc<Names>,
    pub(super) requests: Requests,
    pub(super) storage: Storage,
    pub(super) replicas: u8,
}

/// The longest wait for an answer of the JetStream API.
const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts to make a stream that other nodes make, too.
const ATTEMPTS: u32 = 5;
/// Errors of the JetStream API, from its list of errors (`server/errors.json`).
const SUBJECTS_OVERLAP: u64 = 10065;
/// A stream forgets the ids of publications after this time: longer than a node repeats one.
const DUPLICATES: Duration = Duration::from_secs(60);

impl Streams {
    /// The name of the stream of a namespace, which is made if there is none.
    ///
    /// # Errors
    /// Why there is none, and what helps.
    pub(super) async fn find(&self, kept: KeptIndex) -> Result<String, String> {
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
                    self.align(name, &wanted).await?;
                    return Ok(name.to_owned());
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
                Some((_, why)) => return Err(format!("the stream {name} cannot be made: {why}")),
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

    /// Brings a stream in line with the configuration, as far as its server allows it.
    async fn align(&self, name: &str, wanted: &Value) -> Result<(), String> {
        let found = self.ask(&format!("STREAM.INFO.{name}"), &json!({})).await?;
        let config = &found["config"];
        let Some(mut merged) = config.as_object().cloned() else {
            let why = error(&found).map_or("no configuration", |(_, why)| why);
            return Err(format!("the stream {name} cannot be read: {why}"));
        };
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

    /// The answer of the JetStream API.
    async fn ask(&self, api: &str, question: &Value) -> Result<Value, String> {
        let subject = format!("$JS.API.{api}");
        let question = question.to_string().into_bytes();
        match self.requests.ask(subject, question, PATIENCE).await {
            Ok(answer) => serde_json::from_slice(&answer.payload)
                .map_err(|error| format!("an answer of JetStream is malformed: {error}")),
            Err(NoReply::NoResponders) => Err("JetStream is not running".into()),
            Err(NoReply::Late) => Err("JetStream does not answer".into()),
        }
    }
}

/// The number and the text of an error of the JetStream API.
fn error(answer: &Value) -> Option<(u64, &str)> {
    let error = answer.get("error")?;
    let number = error["err_code"].as_u64().unwrap_or_default();
    Some((number, error["description"].as_str().unwrap_or_default()))
}
