//! Whether a session may do something with a channel or a service. Every command of every transport
//! passes here.

use murre_core::ConnId;
use murre_router::channels::Payload;

use super::auth::{Right, User};
use super::rules::{Access, Permission, Rules};
use super::{About, Error, ErrorCode, Hub, HubConfig, Outlet, Push, Session};

impl HubConfig {
    /// The rules for a channel or a service.
    ///
    /// # Errors
    /// `BadChannel` and `UnknownNamespace`.
    pub(crate) fn rules(&self, name: &str) -> Result<&Rules, ErrorCode> {
        self.limits.name(name)?;
        self.namespaces.known(name).ok_or(ErrorCode::UnknownNamespace)
    }
}

impl Hub {
    /// Checks whether the client of a request may subscribe to a channel, before its session begins. If
    /// the backend decides, its answer is there: [`consult_to_subscribe`](Self::consult_to_subscribe).
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace`, `NotAllowed`, and what the backend says.
    pub(crate) fn may_subscribe<'c>(
        &'c self,
        conn: ConnId,
        channel: &'c str,
        user: Option<&User>,
    ) -> Result<(), Error<'c>> {
        let about = About::Channel(channel);
        let rules = self.config.rules(channel)?;
        let permission = rules.permission(Right::Subscribe, channel, user, || false);
        let name = user.map(|user| &*user.name);
        match self.calls.answer(conn, channel, name) {
            Some(answer) if permission == Permission::Ask => answer.consent(about),
            _ => not_allowed_unless(permission == Permission::Given, about),
        }
    }

    /// Checks whether a session may publish this to a channel, as the publication itself does.
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace`, `NotAllowed` and `BadPublication`.
    pub(crate) fn may_publish(
        &self,
        session: Session,
        channel: &str,
        payload: &Payload,
    ) -> Result<(), ErrorCode> {
        let allowed = self.allow_channel(session.conn.index(), channel, Right::Publish);
        allowed.map_err(|why| why.code)?;
        self.config.limits.payload(payload)
    }

    /// Whether a channel keeps history.
    pub(crate) fn keeps_history(&self, channel: &str) -> bool {
        self.config.namespaces.rules(channel).history_size > 0
    }

    /// Checks whether the session in a slot has a right in a channel.
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace` and `NotAllowed`.
    pub(super) fn allow_channel<'c>(
        &self,
        slot: u32,
        channel: &'c str,
        right: Right,
    ) -> Result<(), Error<'c>> {
        let is_subscribed = || self.channels.is_subscribed(slot, channel);
        let rules = self.config.rules(channel)?;
        let allowed = rules.allow(right, channel, self.sessions.user(slot), is_subscribed);
        not_allowed_unless(allowed, About::Channel(channel))
    }

    /// Checks whether the session in a slot has a right in a service, which `rule` selects.
    ///
    /// # Errors
    /// `BadChannel`, `UnknownNamespace` and `NotAllowed`.
    pub(super) fn allow_service<'c>(
        &self,
        slot: u32,
        service: &'c str,
        rule: impl Fn(&Rules) -> Access,
    ) -> Result<(), Error<'c>> {
        let access = rule(self.config.rules(service)?);
        let allowed = access.includes(self.sessions.user(slot).is_some());
        not_allowed_unless(allowed, About::Service(service))
    }

    /// Makes the session that of `user`, and ends the subscriptions that the rights of this user do not
    /// include.
    pub(super) fn authenticate(&mut self, session: Session, user: User, out: &mut impl Outlet) {
        let slot = session.conn.index();
        let before = self.sessions.user(slot);
        let same_user = before.is_none_or(|before| before.name == user.name);
        let same_rights = before.map(|before| &before.grants) == Some(&user.grants);
        let had_user = before.is_some();
        if let Some(admitted) = self.admitted.get_mut(&slot) {
            // From now on a token says how long the session may last.
            admitted.refreshes = false;
        }
        let is_other = !same_user || !had_user;
        if is_other {
            self.log_session_end(session);
        }
        self.sessions.authenticate(session.conn, user);
        if is_other {
            self.log_session_begin(session);
            self.forget_info(session);
            self.rename_in_presence(session);
            self.observe_user(session);
        }
        if same_user && same_rights {
            return;
        }
        let user = self.sessions.user(slot);
        let ends = |channel: &&str| {
            let by_token = same_user && self.subscription_tokens.has(slot, channel);
            let rules = self.config.namespaces.rules(channel);
            match rules.permission(Right::Subscribe, channel, user, || true) {
                Permission::Given => false,
                Permission::Refused => !by_token,
                // The backend has consented for the user of that time.
                Permission::Ask => !same_user,
            }
        };
        let ended = self.channels.subscriptions(slot).filter(ends).map(Box::from);
        for channel in ended.collect::<Vec<Box<str>>>() {
            self.end_subscription(session, &channel, ErrorCode::NotAllowed.into(), out);
        }
    }

    /// Ends a subscription, and tells its session the reason.
    pub(super) fn end_subscription(
        &mut self,
        session: Session,
        channel: &str,
        why: Error<'_>,
        out: &mut impl Outlet,
    ) {
        let slot = session.conn.index();
        self.subscription_tokens.remove(slot, channel);
        if self.channels.unsubscribe(slot, channel).is_ok() {
            self.leave_presence(session, channel);
            self.counters.refused.add(1);
            out.push(session, Push::Unsubscribed { channel, why });
        }
    }
}

fn not_allowed_unless(allowed: bool, about: About<'_>) -> Result<(), Error<'_>> {
    allowed.then_some(()).ok_or(Error::from(ErrorCode::NotAllowed).about(about))
}
