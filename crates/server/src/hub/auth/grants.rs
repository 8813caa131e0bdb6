//! The rights that a token grants in channels: the claims `channels` and `subs`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::BadToken;

/// A right of a session in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Subscribe,
    Publish,
    /// Ask who is subscribed.
    Presence,
    /// Read pages of history. Recovery by position is a part of `Subscribe`.
    History,
}

impl Right {
    pub(crate) const ALL: [Right; 4] =
        [Right::Subscribe, Right::Publish, Right::Presence, Right::History];

    /// The name in tokens and in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Right::Subscribe => "subscribe",
            Right::Publish => "publish",
            Right::Presence => "presence",
            Right::History => "history",
        }
    }

    /// The right with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Right::ALL.into_iter().find(|right| right.name() == name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The rights that a token grants. A pattern is the name of a channel, or ends in `*` and matches
/// every name that begins with the text before the `*`; a `*` elsewhere is an ordinary character.
/// The rights of a channel are those of all patterns that match its name.
///
/// The patterns are in ascending order, each as a byte of rights, a byte with its length, and its
/// text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Grants(Box<[u8]>);

/// The most patterns of one token.
pub(crate) const PATTERNS_MAX: usize = 100;
/// The most bytes of all patterns of one token, with [`BESIDE_PATTERN`] bytes beside each.
pub(crate) const GRANT_BYTES_MAX: usize = 4096;
const BESIDE_PATTERN: usize = 2;
/// The longest pattern, in bytes, as of the names of channels.
const PATTERN_BYTES_MAX: usize = 255;

/// The rights of a pattern in a list, and of a channel in `subs`: to read.
const READ: [Right; 3] = [Right::Subscribe, Right::Presence, Right::History];

impl Grants {
    /// Parses the claims `channels` and `subs`; `None` if the token has neither.
    ///
    /// # Errors
    /// A claim has the wrong type, an invalid pattern or an unknown right, or there are too many
    /// patterns.
    pub(crate) fn parse(
        channels: Option<&RawValue>,
        subs: Option<&RawValue>,
    ) -> Result<Option<Self>, BadToken> {
        if channels.is_none() && subs.is_none() {
            return Ok(None);
        }
        let mut granted = BTreeMap::new();
        match channels.map(|claim| (claim, claim.get().as_bytes().first())) {
            None => {}
            Some((claim, Some(b'['))) => {
                let patterns: Vec<Box<str>> = parsed(claim).ok_or(BadToken::Channels)?;
                for pattern in patterns {
                    grant(&mut granted, pattern, &READ)?;
                }
            }
            Some((claim, _)) => {
                let Members(patterns) = parsed(claim).ok_or(BadToken::Channels)?;
                for (pattern, rights) in patterns {
                    let names: Vec<Box<str>> = parsed(&rights).ok_or(BadToken::Channels)?;
                    let rights: Option<Vec<Right>> =
                        names.iter().map(|name| Right::named(name)).collect();
                    grant(&mut granted, pattern, &rights.ok_or(BadToken::UnknownRight)?)?;
                }
            }
        }
        if let Some(claim) = subs {
            let Members(channels) = parsed(claim).ok_or(BadToken::Subs)?;
            let mut names = HashSet::new();
            for (channel, options) in channels {
                let is_object = options.get().starts_with('{');
                // A pattern would grant more than Centrifugo reads in it.
                if !is_object || channel.ends_with('*') || !names.insert(channel.clone()) {
                    return Err(BadToken::Subs);
                }
                let before = granted.remove(&channel).unwrap_or_default();
                grant(&mut granted, channel.clone(), &READ)?;
                granted.entry(channel).and_modify(|rights| *rights |= before);
            }
        }
        Self::of(&granted).map(Some)
    }

    fn of(granted: &BTreeMap<Box<str>, u8>) -> Result<Self, BadToken> {
        let bytes: usize = granted.keys().map(|pattern| pattern.len() + BESIDE_PATTERN).sum();
        if granted.len() > PATTERNS_MAX || bytes > GRANT_BYTES_MAX {
            return Err(BadToken::TooManyPatterns);
        }
        let mut records = Vec::with_capacity(bytes);
        for (pattern, &rights) in granted {
            // `grant` has checked the length.
            records.extend([rights, pattern.len() as u8]);
            records.extend_from_slice(pattern.as_bytes());
        }
        Ok(Grants(records.into()))
    }

    /// Grants of these rights for one pattern.
    #[cfg(test)]
    pub(crate) fn of_rights(pattern: &str, rights: &[Right]) -> Self {
        let mut granted = BTreeMap::new();
        grant(&mut granted, pattern.into(), rights).expect("it is a pattern");
        Self::of(&granted).expect("it is one")
    }

    /// Whether the token grants a right in a channel.
    pub(crate) fn allow(&self, right: Right, channel: &str) -> bool {
        let matching = self.records().filter(|(_, pattern)| matches(pattern, channel.as_bytes()));
        matching.fold(0, |all, (rights, _)| all | rights) & right.bit() != 0
    }

    /// Each pattern, with the rights that it grants.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = Right>)> {
        self.records().map(|(rights, pattern)| {
            let pattern = str::from_utf8(pattern).expect("it was made of a text");
            let rights = Right::ALL.into_iter().filter(move |right| rights & right.bit() != 0);
            (pattern, rights)
        })
    }

    /// The bytes that the grants take on the heap, besides their pointer and the counts of an `Arc`.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    fn records(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&[rights, length], records) = rest.split_first_chunk()?;
            let (pattern, records) = records.split_at(usize::from(length));
            rest = records;
            Some((rights, pattern))
        })
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (pattern, rights) in self.patterns() {
            map.entry(&pattern, &rights.map(Right::name).collect::<Vec<_>>());
        }
        map.finish()
    }
}

fn matches(pattern: &[u8], channel: &[u8]) -> bool {
    match pattern.split_last() {
        Some((b'*', prefix)) => channel.starts_with(prefix),
        _ => pattern == channel,
    }
}

fn grant(
    granted: &mut BTreeMap<Box<str>, u8>,
    pattern: Box<str>,
    rights: &[Right],
) -> Result<(), BadToken> {
    let fits = (1..=PATTERN_BYTES_MAX).contains(&pattern.len());
    if !fits || pattern.contains(char::is_control) {
        return Err(BadToken::Pattern);
    }
    let rights = rights.iter().fold(0, |all, right| all | right.bit());
    match granted.insert(pattern, rights) {
        None => Ok(()),
        Some(_) => Err(BadToken::Pattern),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(claim: &RawValue) -> Option<T> {
    serde_json::from_str(claim.get()).ok()
}

/// The members of an object, in its order, also those that are there twice.
struct Members(Vec<(Box<str>, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The grants of tokens on one shard: users with the same rights share one copy.
#[derive(Default)]
pub(super) struct SharedGrants(HashSet<Arc<Grants>>);

/// The most grants that are shared. Further ones are copies of their own.
const SHARED_MAX: usize = 4096;
/// The capacity that an empty table keeps.
const KEPT: usize = 64;

impl SharedGrants {
    /// The shared copy of `grants`.
    pub(super) fn share(&mut self, grants: Grants) -> Arc<Grants> {
        if let Some(known) = self.0.get(&grants) {
            return Arc::clone(known);
        }
        let grants = Arc::new(grants);
        if self.0.len() < SHARED_MAX {
            self.0.insert(Arc::clone(&grants));
        }
        grants
    }

    /// Removes grants that no session and no cached token has.
    pub(super) fn trim(&mut self) {
        self.0.retain(|grants| Arc::strong_count(grants) > 1);
        if self.0.len() <= self.0.capacity() / 4 {
            self.0.shrink_to(KEPT);
        }
    }

    /// The number of shared grants.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
