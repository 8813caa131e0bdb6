//! The scripts of a run, and how often each ended how.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use murre_record::VisitFacts;

use super::script::Script;

/// The scripts, shared by all workers.
pub(super) struct Scripts(Vec<(Script, Count)>);

#[derive(Default)]
struct Count {
    begun: AtomicU64,
    as_it_must: AtomicU64,
    otherwise: AtomicU64,
    /// How the first of those ended.
    first_otherwise: OnceLock<String>,
}

impl Scripts {
    pub(super) fn new(scripts: Vec<Script>) -> Scripts {
        Scripts(scripts.into_iter().map(|script| (script, Count::default())).collect())
    }

    pub(super) fn script(&self, index: u32) -> &Script {
        &self.0[index as usize].0
    }

    /// Counts a connection, the `number`-th of a worker, and returns the index of its script.
    pub(super) fn begin(&self, number: u64) -> u32 {
        let index = (number % self.0.len() as u64) as usize;
        self.0[index].1.begun.fetch_add(1, Ordering::Relaxed);
        index as u32
    }

    /// Counts an end; `otherwise` says how it differs from the one that the script demands.
    pub(super) fn end(&self, index: u32, otherwise: Option<String>) {
        let count = &self.0[index as usize].1;
        match otherwise {
            None => count.as_it_must.fetch_add(1, Ordering::Relaxed),
            Some(how) => {
                count.first_otherwise.get_or_init(|| how);
                count.otherwise.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    pub(super) fn facts(&self) -> BTreeMap<String, VisitFacts> {
        let facts = |count: &Count| VisitFacts {
            begun: count.begun.load(Ordering::Relaxed),
            as_it_must: count.as_it_must.load(Ordering::Relaxed),
            otherwise: count.otherwise.load(Ordering::Relaxed),
            first_otherwise: count.first_otherwise.get().cloned(),
        };
        self.0.iter().map(|(script, count)| (script.name.clone(), facts(count))).collect()
    }
}
