//! The rules for channels and services, by the part of their names before the first `:`.

mod access;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::backend::CallKind;
use access::{ACCESS, PUBLISH_ACCESS, REQUEST_ACCESS, SERVICE_ACCESS, SUBSCRIBE_ACCESS};
pub(crate) use access::{Access, Permission};

/// The rules of all names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    /// The configured namespaces, sorted by name.
    named: Box<[Namespace]>,
    /// The rules for names in none of these.
    rest: Rules,
    /// Whether a name whose prefix is no configured namespace is refused.
    strict: bool,
}

/// The rules of a namespace: rights, history, and the treatment of slow readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) publish: Access,
    pub(crate) subscribe: Access,
    pub(crate) serve: Access,
    pub(crate) request: Access,
    /// Who may know who is there. `None`: as `subscribe`.
    pub(crate) presence_access: Option<Access>,
    /// `None`: as `subscribe`.
    pub(crate) history: Option<Access>,
    /// Whether a `#` in the name of a channel limits it to the users behind it.
    pub(crate) user_limited: bool,
    /// Number of publications that a channel keeps; 0 is no history.
    pub(crate) history_size: u32,
    /// The time for which a channel keeps a publication.
    pub(crate) history_ttl: Duration,
    pub(crate) slow: Slow,
    pub(crate) phoenix_push: PhoenixPush,
    pub(crate) presence: PresenceMode,
    /// The largest number of members and of watchers with which each join and leave is told.
    pub(crate) presence_push_max: u32,
    /// The time between two counts of a channel.
    pub(crate) presence_interval: Duration,
    /// Bytes of the metadata of a member at most.
    pub(crate) presence_meta_max: u32,
    /// The time for which a member whose connection is lost may come back.
    pub(crate) presence_grace: Duration,
    pub(crate) presence_key: PresenceKey,
}

/// What the server knows of who is in a channel. Each includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PresenceMode {
    Off,
    /// How many are there.
    Count,
    /// Who is there.
    Members,
}

/// Who the members of a channel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PresenceKey {
    /// Users. Sessions without a user are no members.
    User,
    /// Keys that clients choose, which prove nothing. All sessions are members.
    Client,
}

/// The effect of a Phoenix client's push to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhoenixPush {
    /// It is published to all subscribers.
    Broadcast,
    /// It is published to all subscribers except its sender.
    BroadcastFrom,
    /// It is a request to the service of the namespace's name, whose response is the reply.
    Request,
    /// The backend is asked, and its data is the reply.
    Backend,
}

/// The treatment of a subscriber that reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slow {
    Disconnect,
    DropOldest,
    LatestOnly,
}

/// A namespace of the configuration: `NAME,RULE=VALUE,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Namespace {
    name: Box<str>,
    rules: Rules,
}

impl Namespace {
    /// The part of names before the first `:`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Namespaces {
    /// Who may publish, by namespace; the rest is `default`, which comes last.
    pub(crate) fn publishers(&self) -> impl Iterator<Item = (&str, Access)> {
        let named = self.named.iter().map(|namespace| (&*namespace.name, namespace.rules.publish));
        named.chain([(REST, self.rest.publish)])
    }

    /// The rules of these namespaces. The one called `default` is for all other names.
    ///
    /// # Errors
    /// The name of a namespace that is given twice.
    pub(crate) fn new(namespaces: &[Namespace]) -> Result<Self, &str> {
        for (at, Namespace { name, .. }) in namespaces.iter().enumerate() {
            if namespaces[..at].iter().any(|earlier| earlier.name == *name) {
                return Err(name);
            }
        }
        let mut named = namespaces.to_vec();
        named.sort_by(|one, other| one.name.cmp(&other.name));
        let rest = named.iter().position(|namespace| &*namespace.name == REST);
        let rest = rest.map_or_else(Rules::default, |at| named.remove(at).rules);
        Ok(Namespaces { named: named.into(), rest, strict: false })
    }

    /// The same rules, of which those called `default` are for names without a prefix only: others
    /// must be in a configured namespace.
    pub(crate) fn strict(self) -> Self {
        Namespaces { strict: true, ..self }
    }

    /// The rules that make these calls of the backend necessary, each with its namespace and its call.
    pub(crate) fn that_ask(&self) -> impl Iterator<Item = (&str, &'static str, CallKind)> {
        let named = self.named.iter().map(|namespace| (&*namespace.name, &namespace.rules));
        named.chain([(REST, &self.rest)]).flat_map(|(name, rules)| {
            let rules = [
                (rules.subscribe == Access::Backend, "subscribe", CallKind::Subscribe),
                (rules.publish == Access::Backend, "publish", CallKind::Publish),
                (rules.request == Access::Backend, "request", CallKind::Rpc),
                (rules.phoenix_push == PhoenixPush::Backend, "phoenix-push", CallKind::Rpc),
            ];
            let asks = rules.into_iter().filter(|(asks, ..)| *asks);
            asks.map(move |(_, rule, kind)| (name, rule, kind))
        })
    }

    /// The namespaces with history: name, publications of each channel, and how long they are kept.
    pub(crate) fn with_history(&self) -> impl Iterator<Item = (&str, u32, Duration)> {
        let named = self.named.iter().map(|namespace| (&*namespace.name, &namespace.rules));
        let all = named.chain([(REST, &self.rest)]);
        let kept = all.filter(|(_, rules)| rules.history_size > 0);
        kept.map(|(name, rules)| (name, rules.history_size, rules.history_ttl))
    }

    /// Whether any channel has presence.
    pub(crate) fn have_presence(&self) -> bool {
        let has = |rules: &Rules| rules.presence != PresenceMode::Off;
        has(&self.rest) || self.named.iter().any(|namespace| has(&namespace.rules))
    }

    /// The rules for a channel or a service.
    pub(crate) fn rules(&self, name: &str) -> &Rules {
        self.find(name).unwrap_or(&self.rest)
    }

    /// The rules for a channel or a service, unless they are strict and its namespace is not
    /// configured.
    pub(crate) fn known(&self, name: &str) -> Option<&Rules> {
        self.find(name).or((!self.strict).then_some(&self.rest))
    }

    /// The name of the namespace whose rules these are: that of the prefix, or `default`.
    pub(crate) fn namespace<'n>(&self, name: &'n str) -> &'n str {
        match name.split_once(':') {
            Some((prefix, _)) if self.find(name).is_some() => prefix,
            _ => REST,
        }
    }

    fn find(&self, name: &str) -> Option<&Rules> {
        let Some((prefix, _)) = name.split_once(':') else { return Some(&self.rest) };
        if prefix == REST {
            return Some(&self.rest);
        }
        let found = self.named.binary_search_by(|namespace| (*namespace.name).cmp(prefix));
        found.ok().map(|at| &self.named[at].rules)
    }
}

/// The name of the namespace for all names without a namespace of their own.
const REST: &str = "default";

impl Default for Rules {
    fn default() -> Self {
        Rules {
            publish: Access::Authenticated,
            subscribe: Access::Anyone,
            serve: Access::Authenticated,
            request: Access::Anyone,
            presence_access: None,
            history: None,
            user_limited: false,
            history_size: 0,
            history_ttl: HISTORY_TTL_DEFAULT,
            slow: Slow::Disconnect,
            presence: PresenceMode::Off,
            presence_push_max: 200,
            presence_interval: Duration::from_secs(1),
            presence_meta_max: 1024,
            presence_grace: Duration::from_secs(5),
            presence_key: PresenceKey::User,
            phoenix_push: PhoenixPush::Broadcast,
        }
    }
}

impl FromStr for Namespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        if name.is_empty() || name.contains(|c: char| ":=;\"".contains(c) || c.is_control()) {
            return Err(format!("`{name}` is no name of a namespace; {FORM}"));
        }
        let mut rules = Rules::default();
        let mut given = Vec::new();
        for part in parts {
            let (rule, value) =
                part.split_once('=').ok_or(format!("`{part}` is not RULE=VALUE; {FORM}"))?;
            if given.contains(&rule) {
                return Err(format!("`{rule}` is given twice; leave one"));
            }
            given.push(rule);
            rules.set(rule, value)?;
        }
        if given.contains(&"history-ttl") && rules.history_size == 0 {
            return Err("`history-ttl` needs a `history-size` of at least 1".into());
        }
        Ok(Namespace { name: name.into(), rules })
    }
}

const FORM: &str = "write it as in chat,publish=anyone,history-size=100";

impl Rules {
    fn set(&mut self, rule: &str, value: &str) -> Result<(), String> {
        let wrong = |allowed: &str| format!("`{rule}` is {allowed}, not `{value}`");
        let access = |words: &[(&str, Access)]| {
            one_of(words, value).map_err(|names| match value {
                "backend" => format!("`{rule}` is {names}: the backend does not decide about it"),
                _ => wrong(&names),
            })
        };
        match rule {
            "publish" => self.publish = access(&PUBLISH_ACCESS)?,
            "subscribe" => self.subscribe = access(&SUBSCRIBE_ACCESS)?,
            "presence-access" => self.presence_access = Some(access(&ACCESS)?),
            "history" => self.history = Some(access(&ACCESS)?),
            "serve" => self.serve = access(&SERVICE_ACCESS)?,
            "request" => self.request = access(&REQUEST_ACCESS)?,
            "user-limited" => {
                self.user_limited = value.parse().map_err(|_| wrong("true or false"))?;
            }
            "slow" => self.slow = one_of(&SLOW, value).map_err(|names| wrong(&names))?,
            "presence" => {
                self.presence = one_of(&PRESENCE, value).map_err(|names| wrong(&names))?
            }
            "presence-push-max" => {
                let max = value.parse().ok().filter(|max| *max <= PUSH_MAX_MAX);
                self.presence_push_max = max.ok_or_else(|| wrong("a number from 0 to 1000"))?;
            }
            "presence-interval" => {
                let time = seconds(value, &PRESENCE_INTERVAL);
                self.presence_interval = time.ok_or_else(|| wrong("0.1 to 3600 seconds"))?;
            }
            "presence-meta-max" => {
                let max = value.parse().ok().filter(|max| *max <= META_MAX_MAX);
                self.presence_meta_max = max.ok_or_else(|| wrong("a number from 0 to 16384"))?;
            }
            "presence-grace" => {
                let time = seconds(value, &PRESENCE_GRACE);
                self.presence_grace = time.ok_or_else(|| wrong("0 to 3600 seconds"))?;
            }
            "presence-key" => {
                self.presence_key = one_of(&PRESENCE_KEY, value).map_err(|names| wrong(&names))?;
            }
            "phoenix-push" => {
                self.phoenix_push = one_of(&PHOENIX_PUSH, value).map_err(|names| wrong(&names))?;
            }
            "history-size" => {
                let size = value.parse().ok().filter(|size| *size <= HISTORY_SIZE_MAX);
                self.history_size = size.ok_or_else(|| wrong("a number from 0 to 1000000"))?;
            }
            "history-ttl" => {
                let ttl = seconds(value, &HISTORY_TTL);
                self.history_ttl = ttl.ok_or_else(|| wrong("0.1 to 31536000 seconds"))?;
            }
            _ => return Err(format!("there is no rule `{rule}`; the rules are {RULES}")),
        }
        Ok(())
    }
}

/// A time in seconds, if it is within a range.
fn seconds(text: &str, range: &RangeInclusive<f64>) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| range.contains(seconds));
    seconds.map(Duration::from_secs_f64)
}

/// The value with this name.
///
/// # Errors
/// A list of all names.
fn one_of<T: Copy>(choices: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = choices.iter().find(|(known, _)| *known == name);
    found.map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
        format!("one of {}", names.join(", "))
    })
}

const RULES: &str = "publish, subscribe, presence-access, history, serve, request, user-limited, \
                     history-size, history-ttl, slow, presence, presence-push-max, \
                     presence-interval, presence-meta-max, presence-grace, presence-key, \
                     phoenix-push";
const SLOW: [(&str, Slow); 3] = [
    ("disconnect", Slow::Disconnect),
    ("drop_oldest", Slow::DropOldest),
    ("latest_only", Slow::LatestOnly),
];
const PRESENCE: [(&str, PresenceMode); 3] = [
    ("off", PresenceMode::Off),
    ("count", PresenceMode::Count),
    ("members", PresenceMode::Members),
];
/// A push has all members of a channel, so this bounds its size and the sends of one change.
const PUSH_MAX_MAX: u32 = 1000;
const META_MAX_MAX: u32 = 16_384;
const PRESENCE_INTERVAL: RangeInclusive<f64> = 0.1..=3600.0;
const PRESENCE_GRACE: RangeInclusive<f64> = 0.0..=3600.0;
const PRESENCE_KEY: [(&str, PresenceKey); 2] =
    [("user", PresenceKey::User), ("client", PresenceKey::Client)];
const PHOENIX_PUSH: [(&str, PhoenixPush); 4] = [
    ("broadcast", PhoenixPush::Broadcast),
    ("broadcast_from", PhoenixPush::BroadcastFrom),
    ("request", PhoenixPush::Request),
    ("backend", PhoenixPush::Backend),
];
const HISTORY_SIZE_MAX: u32 = 1_000_000;
const HISTORY_TTL: RangeInclusive<f64> = 0.1..=31_536_000.0;
const HISTORY_TTL_DEFAULT: Duration = Duration::from_secs(300);
