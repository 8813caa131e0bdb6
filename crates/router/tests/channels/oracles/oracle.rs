//! What should happen, kept in the plainest way: a log of each channel in the owner's order, and what
//! each subscription has heard.

use std::collections::BTreeMap;

use murre_router::channels::{
    ChannelError, ChannelInfo, Direction, Event, HistoryPage, HistoryQuery, Position, Publication,
    Recovery, Start,
};
use murre_router::{Member, Ticket};

use super::choices::Choices;
use super::{CHANNELS, number, payload, rules};

#[derive(Default)]
pub(crate) struct Oracle {
    /// Of each channel, all that reached its owner, in this order.
    logs: [Vec<Entry>; CHANNELS.len()],
    /// By ticket, all that were ever asked for.
    subscriptions: Vec<Subscription>,
    /// The ones that have not ended, by shard, member and channel.
    pub(crate) live: BTreeMap<(usize, Member, usize), Ticket>,
    /// By ticket: the page that must be read, once the owner has been asked.
    reads: BTreeMap<Ticket, Option<HistoryPage>>,
    publications: u32,
    /// Outcomes, by number of the publication.
    outcomes: BTreeMap<u32, Result<Option<Position>, ChannelError>>,
}

struct Entry {
    number: u32,
    at: u64,
    /// Read from the owner right after; equal to the position that the publisher gets.
    position: Option<Position>,
}

struct Subscription {
    shard: usize,
    member: Member,
    channel: usize,
    from: Start,
    state: State,
    /// Index into the log of the first that is for this subscription.
    start: Option<usize>,
    recovery: Option<Recovery>,
    heard: Vec<Heard>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Heard {
    Publication(u32),
    Dropped(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Pending,
    Subscribed,
    Ended,
}

impl Oracle {
    pub(crate) fn publication(&mut self) -> u32 {
        self.publications += 1;
        self.publications
    }

    /// The publisher was told, or the publication was refused at once.
    pub(crate) fn outcome(&mut self, number: u32, outcome: Result<Option<Position>, ChannelError>) {
        assert!(self.outcomes.insert(number, outcome).is_none(), "told twice");
    }

    /// A publication has reached the owner, which knows this of the channel since.
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
    pub(crate) fn asked(&mut self, shard: usize, member: Member, channel: usize, from: Start) {
        self.subscriptions.push(Subscription {
            shard,
            member,
            channel,
            from,
            state: State::Pending,
            start: None,
            recovery: None,
            heard: Vec::new(),
        });
    }

    pub(crate) fn next_ticket(&self) -> Ticket {
        self.subscriptions.len() as Ticket
    }

    /// The question has reached the owner, which knows this of the channel since.
    pub(crate) fn joined(&mut self, ticket: Ticket, now: u64, info: &ChannelInfo) {
        let Subscription { channel, from, start, .. } = self.subscriptions[ticket as usize];
        assert_eq!(start, None, "asked twice");
        let mut start = self.logs[channel].len();
        let recovery = info.position.map(|position| {
            let kept = self.kept(channel, position, now);
            let missed = missed(&kept, position, from);
            if let Some(&(offset, _)) = missed.and_then(|missed| missed.first()) {
                let first = Some(Position { offset, ..position });
                let mut entries = self.logs[channel].iter();
                start = entries.rposition(|entry| entry.position == first).expect("it is kept");
            }
            let recovered = (from != Start::Head).then_some(missed.is_some());
            Recovery { position, recovered }
        });
        let subscription = &mut self.subscriptions[ticket as usize];
        (subscription.start, subscription.recovery) = (Some(start), recovery);
    }

    /// The channel of a pending subscription.
    pub(crate) fn asks(&self, ticket: Ticket) -> Option<usize> {
        let subscription = &self.subscriptions[ticket as usize];
        subscription.start.is_none().then_some(subscription.channel)
    }

    /// A read has reached the owner; `position` is what it says of the channel.
    pub(crate) fn read(
        &mut self,
        ticket: Ticket,
        channel: usize,
        query: HistoryQuery,
        now: u64,
        position: Option<Position>,
    ) {
        let page = position.map(|position| self.page(channel, query, now, position));
        self.reads.insert(ticket, page);
    }

    /// Offsets and numbers of what is within the retention, oldest first.
    fn kept(&self, channel: usize, position: Position, now: u64) -> Vec<(u64, u32)> {
        let kept = self.logs[channel].iter().filter(|entry| {
            entry.position.is_some_and(|entry| entry.epoch == position.epoch)
                && fresh(channel, entry, now)
        });
        let size = rules(CHANNELS[channel]).expect("it keeps history").size as usize;
        let kept: Vec<(u64, u32)> = kept
            .map(|entry| (entry.position.expect("just filtered").offset, entry.number))
            .collect();
        kept[kept.len().saturating_sub(size)..].to_vec()
    }

    fn page(
        &self,
        channel: usize,
        query: HistoryQuery,
        now: u64,
        position: Position,
    ) -> HistoryPage {
        let HistoryQuery { start, limit, bytes_max, direction } = query;
        let kept = self.kept(channel, position, now);
        let missed = missed(&kept, position, start);
        let is_known = match start {
            Start::Head => false,
            Start::After(start) => start.epoch == position.epoch,
            Start::AfterOffset(_) => true,
        };
        let newest_first = || kept.iter().rev().copied();
        // What is asked for, from where the answer grows.
        let (recovered, asked, turned): (_, Vec<_>, _) = match direction {
            Direction::Forward => match missed {
                Some(missed) => (true, missed.to_vec(), false),
                None => (false, newest_first().collect(), true),
            },
            Direction::Reverse => {
                let before = match start {
                    Start::After(Position { offset, .. }) if is_known => offset,
                    Start::AfterOffset(offset) => offset,
                    _ => u64::MAX,
                };
                let asked = newest_first().filter(|(offset, _)| *offset < before).collect();
                (is_known, asked, false)
            }
        };
        let (mut answer, mut bytes) = (Vec::new(), 0);
        for &(offset, number) in asked.iter().take(limit as usize) {
            let payload = payload(number);
            bytes += payload.bytes.len();
            if bytes > bytes_max as usize && !answer.is_empty() {
                break;
            }
            let position = Some(Position { offset, ..position });
            let channel = CHANNELS[channel].into();
            answer.push(Publication { channel, position, payload, except: None });
        }
        let more = answer.len() < asked.len() && limit > 0;
        if turned {
            answer.reverse();
        }
        let recovered = (start != Start::Head).then_some(recovered);
        HistoryPage { position, recovered, publications: answer, more }
    }

    /// A shard tells its caller something.
    pub(crate) fn event(&mut self, shard: usize, event: Event, seen: &mut [usize; CHANNELS.len()]) {
        match event {
            Event::Subscribed { member, ticket, recovery } => {
                let subscription = &mut self.subscriptions[ticket as usize];
                assert_eq!(subscription.state, State::Pending);
                assert_eq!((subscription.shard, subscription.member), (shard, member));
                assert_eq!(recovery, subscription.recovery, "the past is exact");
                subscription.state = State::Subscribed;
                let channel = subscription.channel;
                match subscription.start {
                    Some(_) if recovery.is_some() => {}
                    Some(start) => seen[channel] = seen[channel].max(start),
                    None => {
                        assert!(rules(CHANNELS[channel]).is_none(), "a recovery is asked for");
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
            Event::Published { ticket, origin, outcome, channel } => {
                let number = (origin.0 >> 16) as u32;
                assert!(ticket == Some(number) || ticket.is_none() && outcome.is_err());
                assert!(CHANNELS.contains(&&*channel));
                self.outcome(number, outcome);
            }
            Event::History { ticket, page } => {
                let read = self.reads.remove(&ticket).expect("the owner was asked");
                match read {
                    Some(read) => assert_eq!(page, read, "the past is exact"),
                    None => assert!(page.publications.is_empty(), "the channel was not there"),
                }
            }
            Event::Refused { .. } => panic!("{event:?}: there is no broker"),
            Event::Readable { .. } => {}
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
        let heard = Heard::Publication(number(&publication.payload));
        self.subscription(shard, member, &publication.channel).heard.push(heard);
    }

    /// Records that a member is told of dropped publications.
    pub(crate) fn dropped(&mut self, shard: usize, member: Member, channel: &str, count: u64) {
        assert!(count > 0, "nothing was skipped");
        self.subscription(shard, member, channel).heard.push(Heard::Dropped(count));
    }

    fn subscription(&mut self, shard: usize, member: Member, channel: &str) -> &mut Subscription {
        let channel = CHANNELS.iter().position(|known| *known == channel).expect("one of these");
        let ticket = self.live.get(&(shard, member, channel)).expect("a zombie hears");
        let subscription = &mut self.subscriptions[*ticket as usize];
        assert_eq!(subscription.state, State::Subscribed);
        subscription
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

    /// Any start in the channel, from its past or its future.
    pub(crate) fn start(&self, channel: usize, choices: &mut Choices) -> Start {
        let log = &self.logs[channel];
        let newest = &log[log.len().saturating_sub(24)..];
        let position = newest.get(choices.index(newest.len())).and_then(|entry| entry.position);
        let Some(position) = position else { return Start::Head };
        match choices.number(14) {
            0 => Start::After(Position { epoch: position.epoch.wrapping_add(1), ..position }),
            1 => Start::After(Position { offset: position.offset + 5, ..position }),
            2 => Start::After(Position { offset: 0, ..position }),
            3 => Start::After(Position { offset: u64::MAX, ..position }),
            4 => Start::AfterOffset(u64::MAX),
            5 => Start::Head,
            6 => Start::AfterOffset(position.offset),
            _ => Start::After(position),
        }
    }

    /// All is quiet: everything was told, and all that take what they are offered have heard what was
    /// for them.
    pub(crate) fn check(&self, reads: impl Fn(Member) -> bool) {
        assert!(self.reads.is_empty(), "a read is not answered");
        for entry in self.logs.iter().flatten() {
            // Without a ticket an outcome that is missing is a good one.
            match self.outcomes.get(&entry.number) {
                None => {}
                Some(Ok(position)) => {
                    assert_eq!(*position, entry.position, "told another position");
                }
                Some(Err(refused)) => {
                    assert_eq!((*refused, entry.position), (ChannelError::Overloaded, None));
                }
            }
        }
        for subscription in &self.subscriptions {
            self.check_heard(subscription, reads(subscription.member));
        }
    }

    fn check_heard(&self, subscription: &Subscription, reads: bool) {
        let heard = &subscription.heard;
        let Some(start) = subscription.start else {
            // Withdrawn, or its member has left, when the owner did not yet know of it.
            return assert_eq!((subscription.state, &heard[..]), (State::Ended, &[][..]));
        };
        assert_ne!(subscription.state, State::Pending, "the owner has answered");
        let due = self.logs[subscription.channel][start..].iter();
        let mut due = due.filter(|entry| !matches!(self.outcomes.get(&entry.number), Some(Err(_))));
        let mut epoch = None;
        for heard in heard {
            match *heard {
                Heard::Publication(number) => {
                    let entry = due.next().expect("nothing is made up");
                    assert_eq!(entry.number, number, "in order, all of it, once");
                    let of = entry.position.map(|position| position.epoch);
                    assert_eq!(*epoch.get_or_insert(of), of);
                }
                Heard::Dropped(count) => {
                    let skipped = due.by_ref().take(count as usize).count();
                    assert_eq!(skipped as u64, count, "more was dropped than published");
                }
            }
        }
        if reads && subscription.state == State::Subscribed {
            let left: Vec<u32> = due.map(|entry| entry.number).collect();
            assert!(left.is_empty(), "all of it: {left:?}");
        }
    }

    /// How often members were told of a gap, and how many have recovered.
    pub(crate) fn kinds(&self) -> (u32, u32) {
        let heard = self.subscriptions.iter().flat_map(|subscription| &subscription.heard);
        let dropped = heard.filter(|heard| matches!(heard, Heard::Dropped(_)));
        let recovered = self.subscriptions.iter().filter(|subscription| {
            let recovery = subscription.recovery.is_some_and(|past| past.recovered == Some(true));
            recovery && !subscription.heard.is_empty()
        });
        (dropped.count() as u32, recovered.count() as u32)
    }

    /// Whether a publication was refused.
    pub(crate) fn is_refused(&self, number: u32) -> bool {
        matches!(self.outcomes.get(&number), Some(Err(_)))
    }
}

/// The part of `kept` that follows on `start`, if all that follows is there.
fn missed(kept: &[(u64, u32)], position: Position, start: Start) -> Option<&[(u64, u32)]> {
    let offset = match start {
        Start::Head => return None,
        Start::After(start) => (start.epoch == position.epoch).then_some(start.offset)?,
        Start::AfterOffset(offset) => offset,
    };
    let missed = position.offset.checked_sub(offset)?;
    let first = (kept.len() as u64).checked_sub(missed)?;
    Some(&kept[first as usize..])
}

/// Whether the publication is not past its time.
fn fresh(channel: usize, entry: &Entry, now: u64) -> bool {
    let rule = rules(CHANNELS[channel]);
    rule.is_some_and(|rule| entry.position.is_some() && entry.at + rule.ttl_ms > now)
}
