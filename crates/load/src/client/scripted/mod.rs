//! Connections that follow a [`Script`] and end, one after the other, so many at a time. Their rate is
//! bounded, so that on one machine with the server they do not win by taking its processors: each connect
//! and each 64 KiB or less that is sent takes a token, of which there are so many a second. A connection
//! that is open sends what its script says, on credit if need be; no other one opens until that is paid.

mod peers;
mod reader;
pub(crate) mod script;
mod scripts;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use murre_record::VisitFacts;

pub(crate) use self::peers::ScriptedPeers;
use self::script::Script;
use self::scripts::Scripts;
use crate::engine::workers::{self, Starting, WorkerConfig};

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
        let scripts = Arc::clone(self.0.get_or_init(|| Arc::new(Scripts::new(scripts()))));
        workers::start(config, move |parts| ScriptedPeers::new(scripts, rate, timeout, parts))
    }

    pub(crate) fn facts(&self) -> BTreeMap<String, VisitFacts> {
        self.0.get().map(|scripts| scripts.facts()).unwrap_or_default()
    }
}
