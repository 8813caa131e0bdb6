//! The publications of one channel that wait for subscribers, while subscribers come and go.

use std::collections::VecDeque;
use std::ops::Range;

use super::Publication;

/// What one channel has still to hand out on this shard.
///
/// The channel's list is cut into segments. Whoever is below a segment's end has still to get its
/// publications; those who subscribed later are behind it. The oldest publication is handed out
/// from its end downward, and what has got it is thereby in the next segment:
///
/// ```text
///   segments      end 3: 1 publication   end 7: 2 publications
///   list       a  b  c │ d  e  f  g │ h  i
///              ├─ all ─┤ └ the two ─┘ └─ none: subscribed after they were published
/// ```
///
/// There are at most as many segments as it takes for their deliveries, at least 1 + 2 + 3 + ..., to
/// reach what may wait, so that closing a gap is bounded by the square root of that.
pub(super) struct Fanout<F> {
    /// The channel's key; `None` if the last subscriber has left, with whom all that waits goes.
    pub(super) channel: Option<u32>,
    /// Ends go up strictly, from at least 1.
    segments: VecDeque<Segment>,
    /// Oldest first; as many as the segments have together.
    waiting: VecDeque<Waiting<F>>,
}

#[derive(Clone, Copy)]
struct Segment {
    end: u32,
    publications: u32,
}

/// One publication, and what the caller has made of it.
pub(super) struct Waiting<F> {
    pub(super) publication: Publication,
    pub(super) form: F,
}

impl<F: Default> Fanout<F> {
    pub(super) fn new() -> Self {
        Fanout { channel: None, segments: VecDeque::new(), waiting: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a publication for the subscribers that there are: those below `end`, at least one.
    pub(super) fn push(&mut self, publication: Publication, end: u32) {
        match self.segments.back_mut() {
            Some(last) if last.end == end => last.publications += 1,
            _ => self.segments.push_back(Segment { end, publications: 1 }),
        }
        self.waiting.push_back(Waiting { publication, form: F::default() });
    }

    /// The oldest publication and at most `max` of those who have still to get it.
    pub(super) fn next(&mut self, max: usize) -> Option<(&mut Waiting<F>, Range<usize>)> {
        let end = self.segments.front()?.end as usize;
        Some((self.waiting.front_mut()?, end.saturating_sub(max)..end))
    }

    /// The last so many of those have got it.
    pub(super) fn delivered(&mut self, deliveries: usize) {
        let first = self.segments.front_mut().expect("something waits");
        let left = first.end - deliveries as u32;
        if left > 0 && first.publications == 1 {
            first.end = left;
            return;
        }
        first.publications -= 1;
        if first.publications == 0 {
            self.segments.pop_front();
        }
        if left > 0 {
            self.segments.push_front(Segment { end: left, publications: 1 });
        } else {
            self.waiting.pop_front();
        }
    }

    /// Closes the gap that a subscriber leaves at `gap` in a list of `len`: `moved(from, to)` moves
    /// the last one of each segment from there on into the gap that the one before it left, so that
    /// the last place of the list becomes free. Returns how many deliveries are off.
    pub(super) fn close_gap(
        &mut self,
        mut gap: u32,
        len: u32,
        mut moved: impl FnMut(u32, u32),
    ) -> u64 {
        let mut off = 0;
        let first = self.segments.partition_point(|segment| segment.end <= gap);
        for segment in self.segments.range_mut(first..) {
            segment.end -= 1;
            off += u64::from(segment.publications);
            if segment.end != gap {
                moved(segment.end, gap);
            }
            gap = segment.end;
        }
        if gap != len - 1 {
            moved(len - 1, gap);
        }
        self.join_with_previous(first);
        off
    }

    /// If the segment is now of nobody, its publications wait for the same as those before, or for
    /// nobody.
    fn join_with_previous(&mut self, segment: usize) {
        let Some(&Segment { end, publications }) = self.segments.get(segment) else { return };
        match segment.checked_sub(1) {
            None if end == 0 => _ = self.waiting.drain(..publications as usize),
            Some(previous) if end == self.segments[previous].end => {
                self.segments[previous].publications += publications;
            }
            _ => return,
        }
        self.segments.remove(segment);
    }

    /// Whether it has room for a burst, too much to be kept.
    pub(super) fn is_large(&self) -> bool {
        self.waiting.capacity() + self.segments.capacity() > ROOM_KEPT
    }
}

/// A fan-out that is over keeps room for this many publications and segments.
const ROOM_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use std::mem;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::channels::{Form, Payload};

    fn publication(number: u8) -> Publication {
        let payload = Payload { form: Form::Raw, bytes: Arc::from([number]) };
        Publication { channel: Arc::from("channel"), position: None, payload }
    }

    /// Holds a list of subscribers, each with what it has still to get.
    #[derive(Default)]
    struct Naive {
        list: Vec<Vec<u8>>,
        deliveries: u64,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Part(prop::sample::Index),
        Publish,
        Deliver(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Join),
            2 => any::<prop::sample::Index>().prop_map(Step::Part),
            2 => Just(Step::Publish),
            3 => (1..4_usize).prop_map(Step::Deliver),
        ]
    }

    fn obey(step: Step, number: u8, fanout: &mut Fanout<()>, naive: &mut Naive) {
        let len = naive.list.len();
        match step {
            Step::Join => naive.list.push(Vec::new()),
            Step::Part(index) if len > 0 => {
                let gap = index.index(len);
                let due = naive.list[gap].len() as u64;
                let list = &mut naive.list;
                let off = fanout.close_gap(gap as u32, len as u32, |from, to| {
                    list[to as usize] = mem::take(&mut list[from as usize]);
                });
                naive.list.pop();
                assert_eq!(off, due, "what one who leaves does not get any more");
                naive.deliveries -= off;
            }
            Step::Publish if len > 0 => {
                fanout.push(publication(number), len as u32);
                naive.list.iter_mut().for_each(|due| due.push(number));
                naive.deliveries += len as u64;
            }
            Step::Deliver(max) => {
                let Some((waiting, places)) = fanout.next(max) else {
                    assert_eq!(naive.deliveries, 0, "something waits");
                    return;
                };
                assert!(!places.is_empty() && places.len() <= max);
                let number = waiting.publication.payload.bytes[0];
                for due in &mut naive.list[places.clone()] {
                    assert_eq!(due.remove(0), number, "in order, once");
                }
                naive.deliveries -= places.len() as u64;
                fanout.delivered(places.len());
            }
            Step::Part(_) | Step::Publish => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Whoever comes and goes, each gets what was published while it was there, in order, once.
        #[test]
        fn everybody_gets_what_is_due(steps in proptest::collection::vec(step(), 0..120)) {
            let (mut fanout, mut naive) = (Fanout::<()>::new(), Naive::default());
            for (number, step) in steps.into_iter().enumerate() {
                obey(step, number as u8, &mut fanout, &mut naive);
                let ends: Vec<u32> = fanout.segments.iter().map(|segment| segment.end).collect();
                prop_assert!(ends.is_sorted_by(|a, b| a < b) && !ends.contains(&0));
                let publications = fanout.segments.iter().map(|segment| segment.publications);
                prop_assert_eq!(publications.sum::<u32>() as usize, fanout.waiting.len());
            }
            while !fanout.is_empty() {
                obey(Step::Deliver(3), 0, &mut fanout, &mut naive);
            }
            prop_assert_eq!(naive.deliveries, 0);
            prop_assert!(naive.list.iter().all(Vec::is_empty));
        }
    }
}
