//! The memory section of a record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a connection costs the server. Bytes are per connection unless the name says otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Connections that the growth was divided by.
    pub connections: u64,
    /// Growth of the server's PSS.
    pub user: f64,
    /// Growth of the server's page tables.
    pub page_tables: f64,
    /// Slab objects of the accepted socket.
    pub socket: f64,
    /// Slab objects that wait for input: an armed poll, or an entry in epoll.
    pub wait: f64,
    /// The node of a direct descriptor.
    pub descriptor_node: f64,
    /// The slot in a table of descriptors, by computation.
    pub descriptor_slot: f64,
    /// Data in flight or unread, of all ends on the machine. Not part of the total.
    pub packet_buffers: f64,
    /// The server's side, all in. `None` where the slabs cannot be read or do not add up.
    pub total: Option<f64>,
    /// `normal` or `direct`.
    pub server_descriptors: String,
    /// The server's PSS before the first connection, in bytes.
    pub server_fixed_bytes: u64,
    /// The server before the first connection.
    pub server_before: ProcessMemory,
    /// The server with all connections.
    pub server_full: ProcessMemory,
    /// Slab caches whose growth is charged to the server.
    pub charged: Vec<CacheCharge>,
    /// Slab caches that grew by half an object per connection or more and are charged to nobody.
    pub not_charged: Vec<CacheCharge>,
    /// Why there is no total, if the slabs could be read.
    pub disturbed: Vec<String>,
    /// The TCP line of `/proc/net/sockstat` before the first connection.
    pub sockstat_before: BTreeMap<String, u64>,
    /// The same with all connections.
    pub sockstat_full: BTreeMap<String, u64>,
}

/// One process's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// The proportional set size.
    pub pss_bytes: u64,
    /// `VmPTE`.
    pub page_table_bytes: u64,
    /// Slots of the descriptor table; fewer than connections means direct descriptors.
    pub descriptor_slots: u64,
    /// What the rings share with the process.
    pub ring_bytes: u64,
    /// Threads that our server names shards. `None` of other servers.
    #[serde(default)]
    pub shards: Option<u64>,
}

/// What one slab cache adds to the server's side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheCharge {
    /// The names of the cache.
    pub cache: String,
    /// Objects more than before the first connection, of the whole machine.
    pub grew_objects: i64,
    /// An object's share of its slab's pages.
    pub bytes_each: f64,
    /// The server's objects per connection.
    pub server_objects: f64,
    /// The server's bytes per connection.
    pub server_bytes: f64,
}

/// An accepted TCP socket without a program behind it, measured on kernel 6.18.
pub const SOCKET_BYTES: f64 = 3_830.0;
