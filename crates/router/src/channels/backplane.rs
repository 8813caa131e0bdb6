//! The interface below the owner of a channel to a broker that may order publications beyond this
//! process.

use super::publication::Payload;

/// The number of a publication that a backplane has yet to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendId(pub u32);

/// The answer of a backplane to a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// The owner numbers and keeps the publication itself, at once.
    Number,
    /// The caller will pass the outcome to [`Channels::appended`](super::Channels::appended), in the
    /// order of the channel's publications.
    Later,
}

/// The interest of this process in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The first shard has subscribed.
    First,
    /// The last shard has left.
    Last,
}

/// Orders the publications of channels. The owner of a channel asks it before it numbers a
/// publication.
pub trait Backplane {
    /// Appends a publication to `channel` at the time `now`, in milliseconds. With [`Append::Later`] the
    /// outcome comes with this `id`.
    fn append(&mut self, id: AppendId, channel: &str, payload: &Payload, now: u64) -> Append;

    /// Reports that the first shard of this process has subscribed to `channel`, or that the last one
    /// has left it.
    fn interest(&mut self, channel: &str, interest: Interest);
}

/// The backplane of a single process: the owners number publications themselves.
pub struct Local;

impl Backplane for Local {
    fn append(&mut self, _: AppendId, _: &str, _: &Payload, _: u64) -> Append {
        Append::Number
    }

    fn interest(&mut self, _: &str, _: Interest) {}
}
