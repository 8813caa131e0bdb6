//! Whose the objects in the kernel's slab caches are, when both ends of every connection are on one
//! machine, or only the server's. The method and its error are in `memory.rs`.

use murre_core::host::Descriptors::{self, Direct, Normal};
use murre_record::CacheCharge;

use crate::measure::slab::{Cache, Slabs};

/// Which ends of the connections are on this machine, and how they hold their sockets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ends {
    /// `None`: the clients are on other machines.
    pub(crate) client: Option<Descriptors>,
    /// The clients wait in epoll.
    pub(crate) client_in_epoll: bool,
    pub(crate) server: Descriptors,
}

impl Ends {
    /// How many of the two are here.
    fn count(self) -> u64 {
        1 + u64::from(self.client.is_some())
    }
}

/// The purpose of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    Socket,
    Wait,
    DescriptorNode,
    Other,
}

/// The growth of all caches, split.
#[derive(Default)]
pub(crate) struct Bill {
    /// With what the objects are for.
    pub(crate) charged: Vec<(Part, CacheCharge)>,
    pub(crate) not_charged: Vec<CacheCharge>,
    pub(crate) disturbed: Vec<String>,
}

/// Splits the growth into the server's part and the rest.
pub(crate) fn bill(before: &Slabs, full: &Slabs, conns: u64, ends: Ends) -> Bill {
    let grew = |directory: &str, cache: &Cache| {
        let earlier = before.0.get(directory).map_or(0, |cache| cache.objects);
        cache.objects as i64 - earlier as i64
    };
    let growth_of = |name: &str| {
        let found = full.0.iter().find(|(_, cache)| cache.is(name));
        found.map_or(0, |(directory, cache)| grew(directory, cache))
    };
    let procfs = growth_of("proc_inode_cache");
    let clients_entries = if ends.client_in_epoll { conns as i64 } else { 0 };
    let epoll = (growth_of("eventpoll_pwq") - clients_entries) * 4 >= conns as i64 * 3;
    let setting = Setting { conns, ends, epoll };
    let mut bill = Bill::default();
    for (directory, cache) in &full.0 {
        let name = if cache.names.is_empty() { directory.clone() } else { cache.names.join("+") };
        let grew_objects = grew(directory, cache);
        let shared = PROCFS_CACHES.iter().any(|name| cache.is(name));
        let ours = if shared { grew_objects - procfs } else { grew_objects };
        let (part, objects) = setting.server_objects(cache, ours).unwrap_or_else(|why| {
            bill.disturbed.push(format!("{name} grew by {ours} objects: {why}"));
            (Part::Other, 0.0)
        });
        let charge = CacheCharge {
            cache: name,
            grew_objects,
            bytes_each: cache.bytes_each,
            server_objects: objects / conns.max(1) as f64,
            server_bytes: objects * cache.bytes_each / conns.max(1) as f64,
        };
        if objects > 0.0 {
            bill.charged.push((part, charge));
        } else if grew_objects.unsigned_abs() * 2 >= conns {
            bill.not_charged.push(charge);
        }
    }
    bill
}

/// Facts about the ends.
struct Setting {
    conns: u64,
    ends: Ends,
    /// The server waits in epoll.
    epoll: bool,
}

impl Setting {
    /// How many of a cache's new objects are the server's, and what for; or why the number makes
    /// no sense.
    fn server_objects(&self, cache: &Cache, grew: i64) -> Result<(Part, f64), String> {
        use Growth::{AsExpected, Less, More, Nothing};
        let is_one_of = |names: &[&str]| names.iter().any(|name| cache.is(name));
        let growth = |expected| Growth::of(grew, expected, cache.slack_objects);
        let ends = self.ends.count();
        let (one_end, all_ends) = (growth(self.conns), growth(ends * self.conns));
        let one_each = self.conns as f64;
        let share = grew as f64 / ends as f64;
        if is_one_of(&SOCKET_CACHES) {
            return match all_ends {
                Nothing => Ok((Part::Socket, 0.0)),
                AsExpected => Ok((Part::Socket, share.min(one_each))),
                More if is_one_of(&SHARED_CACHES) => Ok((Part::Socket, one_each)),
                Less | More => Err(format!(
                    "{ends} per connection are {}; which ends are on this machine, and did other \
                     programs open or close sockets meanwhile?",
                    ends * self.conns
                )),
            };
        }
        if cache.is("io_kiocb") {
            return match (one_end, all_ends) {
                // The client's, if there are any.
                (AsExpected, _) if self.epoll => Ok((Part::Wait, 0.0)),
                (AsExpected, _) if self.ends.client_in_epoll => Ok((Part::Wait, one_each)),
                (_, AsExpected) => Ok((Part::Wait, share)),
                (Nothing, _) => Ok((Part::Wait, 0.0)),
                _ => Err("not one armed poll on each end; a ring keeps those of earlier \
                          connections: measure a server that has just been started"
                    .to_owned()),
            };
        }
        if is_one_of(&EPOLL_CACHES) {
            let entries = if self.ends.client_in_epoll { all_ends } else { one_end };
            let charged = self.epoll && matches!(entries, AsExpected | More);
            return Ok((Part::Wait, if charged { one_each } else { 0.0 }));
        }
        if is_one_of(&NODE_CACHES) {
            let objects = match (self.ends.client, self.ends.server) {
                (Some(Direct), Direct) if matches!(all_ends, AsExpected | More) => {
                    share.min(one_each)
                }
                (None | Some(Normal), Direct) if matches!(one_end, AsExpected | More) => one_each,
                _ => 0.0,
            };
            return Ok((Part::DescriptorNode, objects));
        }
        Ok((Part::Other, 0.0))
    }
}

/// How the growth of a cache compares with what the connections explain.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Growth {
    /// So little that the connections are not in this cache.
    Nothing,
    Less,
    AsExpected,
    More,
}

impl Growth {
    fn of(grew: i64, expected: u64, slack: u64) -> Growth {
        let margin = (expected * 3 / 100 + slack) as i64;
        match grew - expected as i64 {
            _ if grew * 4 < expected as i64 => Growth::Nothing,
            more if more > margin => Growth::More,
            less if less < -margin => Growth::Less,
            _ => Growth::AsExpected,
        }
    }
}

/// Objects of one end of an established TCP connection. The security modules' two are
/// missing where none is active.
const SOCKET_CACHES: [&str; 7] =
    ["TCP", "TCPv6", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// Of these, caches that other programs fill without sockets.
const SHARED_CACHES: [&str; 4] = ["filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// Objects that each inode of procfs has, as a socket has.
const PROCFS_CACHES: [&str; 2] = ["dentry", "lsm_inode_cache"];

/// Objects of an entry in epoll.
const EPOLL_CACHES: [&str; 3] = ["eventpoll_epi", "eventpoll_pwq", "ep_head"];

/// Where the 24 bytes of a direct descriptor's node are, accounted to a control group or not.
const NODE_CACHES: [&str; 2] = ["kmalloc-32", "kmalloc-cg-32"];
