//! The fan-out of one channel: which publications wait for which subscribers, while subscribers join
//! and leave.

use std::collections::VecDeque;
use std::ops::Range;

/// The fan-out of one channel on this shard.
///
/// The channel's list is cut into segments. The subscribers below a segment's end have yet to get its
/// publications; later subscribers are above it. The oldest publication is handed out from its end
/// downward, which moves the subscribers that have got it into the next segment:
///
/// ```text
///   segments      end 3: 1 publication   end 7: 2 publications
///   list       a  b  c │ d  e  f  g │ h  i
///              ├─ all ─┤ └ the two ─┘ └─ none: subscribed after they were published
/// ```
///
/// `n` segments have at least 1 + 2 + ... + n deliveries, so closing a gap takes at most about the square
/// root of twice the deliveries that may wait.
#[derive(Default)]
pub(super) struct Fanout {
    /// Their ends go up strictly, from at least 1.
    segments: VecDeque<Segment>,
}

#[derive(Clone, Copy)]
struct Segment {
    end: u32,
    publications: u32,
}

/// The effect of closing a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// Deliveries that are not made any more.
    pub(super) cancelled: u64,
    /// Number of publications, oldest first, whose fan-out is over.
    pub(super) finished: usize,
}

impl Fanout {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn capacity(&self) -> usize {
        self.segments.capacity()
    }

    /// Adds a publication for the subscribers below `end`, of which there is at least one.
    pub(super) fn push(&mut self, end: u32) {
        match self.segments.back_mut() {
            Some(last) if last.end == end => last.publications += 1,
            _ => self.segments.push_back(Segment { end, publications: 1 }),
        }
    }

    /// The places of at most `max` subscribers that have yet to get the oldest publication.
    pub(super) fn next(&self, max: usize) -> Option<Range<usize>> {
        let end = self.segments.front()?.end as usize;
        Some(end.saturating_sub(max)..end)
    }

    /// Records that the last `deliveries` of the subscribers that wait for the oldest publication have got
    /// it. Returns whether all of them have.
    pub(super) fn delivered(&mut self, deliveries: usize) -> bool {
        let first = self.segments.front_mut().expect("something waits");
        let left = first.end - deliveries as u32;
        if left > 0 && first.publications == 1 {
            first.end = left;
            return false;
        }
        first.publications -= 1;
        if first.publications == 0 {
            self.segments.pop_front();
        }
        if left > 0 {
            self.segments.push_front(Segment { end: left, publications: 1 });
        }
        left == 0
    }

    /// Closes the gap that a subscriber leaves at place `gap` in a list of `len`. `moved(from, to)` moves
    /// the last subscriber of each segment from there on into the gap before it, so that the last place
    /// of the list becomes free.
    pub(super) fn close_gap(
        &mut self,
        mut gap: u32,
        len: u32,
        mut moved: impl FnMut(u32, u32),
    ) -> Closed {
        let mut cancelled = 0;
        let first = self.segments.partition_point(|segment| segment.end <= gap);
        for segment in self.segments.range_mut(first..) {
            segment.end -= 1;
            cancelled += u64::from(segment.publications);
            if segment.end != gap {
                moved(segment.end, gap);
            }
            gap = segment.end;
        }
        if gap != len - 1 {
            moved(len - 1, gap);
        }
        Closed { cancelled, finished: self.merge_empty(first) }
    }

    /// Merges an empty segment into the previous one. Returns the number of publications of an empty
    /// first segment, whose fan-out is over.
    fn merge_empty(&mut self, segment: usize) -> usize {
        let Some(&Segment { end, publications }) = self.segments.get(segment) else { return 0 };
        let done = match segment.checked_sub(1) {
            None if end == 0 => publications as usize,
            Some(previous) if end == self.segments[previous].end => {
                self.segments[previous].publications += publications;
                0
            }
            _ => return 0,
        };
        self.segments.remove(segment);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::mem;

    use proptest::prelude::*;

    use super::*;

    /// A list of subscribers, each with the publications it has yet to get, oldest first.
    #[derive(Default)]
    struct Naive {
        list: Vec<Vec<usize>>,
        deliveries: u64,
        published: usize,
        done: usize,
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

    fn apply(step: Step, fanout: &mut Fanout, naive: &mut Naive) {
        let len = naive.list.len();
        match step {
            Step::Join => naive.list.push(Vec::new()),
            Step::Part(index) if len > 0 => {
                let gap = index.index(len);
                let due = naive.list[gap].len() as u64;
                let list = &mut naive.list;
                let closed = fanout.close_gap(gap as u32, len as u32, |from, to| {
                    list[to as usize] = mem::take(&mut list[from as usize]);
                });
                naive.list.pop();
                assert_eq!(closed.cancelled, due, "a subscriber that leaves gets nothing more");
                naive.deliveries -= closed.cancelled;
                naive.done += closed.finished;
            }
            Step::Publish if len > 0 => {
                fanout.push(len as u32);
                naive.list.iter_mut().for_each(|due| due.push(naive.published));
                naive.published += 1;
                naive.deliveries += len as u64;
            }
            Step::Deliver(max) => {
                let Some(places) = fanout.next(max) else {
                    assert_eq!(naive.deliveries, 0, "something waits");
                    return;
                };
                assert!(!places.is_empty() && places.len() <= max);
                for due in &mut naive.list[places.clone()] {
                    assert_eq!(due.remove(0), naive.done, "in order, once");
                }
                naive.deliveries -= places.len() as u64;
                naive.done += usize::from(fanout.delivered(places.len()));
            }
            Step::Part(_) | Step::Publish => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Each subscriber gets what was published while it was there, in order, once.
        #[test]
        fn everybody_gets_what_is_due(steps in proptest::collection::vec(step(), 0..120)) {
            let (mut fanout, mut naive) = (Fanout::default(), Naive::default());
            for step in steps {
                apply(step, &mut fanout, &mut naive);
                let ends: Vec<u32> = fanout.segments.iter().map(|segment| segment.end).collect();
                prop_assert!(ends.is_sorted_by(|a, b| a < b) && !ends.contains(&0));
                let waiting = fanout.segments.iter().map(|segment| segment.publications);
                prop_assert_eq!(waiting.sum::<u32>() as usize, naive.published - naive.done);
            }
            while !fanout.is_empty() {
                apply(Step::Deliver(3), &mut fanout, &mut naive);
            }
            prop_assert_eq!((naive.deliveries, naive.done), (0, naive.published));
            prop_assert!(naive.list.iter().all(Vec::is_empty));
        }
    }
}
