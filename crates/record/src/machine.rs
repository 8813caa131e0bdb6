//! The machine that a run was on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Processor, memory, kernel and settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Cores of the machine, not of the process.
    pub cores: u64,
    /// `MemTotal`.
    pub memory_bytes: u64,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The hypervisor, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtualisation: Option<String>,
    /// The hard limit `RLIMIT_NOFILE` of the process that wrote the record.
    pub open_files_max: u64,
    /// Settings that bound or shape a run of many connections, by name.
    pub sysctls: BTreeMap<String, String>,
}
