//! The links between shards: what one has for the others goes out once a turn, in one mail each.

use std::sync::Arc;

use super::mail::HubMail;

/// The mailboxes of all shards, in order.
pub(crate) trait Mailboxes: Send + Sync {
    /// How many shards there are.
    fn shards(&self) -> usize;

    /// Posts `mail` to the hub of a shard.
    ///
    /// # Errors
    /// Gives it back if the mailbox is full.
    fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail>;
}

/// One shard's links to all, itself among them.
pub(crate) struct Links {
    shard: usize,
    /// `None` until all shards have started.
    boxes: Option<Arc<dyn Mailboxes>>,
}

impl Links {
    /// The links of `shard`, which lead nowhere yet.
    pub(crate) fn new(shard: usize) -> Self {
        Links { shard, boxes: None }
    }

    /// All shards have started.
    pub(crate) fn join(&mut self, boxes: Arc<dyn Mailboxes>) {
        self.boxes = Some(boxes);
    }

    /// The other shards.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (shard, shards) = (self.shard, self.boxes.as_ref().map_or(0, |boxes| boxes.shards()));
        (0..shards).filter(move |&other| other != shard)
    }

    /// Posts `mail` to another shard.
    ///
    /// # Errors
    /// Gives it back if that shard's mailbox is full.
    pub(crate) fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail> {
        match &self.boxes {
            Some(boxes) => boxes.post(to, mail),
            None => Err(mail),
        }
    }
}
