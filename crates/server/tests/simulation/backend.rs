//! The application that decides about sessions and commands: what it is asked, what it answers and when,
//! and what it has said of each thing, which the server must follow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use serde_json::{Value, json};

use super::client::{Client, LEEWAY, Transport};
use super::model::Model;
use super::operations::publish;
use super::wire;
use crate::backend::{Answer, Call, CallId, CallKind, Failure, SimulatedWorker};

/// How the application behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// It consents, at once.
    Willing,
    /// It answers anything, soon or later, and sometimes twice.
    Moody,
    /// It takes nearly all of the time that a call has.
    Slow,
    /// It answers never, or when the time is over.
    Silent,
    /// There is none, or it breaks off.
    Down,
    /// So many calls wait that none is taken.
    Full,
    /// None is taken for a while, because the last ones have failed.
    Suspended,
}

/// What a call is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Connect,
    Refresh,
    Subscribe(String),
    /// The join of a Phoenix client with this id.
    Join(u64),
    /// The publication or request with this number.
    Number(u64),
}

/// What the application has said of one thing of a connection, in time.
#[derive(Debug, Default)]
struct Verdicts {
    /// When it was asked last, if it has not answered since.
    asked_at: Option<Instant>,
    consents: usize,
    forbids: bool,
    fails: bool,
    /// The sentences of refusals and ends.
    sentences: BTreeSet<String>,
}

/// What it has said of a connection.
#[derive(Debug, Default)]
struct Connection {
    /// The users of connect calls.
    users: BTreeSet<String>,
    /// The user and `meta` of the last one.
    user: Option<String>,
    has_meta: bool,
    /// When the session expires, if that is certain.
    expires: Option<u64>,
    /// The earliest expiry that a refresh call has got.
    earliest: Option<u64>,
    /// A refresh call has ended the session.
    is_expired: bool,
    /// The reasons of its ends, with their close codes.
    ends: BTreeMap<String, u16>,
    sentences: BTreeSet<String>,
    /// When subscriptions end.
    channels: BTreeMap<String, Option<u64>>,
}

/// What the application has said.
#[derive(Debug, Default)]
pub(super) struct Said {
    things: BTreeMap<(String, Thing), Verdicts>,
    connections: BTreeMap<String, Connection>,
    was_full: bool,
    was_suspended: bool,
    /// The fillings of publications to which it has consented.
    fillings: BTreeMap<u64, usize>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The whole answer.
    Consent(Value),
    Refuse(String),
    Forbid,
    End(u32, String),
    Nonsense(&'static str),
    Fail(Failure),
}

/// An answer that is on its way.
struct Scheduled {
    call: CallId,
    shard: usize,
    kind: CallKind,
    /// The connection, and the channel or service.
    subject: (String, String),
    /// What it is about, if it is in time.
    counts_for: Option<(String, Thing)>,
    verdict: Verdict,
}

/// The application.
pub(super) struct Application {
    worker: SimulatedWorker,
    rng: Rng,
    mood: Mood,
    answers: BTreeMap<(Instant, u64), Scheduled>,
    /// The calls that are out, by connection and channel or service, and since when.
    out: BTreeMap<(String, String), Instant>,
    count: u64,
}

/// An answer for a shard.
pub(super) type Posted = (usize, CallId, Answer);

/// The time that a call has.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// The time after which a shard has given a call up, less the time that the run takes to see a call.
const GIVEN_UP: Duration = Duration::from_millis(1800);
/// The time after which an answer is late for certain.
const LATE: Duration = Duration::from_secs(3);

/// Bodies that are no answer to any call.
const NONSENSE: [&str; 7] = [
    "",
    "null",
    "[{}]",
    r#"{"result":[]}"#,
    r#"{"result":{"expire_at":-1,"user":7}}"#,
    r#"{"error":{}}"#,
    r#"{"disconnect":{"code":-4000}}"#,
];

impl Application {
    pub(super) fn new(worker: SimulatedWorker, seed: u64) -> Self {
        Application {
            worker,
            rng: Rng::with_seed(seed),
            mood: Mood::Willing,
            answers: BTreeMap::new(),
            out: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn set_mood(&mut self, mood: Mood, said: &mut Said) {
        self.mood = mood;
        said.was_full |= mood == Mood::Full;
        said.was_suspended |= mood == Mood::Suspended;
        self.worker.refuse(match mood {
            Mood::Full => Some(Failure::Overloaded),
            Mood::Suspended => Some(Failure::Suspended),
            _ => None,
        });
    }

    /// Takes calls, and returns the answers that are due.
    pub(super) fn round(
        &mut self,
        now: Instant,
        clients: &[Option<Client>],
        model: &mut Model,
    ) -> Vec<Posted> {
        while let Some(call) = self.worker.take() {
            let client = clients.iter().flatten();
            self.asked(&call, now, client, model);
        }
        let mut posted = Vec::new();
        while let Some(entry) = self.answers.first_entry()
            && entry.key().0 <= now
        {
            let Scheduled { call, shard, kind, subject, counts_for, verdict } = entry.remove();
            self.out.remove(&subject);
            let answer = verdict.answer(kind);
            if let Some((name, thing)) = counts_for {
                model.heard_verdict(name, thing, kind, &verdict);
            }
            posted.push((shard, call, answer));
        }
        posted
    }

    fn asked<'c>(
        &mut self,
        call: &Call,
        now: Instant,
        mut clients: impl Iterator<Item = &'c Client>,
        model: &mut Model,
    ) {
        self.worker.ended(call.kind, call.body.len());
        let body: Value = serde_json::from_slice(&call.body).expect("a call is JSON");
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let (name, channel) = (text("client"), text("channel"));
        let shard = usize::from(call.shard);
        assert_eq!(name.split('-').next(), Some(&*shard.to_string()), "{body}");
        let data = match body["b64data"].as_str() {
            Some(encoded) => {
                assert_eq!(body["encoding"], "binary", "{body}");
                String::from_utf8(STANDARD.decode(encoded).expect("it is base64")).ok()
            }
            None => body["data"].as_str().or(body["data"]["n"].as_str()).map(str::to_owned),
        };
        let number = || {
            let data = data.as_ref().expect("it has data");
            (wire::number(data), wire::filling(data))
        };
        let thing = match call.kind {
            CallKind::Connect => Thing::Connect,
            CallKind::Refresh => Thing::Refresh,
            CallKind::Subscribe => match body["data"]["join"].as_u64() {
                Some(id) => Thing::Join(id),
                None => Thing::Subscribe(channel.clone()),
            },
            CallKind::Publish | CallKind::Rpc => {
                let (number, filling) = number();
                assert_eq!(Some(filling), model.filling(number), "{body}: it is what was sent");
                Thing::Number(number)
            }
        };
        model.note("a call of the backend");
        let subject = match call.kind {
            CallKind::Refresh => (name.clone(), "refresh".to_owned()),
            _ => (name.clone(), channel.clone()),
        };
        let before = self.out.insert(subject.clone(), now);
        assert!(
            before.is_none_or(|at| now - at >= GIVEN_UP),
            "{body}: a call about this is out for the connection"
        );
        let verdicts = model.said.things.entry((name.clone(), thing.clone())).or_default();
        // The call before has had no answer.
        verdicts.fails |= verdicts.asked_at.replace(now).is_some();
        let of = model.said.connections.entry(name.clone()).or_default();
        if call.kind == CallKind::Connect {
            assert!(body.get("user").is_none() && body.get("meta").is_none(), "{body}");
        } else {
            let meta = of.has_meta.then(|| json!({"of": name}));
            if let Some(client) = clients.find(|client| client.name == name) {
                // Another user has none.
                let is_same = body.get("meta") == meta.as_ref();
                assert!(is_same || client.authenticates && body.get("meta").is_none(), "{body}");
                client.must_have_asked(&body, &of.users);
            }
        }
        if call.kind == CallKind::Refresh
            && let Some(at) = of.expires
        {
            assert!(at + LEEWAY <= model.wall_max, "{body} before {at}");
        }
        self.schedule(call, now, (name, channel, thing), data.as_deref(), model);
    }

    /// Decides what is answered, and when.
    fn schedule(
        &mut self,
        call: &Call,
        now: Instant,
        (name, channel, thing): (String, String, Thing),
        data: Option<&str>,
        model: &mut Model,
    ) {
        let consents = match self.mood {
            Mood::Willing | Mood::Full | Mood::Suspended => true,
            Mood::Moody => self.rng.u8(..8) < 3,
            Mood::Slow | Mood::Silent => self.rng.u8(..4) > 0,
            Mood::Down => false,
        };
        let mut draw = |application: &mut Self, consents: bool| match consents {
            true => {
                let of = model.said.connections.entry(name.clone()).or_default();
                application.consent(call, &name, &channel, data, of, model.wall)
            }
            false => application.refusal(),
        };
        let verdict = draw(self, consents);
        let ms = Duration::from_millis;
        let delay = match self.mood {
            Mood::Willing | Mood::Full | Mood::Suspended | Mood::Down => Some(Duration::ZERO),
            Mood::Moody => Some(ms([0, 0, 1, 5, 50, 300, 900][self.rng.usize(..7)])),
            Mood::Slow => Some(ms(self.rng.u64(300..990))),
            Mood::Silent => self.rng.bool().then_some(LATE),
        };
        let (shard, kind) = (usize::from(call.shard), call.kind);
        let subject = match kind {
            CallKind::Refresh => (name.clone(), "refresh".to_owned()),
            _ => (name.clone(), channel.clone()),
        };
        let Some(delay) = delay else { return };
        let counts_for = (delay < LATE).then(|| (name.clone(), thing));
        let answer = |application: &mut Self, at, counts_for, verdict| {
            application.count += 1;
            let scheduled = Scheduled {
                call: call.id,
                shard,
                kind,
                subject: subject.clone(),
                counts_for,
                verdict,
            };
            application.answers.insert((at, application.count), scheduled);
        };
        answer(self, now + delay, counts_for, verdict);
        if self.mood == Mood::Moody && self.rng.u8(..6) == 0 {
            // Another answer, which nobody waits for any more.
            let consents = self.rng.bool();
            let verdict = draw(self, consents);
            let later = ms([0, 1, 100][self.rng.usize(..3)]);
            answer(self, now + delay + later, None, verdict);
        }
    }

    fn consent(
        &mut self,
        call: &Call,
        name: &str,
        channel: &str,
        data: Option<&str>,
        of: &mut Connection,
        wall: u64,
    ) -> Verdict {
        // From a time that has passed to never.
        let expiry = [0, 0, wall - 20, wall + 1, wall + 20][self.rng.usize(..5)];
        let result = match call.kind {
            CallKind::Connect => {
                let user = ["user-0", "user-1", "user-2", ""][self.rng.usize(..4)];
                // Only a user has an expiry.
                let expiry = if user.is_empty() { 0 } else { expiry };
                json!({"user": user, "expire_at": expiry, "meta": {"of": name}})
            }
            CallKind::Refresh if self.rng.u8(..4) == 0 => json!({"expired": true}),
            CallKind::Refresh => {
                let expires = [0, wall + 1, wall + 20][self.rng.usize(..3)];
                json!({"expire_at": expires})
            }
            CallKind::Subscribe => {
                // Of one connection and channel it is always the same.
                let expiry = (expiry > 0).then_some(expiry);
                let expires = *of.channels.entry(channel.to_owned()).or_insert(expiry);
                match expires {
                    Some(at) => json!({"expire_at": at}),
                    None => json!({}),
                }
            }
            CallKind::Publish if self.rng.u8(..4) == 0 => {
                let data = data.expect("it has data");
                let data = publish::payload(wire::number(data), self.rng.usize(..20));
                let body: Value = serde_json::from_slice(&call.body).expect("it is JSON");
                match (body.get("b64data").is_some(), body["data"].is_string()) {
                    (true, _) => json!({"b64data": STANDARD.encode(data)}),
                    (false, true) => json!({"data": data}),
                    (false, false) => json!({"data": {"n": data}}),
                }
            }
            CallKind::Publish => json!({}),
            CallKind::Rpc => {
                let number = wire::number(data.expect("it has data"));
                json!({"data": format!("reply to {number}")})
            }
        };
        Verdict::Consent(json!({"result": result}))
    }

    fn refusal(&mut self) -> Verdict {
        self.count += 1;
        let number = self.count;
        if self.mood == Mood::Down {
            let why = [Failure::Unreachable, Failure::Timeout, Failure::Broken];
            return Verdict::Fail(why[self.rng.usize(..3)]);
        }
        match self.rng.u8(..16) {
            0..6 => Verdict::Refuse(format!("no {number}")),
            6..10 => Verdict::Forbid,
            10 => Verdict::End(4001 + number as u32 % 900, format!("end {number}")),
            // No code of an application.
            11 => Verdict::End(1000, format!("end {number}")),
            12..14 => Verdict::Nonsense(NONSENSE[self.rng.usize(..NONSENSE.len())]),
            _ => Verdict::Fail(Failure::Status),
        }
    }
}

impl Verdict {
    fn answer(&self, kind: CallKind) -> Answer {
        let body = match self {
            Verdict::Consent(answer) => answer.to_string(),
            Verdict::Refuse(sentence) => {
                json!({"error": {"code": 1000, "message": sentence}}).to_string()
            }
            Verdict::Forbid => json!({"error": {"code": 103, "message": ""}}).to_string(),
            Verdict::End(code, reason) => {
                json!({"disconnect": {"code": code, "reason": reason}}).to_string()
            }
            Verdict::Nonsense(body) => (*body).to_owned(),
            Verdict::Fail(why) => return Answer::Failed(*why),
        };
        SimulatedWorker::read(kind, &body)
    }
}

impl Model {
    /// The application has answered in time.
    fn heard_verdict(&mut self, name: String, thing: Thing, kind: CallKind, verdict: &Verdict) {
        let sent = match thing {
            Thing::Number(number) => self.filling(number).map(|filling| (number, filling)),
            _ => None,
        };
        let of = self.said.connections.entry(name.clone()).or_default();
        let verdicts = self.said.things.entry((name, thing)).or_default();
        verdicts.asked_at = None;
        match verdict {
            Verdict::Consent(answer) => {
                verdicts.consents += 1;
                let result = &answer["result"];
                let expires = result["expire_at"].as_u64().filter(|at| *at > 0);
                match (kind, sent) {
                    (CallKind::Connect, _) => {
                        let user = result["user"].as_str().filter(|user| !user.is_empty());
                        of.user = user.map(str::to_owned);
                        of.users.extend(of.user.clone());
                        of.has_meta = true;
                        of.expires = expires;
                    }
                    (CallKind::Refresh, _) => {
                        of.is_expired |= result["expired"] == true;
                        of.expires = expires;
                        of.earliest = of.earliest.into_iter().chain(expires).min();
                    }
                    (CallKind::Publish, Some((number, filling))) => {
                        let data = &result["data"];
                        let replaced = data.as_str().or(data["n"].as_str()).map(str::to_owned);
                        let replaced = replaced.or_else(|| {
                            let bytes = STANDARD.decode(result["b64data"].as_str()?).ok()?;
                            String::from_utf8(bytes).ok()
                        });
                        let filling = replaced.map_or(filling, |data| wire::filling(&data));
                        self.said.fillings.insert(number, filling);
                    }
                    (CallKind::Rpc, Some((number, _))) => {
                        if let Some(request) = self.requests.get_mut(&number) {
                            request.reply = Some(Ok(number));
                        }
                    }
                    _ => {}
                }
            }
            Verdict::Refuse(sentence) => {
                verdicts.sentences.insert(sentence.clone());
                of.sentences.insert(sentence.clone());
            }
            Verdict::Forbid => verdicts.forbids = true,
            Verdict::End(code, reason) => {
                let code = if *code == 1000 { 4000 } else { *code as u16 };
                verdicts.sentences.insert(reason.clone());
                of.ends.insert(reason.clone(), code);
            }
            Verdict::Nonsense(_) | Verdict::Fail(_) => verdicts.fails = true,
        }
        if kind == CallKind::Refresh && !matches!(verdict, Verdict::Consent(_)) {
            // It is asked again later.
            of.expires = None;
        }
    }

    /// Takes the consent that something must have which has been done.
    pub(super) fn take_consent(&mut self, name: &str, thing: Thing) {
        let verdicts = self.said.things.get_mut(&(name.to_owned(), thing.clone()));
        let verdicts =
            verdicts.unwrap_or_else(|| panic!("{thing:?} of {name} was never asked about"));
        assert!(verdicts.consents > 0, "{thing:?} of {name} has no consent: {verdicts:?}");
        verdicts.consents -= 1;
        self.note("a consent of the backend");
    }

    /// The user of the last connect call of a connection.
    pub(super) fn connected_user(&self, name: &str) -> Option<String> {
        self.said.connections.get(name).and_then(|of| of.user.clone())
    }

    /// Forgets consents that no command is left to take.
    pub(super) fn drop_consents(&mut self, name: &str, thing: Thing) {
        if let Some(verdicts) = self.said.things.get_mut(&(name.to_owned(), thing)) {
            verdicts.consents = 0;
        }
    }

    /// When a subscription ends to which the application has consented.
    pub(super) fn subscription_expiry(&self, name: &str, channel: &str) -> Option<u64> {
        *self.said.connections.get(name)?.channels.get(channel)?
    }

    /// Whether such a subscription may have ended by now.
    pub(super) fn subscription_has_expired(&self, name: &str, channel: &str) -> bool {
        let expires = self.subscription_expiry(name, channel);
        expires.is_some_and(|at| at + LEEWAY <= self.wall_max)
    }

    /// Whether an error follows from what the application has said of a thing, or from its silence.
    pub(super) fn follows(
        &mut self,
        name: &str,
        thing: &Thing,
        code: &str,
        sentence: &str,
    ) -> bool {
        let Said { was_full, was_suspended, .. } = self.said;
        let verdicts = self.said.things.get_mut(&(name.to_owned(), thing.clone()));
        let now = self.now;
        let fair = match (code, verdicts) {
            ("overloaded", _) => was_full,
            ("backend_failed", verdicts) => {
                let silent = |verdicts: &Verdicts| {
                    let waited = verdicts.asked_at.zip(now).map(|(at, now)| now - at);
                    verdicts.fails || waited.is_some_and(|waited| waited >= TIMEOUT)
                };
                was_suspended || verdicts.is_some_and(|verdicts| silent(verdicts))
            }
            // Each is told once.
            ("refused", Some(verdicts)) => verdicts.sentences.remove(sentence),
            ("disconnected", Some(verdicts)) => verdicts.sentences.contains(sentence),
            ("not_allowed", Some(verdicts)) => verdicts.forbids,
            _ => false,
        };
        if fair {
            self.note(match code {
                "refused" => "a refusal of the backend",
                "backend_failed" => "a failure of the backend",
                "overloaded" => "an overloaded backend",
                "disconnected" => "an end by the backend",
                _ => "a prohibition of the backend",
            });
        }
        fair
    }

    /// Whether the application has refused anything of a connection with this sentence, which is told once.
    pub(super) fn refuses(&mut self, name: &str, sentence: &str) -> bool {
        let of = self.said.connections.get_mut(name);
        of.is_some_and(|of| of.sentences.remove(sentence))
    }

    /// Whether the application has ended a session so.
    pub(super) fn ends(&self, name: &str, code: u16, reason: &str) -> bool {
        let of = self.said.connections.get(name);
        of.is_some_and(|of| of.ends.get(reason) == Some(&code))
    }

    /// Whether the application has ended a session in any way.
    pub(super) fn ends_somehow(&self, name: &str) -> bool {
        self.said.connections.get(name).is_some_and(|of| !of.ends.is_empty())
    }

    /// Whether a refresh call may have ended a session, or must have.
    pub(super) fn may_have_expired(&self, name: &str) -> bool {
        let of = self.said.connections.get(name);
        of.is_some_and(|of| of.is_expired || of.earliest.is_some_and(|at| at <= self.wall_max))
    }

    pub(super) fn must_have_expired(&self, name: &str) -> bool {
        self.said.connections.get(name).is_some_and(|of| of.is_expired)
    }

    /// The filling with which a publication must reach its owner, and whether the application has consented.
    pub(super) fn consented(&self, number: u64) -> Option<usize> {
        self.said.fillings.get(&number).copied()
    }
}

impl Client {
    /// Checks what a call says of its connection.
    fn must_have_asked(&self, call: &Value, users: &BTreeSet<String>) {
        let user = call["user"].as_str().expect("a call names the user");
        let known = user.is_empty() || self.names.contains(user) || users.contains(user);
        assert!(known, "{call}: not a user of {:?} or {users:?}", self.names);
        let transport = match self.transport {
            Transport::WebSocket | Transport::Phoenix => "websocket",
            Transport::Events(_) => "sse",
            Transport::Poll | Transport::PhoenixPoll => "long_poll",
        };
        assert_eq!(call["transport"], transport, "{call}");
        if call.get("method").is_some() {
            let method =
                if self.is_phoenix() { "e" } else { call["channel"].as_str().unwrap_or("") };
            assert_eq!(call["method"], method, "{call}");
        }
    }
}

/// Checks an error of a command about which the application decides. Returns whether it follows from what
/// it has said, or from too many commands that wait for it.
pub(super) fn refused(message: &Value, thing: &Thing, client: &Client, model: &mut Model) -> bool {
    let code = message["code"].as_str().expect("an error has a code");
    let sentence = message["message"].as_str().unwrap_or_default();
    if code == "too_many" {
        assert!(client.has_many_commands(), "{message}: {} wait", client.asked.len());
        model.note("too many commands for the backend");
        return true;
    }
    model.follows(&client.name, thing, code, sentence)
}
