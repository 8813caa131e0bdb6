//! Clients offer services and ask for them. A client that offers one replies to some requests, refuses
//! some, and leaves some alone.

use serde_json::{Value, json};

use super::super::backend::{Thing, refused};
use super::super::choices::Choices;
use super::super::client::{Asked, Client};
use super::super::model::{Model, Request};
use super::super::setup::is_called;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Offer {
    client: usize,
    service: &'static str,
    action: &'static str,
}

#[derive(Clone, Debug)]
pub(in super::super) struct SendRequest {
    client: usize,
    service: &'static str,
    timeout_ms: u32,
    filling: usize,
    count: u32,
}

#[derive(Debug)]
struct Offering {
    service: &'static str,
    action: &'static str,
}

#[derive(Debug)]
pub(super) struct Requiring {
    /// The service, or the channel of a push that is a request.
    pub(super) service: String,
    pub(super) number: u64,
}

/// A reply is answered only if it comes too late.
#[derive(Debug)]
struct Replying;

const SERVICES: [&str; 3] = ["d:first", "o:second", "l:third"];
/// A service whose requests are for the application.
const OF_BACKEND: &str = "ask:fourth";
const REFUSAL: &str = "out of stock";

fn service(choices: &mut Choices) -> &'static str {
    SERVICES[choices.index(SERVICES.len())]
}

impl Offer {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let (client, service) = (super::client(choices), service(choices));
        Offer { client, service, action: if choices.number(4) > 0 { "serve" } else { "unserve" } }
    }
}

impl SendRequest {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let (client, service) = (super::client(choices), service(choices));
        let service = if choices.number(3) == 0 { OF_BACKEND } else { service };
        let timeout_ms = [2000, 1, 50][choices.index(3)];
        let (filling, count) = (super::publish::filling(choices), super::publish::count(choices));
        SendRequest { client, service, timeout_ms, filling, count }
    }
}

impl Operation for Offer {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let Some((client, id)) = world.websocket(self.client) else { return };
        let Offer { service, action, .. } = *self;
        client.send(&json!({"action": action, "service": service, "id": id}));
        if action == "serve" {
            client.serves.push(service.to_owned());
        }
        client.asked.insert(id, Box::new(Offering { service, action }));
    }
}

impl Operation for SendRequest {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let SendRequest { service, timeout_ms, .. } = *self;
        for _ in 0..self.count {
            let Some(found) = world.websocket(self.client).map(|(client, _)| client.author())
            else {
                return;
            };
            let number = world.model.hand_in(self.filling, Some(found));
            let Some((client, id)) = world.websocket(self.client) else { return };
            let data = super::publish::payload(number, self.filling);
            client.send(&json!({"action": "request", "service": service, "data": data,
                "timeout": timeout_ms, "id": id}));
            client.asked.insert(id, Box::new(Requiring { service: service.to_owned(), number }));
            let request = Request { service: service.to_owned(), ..Request::default() };
            world.model.requests.insert(number, request);
        }
    }
}

impl Asked for Offering {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            Some("already_serving") => assert_eq!(self.action, "serve", "{message}"),
            Some("not_serving") => assert_eq!(self.action, "unserve", "{message}"),
            Some(code) => super::must_be_general(code, "", client, model),
            None => {
                let kind = if self.action == "serve" { "serving" } else { "unserving" };
                assert_eq!(message["type"], kind, "{message}");
                assert_eq!(message["service"], self.service, "{message}");
            }
        }
    }
}

impl Asked for Requiring {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        assert_eq!(
            message.get("service").and_then(Value::as_str).unwrap_or(&self.service),
            self.service
        );
        let (thing, service) = (Thing::Number(self.number), &self.service);
        let decides = model.asks(service) || model.has_backend && is_called(service);
        if super::error(message).is_some() && decides && refused(message, &thing, client, model) {
            return;
        }
        if decides && super::error(message).is_none() {
            model.take_consent(&client.name, thing);
        }
        let request = &model.requests[&self.number];
        match super::error(message) {
            Some("responder_failed") => {
                assert_eq!(request.reply, Some(Err(REFUSAL.to_owned())), "{message}");
                assert_eq!(message["message"], REFUSAL, "{message}");
            }
            Some("no_responders" | "responder_gone" | "timeout" | "overloaded" | "too_many")
                if !decides => {}
            Some(code) => super::must_be_general(code, service, client, model),
            None => {
                assert_eq!(message["type"], "response", "{message}");
                let reply = request.reply.clone();
                model.note("a response");
                assert_eq!(reply, Some(Ok(self.number)), "{message}");
                assert_eq!(message["data"], format!("reply to {}", self.number), "{message}");
            }
        }
    }
}

/// A request for a service that the client offers.
pub(in super::super) fn serve(client: &mut Client, message: &Value, model: &mut Model) {
    let service = message["service"].as_str().expect("a request names its service");
    assert!(client.serves.iter().any(|offered| offered == service), "{message}: not offered");
    let data = message["data"].as_str().expect("requests of the run are texts");
    let number = data.split(':').next().and_then(|digits| digits.parse().ok());
    let number: u64 = number.expect("and begin with a number");
    let request = model.requests.get_mut(&number).expect("it was asked for");
    assert_eq!(request.service, service, "{message}");
    request.served += 1;
    assert_eq!(request.served, 1, "{message}: served twice");
    let reply = match number % 4 {
        0 | 1 => Ok(number),
        2 => Err(REFUSAL.to_owned()),
        _ => return,
    };
    let id = model.next_id();
    let name = &message["request"];
    client.send(&match &reply {
        Ok(number) => {
            let data = format!("reply to {number}");
            json!({"action": "reply", "request": name, "data": data, "id": id})
        }
        Err(why) => json!({"action": "reply", "request": name, "error": why, "id": id}),
    });
    model.requests.get_mut(&number).expect("just seen").reply = Some(reply);
    client.asked.insert(id, Box::new(Replying));
}

impl Asked for Replying {
    fn answered(&self, message: &Value, client: &mut Client, model: &mut Model) {
        match super::error(message) {
            Some("unknown_request") => {}
            Some(code) => super::must_be_general(code, "", client, model),
            None => panic!("{message} answers a reply"),
        }
    }

    fn must_be_answered(&self) -> bool {
        false
    }
}
