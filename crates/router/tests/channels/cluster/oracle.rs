//! What subscribers of a cluster must hear, from what the broker has ordered.

use std::collections::BTreeMap;

use murre_router::channels::{HistoryPage, Position, Publication, Recovery, Start};

use super::broker::Stream;
use super::{CHANNELS, number, rules};

/// What one subscriber has heard.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: usize,
    pub(super) from: Start,
    pub(super) recovery: Option<Recovery>,
    pub(super) heard: Vec<Heard>,
    /// The number of publications that the channel had when it was told that the subscription has begun.
    pub(super) begun_at: usize,
    pub(super) is_live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Publication(Option<Position>, u32),
    Dropped,
}

impl Subscription {
    pub(super) fn hear(&mut self, publication: &Publication) {
        let Publication { channel, position, payload, .. } = publication;
        assert_eq!(&**channel, CHANNELS[self.channel]);
        self.heard.push(Heard::Publication(*position, number(payload)));
    }

    /// The position that the client has reached.
    pub(super) fn reached(&self) -> Option<Position> {
        let heard = self.heard.iter().rev().find_map(|heard| match heard {
            Heard::Publication(position, _) => Some(*position),
            Heard::Dropped => None,
        });
        heard.unwrap_or_else(|| self.start())
    }

    /// The position after which it hears all.
    fn start(&self) -> Option<Position> {
        match (self.recovery?, self.from) {
            (Recovery { recovered: Some(true), .. }, Start::After(from)) => Some(from),
            (Recovery { position, .. }, _) => Some(position),
        }
    }

    /// Checks what it has heard of a channel with history. At the end nothing is on its way.
    pub(super) fn check(&self, stream: &Stream, epoch: u32, is_end: bool) {
        if rules(CHANNELS[self.channel]).is_none() {
            return self.check_plain(stream);
        }
        let Some(start) = self.start() else {
            assert_eq!(self.heard, [], "nothing comes before the subscription");
            return;
        };
        let places: BTreeMap<(u32, u64), usize> = stream
            .all
            .iter()
            .enumerate()
            .map(|(at, stored)| ((stored.position.epoch, stored.position.offset), at))
            .collect();
        let mut next =
            places.range(..=(start.epoch, start.offset)).next_back().map_or(0, |(_, at)| at + 1);
        // After a loss the position of a new subscriber may be lower than need be.
        let is_exact = self.from == Start::After(start);
        let mut optional_until = if is_exact { next } else { self.begun_at };
        let mut was_told = false;
        for heard in &self.heard {
            let Heard::Publication(position, number) = heard else {
                was_told = true;
                continue;
            };
            let position = position.expect("the channel keeps history");
            let at = places[&(position.epoch, position.offset)];
            assert_eq!(stream.all[at].number, *number, "another publication");
            assert!(at >= next, "it comes again, or too late: {self:?}");
            let is_next = at == next || at <= optional_until;
            assert!(is_next || was_told, "{} is missing: {self:?}", stream.all[next].number);
            optional_until = 0;
            (next, was_told) = (at + 1, false);
        }
        let newest = stream.all.last().filter(|newest| newest.position.epoch == epoch);
        if is_end && self.is_live && next.max(optional_until) < stream.all.len() && newest.is_some()
        {
            assert!(was_told, "{} never came: {self:?}", stream.all[next].number);
        }
    }

    fn check_plain(&self, stream: &Stream) {
        let mut all = stream.all.iter();
        for heard in &self.heard {
            let Heard::Publication(None, number) = heard else { panic!("{heard:?}") };
            assert!(all.any(|stored| stored.number == *number), "in order, once: {self:?}");
        }
    }
}

/// Checks a page: consecutive publications, which begin at the start if it is recovered.
pub(super) fn check_page(page: &HistoryPage, from: Start, stream: &Stream) {
    let offsets = page.publications.iter().map(|publication| {
        let position = publication.position.expect("the channel keeps history");
        let is_it = |stored: &super::broker::Stored| stored.position == position;
        let at = stream.all.iter().position(is_it).expect("it was published");
        assert_eq!(stream.all[at].number, number(&publication.payload));
        at
    });
    let offsets: Vec<usize> = offsets.collect();
    assert!(offsets.windows(2).all(|two| two[0] + 1 == two[1]), "{offsets:?}");
    if let (Some(true), Start::After(from), Some(first)) = (page.recovered, from, offsets.first()) {
        let is_newer = |stored: &super::broker::Stored| {
            stored.position.epoch == from.epoch && stored.position.offset > from.offset
        };
        assert_eq!(stream.all.iter().position(is_newer), Some(*first), "something is missing");
    }
}
