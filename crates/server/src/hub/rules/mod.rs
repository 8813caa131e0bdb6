//! The rules for channels and services, by the part of their names before the first `:`.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// The rules of all names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    /// The configured namespaces, sorted by name.
    named: Box<[Namespace]>,
    /// The rules for names in none of these.
    rest: Rules,
}

/// The rules of a namespace: rights, history, and the treatment of slow readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) publish: Access,
    pub(crate) subscribe: Access,
    pub(crate) serve: Access,
    pub(crate) request: Access,
    /// Number of publications that a channel keeps; 0 is no history.
    pub(crate) history_size: u32,
    /// The time for which a channel keeps a publication.
    pub(crate) history_ttl: Duration,
    pub(crate) slow: Slow,
}

/// The sessions that have a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Anyone,
    Authenticated,
    Nobody,
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
        Ok(Namespaces { named: named.into(), rest })
    }

    /// The rules for a channel or a service.
    pub(crate) fn rules(&self, name: &str) -> &Rules {
        let Some((prefix, _)) = name.split_once(':') else { return &self.rest };
        let found = self.named.binary_search_by(|namespace| (*namespace.name).cmp(prefix));
        found.map_or(&self.rest, |at| &self.named[at].rules)
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
            history_size: 0,
            history_ttl: HISTORY_TTL_DEFAULT,
            slow: Slow::Disconnect,
        }
    }
}

impl Access {
    /// The name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        ACCESS.iter().find(|(_, access)| *access == self).expect("all have names").0
    }

    /// Whether the right includes a session that has authenticated, or one that has not.
    pub(crate) fn includes(self, authenticated: bool) -> bool {
        match self {
            Access::Anyone => true,
            Access::Authenticated => authenticated,
            Access::Nobody => false,
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
        match rule {
            "publish" => self.publish = one_of(&ACCESS, value).map_err(|names| wrong(&names))?,
            "subscribe" => {
                self.subscribe = one_of(&ACCESS, value).map_err(|names| wrong(&names))?
            }
            "serve" => self.serve = one_of(&ACCESS, value).map_err(|names| wrong(&names))?,
            "request" => self.request = one_of(&ACCESS, value).map_err(|names| wrong(&names))?,
            "slow" => self.slow = one_of(&SLOW, value).map_err(|names| wrong(&names))?,
            "history-size" => {
                let size = value.parse().ok().filter(|size| *size <= HISTORY_SIZE_MAX);
                self.history_size = size.ok_or_else(|| wrong("a number from 0 to 1000000"))?;
            }
            "history-ttl" => {
                let seconds = value.parse::<f64>().ok().filter(|ttl| HISTORY_TTL.contains(ttl));
                let seconds = seconds.ok_or_else(|| wrong("0.1 to 31536000 seconds"))?;
                self.history_ttl = Duration::from_secs_f64(seconds);
            }
            _ => return Err(format!("there is no rule `{rule}`; the rules are {RULES}")),
        }
        Ok(())
    }
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

const RULES: &str = "publish, subscribe, serve, request, history-size, history-ttl, slow";
const ACCESS: [(&str, Access); 3] = [
    ("anyone", Access::Anyone),
    ("authenticated", Access::Authenticated),
    ("nobody", Access::Nobody),
];
const SLOW: [(&str, Slow); 3] = [
    ("disconnect", Slow::Disconnect),
    ("drop_oldest", Slow::DropOldest),
    ("latest_only", Slow::LatestOnly),
];
const HISTORY_SIZE_MAX: u32 = 1_000_000;
const HISTORY_TTL: RangeInclusive<f64> = 0.1..=31_536_000.0;
const HISTORY_TTL_DEFAULT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(texts: &[&str]) -> Namespaces {
        let namespaces: Vec<Namespace> =
            texts.iter().map(|text| text.parse().expect(text)).collect();
        Namespaces::new(&namespaces).expect("names differ")
    }

    /// Without configuration every session may subscribe and request, and authenticated ones may publish
    /// and serve.
    #[test]
    fn defaults() {
        let rules = *namespaces(&[]).rules("chat:lobby");
        assert_eq!(rules, Rules::default());
        assert_eq!((rules.subscribe, rules.request), (Access::Anyone, Access::Anyone));
        assert_eq!((rules.publish, rules.serve), (Access::Authenticated, Access::Authenticated));
        assert_eq!((rules.history_size, rules.slow), (0, Slow::Disconnect));
    }

    /// Every rule is set by its name, and keeps its default otherwise.
    #[test]
    fn every_rule() {
        let all = "chat,publish=anyone,subscribe=authenticated,serve=nobody,request=authenticated,\
                   history-size=100,history-ttl=1.5,slow=latest_only";
        let expected = Rules {
            publish: Access::Anyone,
            subscribe: Access::Authenticated,
            serve: Access::Nobody,
            request: Access::Authenticated,
            history_size: 100,
            history_ttl: Duration::from_millis(1500),
            slow: Slow::LatestOnly,
        };
        assert_eq!(*namespaces(&[all]).rules("chat:"), expected);
        let some = namespaces(&["a,history-size=7,slow=drop_oldest"]);
        let expected = Rules { history_size: 7, slow: Slow::DropOldest, ..Rules::default() };
        assert_eq!(*some.rules("a:b"), expected);
        assert_eq!(expected.history_ttl, Duration::from_secs(300));
    }

    /// The part before the first colon decides, and only as a whole; `default` is for all others.
    #[test]
    fn the_prefix_decides() {
        let sizes = [
            "b,history-size=2",
            "default,history-size=9",
            "a,history-size=1",
            "ab,history-size=3",
            "\u{e9},history-size=4",
        ];
        let namespaces = namespaces(&sizes);
        for (name, size) in [
            ("a:x", 1),
            ("b:x", 2),
            ("ab:x", 3),
            ("a:b:x", 1),
            ("a:", 1),
            ("\u{e9}:x", 4),
            ("a", 9),
            ("", 9),
            (":", 9),
            (":a:", 9),
            ("aa:x", 9),
            ("A:x", 9),
            ("a :x", 9),
            ("default", 9),
            ("default:x", 9),
            ("z:x", 9),
        ] {
            assert_eq!(namespaces.rules(name).history_size, size, "{name:?}");
        }
    }

    /// An error names the wrong part and the allowed values.
    #[test]
    fn wrong_ones_are_named() {
        for (text, named) in [
            ("", "no name"),
            (",publish=anyone", "no name"),
            ("a:b", "`a:b`"),
            ("publish=anyone", "`publish=anyone`"),
            ("a,publish", "`publish` is not RULE=VALUE"),
            ("a,", "`` is not RULE=VALUE"),
            ("a,publsh=anyone", "no rule `publsh`; the rules are publish,"),
            ("a,publish=all", "`publish` is one of anyone, authenticated, nobody, not `all`"),
            ("a,slow=never", "one of disconnect, drop_oldest, latest_only, not `never`"),
            ("a,history-size=-1", "`history-size` is a number from 0 to 1000000, not `-1`"),
            ("a,history-size=1000001", "not `1000001`"),
            ("a,history-size=1,history-ttl=0", "`history-ttl` is 0.1 to"),
            ("a,history-size=1,history-ttl=nan", "not `nan`"),
            ("a,history-ttl=5", "needs a `history-size`"),
            ("a,slow=disconnect,slow=disconnect", "`slow` is given twice"),
        ] {
            let error = text.parse::<Namespace>().expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    /// A namespace can be given once, also `default`.
    #[test]
    fn no_name_twice() {
        for name in ["b", "default"] {
            let texts = ["a", name, "c", name].map(|text| text.parse().expect(text));
            assert_eq!(Namespaces::new(&texts).expect_err("it is there twice"), name);
        }
    }

    /// The sessions that each of the three words includes.
    #[test]
    fn who_is_included() {
        for (who, with_token, without) in [
            (Access::Anyone, true, true),
            (Access::Authenticated, true, false),
            (Access::Nobody, false, false),
        ] {
            assert_eq!((who.includes(true), who.includes(false)), (with_token, without));
        }
    }
}
