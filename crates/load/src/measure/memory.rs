//! The cost of a connection to the server, all in, with the clients on the same machine or elsewhere.
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
//!   needs half is the server's, and half of `io_kiocb`, which holds one armed poll on each end.
//!   If `eventpoll_pwq` grew, by more than our end does where it is told to wait in epoll, the server
//!   waits there, and its three objects are charged in place of the poll. Where the clients are on other machines, all is the
//!   server's. `kmalloc-32` holds one node per direct descriptor: it
//!   belongs to the ends that use them. Bind buckets exist on the connecting end only and are left
//!   out.
//! - *Descriptor tables* are not in slabs: 8 bytes a slot, on either kind, by computation.
//! - *Packet buffers*: growth of `mem` in `/proc/net/sockstat`, in pages, of all ends that are
//!   here. Apart from the total: idle connections have none, and what there is belongs to traffic.
//! - *Fixed*: the PSS before the first connection, arena and stacks included, and what the rings
//!   have mapped, from `/proc/PID/maps`.
//! - *Monitors*: a program that lists `/proc/PID/fd` makes a procfs inode, a dentry and a security
//!   blob for each descriptor it sees. As many as `proc_inode_cache` grew by are taken off those.
//!
//! **Error.** The slabs that a processor is allocating from count as full, so each cache is off by
//! up to three slabs per processor: 78 TCP sockets on two, under half a per cent at 10,000
//! connections and several at 1,000. Sockets that other programs open or close meanwhile would be
//! taken for ours, so a socket cache that is more than 3 % off an object per connection and end is named
//! under `disturbed` and there is no total. Dentries, files and small objects have other users as
//! well: of those, one per connection is charged and what is above it is not. A ring gives no
//! `io_kiocb` back, so a server must be measured when it has just been started. Not counted: the
//! owner pointers that memory control groups keep beside objects (about 8 bytes an object where
//! they are on), packet buffers (none while idle), and the listener. What grew by half an object
//! per connection or more and is not charged is listed under `not_charged`. The check of all
//! this is `murre-load memory --check`, in `memory_check.rs`.

use murre_core::host::Descriptors;
use murre_record::{CacheCharge, Memory, SOCKET_BYTES};

use crate::measure::attribution::{Bill, Ends, Part, bill};
use crate::measure::reading::Reading;

/// What each of `conns` connections costs, from the growth between two readings.
pub(crate) fn between(before: &Reading, full: &Reading, conns: u64, ends: Ends) -> Memory {
    let per_conn = |before: u64, full: u64| (full as f64 - before as f64) / conns.max(1) as f64;
    let Bill { charged, not_charged, disturbed } = match (&before.slabs, &full.slabs) {
        (Some(before), Some(full)) => bill(before, full, conns, ends),
        _ => Bill::default(),
    };
    let part = |part: Part| -> f64 {
        let charges = charged.iter().filter(|(of, _)| *of == part);
        charges.fold(0.0, |sum, (_, charge)| sum + charge.server_bytes)
    };
    let mut memory = Memory {
        connections: conns,
        user: per_conn(before.server.pss_bytes, full.server.pss_bytes),
        page_tables: per_conn(before.server.page_table_bytes, full.server.page_table_bytes),
        socket: part(Part::Socket),
        wait: part(Part::Wait),
        descriptor_node: part(Part::DescriptorNode),
        descriptor_slot: DESCRIPTOR_SLOT_BYTES,
        packet_buffers: per_conn(before.packet_buffer_bytes(), full.packet_buffer_bytes()),
        total: None,
        server_descriptors: ends.server.name().to_owned(),
        server_fixed_bytes: before.server.pss_bytes,
        server_before: before.server,
        server_full: full.server,
        charged: charged.into_iter().map(|(_, charge)| charge).collect(),
        not_charged,
        disturbed,
        sockstat_before: before.sockstat.clone(),
        sockstat_full: full.sockstat.clone(),
    };
    let whole = memory.socket > 0.0 && memory.disturbed.is_empty();
    memory.total = whole.then(|| rows(&memory).iter().map(|(_, bytes)| bytes).sum());
    memory
}

fn rows(memory: &Memory) -> [(&'static str, f64); 6] {
    [
        ("user space", memory.user),
        ("page tables", memory.page_tables),
        ("socket", memory.socket),
        ("wait", memory.wait),
        ("descriptor node", memory.descriptor_node),
        ("descriptor slot (computed)", memory.descriptor_slot),
    ]
}

/// The table for people.
pub(crate) fn table(memory: &Memory) -> String {
    let mut table = format!(
        "server memory per connection, {} connections ({} descriptors)\n",
        memory.connections, memory.server_descriptors
    );
    for (name, bytes) in rows(memory) {
        table += &format!("  {name:<28}{bytes:>9.1} B\n");
    }
    table += &match memory.total {
        Some(total) => {
            let above = total - floor(memory);
            format!(
                "  {:<28}{total:>9.1} B\n  {:<28}{above:>9.1} B\n",
                "total, all in", "above a bare socket and wait"
            )
        }
        None if memory.disturbed.is_empty() => {
            "  no total: the kernel's slabs cannot be read\n".to_owned()
        }
        None => format!("  no total: {}\n", memory.disturbed.join("; ")),
    };
    let kib = |bytes: u64| bytes / 1024;
    table
        + &format!(
            "  packet buffers, not in total{:>9.1} B\n  fixed, all connections: {} KiB, rings \
             mapped: {} KiB\n",
            memory.packet_buffers,
            kib(memory.server_fixed_bytes),
            kib(memory.server_full.ring_bytes)
        )
}

/// The kernel's part, cache by cache.
pub(crate) fn caches(memory: &Memory) -> String {
    let mut caches = "slab caches, objects per connection and bytes of one\n".to_owned();
    for (charges, note) in [(&memory.charged, ""), (&memory.not_charged, "  not charged")] {
        for charge in charges {
            let objects = match charge.server_objects {
                0.0 => charge.grew_objects as f64 / memory.connections.max(1) as f64,
                objects => objects,
            };
            let CacheCharge { bytes_each, cache, .. } = charge;
            caches += &format!("  {objects:>6.3} x {bytes_each:>7.1} B  {cache}{note}\n");
        }
    }
    caches
}

/// The least that the kernel takes for a connection that waits for input.
fn floor(memory: &Memory) -> f64 {
    let descriptor = if memory.server_descriptors == Descriptors::Direct.name() {
        DIRECT_DESCRIPTOR_BYTES
    } else {
        0.0
    };
    SOCKET_BYTES + WAIT_BYTES + descriptor
}

/// An armed poll.
const WAIT_BYTES: f64 = 256.0;

/// A direct descriptor's node and slot.
const DIRECT_DESCRIPTOR_BYTES: f64 = 40.0;

/// One pointer, in the process's table or the ring's.
const DESCRIPTOR_SLOT_BYTES: f64 = 8.0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use murre_core::host::Descriptors::{Direct, Normal};

    use murre_record::ProcessMemory;

    use super::*;
    use crate::measure::slab::{Cache, Slabs};

    const CONNS: u64 = 10_000;
    const NORMAL: Ends = Ends { client: Some(Normal), client_in_epoll: false, server: Normal };

    fn cache(names: &[&str], objects: u64, bytes_each: f64) -> (String, Cache) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        (names[0].clone(), Cache { names, objects, bytes_each, slack_objects: 64 })
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
        let server = ProcessMemory {
            pss_bytes,
            page_table_bytes: 81920,
            descriptor_slots: 64,
            ring_bytes: 0,
            shards: None,
        };
        Reading { server, slabs: Some(slabs), sockstat: BTreeMap::new() }
    }

    /// The cost of a connection once `full` is reached from empty caches.
    fn cost(full: Slabs, ends: Ends) -> Memory {
        between(&reading(0, slabs(0, 0, 0, 0)), &reading(0, full), CONNS, ends)
    }

    /// Shows the sum for both ends on direct descriptors, and that bind buckets are not in it.
    #[test]
    fn half_of_what_two_ends_hold_is_the_servers() {
        let before = reading(4_000_000, slabs(0, 0, 0, 0));
        let full = reading(4_900_000, slabs(2 * CONNS, 2 * CONNS, 2 * CONNS, CONNS));
        let ends = Ends { client: Some(Direct), server: Direct, ..NORMAL };
        let memory = between(&before, &full, CONNS, ends);
        assert_eq!(memory.user, 90.0);
        assert_eq!(memory.socket, 2520.0 + 862.0 + 193.0 + 195.0 + 32.0 + 24.0);
        assert_eq!((memory.wait, memory.descriptor_node), (256.0, 32.0));
        assert_eq!(memory.total, Some(90.0 + 3826.0 + 256.0 + 32.0 + 8.0));
        assert_eq!(memory.server_fixed_bytes, 4_000_000);
        let left: Vec<_> = memory.not_charged.iter().map(|charge| &charge.cache[..]).collect();
        assert_eq!(left, ["eventpoll_epi+tcp_bind2_bucket+tcp_bind_bucket"]);
    }

    /// Shows that a server on normal descriptors pays for none of our nodes, and a server on
    /// direct ones for all of them when we use none.
    #[test]
    fn nodes_belong_to_the_end_that_uses_them() {
        let full = slabs(2 * CONNS, 2 * CONNS, CONNS, CONNS);
        for (client, server, node) in [(Direct, Normal, 0.0), (Normal, Direct, 32.0)] {
            let ends = Ends { client: Some(client), server, ..NORMAL };
            assert_eq!(cost(full.clone(), ends).descriptor_node, node);
        }
    }

    /// Shows that of a cache with other users one object per connection is charged.
    #[test]
    fn other_programs_growth_is_not_charged() {
        let mut full = slabs(2 * CONNS, 2 * CONNS, 0, CONNS);
        full.0.get_mut("dentry").unwrap().objects += 3 * CONNS;
        let memory = cost(full, NORMAL);
        assert_eq!(memory.socket, 3826.0);
        assert!(memory.total.is_some());
    }

    /// Shows that polls of one end only are ours, that a server in epoll is charged for its
    /// entries and not for our bind buckets beside them, and that without epoll the missing
    /// polls are an error.
    #[test]
    fn a_server_in_epoll_pays_for_its_entries() {
        let mut full = slabs(2 * CONNS, CONNS, 0, CONNS);
        let memory = cost(full.clone(), NORMAL);
        assert_eq!(memory.total, None);
        assert!(table(&memory).contains("just been started"), "{}", table(&memory));

        full.0.get_mut("eventpoll_epi").unwrap().objects += CONNS;
        full.0.extend([cache(&["eventpoll_pwq"], CONNS, 64.0), cache(&["ep_head"], CONNS, 16.0)]);
        let memory = cost(full, NORMAL);
        assert_eq!(memory.wait, 128.0 + 64.0 + 16.0);
        assert_eq!(memory.total, Some(3826.0 + 208.0 + 8.0));
    }

    /// Shows that of entries of both ends one each is the server's, and none if it has a ring.
    #[test]
    fn a_server_pays_for_its_own_wait_beside_clients_in_epoll() {
        let ends = Ends { client_in_epoll: true, ..NORMAL };
        for (entries, polls, wait) in [(2 * CONNS, 0, 128.0 + 64.0 + 16.0), (CONNS, CONNS, 256.0)] {
            let mut full = slabs(2 * CONNS, polls, 0, CONNS);
            full.0.get_mut("eventpoll_epi").unwrap().objects += entries;
            let entry = [("eventpoll_pwq", 64.0), ("ep_head", 16.0)];
            full.0.extend(entry.map(|(name, bytes)| cache(&[name], entries, bytes)));
            let memory = cost(full, ends);
            assert_eq!(memory.wait, wait);
            assert_eq!(memory.total, Some(3826.0 + wait + 8.0));
        }
    }

    /// Shows that there is no total when sockets beside ours came or went, by more than 3 %.
    #[test]
    fn other_programs_sockets_are_noticed() {
        let total = |others: u64, full: u64| {
            let before = reading(0, slabs(others, 0, 0, 0));
            let full = reading(0, slabs(full, 2 * CONNS, 0, CONNS));
            between(&before, &full, CONNS, NORMAL).total
        };
        assert!(total(0, 2 * CONNS).is_some());
        assert!(total(500, 2 * CONNS).is_some());
        assert_eq!(total(2_000, 2 * CONNS), None);
        assert_eq!(total(0, 2 * CONNS + 2_000), None);
    }

    /// Shows that the procfs inodes' dentries and blobs are not taken for the sockets'.
    #[test]
    fn a_monitor_that_lists_descriptors_is_taken_off() {
        let mut before = slabs(0, 0, 0, 0);
        let mut after = slabs(2 * CONNS, 2 * CONNS, 0, CONNS);
        let (name, inodes) = cache(&["proc_inode_cache"], 100, 712.0);
        before.0.insert(name.clone(), inodes.clone());
        after.0.insert(name, Cache { objects: 100 + 2 * CONNS, ..inodes });
        for name in ["dentry", "btrfs_delayed_extent_op"] {
            after.0.get_mut(name).unwrap().objects += 2 * CONNS;
        }
        let memory = between(&reading(0, before), &reading(0, after), CONNS, NORMAL);
        assert_eq!(memory.socket, 3826.0);
        assert!(memory.not_charged.iter().any(|charge| charge.cache == "proc_inode_cache"));
    }

    /// Shows that with one end here the whole growth is the server's, and how far that is
    /// above the floor.
    #[test]
    fn clients_elsewhere_leave_all_to_the_server() {
        let before = reading(0, slabs(0, 0, 0, 0));
        let full = reading(900_000, slabs(CONNS, CONNS, CONNS, 0));
        let ends = Ends { client: None, server: Direct, ..NORMAL };
        let memory = between(&before, &full, CONNS, ends);
        assert_eq!((memory.socket, memory.wait, memory.descriptor_node), (3826.0, 256.0, 32.0));
        assert_eq!(memory.total, Some(90.0 + 3826.0 + 256.0 + 32.0 + 8.0));
        assert_eq!(floor(&memory), 3830.0 + 256.0 + 40.0);
        assert!(table(&memory).contains("above a bare socket and wait"), "{}", table(&memory));
    }

    /// Shows that half of one end is never taken for a whole one.
    #[test]
    fn a_remote_server_gets_no_total() {
        let memory = cost(slabs(CONNS, CONNS, 0, CONNS), NORMAL);
        assert_eq!(memory.total, None);
        assert!(table(&memory).contains("no total"));
    }
}
