//! Services over NATS. A node subscribes to the subject of each service that it offers, in one group of all nodes:
//! NATS gives each request to one of them, and says at once when there is none.
//!
//! ```text
//!   murre.CLUSTER.s.SERVICE         requests, with the subject for the answer
//!   murre.CLUSTER.a.NODE.NUMBER     the answer to request NUMBER of the start NODE of a node
//! ```
//!
//! The service is in base64url, as channels are. A node whose last responder has left while the request was on its way
//! answers that it has none, and the request is sent again: nobody has seen it.

mod message;
#[cfg(test)]
mod model;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use message::check;

use std::collections::{BTreeSet, HashMap};
use std::str;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use murre_router::Shard;
use murre_router::channels::{Interest, Payload};
use murre_router::services::{
    Key, RemoteRequest, Request, RequestError, Requester, ServiceBackplane,
};

use super::link::Link;
use super::mail::{FromNats, Mail};
use super::names::Names;
use super::wire::Message;
use super::{Command, Nats, Shared};
use crate::protocols::json::Validator;

/// What shards want of the services of other nodes.
pub(super) enum ServiceCommand {
    Interest { shard: usize, service: Arc<str>, interest: Interest },
    Request(Outgoing),
    Answer { request: RemoteRequest, answer: Vec<u8> },
}

/// A request for another node.
pub(super) struct Outgoing {
    /// The shard of the requester, and the key of the request there.
    shard: usize,
    waiting: Key,
    service: Arc<str>,
    deadline: Instant,
    /// With room for the time that is left.
    message: Vec<u8>,
}

/// The services that this node offers, and the requests of this node that are on their way.
pub(super) struct Services {
    shared: Arc<Shared>,
    names: Arc<Names>,
    offered: HashMap<Arc<str>, Offered>,
    by_number: HashMap<u64, Arc<str>>,
    /// The beginning of the subjects of all services.
    prefix: String,
    /// The subscription to all answers.
    answers: u64,
    next: u64,
    sent: HashMap<u64, Sent>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Bytes of all requests that were sent.
    bytes: usize,
    validator: Validator,
}

/// A service that this node offers.
struct Offered {
    /// The number of the subscription.
    number: u64,
    /// The owner of the service.
    shard: usize,
}

/// A request without an answer.
struct Sent {
    request: Outgoing,
    /// The number of times that it was sent.
    times: u32,
}

/// The group of all nodes that offer a service.
const GROUP: &str = "nodes";
/// Requests of this node without an answer, and bytes of them, at most.
const SENT_MAX: usize = 1 << 16;
const SENT_BYTES_MAX: usize = 64 << 20;
/// The times that a request is sent at most. Each node that has no responder any more leaves the group before it says
/// so.
const TIMES_MAX: u32 = 8;

impl Services {
    pub(super) fn new(shared: Arc<Shared>, names: Arc<Names>) -> Self {
        Services {
            prefix: names.service(""),
            answers: shared.number(),
            shared,
            names,
            offered: HashMap::new(),
            by_number: HashMap::new(),
            next: 0,
            sent: HashMap::new(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            validator: Validator::default(),
        }
    }

    /// Does what a shard wants.
    pub(super) fn obey(
        &mut self,
        command: ServiceCommand,
        link: &mut Link,
        mail: &mut Mail,
        now: Instant,
    ) {
        match command {
            ServiceCommand::Interest { shard, service, interest: Interest::First } => {
                let number = self.shared.number();
                link.subscribe(&self.names.service(&service), Some(GROUP), number);
                self.by_number.insert(number, Arc::clone(&service));
                self.offered.insert(service, Offered { number, shard });
            }
            ServiceCommand::Interest { service, interest: Interest::Last, .. } => {
                if let Some(Offered { number, .. }) = self.offered.remove(&service) {
                    link.unsubscribe(number);
                    self.by_number.remove(&number);
                }
            }
            ServiceCommand::Request(request) => {
                self.shared.waiting.release(request.message.len());
                self.request(request, link, mail, now);
            }
            ServiceCommand::Answer { request, answer } => {
                self.shared.waiting.release(answer.len());
                self.answer(request, answer, link);
            }
        }
    }

    fn request(&mut self, request: Outgoing, link: &mut Link, mail: &mut Mail, now: Instant) {
        let bytes = self.bytes.saturating_add(request.message.len());
        let is_full = self.sent.len() >= SENT_MAX || bytes > SENT_BYTES_MAX;
        let refused = if request.message.len() as u64 > link.max_payload() {
            Some(RequestError::TooLarge)
        } else {
            let takes = link.takes(request.message.len()) && !is_full;
            (!takes).then_some(RequestError::Overloaded)
        };
        if let Some(why) = refused {
            self.shared.counts.requests_refused.fetch_add(1, Relaxed);
            return outcome(mail, &request, Err(why));
        }
        self.shared.counts.requests.fetch_add(1, Relaxed);
        let number = self.next;
        self.next = number.saturating_add(1);
        self.bytes = bytes;
        self.deadlines.insert((request.deadline, number));
        let mut sent = Sent { request, times: 0 };
        self.send(number, &mut sent, link, now);
        self.sent.insert(number, sent);
    }

    fn send(&self, number: u64, sent: &mut Sent, link: &mut Link, now: Instant) {
        let Sent { request: Outgoing { service, deadline, message, .. }, times } = sent;
        *times = times.saturating_add(1);
        message::set_time_left(message, deadline.saturating_duration_since(now));
        let answer = RemoteRequest { node: self.shared.node.incarnation, number };
        let answer = self.names.answer(answer);
        link.publish(&self.names.service(service), Some(&answer), None, message);
    }

    fn answer(&self, request: RemoteRequest, mut answer: Vec<u8>, link: &mut Link) {
        if answer.len() as u64 > link.max_payload() {
            answer = message::answer(&Err(RequestError::TooLarge));
        }
        // Without it the requester hears that its time is over.
        if link.takes(answer.len()) {
            link.publish(&self.names.answer(request), None, None, &answer);
        } else {
            self.shared.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// A connection is there.
    pub(super) fn connected(&mut self, link: &mut Link) {
        link.subscribe(&self.names.answers(self.shared.node.incarnation), None, self.answers);
        for (service, Offered { number, .. }) in &self.offered {
            link.subscribe(&self.names.service(service), Some(GROUP), *number);
        }
    }

    /// Takes a message of NATS, or returns it if it is about no service.
    pub(super) fn message(
        &mut self,
        message: Message,
        link: &mut Link,
        mail: &mut Mail,
        now: Instant,
    ) -> Option<Message> {
        if message.subscription == self.answers {
            self.answered(&message, link, mail, now);
            return None;
        }
        if !message.subject.starts_with(self.prefix.as_bytes()) {
            return Some(message);
        }
        let reply = message.reply.as_deref().and_then(|reply| str::from_utf8(reply).ok());
        let request = reply.and_then(|reply| self.names.request(reply));
        let opened = message::open_request(&message.payload, &mut self.validator);
        let (Some(request), Some((payload, left))) = (request, opened) else {
            self.shared.counts.malformed.fetch_add(1, Relaxed);
            return None;
        };
        let service = self.by_number.get(&message.subscription);
        let offered = service.and_then(|service| self.offered.get_key_value(service));
        let Some((service, Offered { shard, .. })) = offered else {
            // It was on its way when this node left the group. Another node may offer the service.
            self.answer(request, message::answer(&Err(RequestError::NoResponders)), link);
            return None;
        };
        self.shared.counts.requests_served.fetch_add(1, Relaxed);
        let service = Arc::clone(service);
        mail.add(*shard, FromNats::Requested { request, service, payload, left });
        None
    }

    /// Takes the answer to a request of this node. One that comes too late finds nothing.
    fn answered(&mut self, message: &Message, link: &mut Link, mail: &mut Mail, now: Instant) {
        let subject = str::from_utf8(&message.subject).unwrap_or_default();
        let Some(RemoteRequest { number, .. }) = self.names.request(subject) else { return };
        let Some(mut sent) = self.sent.remove(&number) else { return };
        let answer = match message.status() {
            // NATS knows nobody who offers the service.
            Some(503) => Some(Err(RequestError::NoResponders)),
            _ => message::open_answer(&message.payload, &mut self.validator),
        };
        let is_over = sent.times >= TIMES_MAX || message.status().is_some();
        let answer = match answer {
            None => {
                self.shared.counts.malformed.fetch_add(1, Relaxed);
                Err(RequestError::Overloaded)
            }
            Some(Err(RequestError::NoResponders))
                if !is_over && link.takes(sent.request.message.len()) =>
            {
                self.send(number, &mut sent, link, now);
                self.sent.insert(number, sent);
                return;
            }
            Some(answer) => answer,
        };
        outcome(mail, &sent.request, answer);
        self.end(number, &sent);
    }

    /// Forgets requests whose time is over: their requesters know.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= now
        {
            match self.sent.remove(&number) {
                Some(sent) => self.end(number, &sent),
                None => _ = self.deadlines.pop_first(),
            }
        }
        self.shared.counts.requests_waiting.store(self.sent.len() as u64, Relaxed);
    }

    fn end(&mut self, number: u64, sent: &Sent) {
        self.deadlines.remove(&(sent.request.deadline, number));
        self.bytes = self.bytes.saturating_sub(sent.request.message.len());
    }
}

fn outcome(mail: &mut Mail, request: &Outgoing, answer: Result<Payload, RequestError>) {
    mail.add(request.shard, FromNats::Outcome { waiting: request.waiting, answer });
}

/// The services of other nodes as one shard sees them: it hands everything to the thread of the link.
pub(crate) struct ServicesOverNats {
    nats: Arc<Nats>,
    shard: usize,
    /// The start of the clock of all shards.
    began: Instant,
}

impl ServicesOverNats {
    /// The backplane of the services of a shard, whose clock counts from `began`.
    pub(crate) fn new(nats: Arc<Nats>, shard: Shard, began: Instant) -> Self {
        ServicesOverNats { nats, shard: shard.into(), began }
    }

    fn send(&self, command: ServiceCommand) {
        self.nats.send(Command::Service(command));
    }
}

impl ServiceBackplane<Payload> for ServicesOverNats {
    fn interest(&mut self, service: &Arc<str>, interest: Interest) {
        let service = Arc::clone(service);
        self.send(ServiceCommand::Interest { shard: self.shard, service, interest });
    }

    fn request(&mut self, request: &Request<Payload>) -> bool {
        let Requester::Here { shard, waiting } = request.requester else { return false };
        let Some(deadline) = self.began.checked_add(Duration::from_millis(request.deadline_ms))
        else {
            return false;
        };
        let Shared { waiting: room, counts, .. } = &*self.nats.shared;
        let message = message::request(&request.payload);
        let takes = self.nats.is_up() && room.take(message.len());
        if !takes {
            counts.requests_refused.fetch_add(1, Relaxed);
            return false;
        }
        let (shard, service) = (shard.into(), Arc::clone(&request.service));
        let request = Outgoing { shard, waiting, service, deadline, message };
        self.send(ServiceCommand::Request(request));
        true
    }

    fn answer(&mut self, request: RemoteRequest, answer: Result<Payload, RequestError>) {
        let answer = message::answer(&answer);
        if self.nats.shared.waiting.take(answer.len()) {
            self.send(ServiceCommand::Answer { request, answer });
        } else {
            self.nats.shared.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}
