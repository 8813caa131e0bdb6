//! Clients that speak Phoenix. Their operations are those of `murre.v1`: what such a client says is
//! translated when it is sent, and what it hears when it comes, so that one model is right for both.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use murre_router::channels::Origin;
use serde_json::{Value, json};

use super::client::Client;
use super::wire;
use crate::hub::presence::connection_of;
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
            let mut params = json!({"position": command["position"], "join": command["id"]});
            if let Some(meta) = command.get("meta") {
                params["presence"] = json!({"data": meta});
            }
            json!([id, id, channel, "phx_join", params])
        }
        Some("unsubscribe") => json!([null, reference("l"), channel, "phx_leave", {}]),
        Some("publish") => json!([null, reference("p"), channel, "e", {"n": command["data"]}]),
        Some("presence_update") => {
            let meta = command.get("meta").map_or(json!({}), |meta| json!({"data": meta}));
            json!([null, reference("u"), channel, "update", meta])
        }
        Some("presence_leave") => json!([null, reference("w"), channel, "untrack", {}]),
        Some("call") => json!([null, reference("r"), channel, "e", {"n": command["data"]}]),
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
                let Some(join_ref) = join_ref.as_str() else {
                    let reason = &payload["reason"];
                    return Some(json!({
                        "type": "unsubscribed", "identifier": channel, "code": reason,
                    }));
                };
                if self.joins.get(channel).is_some_and(|current| current == join_ref) {
                    self.joins.remove(channel);
                    self.readers.remove(channel);
                    self.present.remove(channel);
                    self.expiring.remove(channel);
                }
                None
            }
            "presence_state" => {
                let current = self.joins.get(channel).map(String::as_str);
                assert_eq!(join_ref.as_str(), current, "{message} is of the current join");
                let members = members(payload);
                Some(json!({"type": "presence_state", "identifier": channel, "members": members}))
            }
            "presence_diff" => Some(json!({
                "type": "presence_diff", "identifier": channel,
                "joins": members(&payload["joins"]), "leaves": members(&payload["leaves"]),
            })),
            "presence_count" => Some(json!({
                "type": "presence_count", "identifier": channel,
                "clients": payload["clients"], "users": payload["users"],
            })),
            "dropped" => Some(json!({
                "type": "dropped", "identifier": channel, "count": payload["count"],
            })),
            _ if Client::binary_as_text(payload).is_some() => Some(json!({
                "type": "publication", "identifier": channel, "binary": payload["binary"],
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
                "r" => "response",
                "u" => "presence_updated",
                "w" => "presence_left",
                "h" => "pong",
                _ => panic!("{reference} is no ref of the run"),
            }}),
            Some("error") => {
                let reason = payload["response"]["reason"].as_str().expect("an error has a reason");
                let code = match reason {
                    "bad_position" => "bad_command",
                    "not_joined" => "not_subscribed",
                    "too many messages wait" | "too many channels joined" => "too_many",
                    _ if reason.starts_with("no ") => "refused",
                    // The end itself follows.
                    _ if reason.starts_with("end ") && reference.is_empty() => return None,
                    _ if reason.starts_with("end ") => "disconnected",
                    _ => reason,
                };
                json!({"type": "error", "code": code, "message": reason})
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
            Some("response") => said["data"] = payload["response"]["data"].clone(),
            Some("pong") => said["connection"] = json!(format!("{}-0-0", self.shard)),
            _ => {}
        }
        Some(said)
    }
}

/// The members in a state of Phoenix: for each user its metas, whose references name the connection and
/// the version of the member.
fn members(state: &Value) -> Vec<Value> {
    let users = state.as_object().expect("a state is an object");
    let metas = |(user, of): (&String, &Value)| {
        let metas = of["metas"].as_array().expect("a user has metas").clone();
        assert!(!metas.is_empty(), "{state}: a user without metas is none");
        let user = user.clone();
        metas.into_iter().map(move |meta| {
            let reference = meta["phx_ref"].as_str().expect("a meta has a reference");
            let bytes = URL_SAFE_NO_PAD.decode(reference).expect("it is base64");
            let [a, b, c, d, e, f, g, h, ..] = *bytes else { panic!("{meta}: it is too short") };
            let connection = connection_of(murre_router::presence::HERE, Origin(u64::from_be_bytes([a, b, c, d, e, f, g, h])));
            json!({"connection": connection, "user": user, "meta": meta["data"], "reference": reference})
        })
    };
    users.iter().flat_map(metas).collect()
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
