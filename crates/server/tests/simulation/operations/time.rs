//! Time passes, for the shards or without them, and the wall clock steps.

use std::time::Duration;

use super::super::choices::Choices;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) enum Time {
    /// So many turns of all shards.
    Turns(u32),
    /// Milliseconds, with the turns that they take.
    Pass(u64),
    /// Milliseconds in which the machine is suspended.
    StandStill(u64),
    /// Seconds by which the wall clock is set forward or back.
    Step(i64),
}

impl Time {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        match choices.number(16) {
            0..10 => Time::Turns(1 + choices.number(12)),
            10..13 => Time::Pass([1, 10, 150, 1500][choices.index(4)]),
            13 => Time::Pass([2500, 12_000, 40_000][choices.index(3)]),
            14 => Time::StandStill([1, 5, 20][choices.index(3)]),
            _ => Time::Step([5, 30, -5, -1000][choices.index(4)]),
        }
    }
}

impl Operation for Time {
    fn play(&self, world: &mut World) {
        match *self {
            Time::Turns(turns) => {
                for _ in 0..turns {
                    world.round(Duration::ZERO);
                }
            }
            Time::Pass(ms) => world.pass(Duration::from_millis(ms)),
            Time::StandStill(ms) => world.stand_still(Duration::from_millis(ms)),
            Time::Step(seconds) => world.wall_offset += seconds,
        }
    }
}
