//! A drain of all shards, or of one before the others.

use std::time::Duration;

use murre_core::ServeMail;

use super::super::choices::Choices;
use super::super::world::World;
use super::Operation;

#[derive(Clone, Debug)]
pub(in super::super) struct Drain {
    /// `None`: all of them.
    shard: Option<usize>,
    ms: u64,
}

impl Drain {
    pub(in super::super) fn draw(choices: &mut Choices) -> Self {
        let shard = (choices.number(3) == 0).then(|| choices.index(4));
        Drain { shard, ms: [0, 200, 2000][choices.index(3)] }
    }

    /// Of all shards, at once.
    pub(in super::super) fn now() -> Self {
        Drain { shard: None, ms: 0 }
    }
}

impl Operation for Drain {
    fn play(&self, world: &mut World) {
        for shard in 0..world.nodes.len() {
            if self.shard.is_none_or(|only| only % world.nodes.len() == shard)
                && !world.model.drained[shard]
            {
                world.model.drained[shard] = true;
                let over = Duration::from_millis(self.ms);
                world.post(shard, ServeMail::Drain(over));
            }
        }
    }
}
