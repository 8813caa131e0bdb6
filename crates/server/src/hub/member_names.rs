//! The names of members, and the choices of sessions about theirs.
//!
//! A member is a user, or a key that a client has chosen. The router has one text for each: a key begins
//! with a control character, which no user's name has, so a key can never be taken for a user.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use murre_router::presence::Meta;

/// The name of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberName<'a> {
    /// A user, whom a token names.
    User(&'a str),
    /// A key, which proves nothing: its client has chosen it, or it is the name of the connection.
    Key(&'a str),
}

/// The first character of a key in the router. Names of users have no control characters
/// (`hub/auth/claims.rs`).
const KEY: char = '\0';

/// The longest key in bytes, as long as the name of a user.
const KEY_BYTES_MAX: usize = 255;

impl<'a> MemberName<'a> {
    /// The name that the router has as this text.
    pub(crate) fn of(text: &'a str) -> Self {
        match text.strip_prefix(KEY) {
            Some(key) => MemberName::Key(key),
            None => MemberName::User(text),
        }
    }

    /// Its text in the router.
    pub(crate) fn text(self) -> Cow<'a, str> {
        match self {
            MemberName::User(name) => name.into(),
            MemberName::Key(key) => format!("{KEY}{key}").into(),
        }
    }

    /// The name or the key.
    pub(crate) fn shown(self) -> &'a str {
        match self {
            MemberName::User(name) | MemberName::Key(name) => name,
        }
    }

    /// Whether a client may choose this key.
    pub(crate) fn is_key(key: &str) -> bool {
        key.len() <= KEY_BYTES_MAX && !key.contains(char::is_control)
    }
}

/// The subscriptions of a shard whose sessions have a choice in force, by slot and channel. Others cost
/// nothing here.
#[derive(Default)]
pub(super) struct MemberChoices(BTreeMap<(u32, Arc<str>), MemberChoice>);

/// How the session of a subscription is a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberChoice {
    /// It is none until it changes its metadata.
    pub(super) is_hidden: bool,
    /// The key that it has chosen.
    pub(super) key: Option<Arc<str>>,
    /// The metadata that the application gives this member.
    pub(super) info: Option<Meta>,
}

impl MemberChoices {
    pub(super) fn get(&self, slot: u32, channel: &str) -> Option<&MemberChoice> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(slot, Arc::from(channel)))
    }

    /// Replaces the choice of a subscription.
    pub(super) fn set(&mut self, slot: u32, channel: &str, choice: MemberChoice) {
        if choice != MemberChoice::default() {
            self.0.insert((slot, Arc::from(channel)), choice);
        } else if !self.0.is_empty() {
            self.0.remove(&(slot, Arc::from(channel)));
        }
    }

    /// Hides a member, or shows it again.
    pub(super) fn set_hidden(&mut self, slot: u32, channel: &str, is_hidden: bool) {
        let choice = self.get(slot, channel).cloned().unwrap_or_default();
        self.set(slot, channel, MemberChoice { is_hidden, ..choice });
    }

    /// Sets what the application says of a member.
    pub(super) fn set_info(&mut self, slot: u32, channel: &str, info: Option<Meta>) {
        let choice = self.get(slot, channel).cloned().unwrap_or_default();
        self.set(slot, channel, MemberChoice { info, ..choice });
    }

    /// Drops what the application says of the members of a session.
    pub(super) fn forget_info(&mut self, slot: u32) {
        let first = (slot, Arc::from(""));
        let of_session = self.0.range(&first..).take_while(|((of, _), _)| *of == slot);
        let with_info = of_session.filter(|(_, choice)| choice.info.is_some());
        let channels: Vec<_> = with_info.map(|((_, channel), _)| Arc::clone(channel)).collect();
        for channel in channels {
            self.set_info(slot, &channel, None);
        }
    }

    /// Removes the choice of a subscription that has ended.
    pub(super) fn remove(&mut self, slot: u32, channel: &str) {
        self.set(slot, channel, MemberChoice::default());
    }

    /// Removes the choices of a session that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        let first = (slot, Arc::from(""));
        while let Some((key, _)) = self.0.range(&first..).next()
            && key.0 == slot
        {
            let key = key.clone();
            self.0.remove(&key);
        }
    }

    /// Number of choices in force.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key is never the name of a user, whatever it is, and both come back.
    #[test]
    fn keys_are_no_users() {
        for text in ["", "ann", "__proto__", "a,b", &"k".repeat(255)] {
            let (user, key) = (MemberName::User(text), MemberName::Key(text));
            assert_eq!(MemberName::of(&user.text()), user);
            assert_eq!(MemberName::of(&key.text()), key);
            assert!(user.text() != key.text() && MemberName::is_key(text));
        }
        assert!(!MemberName::is_key(&"k".repeat(256)) && !MemberName::is_key("\0ann"));
    }

    /// A choice lasts as long as its subscription, and nothing is left of sessions that have ended.
    #[test]
    fn choices_end() {
        let mut choices = MemberChoices::default();
        let key = Some(Arc::from("k"));
        for slot in [0, 1, u32::MAX] {
            choices.set(slot, "a", MemberChoice { key: key.clone(), ..MemberChoice::default() });
            choices.set_hidden(slot, "a", true);
            choices.set_hidden(slot, "b", true);
        }
        let hidden = MemberChoice { is_hidden: true, key, info: None };
        assert_eq!((choices.get(1, "a"), choices.len()), (Some(&hidden), 6));
        choices.set_hidden(1, "b", false);
        choices.set_hidden(1, "a", false);
        assert_eq!((choices.get(1, "b"), choices.len()), (None, 5));
        choices.remove(1, "a");
        choices.forget(0);
        choices.forget(7);
        assert_eq!(choices.len(), 2);
        choices.forget(u32::MAX);
        assert_eq!(choices.len(), 0);
    }
}
