//! The links between shards: what one has for the others goes out once a turn, in one mail each.

use std::sync::Arc;

use murre_core::{Mailbox, ServeMail};

/// What shards post to each other, and the control plane to them.
pub(crate) type ShardMailbox<M> = Arc<Mailbox<ServeMail<M>>>;

/// One shard's links to all, itself among them.
pub(crate) struct Mesh<M> {
    shard: usize,
    /// None until every shard is there.
    boxes: Arc<[ShardMailbox<M>]>,
}

impl<M: Send + 'static> Mesh<M> {
    /// The links of `shard`, which are not there yet.
    pub(crate) fn new(shard: usize) -> Self {
        Mesh { shard, boxes: Arc::new([]) }
    }

    /// Every shard is there.
    pub(crate) fn join(&mut self, boxes: Arc<[ShardMailbox<M>]>) {
        self.boxes = boxes;
    }

    /// The other shards.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<M> {
        let shard = self.shard;
        (0..self.boxes.len()).filter(move |&other| other != shard)
    }

    /// Posts `mail` to another shard.
    ///
    /// # Errors
    /// Gives it back if that shard is behind.
    pub(crate) fn post(&self, to: usize, mail: M) -> Result<(), M> {
        self.boxes[to].post(ServeMail::App(mail)).map_err(|mail| match mail {
            ServeMail::App(mail) => mail,
            ServeMail::Drain(_) => unreachable!("it was the mail given"),
        })
    }
}
