//! What this node has told others of its channels: the numbers of its statements.
//!
//! Every statement has a number, which goes up over all channels, and changes name the number of the statement
//! before them on the same channel: whoever has missed one sees it at the next. Some time after the last one a
//! mark repeats its number, for those who have missed just that one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use murre_router::Shard;
use murre_router::presence::{Changes, Count, PresentMember};

use super::wire::{Statement, member_bytes};

/// The channels of which this node has told something, until others know that nobody is there any more.
pub(crate) struct Told {
    channels: HashMap<Arc<str>, Channel>,
    /// The number of the newest statement.
    number: u64,
    /// When the next marks are due, by time.
    marks: VecDeque<(u64, Arc<str>)>,
}

struct Channel {
    /// The owner, which has told it.
    shard: Shard,
    number: u64,
    told_at: u64,
    members: u64,
    /// What was told last, if it was a count.
    count: Option<Count>,
    /// The owner was asked to tell all.
    is_asked: bool,
    /// Its mark is due at some time.
    has_mark: bool,
}

/// What an owner tells of its channel.
pub(crate) enum Telling {
    Changes { changes: Changes, left: usize },
    Members(Vec<PresentMember>),
    Count(Count),
}

/// What others are answered who ask for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nobody is there.
    Nothing,
    /// This owner is to be asked.
    Ask(Shard),
    /// The owner has yet to answer others.
    Asked,
}

/// Milliseconds from the last statement about a channel to its mark. A loss that takes longer than this is
/// seen by the beats that are missing.
const MARK_MS: u64 = 2000;
/// Bytes of members in one message, about: less than any server takes (`max_payload`, 1 MiB if not set).
const PART_BYTES: usize = 256 << 10;

impl Told {
    pub(crate) fn new() -> Self {
        Told { channels: HashMap::new(), number: 0, marks: VecDeque::new() }
    }

    /// The number of channels that have something to be known.
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The number of the newest statement.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The statements by which others learn what an owner tells, with their numbers.
    pub(crate) fn tell(
        &mut self,
        shard: Shard,
        channel: &Arc<str>,
        telling: Telling,
        now: u64,
    ) -> Vec<(u64, Statement)> {
        let Told { channels, number, marks } = self;
        let (is_empty, members) = match &telling {
            Telling::Changes { changes, left } => (changes.joins.is_empty(), *left as u64),
            Telling::Members(members) => (members.is_empty(), members.len() as u64),
            Telling::Count(count) => (count.clients == 0, count.clients),
        };
        if is_empty && !channels.contains_key(channel) {
            return Vec::new();
        }
        let known = channels.entry(Arc::clone(channel)).or_insert(Channel {
            shard,
            number: 0,
            told_at: now,
            members: 0,
            count: None,
            is_asked: false,
            has_mark: false,
        });
        let count = match telling {
            Telling::Count(count) => Some(count),
            Telling::Changes { .. } | Telling::Members(_) => None,
        };
        // The owner tells numbers again when only those of other nodes have changed.
        if count.is_some() && count == known.count && !known.is_asked {
            return Vec::new();
        }
        if count.is_some() || matches!(telling, Telling::Members(_)) {
            known.is_asked = false;
        }
        if !std::mem::replace(&mut known.has_mark, true) {
            marks.push_back((now.saturating_add(MARK_MS), Arc::clone(channel)));
        }
        let statements = statements(telling, known.number, number);
        (known.number, known.told_at, known.members, known.count) = (*number, now, members, count);
        statements
    }

    /// What to answer to those who ask for a channel.
    pub(crate) fn ask(&mut self, channel: &str) -> Answer {
        match self.channels.get_mut(channel).filter(|known| known.members > 0) {
            None => Answer::Nothing,
            Some(known) if known.is_asked => Answer::Asked,
            Some(known) => {
                known.is_asked = true;
                Answer::Ask(known.shard)
            }
        }
    }

    /// The question could not be passed on to the owner.
    pub(crate) fn not_asked(&mut self, channel: &str) {
        if let Some(known) = self.channels.get_mut(channel) {
            known.is_asked = false;
        }
    }

    /// Takes the next mark that is due, with the number of the last statement about its channel.
    pub(crate) fn take_mark(&mut self, now: u64) -> Option<(Arc<str>, u64)> {
        while self.marks.front().is_some_and(|(due, _)| *due <= now) {
            let (_, channel) = self.marks.pop_front()?;
            let Some(known) = self.channels.get_mut(&channel) else { continue };
            if known.told_at.saturating_add(MARK_MS) > now {
                self.marks.push_back((now.saturating_add(MARK_MS), channel));
                continue;
            }
            known.has_mark = false;
            let number = known.number;
            if known.members == 0 {
                self.channels.remove(&channel);
            }
            return Some((channel, number));
        }
        None
    }
}

/// The statements of what an owner tells. A long one is divided.
fn statements(telling: Telling, previous: u64, number: &mut u64) -> Vec<(u64, Statement)> {
    let mut next = || {
        *number = number.saturating_add(1);
        *number
    };
    match telling {
        Telling::Count(count) => vec![(next(), Statement::Count(count))],
        Telling::Members(members) => {
            let (number, parts) = (next(), parts(members));
            let last = parts.len().saturating_sub(1);
            let part = |(at, members)| {
                let (part, is_last) = (at as u64, at == last);
                (number, Statement::Members { part, is_last, members })
            };
            parts.into_iter().enumerate().map(part).collect()
        }
        Telling::Changes { changes: Changes { joins, mut leaves }, .. } => {
            let mut previous = previous;
            let part = |joins| {
                let (number, leaves) = (next(), std::mem::take(&mut leaves));
                let previous = std::mem::replace(&mut previous, number);
                (number, Statement::Changes { previous, joins, leaves })
            };
            parts(joins).into_iter().map(part).collect()
        }
    }
}

/// Members in parts, one at least, that each fit into a message.
fn parts(members: Vec<PresentMember>) -> Vec<Vec<PresentMember>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0_usize);
    for member in members {
        bytes = bytes.saturating_add(member_bytes(&member));
        let part = parts.last_mut().filter(|part| bytes <= PART_BYTES || part.is_empty());
        match part {
            Some(part) => part.push(member),
            None => {
                bytes = member_bytes(&member);
                parts.push(vec![member]);
            }
        }
    }
    parts
}
