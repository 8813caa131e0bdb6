//! What should happen, kept in the plainest way: a log of each channel in the owner's order, and what
//! each subscription has heard.

use std::collections::BTreeMap;

use murre_router::channels::{ChannelInfo, Event, Past, Position, Publication, Refused};
use murre_router::{Member, Ticket};

use super::dice::Dice;
use super::{CHANNELS, number, rules};

#[derive(Default)]
pub(crate) struct Oracle {
    /// Of each channel, all that reached its owner, in this order.
    logs: [Vec<Entry>; CHANNELS.len()],
    /// By ticket, all that were ever asked for.
    subscriptions: Vec<Subscription>,
    /// The ones that have not ended, by shard, member and channel.
    pub(crate) live: BTreeMap<(usize, Member, usize), Ticket>,
    /// By ticket: what is to be read, once the owner was asked.
    reads: BTreeMap<Ticket, Option<ExpectedPast>>,
    publications: u32,
    /// Outcomes, by number of the publication.
    outcomes: BTreeMap<u32, Result<Option<Position>, Refused>>,
}

struct Entry {
    number: u32,
    at: u64,
    /// Read from the owner right after; must be what the publisher is told, if it is numbered.
    position: Option<Position>,
}

struct Subscription {
    shard: usize,
    member: Member,
    channel: usize,
    from: Option<Position>,
    state: State,
    /// Index into the log of the first that is for this subscription.
    start: Option<usize>,
    past: Option<ExpectedPast>,
    heard: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Pending,
    Subscribed,
    Ended,
}

#[derive(Debug, PartialEq)]
struct ExpectedPast {
    position: Position,
    recovered: Option<bool>,
    publications: Vec<(u64, u32)>,
}

impl Oracle {
    pub(crate) fn publication(&mut self) -> u32 {
        self.publications += 1;
        self.publications
    }

    /// The publisher was told, or the publication was refused at once.
    pub(crate) fn outcome(&mut self, number: u32, outcome: Result<Option<Position>, Refused>) {
        assert!(self.outcomes.insert(number, outcome).is_none(), "told twice");
    }

    /// A publication has reached the owner, who knows this of the channel since.
    pub(crate) fn published(
        &mut self,
        channel: usize,
        number: u32,
        at: u64,
        info: Option<ChannelInfo>,
    ) {
        let position = info.and_then(|info| info.position);
        let log = &mut self.logs[channel];
        let last = log.iter().rev().find_map(|entry| entry.position);
        let refused =
            position.is_none_or(|position| last == Some(position) || position.offset == 0);
        log.push(Entry { number, at, position: position.filter(|_| !refused) });
        let (Some(position), false) = (position, refused) else { return };
        match last {
            Some(last) if last.epoch == position.epoch => {
                assert_eq!(position.offset, last.offset + 1, "offsets go up by one");
            }
            _ => {
                assert_eq!(position.offset, 1, "a new epoch begins to count");
                let same = log.iter().filter_map(|entry| entry.position);
                let same = same.filter(|before| before.epoch == position.epoch).count();
                assert_eq!(same, 1, "a count that was lost came again");
                let kept = log[..log.len() - 1].iter().filter(|entry| fresh(channel, entry, at));
                assert_eq!(kept.count(), 0, "a count was lost whose publications are kept");
            }
        }
    }

    /// A subscription was asked for, under the next ticket.
    pub(crate) fn asked(
        &mut self,
        shard: usize,
        member: Member,
        channel: usize,
        from: Option<Position>,
    ) -> Ticket {
        let (state, heard) = (State::Pending, Vec::new());
        let (start, past) = (None, None);
        let subscription = Subscription { shard, member, channel, from, state, start, past, heard };
        self.subscriptions.push(subscription);
        self.subscriptions.len() as Ticket - 1
    }

    pub(crate) fn next_ticket(&self) -> Ticket {
        self.subscriptions.len() as Ticket
    }

    /// The question has reached the owner, who knows this of the channel since.
    pub(crate) fn joined(&mut self, ticket: Ticket, now: u64, info: &ChannelInfo) {
        let Subscription { channel, from, start, .. } = self.subscriptions[ticket as usize];
        assert_eq!(start, None, "asked twice");
        let past = info.position.map(|position| self.past(channel, position, from, None, now));
        let start = Some(self.logs[channel].len());
        let subscription = &mut self.subscriptions[ticket as usize];
        (subscription.start, subscription.past) = (start, past);
    }

    /// The channel of a subscription that nobody has joined yet.
    pub(crate) fn asks(&self, ticket: Ticket) -> Option<usize> {
        let subscription = &self.subscriptions[ticket as usize];
        subscription.start.is_none().then_some(subscription.channel)
    }

    /// A read has reached the owner; `position` is what it says of the channel.
    pub(crate) fn read(
        &mut self,
        ticket: Ticket,
        channel: usize,
        after: Option<Position>,
        limit: u32,
        now: u64,
        position: Option<Position>,
    ) {
        let past =
            position.map(|position| self.past(channel, position, after, Some(limit as usize), now));
        self.reads.insert(ticket, past);
    }

    fn past(
        &self,
        channel: usize,
        position: Position,
        from: Option<Position>,
        limit: Option<usize>,
        now: u64,
    ) -> ExpectedPast {
        let kept = self.logs[channel].iter().filter(|entry| {
            entry.position.is_some_and(|entry| entry.epoch == position.epoch)
                && fresh(channel, entry, now)
        });
        let size = rules(CHANNELS[channel]).expect("it keeps history").size as usize;
        let kept: Vec<(u64, u32)> = kept
            .map(|entry| (entry.position.expect("just filtered").offset, entry.number))
            .collect();
        let kept = &kept[kept.len().saturating_sub(size)..];
        let missed = from.filter(|from| from.epoch == position.epoch);
        let missed = missed.and_then(|from| position.offset.checked_sub(from.offset));
        let missed =
            missed.filter(|missed| *missed <= kept.len() as u64).map(|missed| missed as usize);
        let newest = match limit {
            None => missed.unwrap_or(0),
            Some(limit) => missed.unwrap_or(limit.min(kept.len())),
        };
        let publications = kept[kept.len() - newest..].iter().copied();
        ExpectedPast {
            position,
            recovered: from.map(|_| missed.is_some()),
            publications: publications.take(limit.unwrap_or(usize::MAX)).collect(),
        }
    }

    /// A shard tells its caller something.
    pub(crate) fn event(&mut self, shard: usize, event: Event, seen: &mut [usize; CHANNELS.len()]) {
        match event {
            Event::Subscribed { member, ticket, past } => {
                let subscription = &mut self.subscriptions[ticket as usize];
                assert_eq!(subscription.state, State::Pending);
                assert_eq!((subscription.shard, subscription.member), (shard, member));
                assert_eq!(past.map(expected), subscription.past.take(), "the past is exact");
                subscription.state = State::Subscribed;
                let channel = subscription.channel;
                match subscription.start {
                    Some(start) => seen[channel] = seen[channel].max(start),
                    None => {
                        assert!(rules(CHANNELS[channel]).is_none(), "who recovers must ask");
                        subscription.start = Some(seen[channel]);
                    }
                }
            }
            Event::Withdrawn { member, ticket } => {
                let subscription = &mut self.subscriptions[ticket as usize];
                assert_eq!(subscription.state, State::Pending);
                assert_eq!((subscription.shard, subscription.member), (shard, member));
                subscription.state = State::Ended;
            }
            Event::Published { ticket, outcome } => self.outcome(ticket, outcome),
            Event::History { ticket, past } => {
                let read = self.reads.remove(&ticket).expect("the owner was asked");
                if let Some(read) = read {
                    assert_eq!(expected(past), read, "the past is exact");
                } else {
                    assert_eq!(past.publications, [], "the channel was not there");
                }
            }
        }
    }

    /// The member will not hear more of it, as it was said.
    pub(crate) fn ended(&mut self, shard: usize, member: Member, channel: usize) {
        let ticket = self.live.remove(&(shard, member, channel)).expect("it was live");
        self.subscriptions[ticket as usize].state = State::Ended;
    }

    pub(crate) fn is_pending(&self, ticket: Ticket) -> bool {
        self.subscriptions[ticket as usize].state == State::Pending
    }

    /// A publication is handed to a member.
    pub(crate) fn heard(&mut self, shard: usize, member: Member, publication: &Publication) {
        let channel = channel(publication);
        let ticket = self.live.get(&(shard, member, channel)).expect("a zombie hears");
        let subscription = &mut self.subscriptions[*ticket as usize];
        assert_eq!(subscription.state, State::Subscribed);
        subscription.heard.push(number(&publication.payload));
    }

    /// Where a publication stands in its log, with the ones after it.
    pub(crate) fn after(&self, channel: usize, number: u32) -> usize {
        let at = self.logs[channel].iter().rposition(|entry| entry.number == number);
        at.expect("it reached the owner") + 1
    }

    /// How many publications have reached the owner.
    pub(crate) fn logged(&self, channel: usize) -> usize {
        self.logs[channel].len()
    }

    /// Any position of the channel, from its past or its future.
    pub(crate) fn position(&self, channel: usize, dice: &mut Dice) -> Option<Position> {
        let log = &self.logs[channel];
        let newest = &log[log.len().saturating_sub(6)..];
        let position = newest.get(dice.index(newest.len()))?.position?;
        Some(match dice.number(12) {
            0 => Position { epoch: position.epoch.wrapping_add(1), ..position },
            1 => Position { offset: position.offset + 5, ..position },
            2 => Position { offset: 0, ..position },
            _ => position,
        })
    }

    /// All is quiet: everything was told, and everybody has heard what was for them.
    pub(crate) fn check(&self) {
        assert!(self.reads.is_empty(), "a read is not answered");
        assert_eq!(self.outcomes.len(), self.publications as usize, "an outcome is missing");
        for entry in self.logs.iter().flatten() {
            match self.outcomes[&entry.number] {
                Ok(position) => assert_eq!(position, entry.position, "told another position"),
                Err(refused) => {
                    assert_eq!((refused, entry.position), (Refused::Overloaded, None));
                }
            }
        }
        for subscription in &self.subscriptions {
            self.check_heard(subscription);
        }
    }

    fn check_heard(&self, subscription: &Subscription) {
        let Some(start) = subscription.start else {
            // Withdrawn, or its member has left, when the owner did not yet know of it.
            return assert_eq!(
                (subscription.state, &subscription.heard[..]),
                (State::Ended, &[][..])
            );
        };
        let heard = &subscription.heard;
        let due = self.logs[subscription.channel][start..].iter();
        let due = due.filter(|entry| self.outcomes[&entry.number].is_ok());
        let until = if subscription.state == State::Ended { heard.len() } else { usize::MAX };
        assert_ne!(subscription.state, State::Pending, "the owner has answered");
        let due: Vec<&Entry> = due.take(until).collect();
        let numbers: Vec<u32> = due.iter().map(|entry| entry.number).collect();
        assert_eq!(*heard, numbers, "in order, all of it, once");
        let epochs = due.iter().map(|entry| entry.position.map(|position| position.epoch));
        assert!(epochs.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
    }
}

pub(crate) fn channel(publication: &Publication) -> usize {
    let channel = CHANNELS.iter().position(|channel| **channel == *publication.channel);
    channel.expect("one of these")
}

fn expected(past: Past) -> ExpectedPast {
    let Past { position, recovered, publications } = past;
    let publications = publications.iter().map(|publication| {
        let of = publication.position.expect("it is from history");
        assert_eq!(of.epoch, position.epoch);
        (of.offset, number(&publication.payload))
    });
    ExpectedPast { position, recovered, publications: publications.collect() }
}

/// Whether the publication is not past its time.
fn fresh(channel: usize, entry: &Entry, now: u64) -> bool {
    let rule = rules(CHANNELS[channel]);
    rule.is_some_and(|rule| entry.position.is_some() && entry.at + rule.ttl_ms > now)
}
