//! One shard beside a map of sets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use murre_router::Member;
use murre_router::channels::{
    ChannelError, ChannelLimits, Channels, Direction, Event, HistoryPage, HistoryQuery, Overrun,
    Position, Publication, Pulled, Recovery, Start, Stats, Subscribers, Taken,
};

use super::choices::Choices;
use super::{CHANNELS, number, payload, publisher, rules};

const SUBSCRIPTIONS_MAX: usize = 5;
const MEMBERS: Member = 6;

#[derive(Clone, Debug)]
enum Command {
    Subscribe { member: Member, channel: usize, back: Option<u64> },
    Unsubscribe { member: Member, channel: usize },
    Leave { member: Member },
    Publish { channel: usize },
    History { channel: usize, back: Option<u64>, limit: u32 },
    Deliver { budget: usize },
    Wait { ms: u64 },
}

impl Command {
    fn any(choices: &mut Choices) -> Self {
        match choices.number(23) {
            0..6 => Command::Subscribe {
                member: member(choices),
                channel: channel(choices),
                back: back(choices),
            },
            6..9 => Command::Unsubscribe { member: member(choices), channel: channel(choices) },
            9 => Command::Leave { member: member(choices) },
            10..16 => Command::Publish { channel: channel(choices) },
            16 => Command::History {
                channel: channel(choices),
                back: back(choices),
                limit: choices.number(5),
            },
            17..21 => Command::Deliver { budget: 1 + choices.index(5) },
            _ => Command::Wait { ms: u64::from(1 + choices.number(39)) },
        }
    }
}

fn member(choices: &mut Choices) -> Member {
    choices.number(MEMBERS)
}

fn channel(choices: &mut Choices) -> usize {
    choices.index(CHANNELS.len())
}

fn back(choices: &mut Choices) -> Option<u64> {
    choices.bool().then(|| u64::from(choices.number(6)))
}

/// A channel, for as long as it has subscribers or publications.
#[derive(Default)]
struct Naive {
    subscribers: BTreeSet<Member>,
    /// When each publication was made, with its number. Offsets are indices, from 1.
    published: Vec<(u64, u32)>,
    epoch: Option<u32>,
}

#[derive(Default)]
struct Model {
    now: u64,
    channels: BTreeMap<usize, Naive>,
    /// What each member has still to get of each channel.
    due: BTreeMap<(Member, usize), VecDeque<u32>>,
    epochs_seen: BTreeSet<(usize, u32)>,
    numbers: u32,
}

impl Model {
    fn kept(&self, channel: usize) -> usize {
        let (Some(rule), Some(naive)) = (rules(CHANNELS[channel]), self.channels.get(&channel))
        else {
            return 0;
        };
        let fresh = naive.published.iter().filter(|(at, _)| at + rule.ttl_ms > self.now).count();
        fresh.min(rule.size as usize)
    }

    fn forget_unused(&mut self) {
        for channel in 0..CHANNELS.len() {
            let kept = self.kept(channel);
            if let Some(naive) = self.channels.get(&channel)
                && naive.subscribers.is_empty()
                && kept == 0
            {
                // Its count goes with it: it may not come again, unless it was 0.
                let counted = naive.epoch.filter(|_| !naive.published.is_empty());
                self.epochs_seen.extend(counted.map(|epoch| (channel, epoch)));
                self.channels.remove(&channel);
            }
        }
    }

    /// Checks what is said of a channel to a reader that starts at `from`. Returns how much it missed, if
    /// that is there.
    fn check(
        &mut self,
        channel: usize,
        position: Position,
        recovered: Option<bool>,
        from: Option<Position>,
    ) -> Option<usize> {
        let kept = self.kept(channel);
        let epochs_seen = &self.epochs_seen;
        let nothing = &mut Naive::default();
        let naive = self.channels.get_mut(&channel).unwrap_or(nothing);
        let Position { epoch, offset } = position;
        assert_eq!(*naive.epoch.get_or_insert(epoch), epoch, "an epoch lasts");
        assert!(!epochs_seen.contains(&(channel, epoch)), "a count that was lost came again");
        assert_eq!(offset as usize, naive.published.len());

        let missed = from.filter(|from| from.epoch == epoch && from.offset <= offset);
        let missed = missed.map(|from| (offset - from.offset) as usize);
        let missed = missed.filter(|missed| *missed <= kept);
        assert_eq!(recovered, from.map(|_| missed.is_some()));
        missed
    }

    /// Checks the publications of an answer, oldest first.
    fn check_page(&self, channel: usize, page: &HistoryPage, missed: Option<usize>, limit: u32) {
        let (kept, limit) = (self.kept(channel), limit as usize);
        let nothing = &Naive::default();
        let naive = self.channels.get(&channel).unwrap_or(nothing);
        let expected = match missed {
            None => numbered(naive, kept.min(limit), usize::MAX),
            Some(missed) => numbered(naive, missed, limit),
        };
        assert_eq!(page.more, limit > 0 && expected.len() < missed.unwrap_or(kept));
        let told = page.publications.iter().map(|publication| {
            assert_eq!(&*publication.channel, CHANNELS[channel]);
            let position = publication.position.expect("it is from history");
            assert_eq!(position.epoch, page.position.epoch);
            (position.offset, number(&publication.payload))
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}

/// Members that take everything.
struct Takers<'m> {
    due: &'m mut BTreeMap<(Member, usize), VecDeque<u32>>,
    offers: usize,
}

impl Subscribers<Option<u32>> for Takers<'_> {
    fn offer(
        &mut self,
        member: Member,
        publication: &Publication,
        encoded: &mut Option<u32>,
    ) -> Taken {
        let published = number(&publication.payload);
        assert_eq!(*encoded.get_or_insert(published), published, "it is one publication's");
        let channel = CHANNELS.iter().position(|channel| **channel == *publication.channel);
        let channel = channel.expect("one of these");
        let due = self.due.get_mut(&(member, channel)).expect("it is subscribed");
        assert_eq!(due.pop_front(), Some(published), "in order, once");
        self.offers += 1;
        Taken::Yes
    }

    fn overrun(&mut self, _: Member, _: &Arc<str>) -> Overrun {
        panic!("nobody is slow")
    }

    fn dropped(&mut self, _: Member, _: &Arc<str>, _: u64) {
        panic!("nobody is slow")
    }
}

/// The first `limit` of the `newest` publications, with their offsets.
fn numbered(naive: &Naive, newest: usize, limit: usize) -> Vec<(u64, u32)> {
    let all = naive.published.iter().enumerate();
    let newest = all.skip(naive.published.len() - newest).take(limit);
    newest.map(|(at, (_, number))| (at as u64 + 1, *number)).collect()
}

fn apply(command: &Command, channels: &mut Channels<Option<u32>>, model: &mut Model) {
    let now = model.now;
    match *command {
        Command::Subscribe { member, channel, back } => {
            let from = position(channels, channel, back);
            let start = from.map_or(Start::Head, Start::After);
            let outcome = channels.subscribe(member, CHANNELS[channel], start, 7, now);
            let subscriptions =
                model.channels.values().filter(|naive| naive.subscribers.contains(&member));
            let subscriptions = subscriptions.count();
            let naive = model.channels.get(&channel);
            if naive.is_some_and(|naive| naive.subscribers.contains(&member)) {
                return assert_eq!(outcome, Err(ChannelError::AlreadySubscribed));
            }
            if subscriptions == SUBSCRIPTIONS_MAX {
                return assert_eq!(outcome, Err(ChannelError::TooMany));
            }
            assert_eq!(outcome, Ok(()));
            model.channels.entry(channel).or_default().subscribers.insert(member);
            model.due.insert((member, channel), VecDeque::new());
            let Some(Event::Subscribed { member: subscribed, ticket: 7, recovery }) =
                channels.event()
            else {
                panic!("an event is missing");
            };
            let has_history = rules(CHANNELS[channel]).is_some();
            assert_eq!((subscribed, recovery.is_some()), (member, has_history));
            if let Some(Recovery { position, recovered }) = recovery {
                let missed = model.check(channel, position, recovered, from).unwrap_or(0);
                let missed = numbered(&model.channels[&channel], missed, usize::MAX);
                let due = model.due.get_mut(&(member, channel)).expect("it is subscribed");
                due.extend(missed.iter().map(|(_, number)| number));
                assert_eq!(channels.is_behind(member), !missed.is_empty());
                let mut to = Takers { due: &mut model.due, offers: 0 };
                assert_eq!(channels.pull(member, now, &mut to), Pulled::CaughtUp);
                assert_eq!((to.offers, channels.nobody_behind()), (missed.len(), true));
            }
        }
        Command::Unsubscribe { member, channel } => {
            let outcome = channels.unsubscribe(member, CHANNELS[channel]);
            let naive = model.channels.get_mut(&channel);
            let was = naive.is_some_and(|naive| naive.subscribers.remove(&member));
            assert_eq!(outcome, if was { Ok(()) } else { Err(ChannelError::NotSubscribed) });
            model.due.remove(&(member, channel));
        }
        Command::Leave { member } => {
            channels.leave(member, |_| ());
            for naive in model.channels.values_mut() {
                naive.subscribers.remove(&member);
            }
            model.due.retain(|(of, _), _| *of != member);
        }
        Command::Publish { channel } => publish(channels, model, channel),
        Command::History { channel, back, limit } => {
            let after = position(channels, channel, back);
            let start = after.map_or(Start::Head, Start::After);
            let (bytes_max, direction) = (u32::MAX, Direction::Forward);
            let query = HistoryQuery { start, limit, bytes_max, direction };
            let outcome = channels.history(CHANNELS[channel], query, 8, now);
            if rules(CHANNELS[channel]).is_none() {
                return assert_eq!(outcome, Err(ChannelError::NoHistory));
            }
            let Some(Event::History { ticket: 8, page }) = channels.event() else {
                panic!("an event is missing");
            };
            let missed = model.check(channel, page.position, page.recovered, after);
            model.check_page(channel, &page, missed, limit);
        }
        Command::Deliver { budget } => _ = deliver(channels, model, budget),
        Command::Wait { ms } => {
            model.now += ms;
            expire(channels, model.now);
        }
    }
}

/// Some way back from where the channel is now.
fn position(
    channels: &Channels<Option<u32>>,
    channel: usize,
    back: Option<u64>,
) -> Option<Position> {
    let now = channels.channel(CHANNELS[channel]).and_then(|info| info.position);
    let now = now.unwrap_or(Position { epoch: 1, offset: 3 });
    back.map(|back| match back {
        5 => Position { epoch: !now.epoch, ..now },
        4 => Position { offset: now.offset + 1, ..now },
        _ => Position { offset: now.offset.saturating_sub(back), ..now },
    })
}

fn publish(channels: &mut Channels<Option<u32>>, model: &mut Model, channel: usize) {
    model.numbers += 1;
    let number = model.numbers;
    let publisher = publisher(Some(9));
    let outcome = channels.publish(CHANNELS[channel], payload(number), publisher, model.now);
    assert_eq!(outcome, Ok(()));
    let Some(Event::Published { ticket: Some(9), outcome: Ok(position), .. }) = channels.event()
    else {
        panic!("an event is missing");
    };
    if rules(CHANNELS[channel]).is_some() {
        let naive = model.channels.entry(channel).or_default();
        naive.published.push((model.now, number));
        let Position { epoch, offset } = position.expect("the channel has history");
        assert_eq!(*naive.epoch.get_or_insert(epoch), epoch, "an epoch lasts");
        assert_eq!(offset as usize, naive.published.len());
    } else {
        assert_eq!(position, None);
    }
    for member in model.channels.get(&channel).into_iter().flat_map(|naive| &naive.subscribers) {
        model.due.get_mut(&(*member, channel)).expect("it is subscribed").push_back(number);
    }
}

fn deliver(channels: &mut Channels<Option<u32>>, model: &mut Model, budget: usize) -> bool {
    let mut to = Takers { due: &mut model.due, offers: 0 };
    let more = channels.deliver(budget, model.now, &mut to);
    let left = budget.checked_sub(to.offers).expect("the budget is kept");
    let due = model.due.values().any(|due| !due.is_empty());
    assert!(left == 0 || !due, "the budget is used while something is due");
    assert!(more || !due, "what is due is not forgotten");
    more
}

fn expire(channels: &mut Channels<Option<u32>>, now: u64) {
    while channels.next_expiry().is_some_and(|due| due <= now) {
        channels.expire(now);
    }
}

fn check(channels: &Channels<Option<u32>>, model: &Model) {
    let Stats { channels: here, subscriptions, owned, kept, deliveries_waiting, .. } =
        channels.stats();
    let subscribed = model.channels.values().map(|naive| naive.subscribers.len());
    assert_eq!(subscriptions as usize, subscribed.clone().sum::<usize>());
    assert_eq!(here as usize, subscribed.filter(|subscribers| *subscribers > 0).count());
    assert_eq!(owned as usize, model.channels.len());
    assert_eq!(
        kept as usize,
        (0..CHANNELS.len()).map(|channel| model.kept(channel)).sum::<usize>()
    );
    assert_eq!(deliveries_waiting as usize, model.due.values().map(VecDeque::len).sum::<usize>());
    for member in 0..MEMBERS {
        let subscriptions: BTreeSet<&str> = channels.subscriptions(member).collect();
        let expected =
            model.channels.iter().filter(|(_, naive)| naive.subscribers.contains(&member));
        assert_eq!(subscriptions, expected.map(|(channel, _)| CHANNELS[*channel]).collect());
    }
    for (channel, naive) in &model.channels {
        let info = channels.channel(CHANNELS[*channel]).expect("it is owned");
        assert_eq!(info.subscribers as usize, naive.subscribers.len(), "few are counted exactly");
        assert_eq!(info.kept as usize, model.kept(*channel));
    }
}

/// One shard does what a map of sets does, and holds nothing when everybody has left.
pub(crate) fn one_shard(bytes: &[u8]) {
    let limits = ChannelLimits { subscriptions_max: SUBSCRIPTIONS_MAX, ..ChannelLimits::default() };
    let mut channels = Channels::new(0, 1, 1, rules, limits);
    let mut model = Model::default();
    let mut choices = Choices::new(bytes);
    while choices.has_more() {
        apply(&Command::any(&mut choices), &mut channels, &mut model);
        model.forget_unused();
        check(&channels, &model);
    }
    while deliver(&mut channels, &mut model, 3) {}
    (0..MEMBERS).for_each(|member| channels.leave(member, |_| ()));
    expire(&mut channels, model.now + 200);
    assert_eq!(channels.stats(), Stats::default());
}
