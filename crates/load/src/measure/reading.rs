//! Readings of the machine at one moment, for the memory section.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use murre_core::host::Descriptors;
use murre_record::ProcessMemory;
use serde::{Deserialize, Serialize};

use crate::measure::slab::{PAGE_BYTES, Slabs};

/// One process's memory. `pid` is a number or `self`.
pub(crate) fn process_memory(pid: &str) -> io::Result<ProcessMemory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |text: &str, name: &str| {
        field(text, name).ok_or_else(|| io::Error::other(format!("/proc/{pid}: no {name}")))
    };
    Ok(ProcessMemory {
        pss_bytes: field(&rollup, "Pss:")? * 1024,
        page_table_bytes: field(&status, "VmPTE:")? * 1024,
        descriptor_slots: field(&status, "FDSize:")?,
        ring_bytes: rings(&fs::read_to_string(format!("/proc/{pid}/maps"))?),
        shards: shards(Path::new(&format!("/proc/{pid}/task")))?,
    })
}

/// The number of a process's shards, by the names of its threads: `shard-0`, or `shard-0+12` for one with
/// 12 more.
fn shards(tasks: &Path) -> io::Result<Option<u64>> {
    let mut shards = 0;
    for task in fs::read_dir(tasks)? {
        // A thread may be gone by now.
        let name = fs::read_to_string(task?.path().join("comm")).unwrap_or_default();
        let Some(name) = name.trim_end().strip_prefix("shard-") else { continue };
        let more = name.split_once('+').and_then(|(_, more)| more.parse::<u64>().ok());
        shards += 1 + more.unwrap_or(0);
    }
    Ok((shards > 0).then_some(shards))
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The sizes of the mappings of io_uring.
fn rings(maps: &str) -> u64 {
    let size = |line: &str| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).ok());
        Some(to? - from?)
    };
    maps.lines().filter(|line| line.ends_with("[io_uring]")).filter_map(size).sum()
}

/// Everything that is read at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) server: ProcessMemory,
    /// `None` where the kernel does not show its slabs.
    pub(crate) slabs: Option<Slabs>,
    pub(crate) sockstat: BTreeMap<String, u64>,
}

impl Reading {
    pub(crate) fn take(server_pid: i32) -> io::Result<Reading> {
        Ok(Reading {
            server: process_memory(&server_pid.to_string())?,
            slabs: Slabs::read(Path::new("/sys/kernel/slab")).ok(),
            sockstat: sockstat(&fs::read_to_string("/proc/net/sockstat")?),
        })
    }

    /// Data under way or unread, of the whole machine.
    pub(crate) fn packet_buffer_bytes(&self) -> u64 {
        self.sockstat.get("mem").copied().unwrap_or_default() * PAGE_BYTES
    }

    /// A descriptor table that is too small for the connections does not hold them.
    pub(crate) fn server_kind(&self, conns: u64) -> Descriptors {
        if self.server.descriptor_slots < conns { Descriptors::Direct } else { Descriptors::Normal }
    }
}

/// TCP sockets of the whole machine; 0 where the kernel does not say.
pub(crate) fn sockets_in_use() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    sockstat(&text).get("inuse").copied().unwrap_or_default()
}

/// The TCP line of `/proc/net/sockstat`: `mem` are pages of data under way or unread.
fn sockstat(text: &str) -> BTreeMap<String, u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let pairs = words.chunks_exact(2);
    pairs.filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows which numbers are taken from /proc/net/sockstat.
    #[test]
    fn sockstat_is_its_tcp_line() {
        let text =
            "sockets: used 13\nTCP: inuse 1 orphan 0 tw 2 alloc 1 mem 7\nUDP: inuse 0 mem 0\n";
        let numbers = sockstat(text);
        assert_eq!((numbers["tw"], numbers["mem"]), (2, 7));
        assert_eq!(numbers.len(), 5);
    }

    /// Shows which lines of /proc/PID/maps count, and that addresses are hexadecimal.
    #[test]
    fn rings_are_mappings() {
        let maps = "7f00-7f10 rw-s 0 00:10 7 anon_inode:[io_uring]\n7f10-8f10 rw-p 0 00:00 0\n\
                    a000-b000 rw-s 1 00:10 7 anon_inode:[io_uring]\n";
        assert_eq!(rings(maps), 0x1010);
    }

    /// Shows that this process has memory, page tables and a descriptor table, in bytes.
    #[test]
    fn a_process_is_read() {
        let own = process_memory("self").unwrap();
        assert!(own.pss_bytes > 100_000 && own.page_table_bytes > 4096);
        assert!(own.descriptor_slots >= 64);
        assert_eq!(own.shards, None);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let shard = std::thread::Builder::new().name("shard-0+12".to_owned());
        let shard = shard.spawn(move || ended.recv()).unwrap();
        // It names itself when it first runs.
        let shards = || process_memory("self").unwrap().shards;
        while shards().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(shards(), Some(13));
        drop(end);
        assert!(shard.join().unwrap().is_err());
        assert!(process_memory("0").is_err());
    }
}
