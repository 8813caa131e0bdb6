//! A client leaves: in order, at once, or without a word.

use super::super::choices::Choices;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Leave {
    client: usize,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Close,
    HalfClose,
    Reset,
    Vanish,
}

impl Leave {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let how = [How::Close, How::Reset, How::HalfClose, How::Vanish][choices.index(4)];
        Leave { client: super::client(choices), how }
    }
}

impl Operation for Leave {
    fn client(&self) -> Option<usize> {
        Some(self.client)
    }

    fn play(&self, world: &mut World) {
        let Some(client) = &mut world.clients[self.client] else { return };
        let net = &world.nodes[client.shard].net;
        client.left = true;
        match self.how {
            How::Close => net.close(client.peer),
            How::HalfClose => net.half_close(client.peer),
            How::Reset => net.reset(client.peer),
            How::Vanish => net.vanish(client.peer),
        }
    }
}
