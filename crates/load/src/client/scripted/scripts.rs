//! The scripts of a run, and how often each ended how.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use murre_record::VisitFacts;

use super::ScriptedPeers;
use super::script::Script;
use crate::engine::workers::{self, Starting, WorkerConfig};

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
}

/// The scripts of a run, once its first worker has started.
#[derive(Default)]
pub(crate) struct SharedScripts(OnceLock<Arc<Scripts>>);

impl SharedScripts {
    /// Starts a worker whose connections follow the scripts in turns. `rate` is that of connects and
    /// pieces, see [`ScriptedPeers`].
    pub(crate) fn start(
        &self,
        scripts: fn() -> Vec<Script>,
        rate: f64,
        timeout: Duration,
        config: WorkerConfig,
    ) -> Starting {
        let counted = |script| (script, Count::default());
        let scripts = || Arc::new(Scripts(scripts().into_iter().map(counted).collect()));
        let scripts = Arc::clone(self.0.get_or_init(scripts));
        workers::start(config, move |parts| ScriptedPeers::new(scripts, rate, timeout, parts))
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, VisitFacts> {
        let facts = |count: &Count| VisitFacts {
            begun: count.begun.load(Ordering::Relaxed),
            as_it_must: count.as_it_must.load(Ordering::Relaxed),
            otherwise: count.otherwise.load(Ordering::Relaxed),
            first_otherwise: count.first_otherwise.get().cloned(),
        };
        let scripts = self.0.get().into_iter().flat_map(|scripts| &scripts.0);
        scripts.map(|(script, count)| (script.name.clone(), facts(count))).collect()
    }
}
