//! The window of a small channel: the joins and leaves that watchers are told together.

use super::member::{Changes, HERE, PresentMember};
use super::members::{Members, Record};
use super::users::Users;

/// Changes of a channel that watchers have yet to be told.
#[derive(Default)]
pub(super) struct Window {
    /// Keys of members that have joined or changed; some may be gone again.
    fresh: Vec<u32>,
    /// Members and versions that have gone and that some watcher may know.
    gone: Vec<PresentMember>,
    /// Too many have gone: watchers get all members instead.
    is_full: bool,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.gone.is_empty() && !self.is_full
    }

    /// Adds a new version of a member.
    pub(super) fn add_fresh(&mut self, key: u32, record: &mut Record) {
        if !record.is_fresh {
            record.is_fresh = true;
            self.fresh.push(key);
        }
    }

    /// Adds the version of a member that is gone, unless no watcher knows it.
    pub(super) fn add_gone(&mut self, record: &Record, users: &Users, gone_max: usize) {
        if self.is_full || record.known != record.stamp {
            return;
        }
        if self.gone.len() >= gone_max {
            self.is_full = true;
            self.gone = Vec::new();
        } else {
            self.gone.push(record.shown(users));
        }
    }

    /// Forgets all changes.
    pub(super) fn clear(&mut self, members: &mut Members) {
        for key in std::mem::take(self).fresh {
            if let Some(record) = members.get_mut(key) {
                record.is_fresh = false;
            }
        }
    }

    /// Takes the changes, which all watchers know from now on; `None` if they are more than all members.
    pub(super) fn take(&mut self, members: &mut Members, users: &Users) -> Option<Changes> {
        let mut joins = Vec::with_capacity(self.fresh.len());
        let Window { fresh, gone: leaves, is_full } = std::mem::take(self);
        for key in fresh {
            let Some(record) = members.get_mut(key).filter(|record| record.is_fresh) else {
                continue;
            };
            record.is_fresh = false;
            let replaces = if record.known == record.stamp { 0 } else { record.known };
            record.known = record.stamp;
            joins.push(PresentMember { replaces, ..record.shown(users) });
        }
        let many = joins.len() + leaves.len() > 2 * members.len() + FEW;
        (!is_full && !many).then_some(Changes { joins, leaves })
    }
}

/// So many changes are never replaced by all members.
const FEW: usize = 16;

impl Record {
    /// The member, as watchers see it.
    pub(super) fn shown(&self, users: &Users) -> PresentMember {
        PresentMember {
            node: self.node,
            origin: self.origin,
            stamp: self.stamp,
            replaces: 0,
            user: users.name(self.user).clone(),
            meta: self.meta.clone(),
        }
    }
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    /// The changes of this node's members.
    pub(super) fn of_this_node(&self) -> Changes {
        let here = |members: &[PresentMember]| {
            members.iter().filter(|member| member.node == HERE).cloned().collect()
        };
        Changes { joins: here(&self.joins), leaves: here(&self.leaves) }
    }
}
