//! Joins and queries of history at the owner: answered at once from what is kept here, or once the broker has
//! answered.

use super::backplane::{Fetch, FetchId, FetchReason, Fetched};
use super::event::{ChannelError, HistoryPage};
use super::history::{History, Retention};
use super::holds::Holder;
use super::message::ShardMessage;
use super::name::ChannelName;
use super::owner::ShardInterest;
use super::pending::Fetching;
use super::publication::{HistoryQuery, Start};
use super::shard::Channels;
use super::subscribers::Encoded;
use super::window::{Need, Phase, WaitingJoin};
use crate::names::{Shard, Ticket};

impl<E: Encoded> Channels<E> {
    /// As the owner: adds the interest of a shard, and answers its join now or later.
    pub(super) fn join(
        &mut self,
        channel: &ChannelName,
        interest: ShardInterest,
        (join, reader): (u32, u32),
        start: Start,
        now: u64,
    ) {
        let holder = (interest.shard, reader);
        let key = self.owner.add_interest(channel, interest);
        match self.owner.window(key) {
            None => {
                let begun = self.owner.begin(key, start, holder, now);
                self.send(holder.0, ShardMessage::Joined { join, outcome: Ok(begun) }, now);
            }
            Some((_, window)) => {
                window.joins.push(WaitingJoin { join, holder, start, need: Need::Unasked });
                self.owner.filling.joins += 1;
                self.answer_joins(key, now);
            }
        }
    }

    /// Answers the joins of a channel that need nothing more from the broker, and asks it for what the others
    /// need. The channel may be forgotten then.
    pub(super) fn answer_joins(&mut self, key: u32, now: u64) {
        let Some((newest, window)) = self.owner.window(key) else { return };
        if window.joins.is_empty() {
            return;
        }
        match window.phase {
            Phase::Opening(_) => return,
            Phase::Unopened => {
                let joins = std::mem::take(&mut window.joins);
                return self.refuse(joins, ChannelError::Overloaded, now);
            }
            Phase::Open => {}
        }
        let mut answers = Vec::new();
        let mut waiting = std::mem::take(&mut window.joins);
        waiting.retain(|join| {
            let WaitingJoin { start, need, holder, .. } = *join;
            let history = self.owner.history(key);
            let missed = match need {
                Need::Answered => history.missed_here(start),
                _ => history.missed(start, now).map(|missed| missed as u64),
            };
            // Nothing comes after the greatest number.
            let is_certain = history.offset(start).is_none_or(|offset| offset == u64::MAX);
            let is_answered = missed.is_some() || need == Need::Answered || is_certain;
            if is_answered {
                let begun = self.owner.begin_after(key, start, missed, holder, now);
                answers.push((*join, begun));
            }
            !is_answered
        });
        let (mut is_newer, mut older) = (false, None);
        for join in waiting.iter().filter(|join| join.need == Need::Unasked) {
            let offset = join.start.offset().unwrap_or(0);
            match offset > newest.offset {
                true => is_newer = true,
                false => older = Some(older.unwrap_or(offset).min(offset)),
            }
        }
        let (_, window) = self.owner.window(key).expect("it has joins");
        let is_recovering = window.recovery.is_some();
        window.joins = waiting;
        self.owner.drop_released(key);
        if is_newer {
            self.fetch_gap(key, now);
        }
        if let Some(after) = older.filter(|_| !is_recovering) {
            self.fetch_older(key, after);
        }
        self.owner.filling.joins -= answers.len() as u64;
        for (WaitingJoin { join, holder, .. }, begun) in answers {
            self.send(holder.0, ShardMessage::Joined { join, outcome: Ok(begun) }, now);
        }
    }

    /// Asks the broker for publications before the window, for all joins that need some.
    fn fetch_older(&mut self, key: u32, after: u64) {
        let id = FetchId(self.fetches.vacant_key() as u32);
        let (newest, window) = self.owner.window(key).expect("it has joins");
        window.recovery = Some((id, after, newest));
        for join in &mut window.joins {
            if join.need == Need::Unasked && join.start.offset() <= Some(newest.offset) {
                join.need = Need::Asked(id);
            }
        }
        let name = self.owner.name(key).clone();
        let (channel, up_to) = (&*name.text, Some(newest.offset));
        let fetch = Fetch { channel, after, up_to, reason: FetchReason::Recovery };
        self.owner.backplane.fetch(id, fetch);
        self.fetches.insert(Fetching::Recovery { name });
    }

    /// Takes what was published before the window began.
    pub(super) fn recover(
        &mut self,
        name: &ChannelName,
        id: FetchId,
        answer: Result<Fetched, ChannelError>,
        now: u64,
    ) {
        let Some(key) = self.owner.find(name.hash, &name.text) else { return };
        let Some((position, window)) = self.owner.window(key) else { return };
        // The channel may have been forgotten and opened again.
        let recovery = window.recovery.take_if(|(recovery, ..)| *recovery == id);
        let Some((_, after, newest)) = recovery else { return };
        match answer {
            Err(error) => {
                self.refuse_joins(key, id, error, now);
            }
            Ok(Fetched { epoch, publications, is_complete, .. }) => {
                window.set_need(id, Need::Answered);
                if is_complete && (epoch, epoch) == (position.epoch, newest.epoch) {
                    let range = (after, newest.offset);
                    self.owner.change(key, |history| history.prepend(range, &publications, now));
                    self.owner.rearm(key);
                }
                self.answer_joins(key, now);
                self.owner.evict(self.limits.history_bytes_max);
                return;
            }
        }
        // Others may have come meanwhile.
        if let Some(key) = self.owner.find(name.hash, &name.text) {
            self.answer_joins(key, now);
        }
    }

    /// Refuses the joins that wait for this answer.
    pub(super) fn refuse_joins(&mut self, key: u32, asked: FetchId, error: ChannelError, now: u64) {
        let Some((_, window)) = self.owner.window(key) else { return };
        let is_refused = |join: &mut WaitingJoin| join.need == Need::Asked(asked);
        let refused = window.joins.extract_if(.., is_refused).collect();
        self.refuse(refused, error, now);
    }

    fn refuse(&mut self, joins: Vec<WaitingJoin>, error: ChannelError, now: u64) {
        self.owner.filling.joins -= joins.len() as u64;
        for WaitingJoin { join, holder, .. } in joins {
            self.send(holder.0, ShardMessage::Joined { join, outcome: Err(error) }, now);
        }
    }

    /// Answers joins of members that have left.
    fn withdraw(&mut self, channel: &ChannelName, whose: impl Fn(Holder) -> bool) {
        if self.owner.filling.joins > 0
            && let Some(key) = self.owner.find(channel.hash, &channel.text)
            && let Some((_, window)) = self.owner.window(key)
        {
            let left = window.joins.extract_if(.., |join| whose(join.holder)).collect();
            self.refuse(left, ChannelError::NotSubscribed, 0);
        }
    }

    /// As the owner: sets the number of subscribers on a shard.
    pub(super) fn set_subscribers(
        &mut self,
        channel: &ChannelName,
        shard: Shard,
        subscribers: u32,
    ) {
        if subscribers == 0 {
            self.withdraw(channel, |(of, _)| of == shard);
        }
        self.owner.set_subscribers(channel, shard, subscribers);
    }

    /// As the owner: need not keep history for a reader any more.
    pub(super) fn release_holder(&mut self, channel: &ChannelName, holder: Holder) {
        self.withdraw(channel, |of| of == holder);
        self.owner.release_by_name(channel, holder);
    }

    /// As the owner: answers a query of history, now or later.
    pub(super) fn read_history(
        &mut self,
        name: ChannelName,
        query: HistoryQuery,
        (from, ticket): (Shard, Ticket),
        now: u64,
    ) {
        let has_page = match self.owner.find(name.hash, &name.text) {
            _ if !self.owner.backplane.orders() => true,
            Some(key) => match self.owner.window(key) {
                Some((_, window)) if window.phase == Phase::Open => {
                    self.owner.history(key).has_page(query, now)
                }
                _ => false,
            },
            None => false,
        };
        if has_page {
            let page = Ok(self.owner.read(&name, query, now));
            return self.send(from, ShardMessage::History { ticket, page }, now);
        }
        if self.fetches.len() >= self.limits.messages_max {
            let page = Err(ChannelError::Overloaded);
            return self.send(from, ShardMessage::History { ticket, page }, now);
        }
        let id = FetchId(self.fetches.vacant_key() as u32);
        let (channel, after) = (&*name.text, query.fetch_after());
        let fetch = Fetch { channel, after, up_to: None, reason: FetchReason::History };
        self.owner.backplane.fetch(id, fetch);
        self.fetches.insert(Fetching::Read { name, query, ticket, from });
    }

    /// Answers a query of history with what the broker keeps.
    pub(super) fn answer_read(
        &mut self,
        (to, ticket): (Shard, Ticket),
        name: &ChannelName,
        query: HistoryQuery,
        answer: Result<Fetched, ChannelError>,
        now: u64,
    ) {
        let page = answer.map(|fetched| -> HistoryPage {
            let retention = self.owner.retention(&name.text);
            let retention = retention.unwrap_or(Retention { size: 0, ttl_ms: 0 });
            let after = query.fetch_after();
            History::of_fetched(retention, after, fetched, now).page(&name.text, query, now)
        });
        self.send(to, ShardMessage::History { ticket, page }, now);
    }
}
