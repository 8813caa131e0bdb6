//! Clients that speak Phoenix. Their operations are those of `murre.v1`: what such a client says is
//! translated when it is sent, and what it hears when it comes, so that one model is right for both.

use serde_json::{Value, json};

use super::client::Client;
use super::wire;
use crate::protocols::phoenix::known_clients;

/// The message for a command. A ref has the kind of the command before the id, except for a join.
pub(super) fn message(command: &Value) -> Value {
    let channel = &command["identifier"];
    let reference = |kind: &str| match &command["id"] {
        Value::Null => Value::Null,
        id => json!(format!("{kind}{id}")),
    };
    match command["action"].as_str() {
        Some("subscribe") => {
            let id = reference("");
            json!([id, id, channel, "phx_join", {"position": command["position"]}])
        }
        Some("unsubscribe") => json!([null, reference("l"), channel, "phx_leave", {}]),
        Some("publish") => json!([null, reference("p"), channel, "e", {"n": command["data"]}]),
        Some("ping") => json!([null, reference("h"), "phoenix", "heartbeat", {}]),
        _ => panic!("{command} is nothing that Phoenix has"),
    }
}

/// The binary push of a publication, without a ref.
pub(super) fn binary(channel: &str, payload: &str) -> Vec<u8> {
    let head = [0, 0, 0, channel.len() as u8, 1];
    [&head[..], channel.as_bytes(), b"e", payload.as_bytes()].concat()
}

impl Client {
    /// What a client of `murre.v1` would have heard in place of a text message; `None` if it would have
    /// heard nothing.
    pub(super) fn translated(&mut self, message: &Value) -> Option<Value> {
        known_clients::check(&message.to_string());
        let [join_ref, reference, topic, event, payload] = [0, 1, 2, 3, 4].map(|at| &message[at]);
        let channel = topic.as_str().expect("a topic is a text");
        match event.as_str().expect("an event is a text") {
            "phx_reply" => self.replied((join_ref, reference), channel, payload),
            "phx_close" => {
                let join_ref = join_ref.as_str().expect("nothing but the client ends a join");
                if self.joins.get(channel).is_some_and(|current| current == join_ref) {
                    self.joins.remove(channel);
                    self.readers.remove(channel);
                    self.present.remove(channel);
                }
                None
            }
            // It is a member, which other clients are told of; what it is told has been checked above.
            "presence_state" | "presence_diff" | "presence_count" => None,
            "dropped" => Some(json!({
                "type": "dropped", "identifier": channel, "count": payload["count"],
            })),
            "publication" => Some(json!({
                "type": "publication", "identifier": channel, "data": payload["data"],
            })),
            "e" => Some(json!({
                "type": "publication",
                "identifier": channel,
                "data": {"event": "e", "payload": payload},
            })),
            event => panic!("{event} is no event of the run"),
        }
    }

    fn replied(
        &mut self,
        (join_ref, reference): (&Value, &Value),
        channel: &str,
        payload: &Value,
    ) -> Option<Value> {
        let reference = reference.as_str().unwrap_or_default();
        let digits = reference.trim_start_matches(|c: char| !c.is_ascii_digit());
        let kind = &reference[..reference.len() - digits.len()];
        let mut said = match payload["status"].as_str() {
            Some("ok") if reference.is_empty() => return None,
            Some("ok") => json!({"identifier": channel, "type": match kind {
                "" => "subscribed",
                "l" => "unsubscribed",
                "p" => "published",
                "h" => "pong",
                _ => panic!("{reference} is no ref of the run"),
            }}),
            Some("error") => {
                let reason = payload["response"]["reason"].as_str().expect("an error has a reason");
                let code = if reason == "bad_position" { "bad_command" } else { reason };
                json!({"type": "error", "code": code})
            }
            status => panic!("{status:?} is no status"),
        };
        if !digits.is_empty() {
            said["id"] = json!(digits.parse::<u64>().expect("a number"));
        }
        match said["type"].as_str() {
            Some("subscribed") => {
                let join_ref = join_ref.as_str().expect("a join has a join ref");
                self.joins.insert(channel.to_owned(), join_ref.to_owned());
                for key in ["position", "recovered"] {
                    if let Some(value) = payload["response"].get(key) {
                        said[key] = value.clone();
                    }
                }
            }
            Some("pong") => said["connection"] = json!(format!("{}-0-0", self.shard)),
            _ => {}
        }
        Some(said)
    }
}

/// A binary broadcast: the lengths of topic and event, then these, then the payload.
pub(super) fn broadcast(bytes: &[u8]) -> wire::Publication {
    known_clients::check_binary(bytes);
    let [2, topic, event, ..] = *bytes else { panic!("a binary message is a broadcast") };
    let (topic, rest) = bytes[3..].split_at(usize::from(topic));
    let payload = str::from_utf8(&rest[usize::from(event)..]).expect("the run publishes text");
    wire::Publication {
        channel: str::from_utf8(topic).expect("it is UTF-8").to_owned(),
        offset: None,
        number: wire::number(payload),
    }
}
