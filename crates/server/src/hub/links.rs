//! The links between shards: what one has for the others goes out once a turn, in one mail each.

use std::sync::Arc;

use murre_core::{Mailbox, ServeMail};

use super::mail::HubMail;
use crate::routes::AppMail;

/// Where a shard's hub gets its mail.
pub(crate) type HubMailbox = Arc<Mailbox<ServeMail<AppMail>>>;

/// One shard's links to all, itself among them.
pub(crate) struct Links {
    shard: usize,
    /// Empty until all shards have started.
    boxes: Arc<[HubMailbox]>,
}

impl Links {
    /// The links of `shard`, which lead nowhere yet.
    pub(crate) fn new(shard: usize) -> Self {
        Links { shard, boxes: Arc::new([]) }
    }

    /// All shards have started.
    pub(crate) fn join(&mut self, boxes: Arc<[HubMailbox]>) {
        self.boxes = boxes;
    }

    /// The other shards.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let shard = self.shard;
        (0..self.boxes.len()).filter(move |&other| other != shard)
    }

    /// Posts `mail` to another shard.
    ///
    /// # Errors
    /// Gives it back if that shard's mailbox is full.
    pub(crate) fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail> {
        post(&self.boxes[to], mail)
    }
}

/// Posts `mail` to a shard's hub.
///
/// # Errors
/// Gives it back if the mailbox is full.
pub(crate) fn post(mailbox: &HubMailbox, mail: HubMail) -> Result<(), HubMail> {
    mailbox.post(ServeMail::App(AppMail::Hub(mail))).map_err(|mail| match mail {
        ServeMail::App(AppMail::Hub(mail)) => mail,
        _ => unreachable!("it is the mail that was given"),
    })
}
