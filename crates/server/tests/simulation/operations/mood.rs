//! The application that decides about sessions and commands behaves differently from now on.

use super::super::backend::Mood;
use super::super::choices::Choices;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct SetMood {
    mood: Mood,
}

impl SetMood {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        use Mood::{Down, Full, Moody, Silent, Slow, Suspended, Willing};
        let moods =
            [Willing, Moody, Moody, Moody, Moody, Moody, Slow, Silent, Down, Full, Suspended];
        SetMood { mood: moods[choices.index(moods.len())] }
    }
}

impl Operation for SetMood {
    fn play(&self, world: &mut World) {
        world.set_mood(self.mood);
    }
}
