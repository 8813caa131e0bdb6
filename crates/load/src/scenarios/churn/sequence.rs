//! The numbers that a subscriber receives: a run without gaps.

/// The numbers that a subscriber must receive next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The number of the next publication, once one was received.
    pub(super) next: Option<u64>,
    /// Publications before it subscribed: the first that it receives is at most this one, and it missed
    /// those below.
    pub(super) floor: u64,
}

impl Sequence {
    /// Of a subscriber that missed `floor` publications.
    pub(super) fn behind(floor: u64) -> Sequence {
        Sequence { next: None, floor }
    }

    /// Takes a publication. The error is the number that was due instead: one is missing, or came twice.
    pub(super) fn receive(&mut self, number: u64) -> Result<(), u64> {
        let right = match self.next {
            Some(next) => number == next,
            None => number <= self.floor,
        };
        if !right {
            return Err(self.next.unwrap_or(self.floor));
        }
        self.next = Some(number + 1);
        Ok(())
    }

    /// Whether it has all of so many publications.
    pub(super) fn has_all(&self, sent: u64) -> bool {
        self.next.map_or(self.floor >= sent, |next| next >= sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what may come first, what may follow, and when nothing is missing.
    #[test]
    fn a_run_has_no_gap_and_nothing_twice() {
        let mut run = Sequence { next: None, floor: 5 };
        assert_eq!(run.receive(6), Err(5));
        assert!(run.has_all(5) && !run.has_all(6));
        // One that was under way when it subscribed.
        assert_eq!(run.receive(4), Ok(()));
        assert!(!run.has_all(6));
        assert_eq!(run.receive(4), Err(5));
        assert_eq!(run.receive(6), Err(5));
        assert_eq!(run.receive(5), Ok(()));
        assert!(run.has_all(6));
    }
}
