//! One file for each machine that records are from, under each set of limits and settings that it
//! had.

use std::collections::BTreeMap;

use crate::records::Records;
use murre_record::Machine;

/// Name and content of every file.
pub(crate) fn files(records: &Records) -> BTreeMap<String, Vec<u8>> {
    records
        .machines()
        .map(|machine| {
            let mut json = serde_json::to_vec_pretty(machine).expect("facts are JSON");
            json.push(b'\n');
            (name(machine), json)
        })
        .collect()
}

/// A name that tells machines apart: processor, size, kernel, and a hash of the rest.
pub(crate) fn name(machine: &Machine) -> String {
    let words = machine.cpu.split(|letter: char| !letter.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty() && !matches!(*word, "R" | "TM" | "CPU"));
    let cpu: Vec<_> = words.take(3).map(str::to_ascii_lowercase).collect();
    let gigabytes = machine.memory_bytes.div_ceil(1 << 30);
    let kernel: Vec<_> = machine.kernel.split('.').take(2).collect();
    let facts = serde_json::to_vec(machine).expect("facts are JSON");
    format!(
        "{}-{}c-{gigabytes}g-linux-{}-{:08x}",
        cpu.join("-"),
        machine.cores,
        kernel.join("."),
        hash(&facts)
    )
}

/// A link to a machine's file.
pub(crate) fn link(machine: &Machine) -> String {
    let name = name(machine);
    format!("[{name}](machines/{name}.json)")
}

/// FNV-1a, 32 bits: short, and the same for ever.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows a name, and that another setting makes another one.
    #[test]
    fn machines_are_told_apart() {
        let mut machine = Machine {
            cpu: "Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz".to_owned(),
            cores: 2,
            memory_bytes: 25_000_000_000,
            kernel: "6.18.44-x".to_owned(),
            virtualisation: None,
            open_files_max: 20_000,
            sysctls: BTreeMap::new(),
        };
        let before = name(&machine);
        assert!(before.starts_with("intel-xeon-e5-2c-24g-linux-6.18-"), "{before}");
        machine.sysctls.insert("net.core.somaxconn".to_owned(), "4096".to_owned());
        assert_ne!(name(&machine), before);
        assert_eq!(hash(b"a"), 0xe40c_292c);
    }
}
