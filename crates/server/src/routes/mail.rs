//! The mail of a shard's application.

use std::sync::Arc;

use murre_core::{Mailbox, ServeMail};

use crate::bench;
use crate::hub::HubMail;
use crate::hub::links::Mailboxes;
use crate::transports::phoenix::long_poll_requests::PollMail;

/// Mail of a shard.
pub(crate) enum AppMail {
    /// All shards have started: their mailboxes, in order.
    Join(Arc<[AppMailbox]>),
    /// For the hub.
    Hub(HubMail),
    /// A request of a Phoenix client that polls, or the answer to one.
    PhoenixPoll(PollMail),
    /// For the fixtures of `--bench`.
    Bench(bench::Mail),
}

/// A shard's mailbox.
pub(crate) type AppMailbox = Arc<Mailbox<ServeMail<AppMail>>>;

/// The mailboxes of all shards, as their hubs use them.
pub(super) struct HubMailboxes(pub(super) Arc<[AppMailbox]>);

impl Mailboxes for HubMailboxes {
    fn shards(&self) -> usize {
        self.0.len()
    }

    fn post(&self, to: usize, mail: HubMail) -> Result<(), HubMail> {
        self.0[to].post(ServeMail::App(AppMail::Hub(mail))).map_err(|mail| match mail {
            ServeMail::App(AppMail::Hub(mail)) => mail,
            _ => unreachable!("a full mailbox returns the mail that was posted"),
        })
    }
}
