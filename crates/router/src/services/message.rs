//! Messages between shards about services.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::backplane::RemoteRequest;
use super::directory::Readiness;
use super::entries::Key;
use super::event::RequestError;
use crate::names::Shard;

/// A message from one shard to another. The caller carries it there, in order and without loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are described with their variant")]
pub enum ServiceMessage<P> {
    /// To the owner: the sender has this offer of `service`.
    Serve { offer: Key, service: Arc<str> },
    /// To the owner: the offer in this slot has ended.
    Unserve { offer: u32 },
    /// To the owner: the readiness of the offer in this slot.
    Ready { offer: u32, readiness: Readiness },
    /// To the owner: a request of a member of the sender, or one that came back from a responder.
    Request(Request<P>),
    /// From the owner: a request for the member with this offer.
    Assign { offer: Key, request: Request<P> },
    /// To the requester's shard: the outcome of a request.
    Outcome { waiting: Key, answer: Result<P, RequestError> },
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<P> {
    /// The requester.
    pub requester: Requester,
    /// The service.
    pub service: Arc<str>,
    /// The time at which the request fails without an answer, in milliseconds of the clock of all shards.
    pub deadline_ms: u64,
    /// The payload of the request.
    pub payload: P,
}

/// The one who gets the outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are described with their variant")]
pub enum Requester {
    /// A member of this node: its shard, and the key of the request there.
    Here { shard: Shard, waiting: Key },
    /// Another node.
    Node(RemoteRequest),
}

const _: () = assert!(size_of::<ServiceMessage<crate::channels::Payload>>() <= 96);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::{Form, Payload};

    /// Every message can be encoded and decoded without loss.
    #[test]
    fn messages_are_encodable() {
        let (offer, waiting) = (Key { index: 1, generation: 2 }, Key { index: 3, generation: 4 });
        let service = || Arc::from("time");
        let payload = || Payload::new(Form::Binary, *b"now?");
        let ask = || Request {
            requester: Requester::Here { shard: 5, waiting },
            service: service(),
            deadline_ms: u64::MAX,
            payload: payload(),
        };
        let failed = Err(RequestError::ResponderFailed("no clock".into()));
        let messages = [
            ServiceMessage::Serve { offer, service: service() },
            ServiceMessage::Unserve { offer: 1 },
            ServiceMessage::Ready { offer: 2, readiness: Readiness::Congested },
            ServiceMessage::Request(ask()),
            ServiceMessage::Request(Request {
                requester: Requester::Node(RemoteRequest { node: u64::MAX, number: 6 }),
                ..ask()
            }),
            ServiceMessage::Assign { offer, request: ask() },
            ServiceMessage::Outcome { waiting, answer: Ok(payload()) },
            ServiceMessage::Outcome { waiting, answer: failed },
        ];
        for message in messages {
            let text = serde_json::to_string(&message).expect("encodable");
            let decoded: ServiceMessage<Payload> = serde_json::from_str(&text).expect("decodable");
            assert_eq!(decoded, message, "{text}");
        }
    }
}
