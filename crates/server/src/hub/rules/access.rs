//! Who may do what: the words of the rules, and the decision for one session and channel.

use super::Rules;
use crate::hub::auth::{Right, User};

/// The sessions that have a right by a namespace's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Anyone,
    Authenticated,
    /// Sessions that are subscribed to the channel.
    Subscriber,
    /// Sessions whose token grants the right.
    Token,
    /// Sessions for which the backend consents, call by call, and those whose token grants the right.
    Backend,
    Nobody,
}

/// Whether a session has a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    Given,
    Refused,
    /// The backend decides.
    Ask,
}

/// The words for rights in channels.
pub(super) const ACCESS: [(&str, Access); 5] = [
    ("anyone", Access::Anyone),
    ("authenticated", Access::Authenticated),
    ("subscriber", Access::Subscriber),
    ("token", Access::Token),
    ("nobody", Access::Nobody),
];

/// The words for the right to publish.
pub(super) const PUBLISH_ACCESS: [(&str, Access); 6] = [
    ("anyone", Access::Anyone),
    ("authenticated", Access::Authenticated),
    ("subscriber", Access::Subscriber),
    ("token", Access::Token),
    ("backend", Access::Backend),
    ("nobody", Access::Nobody),
];

/// The words for the right to subscribe.
pub(super) const SUBSCRIBE_ACCESS: [(&str, Access); 5] = [
    ("anyone", Access::Anyone),
    ("authenticated", Access::Authenticated),
    ("token", Access::Token),
    ("backend", Access::Backend),
    ("nobody", Access::Nobody),
];

/// The words for the right to send requests, which no token grants.
pub(super) const REQUEST_ACCESS: [(&str, Access); 4] = [
    ("anyone", Access::Anyone),
    ("authenticated", Access::Authenticated),
    ("backend", Access::Backend),
    ("nobody", Access::Nobody),
];

/// The words for the right to serve, which no token grants.
pub(super) const SERVICE_ACCESS: [(&str, Access); 3] = [
    ("anyone", Access::Anyone),
    ("authenticated", Access::Authenticated),
    ("nobody", Access::Nobody),
];

impl Access {
    /// The name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        PUBLISH_ACCESS.iter().find(|(_, access)| *access == self).expect("all have names").0
    }

    /// Whether the right in a service includes a session that has authenticated, or one that has not.
    pub(crate) fn includes(self, authenticated: bool) -> bool {
        match self {
            Access::Anyone => true,
            Access::Authenticated => authenticated,
            Access::Subscriber | Access::Token | Access::Backend | Access::Nobody => false,
        }
    }
}

impl Rules {
    /// Whether a session has a right in a channel of the namespace, without a question to the backend.
    pub(crate) fn allow(
        &self,
        right: Right,
        channel: &str,
        user: Option<&User>,
        is_subscribed: impl FnOnce() -> bool,
    ) -> bool {
        self.permission(right, channel, user, is_subscribed) == Permission::Given
    }

    /// Whether a session has a right in a channel of the namespace. `is_subscribed` is asked only where
    /// the rule depends on it.
    ///
    /// A token with grants decides alone for its user; without grants the rule decides. `nobody`, and
    /// the users in the name of a user-limited channel, hold for every token. Where the backend decides,
    /// it is asked about all that a token does not grant.
    pub(crate) fn permission(
        &self,
        right: Right,
        channel: &str,
        user: Option<&User>,
        is_subscribed: impl FnOnce() -> bool,
    ) -> Permission {
        let access = self.access(right);
        if access == Access::Nobody || !self.admits(channel, user) {
            return Permission::Refused;
        }
        let grants = user.and_then(|user| user.grants.as_ref());
        let granted = grants.map(|grants| grants.allow(right, channel));
        let given = match (granted, access) {
            (Some(false) | None, Access::Backend) => return Permission::Ask,
            (Some(granted), _) => granted,
            (None, Access::Anyone) => true,
            (None, Access::Authenticated) => user.is_some(),
            (None, Access::Subscriber) => is_subscribed(),
            // The name of the channel is as good as a grant.
            (None, Access::Token) => right == Right::Subscribe && self.users(channel).is_some(),
            (None, Access::Nobody) => false,
        };
        if given { Permission::Given } else { Permission::Refused }
    }

    /// Whether a session that presents a token for the subscription to a channel may subscribe to it.
    pub(crate) fn allow_with_token(&self, channel: &str, user: Option<&User>) -> bool {
        self.subscribe != Access::Nobody && self.admits(channel, user)
    }

    /// The rule for a right. Who may subscribe may also read, unless the rules say otherwise.
    fn access(&self, right: Right) -> Access {
        let readers = match self.subscribe {
            Access::Token | Access::Backend => Access::Subscriber,
            other => other,
        };
        match right {
            Right::Subscribe => self.subscribe,
            Right::Publish => self.publish,
            Right::Presence => self.presence_access.unwrap_or(readers),
            Right::History => self.history.unwrap_or(readers),
        }
    }

    /// Whether a channel is not limited to users, or is limited to this one among others.
    fn admits(&self, channel: &str, user: Option<&User>) -> bool {
        self.users(channel).is_none_or(|users| {
            user.is_some_and(|user| users.split(',').any(|name| *name == *user.name))
        })
    }

    /// The users to which a channel is limited, separated by commas: the part of its name behind the
    /// last `#`, in a namespace with user-limited channels.
    fn users<'c>(&self, channel: &'c str) -> Option<&'c str> {
        let limited = self.user_limited.then(|| channel.rsplit_once('#'))?;
        limited.map(|(_, users)| users)
    }
}
