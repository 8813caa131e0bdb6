//! The links between shards: a shard posts its messages for each other shard once a turn, in one mail.

use std::sync::Arc;

use super::mail::HubMail;

/// The mailboxes of all shards, in order.
pub(crate) trait Mailboxes: Send + Sync {
    /// The number of shards.
    fn shards(&self) -> usize;

    /// Posts `mail` to the hub of a shard.
    ///
    /// # Errors
    /// Returns the mail if the mailbox is full.
    fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail>;
}

/// The links of one shard to all shards.
pub(crate) struct Links {
    shard: usize,
    /// `None` until all shards have started.
    boxes: Option<Arc<dyn Mailboxes>>,
}

impl Links {
    /// The links of `shard`, which is not connected yet.
    pub(crate) fn new(shard: usize) -> Self {
        Links { shard, boxes: None }
    }

    /// Connects the shard to the mailboxes of all shards, which have started.
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
    /// Returns the mail if that shard's mailbox is full, or if this shard is not connected yet.
    pub(crate) fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail> {
        match &self.boxes {
            Some(boxes) => boxes.post(to, mail),
            None => Err(mail),
        }
    }
}
