//! One shard beside a map of sets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use murre_router::Member;
use murre_router::topics::{Event, Limits, Past, Position, Refused, Stats, Topics};

use super::dice::Dice;
use super::{TOPICS, number, payload, rules};

const SUBSCRIPTIONS_MAX: usize = 5;
const MEMBERS: Member = 6;

#[derive(Clone, Debug)]
enum Command {
    Subscribe { member: Member, topic: usize, back: Option<u64> },
    Unsubscribe { member: Member, topic: usize },
    Leave { member: Member },
    Publish { topic: usize },
    History { topic: usize, back: Option<u64>, limit: u32 },
    Deliver { budget: usize },
    Wait { ms: u64 },
}

impl Command {
    fn any(dice: &mut Dice) -> Self {
        match dice.number(23) {
            0..6 => {
                Command::Subscribe { member: member(dice), topic: topic(dice), back: back(dice) }
            }
            6..9 => Command::Unsubscribe { member: member(dice), topic: topic(dice) },
            9 => Command::Leave { member: member(dice) },
            10..16 => Command::Publish { topic: topic(dice) },
            16 => Command::History { topic: topic(dice), back: back(dice), limit: dice.number(5) },
            17..21 => Command::Deliver { budget: 1 + dice.index(5) },
            _ => Command::Wait { ms: u64::from(1 + dice.number(39)) },
        }
    }
}

fn member(dice: &mut Dice) -> Member {
    dice.number(MEMBERS)
}

fn topic(dice: &mut Dice) -> usize {
    dice.index(TOPICS.len())
}

fn back(dice: &mut Dice) -> Option<u64> {
    dice.bool().then(|| u64::from(dice.number(6)))
}

/// A topic as long as somebody is subscribed or something is kept.
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
    topics: BTreeMap<usize, Naive>,
    /// What each member has still to get of each topic.
    due: BTreeMap<(Member, usize), VecDeque<u32>>,
    epochs_seen: BTreeSet<(usize, u32)>,
    numbers: u32,
}

impl Model {
    fn kept(&self, topic: usize) -> usize {
        let (Some(rule), Some(naive)) = (rules(TOPICS[topic]), self.topics.get(&topic)) else {
            return 0;
        };
        let fresh = naive.published.iter().filter(|(at, _)| at + rule.ttl_ms > self.now).count();
        fresh.min(rule.size as usize)
    }

    fn forget_unused(&mut self) {
        for topic in 0..TOPICS.len() {
            let kept = self.kept(topic);
            if let Some(naive) = self.topics.get(&topic)
                && naive.subscribers.is_empty()
                && kept == 0
            {
                // Its count goes with it: it may not come again, unless it was 0.
                let counted = naive.epoch.filter(|_| !naive.published.is_empty());
                self.epochs_seen.extend(counted.map(|epoch| (topic, epoch)));
                self.topics.remove(&topic);
            }
        }
    }

    /// Checks what a reader is told who was `back` publications behind the position it has now.
    fn check(&mut self, topic: usize, past: &Past, from: Option<Position>, limit: Option<u32>) {
        let kept = self.kept(topic);
        let epochs_seen = &self.epochs_seen;
        let nothing = &mut Naive::default();
        let naive = self.topics.get_mut(&topic).unwrap_or(nothing);
        let Position { epoch, offset } = past.position;
        assert_eq!(*naive.epoch.get_or_insert(epoch), epoch, "an epoch lasts");
        assert!(!epochs_seen.contains(&(topic, epoch)), "a count that was lost came again");
        assert_eq!(offset as usize, naive.published.len());

        let missed = from.filter(|from| from.epoch == epoch && from.offset <= offset);
        let missed = missed.map(|from| (offset - from.offset) as usize);
        let missed = missed.filter(|missed| *missed <= kept);
        assert_eq!(past.recovered, from.map(|_| missed.is_some()));
        let expected: Vec<(u64, u32)> = match (missed, limit) {
            (None, None) => Vec::new(),
            (Some(missed), None) => numbered(naive, missed, usize::MAX),
            (None, Some(limit)) => numbered(naive, kept.min(limit as usize), usize::MAX),
            (Some(missed), Some(limit)) => numbered(naive, missed, limit as usize),
        };
        let told = past.publications.iter().map(|publication| {
            assert_eq!(&*publication.topic, TOPICS[topic]);
            let position = publication.position.expect("it is from history");
            assert_eq!(position.epoch, epoch);
            (position.offset, number(&publication.payload))
        });
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}

/// The first `limit` of the `newest` publications, with their offsets.
fn numbered(naive: &Naive, newest: usize, limit: usize) -> Vec<(u64, u32)> {
    let all = naive.published.iter().enumerate();
    let newest = all.skip(naive.published.len() - newest).take(limit);
    newest.map(|(at, (_, number))| (at as u64 + 1, *number)).collect()
}

fn obey(command: &Command, topics: &mut Topics<Option<u32>>, model: &mut Model) {
    let now = model.now;
    match *command {
        Command::Subscribe { member, topic, back } => {
            let from = position(topics, topic, back);
            let outcome = topics.subscribe(member, TOPICS[topic], from, 7, now);
            let subscriptions =
                model.topics.values().filter(|naive| naive.subscribers.contains(&member));
            let subscriptions = subscriptions.count();
            let naive = model.topics.get(&topic);
            if naive.is_some_and(|naive| naive.subscribers.contains(&member)) {
                return assert_eq!(outcome, Err(Refused::AlreadySubscribed));
            }
            if subscriptions == SUBSCRIPTIONS_MAX {
                return assert_eq!(outcome, Err(Refused::TooMany));
            }
            assert_eq!(outcome, Ok(()));
            model.topics.entry(topic).or_default().subscribers.insert(member);
            model.due.insert((member, topic), VecDeque::new());
            let Some(Event::Subscribed { member: subscribed, ticket: 7, past }) = topics.event()
            else {
                panic!("an event is missing");
            };
            assert_eq!((subscribed, past.is_some()), (member, rules(TOPICS[topic]).is_some()));
            if let Some(past) = past {
                model.check(topic, &past, from, None);
            }
        }
        Command::Unsubscribe { member, topic } => {
            let outcome = topics.unsubscribe(member, TOPICS[topic]);
            let naive = model.topics.get_mut(&topic);
            let was = naive.is_some_and(|naive| naive.subscribers.remove(&member));
            assert_eq!(outcome, if was { Ok(()) } else { Err(Refused::NotSubscribed) });
            model.due.remove(&(member, topic));
        }
        Command::Leave { member } => {
            topics.leave(member, |_| ());
            for naive in model.topics.values_mut() {
                naive.subscribers.remove(&member);
            }
            model.due.retain(|(of, _), _| *of != member);
        }
        Command::Publish { topic } => publish(topics, model, topic),
        Command::History { topic, back, limit } => {
            let after = position(topics, topic, back);
            let outcome = topics.history(TOPICS[topic], after, limit, 8, now);
            if rules(TOPICS[topic]).is_none() {
                return assert_eq!(outcome, Err(Refused::NoHistory));
            }
            let Some(Event::History { ticket: 8, past }) = topics.event() else {
                panic!("an event is missing");
            };
            model.check(topic, &past, after, Some(limit));
        }
        Command::Deliver { budget } => _ = deliver(topics, model, budget),
        Command::Wait { ms } => {
            model.now += ms;
            expire(topics, model.now);
        }
    }
}

/// Some way back from where the topic is now.
fn position(topics: &Topics<Option<u32>>, topic: usize, back: Option<u64>) -> Option<Position> {
    let now = topics.topic(TOPICS[topic]).and_then(|info| info.position);
    let now = now.unwrap_or(Position { epoch: 1, offset: 3 });
    back.map(|back| match back {
        5 => Position { epoch: !now.epoch, ..now },
        4 => Position { offset: now.offset + 1, ..now },
        _ => Position { offset: now.offset.saturating_sub(back), ..now },
    })
}

fn publish(topics: &mut Topics<Option<u32>>, model: &mut Model, topic: usize) {
    model.numbers += 1;
    let number = model.numbers;
    assert_eq!(topics.publish(TOPICS[topic], payload(number), Some(9), model.now), Ok(()));
    let Some(Event::Published { ticket: 9, outcome: Ok(position) }) = topics.event() else {
        panic!("an event is missing");
    };
    if rules(TOPICS[topic]).is_some() {
        let naive = model.topics.entry(topic).or_default();
        naive.published.push((model.now, number));
        let Position { epoch, offset } = position.expect("the topic has history");
        assert_eq!(*naive.epoch.get_or_insert(epoch), epoch, "an epoch lasts");
        assert_eq!(offset as usize, naive.published.len());
    } else {
        assert_eq!(position, None);
    }
    for member in model.topics.get(&topic).into_iter().flat_map(|naive| &naive.subscribers) {
        model.due.get_mut(&(*member, topic)).expect("it is subscribed").push_back(number);
    }
}

fn deliver(topics: &mut Topics<Option<u32>>, model: &mut Model, budget: usize) -> bool {
    let mut left = budget;
    let more = topics.deliver(budget, |publication, form, subscribers| {
        let published = number(&publication.payload);
        assert_eq!(*form.get_or_insert(published), published, "a form is one publication's");
        let topic = TOPICS.iter().position(|topic| **topic == *publication.topic);
        let topic = topic.expect("one of these");
        for subscriber in subscribers {
            let due = model.due.get_mut(&(subscriber.member(), topic)).expect("it is subscribed");
            assert_eq!(due.pop_front(), Some(published), "in order, once");
        }
        left -= subscribers.len();
    });
    let due = model.due.values().any(|due| !due.is_empty());
    assert!(left == 0 || !due, "the budget is used while something is due");
    assert!(more || !due, "what is due is not forgotten");
    more
}

fn expire(topics: &mut Topics<Option<u32>>, now: u64) {
    while topics.next_expiry().is_some_and(|due| due <= now) {
        topics.expire(now);
    }
}

fn check(topics: &Topics<Option<u32>>, model: &Model) {
    let Stats { topics: here, subscriptions, owned, kept, deliveries_waiting, .. } = topics.stats();
    let subscribed = model.topics.values().map(|naive| naive.subscribers.len());
    assert_eq!(subscriptions as usize, subscribed.clone().sum::<usize>());
    assert_eq!(here as usize, subscribed.filter(|subscribers| *subscribers > 0).count());
    assert_eq!(owned as usize, model.topics.len());
    assert_eq!(kept as usize, (0..TOPICS.len()).map(|topic| model.kept(topic)).sum::<usize>());
    assert_eq!(deliveries_waiting as usize, model.due.values().map(VecDeque::len).sum::<usize>());
    for member in 0..MEMBERS {
        let subscriptions: BTreeSet<&str> = topics.subscriptions(member).collect();
        let expected = model.topics.iter().filter(|(_, naive)| naive.subscribers.contains(&member));
        assert_eq!(subscriptions, expected.map(|(topic, _)| TOPICS[*topic]).collect());
    }
    for (topic, naive) in &model.topics {
        let info = topics.topic(TOPICS[*topic]).expect("it is owned");
        assert_eq!(info.subscribers as usize, naive.subscribers.len(), "few are counted exactly");
        assert_eq!(info.kept as usize, model.kept(*topic));
    }
}

/// One shard does what a map of sets does, and holds nothing when everybody has left.
pub(crate) fn one_shard(bytes: &[u8]) {
    let limits = Limits { subscriptions_max: SUBSCRIPTIONS_MAX, ..Limits::default() };
    let mut topics = Topics::new(0, 1, 1, rules, limits);
    let mut model = Model::default();
    let mut dice = Dice::new(bytes);
    while dice.has_more() {
        obey(&Command::any(&mut dice), &mut topics, &mut model);
        model.forget_unused();
        check(&topics, &model);
    }
    while deliver(&mut topics, &mut model, 3) {}
    (0..MEMBERS).for_each(|member| topics.leave(member, |_| ()));
    expire(&mut topics, model.now + 200);
    assert_eq!(topics.stats(), Stats::default());
}
