//! A client reads faster, more slowly, or not at all.

use super::super::choices::Choices;
use super::super::client::Pace;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct SetPace {
    client: usize,
    pace: Pace,
}

impl SetPace {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        // The first three never change theirs.
        let client = 3 + choices.index(3);
        let pace = match choices.number(4) {
            0 => Pace::Full,
            1 => Pace::Slow(1 + choices.number(200) as usize),
            _ => Pace::Nothing,
        };
        SetPace { client, pace }
    }
}

impl Operation for SetPace {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let Some(client) = &mut world.clients[self.client] else { return };
        client.pace = self.pace;
        client.fast &= self.pace == Pace::Full;
    }
}
