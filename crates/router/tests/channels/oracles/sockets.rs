//! The connections of a shard's members, and what they hear.

use std::collections::BTreeSet;
use std::sync::Arc;

use murre_router::Member;
use murre_router::channels::{Overrun, Publication, Subscribers, Taken};

use super::oracle::Oracle;
use super::{CHANNELS, number, rules};

/// The connection of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) room: u32,
    /// Publications that were queued and not taken.
    pub(super) queued: u32,
    /// It waits for a slice of history.
    pub(super) waits: bool,
}

/// All sockets of a shard, and what they hear.
pub(super) struct Sockets<'w> {
    pub(super) shard: usize,
    pub(super) sockets: &'w mut [Socket],
    pub(super) ending: &'w mut BTreeSet<(usize, Member, usize)>,
    pub(super) oracle: &'w mut Oracle,
    pub(super) is_patient: bool,
    /// The member that may be slow although the others pull at once.
    pub(super) idler: Option<Option<Member>>,
    pub(super) offers: usize,
}

impl Sockets<'_> {
    /// Something is lost for a member.
    fn check_slow(&self, member: Member, channel: &str) {
        assert!(!self.is_patient, "nobody is slow");
        // The history that a reader recovers may go if shards hear each other too late.
        if let Some(idler) = self.idler {
            let recovers = rules(channel).is_some();
            assert!(idler == Some(member) || recovers, "it pulls at once and is not slow");
        }
    }
}

impl Subscribers<Option<u32>> for Sockets<'_> {
    fn offer(
        &mut self,
        member: Member,
        publication: &Publication,
        encoded: &mut Option<u32>,
    ) -> Taken {
        self.offers += 1;
        let published = number(&publication.payload);
        assert_eq!(*encoded.get_or_insert(published), published, "it is one publication's");
        let socket = &mut self.sockets[member as usize];
        if socket.queued == socket.room {
            return Taken::Full;
        }
        self.oracle.heard(self.shard, member, publication);
        if publication.except.is_some_and(|except| except.0 & 0xFFFF == id(self.shard, member)) {
            return Taken::Gone;
        }
        socket.queued += 1;
        Taken::Yes
    }

    fn overrun(&mut self, member: Member, channel: &Arc<str>) -> Overrun {
        self.check_slow(member, channel);
        let ending = (self.shard, member, known(channel));
        assert!(!self.ending.contains(&ending), "asked again");
        match channel.split_once(':').expect("one of these").1 {
            "oldest" => Overrun::SkipToOldest,
            "newest" => Overrun::SkipToNewest,
            _ => {
                self.ending.insert(ending);
                Overrun::End
            }
        }
    }

    fn dropped(&mut self, member: Member, channel: &Arc<str>, count: u64) {
        self.check_slow(member, channel);
        self.oracle.dropped(self.shard, member, channel, count);
    }

    fn conflates(&self, channel: &str) -> bool {
        channel.ends_with("newest")
    }
}

pub(super) fn id(shard: usize, member: Member) -> u64 {
    (shard as u64) << 8 | u64::from(member)
}

pub(super) fn known(channel: &str) -> usize {
    CHANNELS.iter().position(|known| *known == channel).expect("one of these")
}
