//! How fast a connection may send commands: a bucket of tokens in eight bytes.

use std::time::Duration;

/// What every connection may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// What one command costs, in nanoseconds of waiting.
    cost: u64,
}

/// What one connection has done: the time, on the caller's clock in nanoseconds, from which on it
/// owes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent(u64);

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It is obeyed.
    Fine,
    /// It is refused.
    TooFast,
    /// It is refused, and so many were that the connection ends.
    Hopeless,
}

impl Spent {
    /// Of a connection that has sent no command.
    pub(crate) const NOTHING: Spent = Spent(0);
}

impl Rate {
    /// So many commands per second, and twice as many at once.
    pub(crate) fn new(commands_per_second: u32) -> Self {
        Rate { cost: SECOND / u64::from(commands_per_second.max(1)) }
    }

    /// Counts a command at `now`, the time since any fixed point; a coarse clock will do. A command
    /// that is refused costs as much as one that is obeyed: who does not slow down is not served.
    pub(crate) fn command(self, spent: &mut Spent, now: Duration) -> Pace {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        spent.0 = spent.0.max(now).saturating_add(self.cost);
        match spent.0 - now {
            owed if owed <= BURST => Pace::Fine,
            owed if owed <= PATIENCE => Pace::TooFast,
            _ => Pace::Hopeless,
        }
    }
}

const SECOND: u64 = 1_000_000_000;
/// What may be owed: twice what is earned in a second.
const BURST: u64 = 2 * SECOND;
/// What may be owed before the connection ends: as many refused as may come at once.
const PATIENCE: u64 = 2 * BURST;

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rate: Rate, spent: &mut Spent, at_ms: u64, pace: Pace) -> u32 {
        let mut count = 0;
        let mut next = *spent;
        while rate.command(&mut next, Duration::from_millis(at_ms)) == pace {
            *spent = next;
            count += 1;
        }
        count
    }

    /// Twice the rate at once, as many refused, then the end.
    #[test]
    fn a_burst_then_refusals_then_the_end() {
        let (rate, mut spent) = (Rate::new(100), Spent::default());
        assert_eq!(count(rate, &mut spent, 5, Pace::Fine), 200);
        assert_eq!(count(rate, &mut spent, 5, Pace::TooFast), 200);
        assert_eq!(rate.command(&mut spent, Duration::from_millis(5)), Pace::Hopeless);
    }

    /// What was spent comes back with time, up to a burst and no further.
    #[test]
    fn waiting_helps() {
        let (rate, mut spent) = (Rate::new(100), Spent::default());
        assert_eq!(count(rate, &mut spent, 0, Pace::Fine), 200);
        assert_eq!(count(rate, &mut spent, 500, Pace::Fine), 50);
        assert_eq!(count(rate, &mut spent, 86_400_000, Pace::Fine), 200);
    }

    /// The rate itself can be kept for ever, also on a clock that stands still for a quarter of a
    /// second at a time; a hundredth more cannot.
    #[test]
    fn the_rate_can_be_kept() {
        for (per_second, lasting) in [(100, true), (101, false)] {
            let (rate, mut spent) = (Rate::new(100), Spent::default());
            let mut paces = (0..per_second * 1000).map(|command| {
                let now = Duration::from_millis(250 * (command * 4 / per_second));
                rate.command(&mut spent, now)
            });
            assert_eq!(paces.all(|pace| pace == Pace::Fine), lasting, "{per_second}");
        }
    }

    /// No clock and no rate makes it overflow, and a clock that steps back only costs.
    #[test]
    fn extremes() {
        let mut spent = Spent::default();
        assert_eq!(Rate::new(1).command(&mut spent, Duration::MAX), Pace::Fine);
        assert_eq!(Rate::new(u32::MAX).command(&mut spent, Duration::MAX), Pace::Fine);
        assert_eq!(Rate::new(0).command(&mut spent, Duration::ZERO), Pace::Hopeless);
        assert_eq!(size_of::<Spent>(), 8);
    }
}
