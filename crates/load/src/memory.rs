//! What a connection costs the server, all in, while the client is on the same machine.
//!
//! **Method.** One reading before the first connection, one at full hold when nothing is under
//! way; the difference is divided by the connections.
//!
//! - *User space*: growth of the server's PSS (`smaps_rollup`). What it used before the first
//!   connection is the fixed cost, reported apart. *Page tables*: growth of `VmPTE`.
//! - *Kernel*: growth of each slab cache in objects, each charged its share of its slab's pages.
//!   Objects, not pages: pages that an earlier run left half empty are filled again without a
//!   page being added, so that page counts and `MemAvailable` read far too low.
//! - *Whose*: both ends are here and hold equally many sockets, so of each cache that a socket
//!   needs half is the server's. Of `io_kiocb` (one armed poll on each end) likewise half; if it
//!   grew by one per connection only, that is our end's, and the server waits in epoll or kept
//!   its objects from an earlier run (a ring gives none back). `kmalloc-32` holds one node per
//!   direct descriptor: it belongs to the ends that use them. Bind buckets exist on the
//!   connecting end only and are left out.
//! - *Descriptor tables* are not in slabs: 8 bytes a slot, on either kind, by computation.
//!
//! - *Monitors*: a program that lists `/proc/PID/fd` makes a procfs inode, a dentry and a security
//!   blob for each descriptor it sees. As many as `proc_inode_cache` grew by are taken off those.
//!
//! **Error.** A cache is charged only if it grew by what the connections explain, within a tenth;
//! otherwise another program fills it too, and it is listed under `not_charged`, as is everything
//! else that grew by half an object per connection or more. The slabs that a processor is
//! allocating from count as full, so each cache is off by up to a few slabs per processor: tens
//! of objects, nothing at 10,000 connections, several per cent at 1,000. Not counted: the owner
//! pointers that memory control groups keep beside objects (about 8 bytes an object where they
//! are on), packet buffers (none while idle), and the listener. The check, run by hand because
//! it counts the whole machine's sockets: `attribution_agrees_with_single_sockets`, below.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::reading::{ProcessMemory, Reading};
use crate::slab::{Cache, Slabs};

/// Which ends hold their sockets by direct descriptors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DirectEnds {
    pub(crate) client: bool,
    pub(crate) server: bool,
}

/// The record's memory section. Bytes are per connection unless the name says otherwise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    connections: u64,
    user: f64,
    page_tables: f64,
    socket: f64,
    wait: f64,
    descriptor_node: f64,
    descriptor_slot: f64,
    /// The server's side, all in. `None` where the slabs cannot be read or do not add up.
    total: Option<f64>,
    server_descriptors: &'static str,
    server_fixed_bytes: u64,
    server_before: ProcessMemory,
    server_full: ProcessMemory,
    charged: Vec<Charge>,
    not_charged: Vec<Charge>,
    sockstat_before: BTreeMap<String, u64>,
    sockstat_full: BTreeMap<String, u64>,
}

/// What one cache adds to the server's side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Charge {
    cache: String,
    grew_objects: i64,
    bytes_each: f64,
    /// The server's objects per connection.
    server_objects: f64,
    server_bytes: f64,
    #[serde(skip)]
    part: Part,
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Socket,
    Wait,
    DescriptorNode,
    Other,
}

impl Memory {
    pub(crate) fn between(
        before: &Reading,
        full: &Reading,
        conns: u64,
        direct: DirectEnds,
    ) -> Memory {
        let per_conn = |before: u64, full: u64| (full as f64 - before as f64) / conns.max(1) as f64;
        let (charged, not_charged) = match (&before.slabs, &full.slabs) {
            (Some(before), Some(full)) => charges(before, full, conns, direct),
            _ => Default::default(),
        };
        let part = |part: Part| -> f64 {
            let charges = charged.iter().filter(|charge| charge.part == part);
            charges.fold(0.0, |sum, charge| sum + charge.server_bytes)
        };
        let mut memory = Memory {
            connections: conns,
            user: per_conn(before.server.pss_bytes, full.server.pss_bytes),
            page_tables: per_conn(before.server.page_table_bytes, full.server.page_table_bytes),
            socket: part(Part::Socket),
            wait: part(Part::Wait),
            descriptor_node: part(Part::DescriptorNode),
            descriptor_slot: DESCRIPTOR_SLOT_BYTES,
            total: None,
            server_descriptors: if direct.server { "direct" } else { "normal" },
            server_fixed_bytes: before.server.pss_bytes,
            server_before: before.server,
            server_full: full.server,
            charged,
            not_charged,
            sockstat_before: before.sockstat.clone(),
            sockstat_full: full.sockstat.clone(),
        };
        memory.total = (memory.socket > 0.0).then(|| memory.sum());
        memory
    }

    fn sum(&self) -> f64 {
        self.rows().iter().map(|(_, bytes)| bytes).sum()
    }

    fn rows(&self) -> [(&'static str, f64); 6] {
        [
            ("user space", self.user),
            ("page tables", self.page_tables),
            ("socket", self.socket),
            ("wait", self.wait),
            ("descriptor node", self.descriptor_node),
            ("descriptor slot (computed)", self.descriptor_slot),
        ]
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "server memory per connection, {} connections ({} descriptors)\n",
            self.connections, self.server_descriptors
        );
        for (name, bytes) in self.rows() {
            table += &format!("  {name:<28}{bytes:>9.1} B\n");
        }
        table += &match self.total {
            Some(total) => format!("  {:<28}{total:>9.1} B\n", "total, all in"),
            None => "  no total: the kernel's slabs cannot be read, or did not grow by two \
                     sockets per connection (is the server on this machine?)\n"
                .to_owned(),
        };
        table + &format!("  fixed, all connections: {} KiB\n", self.server_fixed_bytes / 1024)
    }
}

/// Splits what grew into the server's part and what is not charged to it.
fn charges(
    before: &Slabs,
    full: &Slabs,
    conns: u64,
    direct: DirectEnds,
) -> (Vec<Charge>, Vec<Charge>) {
    let grew = |directory: &str, cache: &Cache| {
        let earlier = before.0.get(directory).map_or(0, |cache| cache.objects);
        cache.objects as i64 - earlier as i64
    };
    let procfs = full.0.iter().find(|(_, cache)| cache.is("proc_inode_cache"));
    let procfs = procfs.map_or(0, |(directory, cache)| grew(directory, cache));
    let mut charged = Vec::new();
    let mut not_charged = Vec::new();
    for (directory, cache) in &full.0 {
        let grew_objects = grew(directory, cache);
        let shared = PROCFS_CACHES.iter().any(|name| cache.is(name));
        let ours = if shared { grew_objects - procfs } else { grew_objects };
        let (part, server_objects) = server_objects(cache, ours, conns, direct);
        let charge = Charge {
            cache: if cache.names.is_empty() { directory.clone() } else { cache.names.join("+") },
            grew_objects,
            bytes_each: cache.bytes_each,
            server_objects: server_objects / conns.max(1) as f64,
            server_bytes: server_objects * cache.bytes_each / conns.max(1) as f64,
            part,
        };
        if server_objects > 0.0 {
            charged.push(charge);
        } else if grew_objects.unsigned_abs() * 2 >= conns {
            not_charged.push(charge);
        }
    }
    (charged, not_charged)
}

/// How many of a cache's new objects are the server's.
fn server_objects(cache: &Cache, grew: i64, conns: u64, direct: DirectEnds) -> (Part, f64) {
    let half = grew as f64 / 2.0;
    if SOCKET_CACHES.iter().any(|name| cache.is(name)) {
        return (Part::Socket, if about(grew, 2 * conns) { half } else { 0.0 });
    }
    if cache.is("io_kiocb") {
        return (Part::Wait, if about(grew, 2 * conns) { half } else { 0.0 });
    }
    if NODE_CACHES.iter().any(|name| cache.is(name)) {
        let objects = match direct {
            DirectEnds { client: true, server: true } if about(grew, 2 * conns) => half,
            DirectEnds { client: false, server: true } if about(grew, conns) => grew as f64,
            _ => 0.0,
        };
        return (Part::DescriptorNode, objects);
    }
    (Part::Other, 0.0)
}

/// Whether `grew` is what the connections explain: within a tenth, and a few slabs.
fn about(grew: i64, expected: u64) -> bool {
    (grew - expected as i64).unsigned_abs() <= expected / 10 + SLACK_OBJECTS
}

/// What one end of an established TCP connection consists of. The security modules' two are
/// missing where none is active.
const SOCKET_CACHES: [&str; 7] =
    ["TCP", "TCPv6", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// What each inode of procfs has one of, as a socket has.
const PROCFS_CACHES: [&str; 2] = ["dentry", "lsm_inode_cache"];

/// Where the 24 bytes of a direct descriptor's node are, accounted to a control group or not.
const NODE_CACHES: [&str; 2] = ["kmalloc-32", "kmalloc-cg-32"];

/// Slabs that processors are allocating from count as full.
const SLACK_OBJECTS: u64 = 64;

/// One pointer, in the process's table or the ring's.
const DESCRIPTOR_SLOT_BYTES: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    const CONNS: u64 = 10_000;

    fn cache(names: &[&str], objects: u64, bytes_each: f64) -> (String, Cache) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        (names[0].clone(), Cache { names, objects, bytes_each })
    }

    /// What a 6.18 kernel holds for so many sockets, polls and nodes.
    fn slabs(sockets: u64, polls: u64, nodes: u64, ports: u64) -> Slabs {
        let caches = [
            cache(&["TCP"], 26 + sockets, 2520.0),
            cache(&["sock_inode_cache"], 30 + sockets, 862.0),
            cache(&["filp"], 400 + sockets, 193.0),
            cache(&["dentry"], 9_000 + sockets, 195.0),
            cache(&["btrfs_delayed_extent_op", "lsm_inode_cache"], 100 + sockets, 32.0),
            cache(&["fsnotify_mark_connector", "lsm_file_cache"], 100 + sockets, 24.0),
            cache(&["io_kiocb"], polls, 256.0),
            cache(&["kmalloc-32"], 5_000 + nodes, 32.0),
            cache(&["eventpoll_epi", "tcp_bind2_bucket", "tcp_bind_bucket"], 2 * ports, 128.0),
        ];
        Slabs(caches.into_iter().collect())
    }

    fn reading(pss_bytes: u64, slabs: Slabs) -> Reading {
        let server = ProcessMemory { pss_bytes, page_table_bytes: 81920, descriptor_slots: 64 };
        Reading { server, slabs: Some(slabs), sockstat: BTreeMap::new() }
    }

    #[test]
    fn half_of_what_two_ends_hold_is_the_servers() {
        // Shows the sum for both ends on direct descriptors, and that bind buckets are not in it.
        let before = reading(4_000_000, slabs(0, 0, 0, 0));
        let full = reading(4_900_000, slabs(2 * CONNS, 2 * CONNS, 2 * CONNS, CONNS));
        let direct = DirectEnds { client: true, server: true };
        let memory = Memory::between(&before, &full, CONNS, direct);
        assert_eq!(memory.user, 90.0);
        assert_eq!(memory.socket, 2520.0 + 862.0 + 193.0 + 195.0 + 32.0 + 24.0);
        assert_eq!((memory.wait, memory.descriptor_node), (256.0, 32.0));
        assert_eq!(memory.total, Some(90.0 + 3826.0 + 256.0 + 32.0 + 8.0));
        assert_eq!(memory.server_fixed_bytes, 4_000_000);
        let left: Vec<_> = memory.not_charged.iter().map(|charge| &charge.cache[..]).collect();
        assert_eq!(left, ["eventpoll_epi+tcp_bind2_bucket+tcp_bind_bucket"]);
    }

    #[test]
    fn nodes_belong_to_the_end_that_uses_them() {
        // Shows that a server on normal descriptors pays for none of our nodes, and a server on
        // direct ones for all of them when we use none.
        let before = reading(0, slabs(0, 0, 0, 0));
        let full = reading(0, slabs(2 * CONNS, 2 * CONNS, CONNS, CONNS));
        for (client, server, node) in [(true, false, 0.0), (false, true, 32.0)] {
            let direct = DirectEnds { client, server };
            let memory = Memory::between(&before, &full, CONNS, direct);
            assert_eq!(memory.descriptor_node, node);
        }
    }

    #[test]
    fn growth_that_connections_do_not_explain_is_not_charged() {
        // Shows that a cache which another program fills is listed and not charged, and that
        // polls of one end only are ours.
        let before = reading(0, slabs(0, 0, 0, 0));
        let mut after = slabs(2 * CONNS, CONNS, 0, CONNS);
        after.0.get_mut("dentry").unwrap().objects += 3 * CONNS;
        let direct = DirectEnds { client: false, server: false };
        let memory = Memory::between(&before, &reading(0, after), CONNS, direct);
        assert_eq!(memory.socket, 3826.0 - 195.0);
        assert_eq!(memory.wait, 0.0);
        let left: Vec<_> = memory.not_charged.iter().map(|charge| &charge.cache[..]).collect();
        assert!(left.contains(&"dentry") && left.contains(&"io_kiocb"), "{left:?}");
    }

    #[test]
    fn a_monitor_that_lists_descriptors_is_taken_off() {
        // Shows that the procfs inodes' dentries and blobs are not taken for the sockets'.
        let mut before = slabs(0, 0, 0, 0);
        let mut after = slabs(2 * CONNS, 2 * CONNS, 0, CONNS);
        let (name, inodes) = cache(&["proc_inode_cache"], 100, 712.0);
        before.0.insert(name.clone(), inodes.clone());
        after.0.insert(name, Cache { objects: 100 + 2 * CONNS, ..inodes });
        for name in ["dentry", "btrfs_delayed_extent_op"] {
            after.0.get_mut(name).unwrap().objects += 2 * CONNS;
        }
        let direct = DirectEnds { client: false, server: false };
        let memory = Memory::between(&reading(0, before), &reading(0, after), CONNS, direct);
        assert_eq!(memory.socket, 3826.0);
        assert!(memory.not_charged.iter().any(|charge| charge.cache == "proc_inode_cache"));
    }

    #[test]
    fn a_remote_server_gets_no_total() {
        // Shows that half of one end is never taken for a whole one.
        let before = reading(0, slabs(0, 0, 0, 0));
        let full = reading(0, slabs(CONNS, CONNS, 0, CONNS));
        let direct = DirectEnds { client: false, server: false };
        let memory = Memory::between(&before, &full, CONNS, direct);
        assert_eq!(memory.total, None);
        assert!(memory.table().contains("no total"));
    }

    #[test]
    #[ignore = "counts every socket of the machine: run it by name while nothing else opens any"]
    fn attribution_agrees_with_single_sockets() {
        // Shows that the half charged to an accepted socket is, within 5 %, what a socket without
        // another end costs.
        use std::net::{TcpListener, TcpStream};
        const PAIRS: u64 = 5_000;
        let root = std::path::Path::new("/sys/kernel/slab");
        let read = || {
            // Inodes and files are freed a grace period after they are closed.
            std::thread::sleep(std::time::Duration::from_secs(1));
            Slabs::read(root).expect("/sys/kernel/slab is readable by root")
        };

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let before = read();
        let pairs: Vec<_> = (0..PAIRS)
            .map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap()))
            .collect();
        let full = read();
        let normal = DirectEnds { client: false, server: false };
        let (charged, _) = charges(&before, &full, PAIRS, normal);
        let attributed: f64 = charged.iter().map(|charge| charge.server_bytes).sum();
        drop(pairs);

        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let before = read();
        let single: Vec<_> = (0..2 * PAIRS)
            .map(|_| {
                socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap()
            })
            .collect();
        let full = read();
        let (charged, _) = charges(&before, &full, PAIRS, normal);
        let alone: f64 = charged.iter().map(|charge| charge.server_bytes).sum();
        drop(single);

        eprintln!("attributed {attributed:.0} B, one socket alone {alone:.0} B");
        assert!(alone > 2_000.0, "the slabs did not grow by the sockets: {alone:.0} B");
        assert!((attributed / alone - 1.0).abs() < 0.05, "{attributed:.0} B and {alone:.0} B");
    }
}
