//! Channels: where connections and the router meet.
//!
//! One [`Channels`] a shard. Commands come in from WebSockets ([`command`]), are held against the
//! rules ([`namespaces`], [`auth`], [`rate`]) and handed to the router; what the router says goes out
//! as messages ([`answer`], [`frames`]), as event streams and as answers to polls ([`streams`]). Once
//! a turn what the router has for other shards is posted to them.

pub(crate) mod answer;
pub(crate) mod binary;
mod clients;
pub(crate) mod code;
pub(crate) mod command;
#[cfg(test)]
mod command_oracle;
mod control;
mod counters;
mod floor;
mod frames;
mod lagging;
mod mail;
pub(crate) mod namespaces;
mod setting;
mod streams;
mod tickets;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use murre_codec::Kind;
use murre_codec::http::{Request, Response};
use murre_core::{CloseReason, ConnId, Message, Outbox};
use murre_router::services::{self, Failure, ServiceEvent, Services};
use murre_router::topics::{self, Cursor, Event, Form, Past, Payload, Position, Retention, Topics};
use murre_router::{Shard, Ticket};
use tokio::sync::oneshot;

use crate::bench::feed;
use crate::hub::auth::{self, BadToken, UnixSeconds, User};
use crate::hub::rate::RateDecision;
use crate::mesh::Mesh;
use answer::{Answer, Data};
use clients::Clients;
use code::Code;
use command::{About, Command, Id, Item, Parser, Rejection};
use control::Published;
use frames::Frames;
use lagging::Lagging;
use namespaces::{Rules, Who};
use streams::Streams;
use tickets::{Asker, Tickets, Waiting};

pub(crate) use clients::Speaks;
pub(crate) use control::Control;
pub(crate) use counters::ChannelCounters;
pub(crate) use mail::Mail;
pub(crate) use setting::Setting;

/// One shard's channels.
pub(crate) struct Channels {
    setting: Arc<Setting>,
    shard: Shard,
    topics: Topics<Frames>,
    services: Services<Payload>,
    clients: Clients,
    tickets: Tickets<oneshot::Sender<Published>>,
    lagging: Lagging,
    streams: Streams,
    /// None while it is reading a message.
    parser: Option<Parser>,
    mesh: Mesh<Mail>,
    counters: Arc<ChannelCounters>,
    /// When there is something to do though nothing happens.
    wake: Option<Instant>,
    /// Something has happened in this turn.
    stirred: bool,
    /// More is to be delivered than one turn could: the next needs the floor.
    delivering: bool,
    /// Milliseconds since time began, of this turn.
    now: u64,
}

/// Deliveries of one turn at most: a millisecond, as other connections wait for its end, and as many
/// turns as are few to all that a turn is for beside.
const DELIVERIES_MAX: usize = 64;
/// How long to wait for the floor before asking again.
const FLOOR: Duration = Duration::from_millis(20);
/// How long to wait before notes are handed to a shard that was behind.
const BEHIND: Duration = Duration::from_millis(1);

impl Channels {
    /// The channels of `shard`, with nobody on them.
    pub(crate) fn new(setting: Arc<Setting>, shard: Shard) -> Self {
        let rules = Arc::clone(&setting);
        let kept = move |topic: &str| retention(rules.namespaces.rules(topic));
        let (shards, seed) = (setting.shards, setting.seed);
        Channels {
            topics: Topics::new(shard, shards, seed, kept, setting.topics),
            services: Services::new(shard, shards, seed, setting.services),
            shard,
            clients: Clients::new(setting.topics.members_usual),
            tickets: Tickets::default(),
            lagging: Lagging::default(),
            streams: Streams::default(),
            parser: Some(Parser::default()),
            mesh: Mesh::new(usize::from(shard)),
            counters: Arc::default(),
            wake: None,
            stirred: false,
            delivering: false,
            now: 0,
            setting,
        }
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> Arc<ChannelCounters> {
        Arc::clone(&self.counters)
    }

    /// A WebSocket opens, as the user's whose token came with the handshake.
    ///
    /// # Errors
    /// The answer to a token that is not valid.
    pub(crate) fn enter(&mut self, id: ConnId, request: &Request<'_, '_>) -> Result<(), Response> {
        let user = self.user(request).map_err(refusal)?;
        self.clients.enter(id, Speaks::WebSocket, user);
        // Its token expires, though it may never say anything.
        self.stirred = true;
        Ok(())
    }

    /// Whose token came with a request, if any.
    fn user(&self, request: &Request<'_, '_>) -> Result<Option<User>, Rejection<'static>> {
        let token = auth::token(request);
        let verify = |token: Cow<'_, str>| self.setting.keys.verify(&token, seconds());
        token.map(verify).transpose().map_err(unknown)
    }

    /// Begins an event stream: `/sse?topic=A&topic=B`.
    ///
    /// # Errors
    /// The answer to a request that cannot be obeyed.
    pub(crate) fn events(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let asked = streams::Asked::of(request);
        let last = asked.positions(request);
        let user = self.may_subscribe(request, &asked.topics)?;
        if !(1..=streams::TOPICS_MAX).contains(&asked.topics.len()) {
            let why = "a stream is of 1 to 32 channels: /sse?topic=A&topic=B";
            return Err(refusal(Rejection::new(Code::BadCommand, why)));
        }
        let mixed = asked.topics.len() > 1;
        self.clients.enter(id, if mixed { Speaks::MixedEvents } else { Speaks::Events }, user);
        if mixed {
            let named = asked.topics.iter().map(|topic| topic.as_str().into());
            self.streams.mix(id.index(), named.zip(last.iter().copied()).collect());
        }
        self.clock(out);
        for (topic, from) in asked.topics.iter().zip(last) {
            self.subscribe(id, topic, from, None).map_err(|why| {
                self.leave(id);
                refusal(why)
            })?;
        }
        // A stream that cannot be written is the connection's end.
        let _ = out.write(id, |bytes| bytes.extend_from_slice(streams::EVENTS_HEAD));
        self.settle(out);
        Ok(())
    }

    /// Begins a long poll: `/poll?topic=A&position=E-N`.
    ///
    /// # Errors
    /// The answer to a request that cannot be obeyed.
    pub(crate) fn poll(
        &mut self,
        id: ConnId,
        request: &Request<'_, '_>,
        out: &mut Outbox,
    ) -> Result<(), Response> {
        let asked = streams::Asked::of(request);
        let [topic] = &asked.topics[..] else {
            let why = "a poll is of one channel: /poll?topic=A&position=E-N";
            return Err(refusal(Rejection::new(Code::BadCommand, why)));
        };
        let user = self.may_subscribe(request, &asked.topics)?;
        if retention(self.setting.namespaces.rules(topic)).is_none() {
            return Err(refusal(Rejection::from(Code::NoHistory).about(About::Identifier(topic))));
        }
        self.clients.enter(id, Speaks::Poll, user);
        self.clock(out);
        let from = asked.position;
        self.subscribe(id, topic, from, None).map_err(|why| {
            self.leave(id);
            refusal(why)
        })?;
        self.settle(out);
        Ok(())
    }

    /// Whose a request for these channels is, if it may have them.
    fn may_subscribe(
        &self,
        request: &Request<'_, '_>,
        topics: &[String],
    ) -> Result<Option<User>, Response> {
        let user = self.user(request).map_err(refusal)?;
        for topic in topics {
            let topic = command::identifier(topic, &self.setting.limits).map_err(refusal)?;
            let who = self.setting.namespaces.rules(topic).subscribe;
            allow(who, user.is_some(), About::Identifier(topic)).map_err(refusal)?;
        }
        Ok(user)
    }

    fn subscribe<'c>(
        &mut self,
        id: ConnId,
        identifier: &'c str,
        from: Option<Position>,
        name: Option<Id>,
    ) -> Result<(), Rejection<'c>> {
        let ticket = self.tickets.issue(identifier, Asker::Client(id, name));
        let subscribed = self.topics.subscribe(id.index(), identifier, from, ticket, self.now);
        self.unless(ticket, subscribed, About::Identifier(identifier))
    }

    /// Whether the answer to a poll is there.
    pub(crate) fn has_answered(&self, id: ConnId) -> bool {
        self.clients.speaks(id.index()) == Speaks::Nothing
    }

    /// A stream or a poll has been silent for long.
    pub(crate) fn waited(&mut self, id: ConnId, out: &mut Outbox) {
        match self.clients.speaks(id.index()) {
            Speaks::Nothing | Speaks::WebSocket => {}
            Speaks::Events | Speaks::MixedEvents => _ = out.send(id, &streams::SIGN_OF_LIFE),
            Speaks::Poll => self.end_wait(id, out),
        }
    }

    /// The server is going away: a poll is answered with what there is, a stream is told when to
    /// come back. A poll that is not subscribed yet is answered when it is.
    pub(crate) fn say_goodbye(&mut self, id: ConnId, out: &mut Outbox) {
        match self.clients.speaks(id.index()) {
            Speaks::Nothing | Speaks::WebSocket => {}
            Speaks::Events | Speaks::MixedEvents => {
                let retry = streams::retry(out.retry_after(id));
                // A stream that cannot be written is the connection's end.
                let _ = out.write(id, |bytes| bytes.extend_from_slice(&retry));
                out.close(id, CloseReason::Draining);
            }
            Speaks::Poll => self.end_wait(id, out),
        }
    }

    fn end_wait(&mut self, id: ConnId, out: &mut Outbox) {
        let name = self.topics.subscriptions(id.index()).next().unwrap_or_default();
        if self.streams.waited(id, name, out) {
            self.end_poll(id);
        }
    }

    /// A poll has its answer: it is no subscriber any more.
    fn end_poll(&mut self, id: ConnId) {
        self.leave(id);
    }

    /// A WebSocket, a stream or a poll is over.
    pub(crate) fn leave(&mut self, id: ConnId) {
        self.stirred = true;
        let slot = id.index();
        let mut forget = |ticket| _ = self.tickets.take(ticket);
        self.topics.leave(slot, &mut forget);
        self.services.leave(slot, &mut forget);
        self.lagging.forget(id);
        self.streams.forget(slot);
        self.clients.leave(id);
    }

    // ---- what clients say ----

    /// A client's message.
    pub(crate) fn message(&mut self, id: ConnId, message: Message<'_>, out: &mut Outbox) {
        self.clock(out);
        match message.kind {
            Kind::Text => {
                let mut parser = self.parser.take().expect("one message at a time");
                let setting = Arc::clone(&self.setting);
                parser.read(message.bytes, &setting.limits, |Item { id: name, command }| {
                    if self.admit(id, name.as_ref(), out) {
                        self.command(id, name, command, out);
                    }
                });
                self.parser = Some(parser);
            }
            Kind::Binary if self.admit(id, None, out) => self.binary(id, message.bytes, out),
            Kind::Binary => {}
        }
        self.settle(out);
    }

    /// Whether the connection may say something more now.
    fn admit(&mut self, id: ConnId, name: Option<&Id>, out: &mut Outbox) -> bool {
        if !out.is_open(id) {
            return false;
        }
        self.counters.commands.add(1);
        let now = Duration::from_millis(self.now);
        match self.setting.rate.take(self.clients.spent(id), now) {
            RateDecision::Allow => true,
            RateDecision::Refuse => {
                self.refuse(id, name, Code::TooFast.into(), out);
                false
            }
            RateDecision::Disconnect => {
                self.refuse(id, name, Code::TooFast.into(), out);
                end(id, Code::TooFast, out);
                false
            }
        }
    }

    fn command(
        &mut self,
        id: ConnId,
        name: Option<Id>,
        command: Result<Command<'_>, Rejection<'_>>,
        out: &mut Outbox,
    ) {
        let result = command.and_then(|command| self.obey(id, name.clone(), command, out));
        if let Err(rejection) = result {
            self.refuse(id, name.as_ref(), rejection, out);
        }
    }

    fn obey<'c>(
        &mut self,
        id: ConnId,
        name: Option<Id>,
        command: Command<'c>,
        out: &mut Outbox,
    ) -> Result<(), Rejection<'c>> {
        let slot = id.index();
        match command {
            Command::Subscribe { identifier, position } => {
                let about = About::Identifier(identifier);
                self.allow(slot, self.setting.namespaces.rules(identifier).subscribe, about)?;
                self.subscribe(id, identifier, position, name)
            }
            Command::Unsubscribe { identifier } => {
                let unsubscribed = self.topics.unsubscribe(slot, identifier);
                unsubscribed.map_err(|why| because(why, About::Identifier(identifier)))?;
                say(id, Answer::Unsubscribed { identifier }, name.as_ref(), out);
                Ok(())
            }
            Command::Publish { identifier, data } => {
                let payload = Payload { form: Form::Json, bytes: data };
                self.publish(id, identifier, payload, name)
            }
            Command::History { identifier, limit, position } => {
                let about = About::Identifier(identifier);
                self.allow(slot, self.setting.namespaces.rules(identifier).subscribe, about)?;
                let ticket = self.tickets.issue(identifier, Asker::Client(id, name));
                let asked = self.topics.history(identifier, position, limit, ticket, self.now);
                self.unless(ticket, asked, about)
            }
            Command::Ping => {
                say(id, Answer::Pong { connection: &self.name(id) }, name.as_ref(), out);
                Ok(())
            }
            Command::Auth { token } => {
                let user = self.setting.keys.verify(token, seconds()).map_err(unknown)?;
                let answer = Answer::Authenticated {
                    user: &user.name,
                    expires: user.expires.map(UnixSeconds::get),
                };
                say(id, answer, name.as_ref(), out);
                self.clients.authenticate(id, user);
                Ok(())
            }
            Command::Serve { service } => {
                let about = About::Service(service);
                self.allow(slot, self.setting.namespaces.rules(service).serve, about)?;
                self.services.serve(slot, service).map_err(|why| unserved(why, about))?;
                say(id, Answer::Serving { service }, name.as_ref(), out);
                Ok(())
            }
            Command::Unserve { service } => {
                let about = About::Service(service);
                self.services.unserve(slot, service).map_err(|why| unserved(why, about))?;
                say(id, Answer::Unserving { service }, name.as_ref(), out);
                Ok(())
            }
            Command::Request { service, data, timeout_ms } => {
                let about = About::Service(service);
                if self.setting.bench && service == feed::ORDERS {
                    let answer = feed::order(&data, &self.name(id));
                    let answer = answer.ok_or(Rejection::from(Code::BadCommand).about(about))?;
                    let data = Data::Json(answer.as_bytes());
                    say(id, Answer::Response { service, data }, name.as_ref(), out);
                    return Ok(());
                }
                self.allow(slot, self.setting.namespaces.rules(service).request, about)?;
                let ticket = self.tickets.issue(service, Asker::Client(id, name));
                let payload = Payload { form: Form::Json, bytes: data };
                let deadline = self.now + u64::from(timeout_ms);
                let asked = self.services.request(slot, ticket, service, payload, deadline);
                asked.map_err(|why| {
                    self.tickets.take(ticket);
                    unserved(why, about)
                })
            }
            Command::Reply { request, answer } => {
                let unknown = Code::UnknownRequest;
                let request = request.parse().map_err(|_| Rejection::from(unknown))?;
                let answer = match answer {
                    Ok(data) => Ok(Payload { form: Form::Json, bytes: data }),
                    Err(why) => Err(why.into()),
                };
                self.services.reply(slot, request, answer).map_err(|_| unknown.into())
            }
        }
    }

    /// What a connection is called, among those of all shards.
    fn name(&self, id: ConnId) -> String {
        format!("{}-{id}", self.shard)
    }

    fn binary(&mut self, id: ConnId, message: &[u8], out: &mut Outbox) {
        let setting = Arc::clone(&self.setting);
        let published = binary::read(message, &setting.limits).and_then(|(identifier, bytes)| {
            let payload = Payload { form: Form::Binary, bytes: bytes.into() };
            self.publish(id, identifier, payload, None)
        });
        if let Err(rejection) = published {
            self.refuse(id, None, rejection, out);
        }
    }

    fn publish<'c>(
        &mut self,
        id: ConnId,
        identifier: &'c str,
        payload: Payload,
        name: Option<Id>,
    ) -> Result<(), Rejection<'c>> {
        let about = About::Identifier(identifier);
        self.allow(id.index(), self.setting.namespaces.rules(identifier).publish, about)?;
        self.counters.published.add(1);
        // Without a name nobody waits for the outcome.
        let Some(name) = name else {
            let published = self.topics.publish(identifier, payload, None, self.now);
            return published.map_err(|why| because(why, about));
        };
        let ticket = self.tickets.issue(identifier, Asker::Client(id, Some(name)));
        let published = self.topics.publish(identifier, payload, Some(ticket), self.now);
        self.unless(ticket, published, about)
    }

    fn allow<'c>(&self, slot: u32, who: Who, about: About<'c>) -> Result<(), Rejection<'c>> {
        allow(who, self.clients.user(slot).is_some(), about)
    }

    /// A command that the router refused at once needs its ticket no more.
    fn unless<'c>(
        &mut self,
        ticket: Ticket,
        done: Result<(), topics::Refused>,
        about: About<'c>,
    ) -> Result<(), Rejection<'c>> {
        done.map_err(|why| {
            self.tickets.take(ticket);
            because(why, about)
        })
    }

    fn refuse(&self, id: ConnId, name: Option<&Id>, why: Rejection<'_>, out: &mut Outbox) {
        self.counters.refused.add(1);
        say(id, why.into(), name, out);
    }

    // ---- what the router says ----

    /// Passes on what the router has to say to this shard's connections.
    fn settle(&mut self, out: &mut Outbox) {
        while let Some(event) = self.topics.event() {
            match event {
                Event::Subscribed { member, ticket, past } => {
                    self.subscribed(member, ticket, past, out);
                }
                Event::Withdrawn { ticket, .. } => {
                    let Waiting { name, asker } = self.tickets.take(ticket);
                    let about = About::Identifier(&name);
                    self.tell_error(asker, Code::NotSubscribed, None, about, out);
                }
                Event::Published { ticket, outcome } => self.published(ticket, outcome, out),
                Event::History { ticket, past } => self.history(ticket, &past, out),
            }
        }
        while let Some(event) = self.services.event() {
            match event {
                ServiceEvent::Request { member, request, service, payload } => {
                    if let Some(id) = out.at(member) {
                        let (request, data) = (request.to_string(), data(&payload));
                        text(id, out, |bytes| answer::request(bytes, &request, &service, data));
                    }
                }
                ServiceEvent::Response { ticket, service, payload, .. } => {
                    if let Asker::Client(id, name) = self.tickets.take(ticket).asker {
                        let answer = Answer::Response { service: &service, data: data(&payload) };
                        say(id, answer, name.as_ref(), out);
                    }
                }
                ServiceEvent::Failed { ticket, service, why, .. } => {
                    let asker = self.tickets.take(ticket).asker;
                    let (code, message) = failure(&why);
                    self.tell_error(asker, code, message, About::Service(&service), out);
                }
            }
        }
    }

    fn subscribed(&mut self, slot: u32, ticket: Ticket, past: Option<Past>, out: &mut Outbox) {
        let Waiting { name, asker } = self.tickets.take(ticket);
        let Asker::Client(id, command) = asker else { return };
        // The client may have gone, and another may have its slot.
        if out.at(slot) != Some(id) {
            return;
        }
        match self.clients.speaks(slot) {
            Speaks::Nothing => {}
            Speaks::WebSocket => {
                let (position, recovered) = (
                    past.as_ref().map(|past| past.position),
                    past.as_ref().and_then(|past| past.recovered),
                );
                let answer = Answer::Subscribed { identifier: &name, position, recovered };
                say(id, answer, command.as_ref(), out);
                for publication in past.iter().flat_map(|past| &past.publications) {
                    let frame = Frames::default().message(publication).clone();
                    let slow = self.setting.namespaces.rules(&name).slow;
                    let to = (id, Speaks::WebSocket);
                    self.lagging.deliver(to, slow, &publication.topic, &frame, out);
                }
            }
            Speaks::Events | Speaks::MixedEvents => {
                self.streams.subscribed(id, &name, past.as_ref(), out);
            }
            Speaks::Poll => {
                if self.streams.polled(id, &name, past.as_ref(), out) {
                    self.end_poll(id);
                }
            }
        }
    }

    fn published(
        &mut self,
        ticket: Ticket,
        outcome: Result<Option<Position>, topics::Refused>,
        out: &mut Outbox,
    ) {
        let Waiting { name, asker } = self.tickets.take(ticket);
        match (asker, outcome) {
            (Asker::Client(id, command), Ok(position)) => {
                let answer = Answer::Published { identifier: &name, position };
                say(id, answer, command.as_ref(), out);
            }
            // Whoever asked may not wait any more.
            (Asker::Control(asked), outcome) => _ = asked.send(outcome.map_err(code_of)),
            (asker, Err(why)) => {
                let about = About::Identifier(&name);
                self.tell_error(asker, code_of(why), None, about, out);
            }
        }
    }

    fn history(&mut self, ticket: Ticket, past: &Past, out: &mut Outbox) {
        let Waiting { name, asker } = self.tickets.take(ticket);
        let Asker::Client(id, command) = asker else { unreachable!("only clients read history") };
        text(id, out, |bytes| {
            let publications = past.publications.iter().map(frames::numbered);
            answer::history(bytes, command.as_ref(), &name, past.position, publications);
        });
    }

    fn tell_error(
        &self,
        asker: Asker<oneshot::Sender<Published>>,
        code: Code,
        message: Option<&str>,
        about: About<'_>,
        out: &mut Outbox,
    ) {
        // Nobody else waits for what can fail.
        if let Asker::Client(id, name) = asker {
            self.counters.refused.add(1);
            let message = message.unwrap_or(code.sentence());
            say(id, Answer::Error { code, message, about: Some(about) }, name.as_ref(), out);
        }
    }

    // ---- a turn ----

    /// From another shard, or from the control plane.
    pub(crate) fn mail(&mut self, mail: Mail, out: &mut Outbox) {
        self.clock(out);
        match mail {
            Mail::Join(boxes) => self.mesh.join(boxes),
            Mail::Notes { from, topics, services } => {
                topics.into_iter().for_each(|note| self.topics.receive(from, note, self.now));
                services.into_iter().for_each(|note| self.services.receive(from, note));
                self.settle(out);
            }
            Mail::Control(control) => {
                self.control(control, out);
                self.settle(out);
            }
            // The turn will see.
            Mail::Floor => {}
            Mail::Feed(_) => unreachable!("the bench's"),
        }
    }

    /// What a turn does after everything else: delivers, lets time pass, tells the other shards.
    pub(crate) fn turn(&mut self, out: &mut Outbox) {
        let due = self.wake.is_some_and(|wake| wake <= out.now());
        if !due && !self.stirred {
            return;
        }
        self.clock(out);
        self.topics.expire(self.now);
        self.services.expire(self.now);
        while let Some(id) = self.clients.expired(seconds()) {
            self.refuse(id, None, Code::TokenExpired.into(), out);
            end(id, Code::TokenExpired, out);
        }
        self.settle(out);
        let left = self.deliver_in_turn(out);
        let behind = self.hand_over().then_some(BEHIND);
        let again = left.into_iter().chain(behind).min();
        self.stirred = false;
        self.wake = self.next(again, out.now());
        let (topics, services) = (self.topics.stats(), self.services.stats());
        self.counters.tell(&topics, &services, self.lagging.len(), self.clients.users());
    }

    /// When there should be a turn at the latest.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake
    }

    fn next(&self, again: Option<Duration>, now: Instant) -> Option<Instant> {
        let moments = [self.topics.next_expiry(), self.services.next_expiry()];
        let moment = |ms| self.setting.began + Duration::from_millis(ms);
        let token = self
            .clients
            .next_expiry()
            .map(|expires| now + Duration::from_secs(expires.saturating_sub(seconds())));
        let again = again.map(|after| now + after);
        moments.into_iter().flatten().map(moment).chain(token).chain(again).min()
    }

    /// Everything queued for a connection has been sent.
    pub(crate) fn drained(&mut self, id: ConnId, out: &mut Outbox) {
        self.lagging.drained(id, self.clients.speaks(id.index()), out);
    }

    /// Delivers for a turn: what is more needs the floor. When there should be another, if more is
    /// left.
    fn deliver_in_turn(&mut self, out: &mut Outbox) -> Option<Duration> {
        let with_floor = self.delivering;
        if with_floor && !self.setting.floors.take(self.shard) {
            return Some(FLOOR);
        }
        self.delivering = self.deliver(out);
        if with_floor && let Some(next) = self.setting.floors.pass(self.shard, self.delivering) {
            // One that is behind is awake, and will ask.
            let _ = self.mesh.post(usize::from(next), Mail::Floor);
        }
        self.delivering.then_some(Duration::ZERO)
    }

    /// Delivers publications to this shard's subscribers. Returns whether some are left.
    fn deliver(&mut self, out: &mut Outbox) -> bool {
        let Channels { topics, clients, lagging, streams, setting, counters, .. } = self;
        let left = topics.deliver(DELIVERIES_MAX, |publication, frames, subscribers| {
            let (topic, slow) =
                (&publication.topic, setting.namespaces.rules(&publication.topic).slow);
            for subscriber in subscribers {
                let slot = subscriber.member();
                let Some(id) = out.at(slot) else { continue };
                let speaks = clients.speaks(slot);
                let to = (id, speaks);
                let delivered = match speaks {
                    Speaks::Nothing => continue,
                    Speaks::WebSocket => {
                        lagging.deliver(to, slow, topic, frames.message(publication), out)
                    }
                    Speaks::Events => {
                        lagging.deliver(to, slow, topic, frames.event(publication), out)
                    }
                    Speaks::MixedEvents => streams.deliver(id, publication, lagging, slow, out),
                    Speaks::Poll => streams.answer(id, publication, out),
                };
                counters.count(delivered);
            }
        });
        while let Some(id) = self.streams.answered() {
            self.end_poll(id);
        }
        left
    }

    /// Posts what the router has for other shards. Returns whether one of them is behind.
    fn hand_over(&mut self) -> bool {
        let mut behind = false;
        for other in self.mesh.others() {
            let to = other as Shard;
            let (topics, services) = (self.topics.notes(to), self.services.notes(to));
            if topics.is_empty() && services.is_empty() {
                continue;
            }
            let (topics, services) = (std::mem::take(topics), std::mem::take(services));
            let mail = Mail::Notes { from: self.shard, topics, services };
            if let Err(Mail::Notes { topics, services, .. }) = self.mesh.post(other, mail) {
                *self.topics.notes(to) = topics;
                *self.services.notes(to) = services;
                behind = true;
            }
        }
        behind
    }

    // ---- for the bench ----

    /// Publishes something of the server's own.
    pub(crate) fn feed(&mut self, topic: &str, payload: Payload, out: &Outbox) {
        self.clock(out);
        // What is refused because the server is behind is not said again: there is always more.
        let _ = self.topics.publish(topic, payload, None, self.now);
    }

    /// Deliveries that wait on this shard.
    pub(crate) fn deliveries_waiting(&self) -> u64 {
        self.topics.stats().deliveries_waiting
    }

    /// A channel with subscribers on this shard, chosen by `random`, and how many bytes wait for the
    /// first of them.
    pub(crate) fn some_topic(&self, random: u32, out: &Outbox) -> Option<(Arc<str>, u32)> {
        let (topic, first) = self.topics.some_topic(random)?;
        let waiting = out.at(first).map_or(0, |id| out.queued(id));
        Some((Arc::clone(topic), waiting))
    }

    /// Channels whose names begin with `prefix`, of those that this shard owns.
    pub(crate) fn owned(&self, prefix: &str, most: usize) -> Vec<Arc<str>> {
        let (mut found, mut from) = (Vec::new(), Some(Cursor::default()));
        while let Some(cursor) = from
            && found.len() < most
        {
            let (topics, next) = self.topics.topics(cursor, most);
            let named = topics.into_iter().map(|topic| topic.name);
            found.extend(named.filter(|name| name.starts_with(prefix)));
            from = next;
        }
        found
    }

    /// Posts a mail to all other shards. One that is behind misses it.
    pub(crate) fn tell_others(&self, mail: impl Fn() -> Mail) {
        for other in self.mesh.others() {
            let _ = self.mesh.post(other, mail());
        }
    }

    /// Something happens, at the time of this turn.
    fn clock(&mut self, out: &Outbox) {
        self.stirred = true;
        let passed = out.now().saturating_duration_since(self.setting.began);
        self.now = passed.as_millis() as u64;
    }
}

/// Seconds since 1970, as tokens count.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

fn data(payload: &Payload) -> Data<'_> {
    match payload.form {
        Form::Json | Form::Raw => Data::Json(&payload.bytes),
        Form::Binary => Data::Binary(&payload.bytes),
    }
}

/// Queues a text message of this connection's own. Whoever has gone needs none.
fn text(id: ConnId, out: &mut Outbox, write: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::with_capacity(256);
    write(&mut bytes);
    let _ = out.message(id, Kind::Text, &bytes);
}

fn say(id: ConnId, answer: Answer<'_>, name: Option<&Id>, out: &mut Outbox) {
    text(id, out, |bytes| answer.write(name, bytes));
}

/// Ends a connection for what it did.
fn end(id: ConnId, code: Code, out: &mut Outbox) {
    let close = code.close().expect("it ends connections");
    out.close_websocket(id, close, code.name(), CloseReason::Finished);
}

fn because(why: topics::Refused, about: About<'_>) -> Rejection<'_> {
    Rejection::from(code_of(why)).about(about)
}

fn code_of(why: topics::Refused) -> Code {
    match why {
        topics::Refused::AlreadySubscribed => Code::AlreadySubscribed,
        topics::Refused::NotSubscribed => Code::NotSubscribed,
        topics::Refused::TooMany => Code::TooMany,
        topics::Refused::NoHistory => Code::NoHistory,
        topics::Refused::Overloaded => Code::Overloaded,
    }
}

fn unserved(why: services::Refused, about: About<'_>) -> Rejection<'_> {
    Rejection::from(match why {
        services::Refused::AlreadyServing => Code::AlreadyServing,
        services::Refused::NotServing => Code::NotServing,
        services::Refused::TooMany => Code::TooMany,
        services::Refused::Overloaded => Code::Overloaded,
        services::Refused::UnknownRequest => Code::UnknownRequest,
    })
    .about(about)
}

fn allow(who: Who, authenticated: bool, about: About<'_>) -> Result<(), Rejection<'_>> {
    let included = who.includes(authenticated);
    included.then_some(()).ok_or(Rejection::from(Code::NotAllowed).about(about))
}

/// Why a client is not who its token says.
fn unknown(why: BadToken) -> Rejection<'static> {
    Rejection::new(Code::BadToken, why.sentence())
}

/// What a channel keeps, by its rules.
fn retention(rules: &Rules) -> Option<Retention> {
    let ttl_ms = rules.history_ttl.as_millis() as u64;
    (rules.history_size > 0).then_some(Retention { size: rules.history_size, ttl_ms })
}

/// The answer to a request that is refused, where there is no WebSocket to say it on.
fn refusal(why: Rejection<'_>) -> Response {
    let mut body = Vec::new();
    let status = why.code.status();
    Answer::from(why).write(None, &mut body);
    streams::json_response(status, body)
}

fn failure(why: &Failure) -> (Code, Option<&str>) {
    match why {
        Failure::NoResponders => (Code::NoResponders, None),
        Failure::Overloaded => (Code::Overloaded, None),
        Failure::ResponderGone => (Code::ResponderGone, None),
        Failure::ResponderFailed(why) => (Code::ResponderFailed, Some(why)),
        Failure::Timeout => (Code::Timeout, None),
    }
}
