//! The window of a small channel: the joins and leaves that watchers are told together.

use super::member::{Changes, HERE, PresentMember};
use super::members::{Flag, Members};

/// Changes of a channel that watchers have yet to be told.
#[derive(Default)]
pub(super) struct Window {
    /// Keys of members that have joined or changed, with the version that watchers may know; 0 is none.
    fresh: Vec<(u32, u32)>,
    /// Members and versions that have gone and that some watcher may know.
    gone: Vec<PresentMember>,
    /// Too many have gone: watchers get all members instead.
    is_full: bool,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.gone.is_empty() && !self.is_full
    }

    /// A member has joined.
    pub(super) fn joined(&mut self, members: &mut Members, key: u32) {
        let record = members.get_mut(key).expect("it has joined");
        record.set(Flag::Fresh, true);
        self.fresh.push((key, 0));
    }

    /// The version of a member is about to be replaced.
    pub(super) fn replaced(&mut self, members: &mut Members, key: u32, gone_max: usize) {
        let shown = members.shown(key);
        let record = members.get_mut(key).expect("it is a member");
        let known = if record.is(Flag::Known) { record.stamp } else { 0 };
        let was_fresh = record.set(Flag::Fresh, true);
        if !was_fresh {
            self.fresh.push((key, known));
        } else if known > 0
            && let Some(fresh) = self.fresh.iter_mut().find(|(of, _)| *of == key)
        {
            fresh.1 = known;
        }
        if known > 0 {
            self.add_gone(shown, gone_max);
        }
    }

    /// A member is about to leave. `gone_max` is `None` if nobody is told changes.
    pub(super) fn leaves(&mut self, members: &mut Members, key: u32, gone_max: Option<usize>) {
        let shown = members.shown(key);
        let record = members.get_mut(key).expect("it is a member");
        if record.set(Flag::Fresh, false) {
            // Its key may soon be that of another one.
            self.fresh.retain(|(of, _)| *of != key);
        }
        if let Some(gone_max) = gone_max.filter(|_| record.is(Flag::Known)) {
            self.add_gone(shown, gone_max);
        }
    }

    fn add_gone(&mut self, version: PresentMember, gone_max: usize) {
        if self.is_full {
            return;
        }
        if self.gone.len() >= gone_max {
            self.is_full = true;
            self.gone = Vec::new();
        } else {
            self.gone.push(version);
        }
    }

    /// Forgets all changes.
    pub(super) fn clear(&mut self, members: &mut Members) {
        for (key, _) in std::mem::take(self).fresh {
            members.get_mut(key).expect("fresh members are there").set(Flag::Fresh, false);
        }
    }

    /// Takes the changes, which all watchers know from now on; `None` if they are more than all members.
    pub(super) fn take(&mut self, members: &mut Members) -> Option<Changes> {
        let mut joins = Vec::with_capacity(self.fresh.len());
        let Window { fresh, gone: leaves, is_full } = std::mem::take(self);
        for (key, known) in fresh {
            let record = members.get_mut(key).expect("fresh members are there");
            record.set(Flag::Fresh, false);
            let replaces = if record.set(Flag::Known, true) { 0 } else { known };
            joins.push(PresentMember { replaces, ..members.shown(key) });
        }
        let many = joins.len() + leaves.len() > 2 * members.len() + FEW;
        (!is_full && !many).then_some(Changes { joins, leaves })
    }
}

/// So many changes are never replaced by all members.
const FEW: usize = 16;

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
