//! Whose the objects in the kernel's slab caches are, when both ends of every connection are on one
//! machine. The method and its error are in [`memory`](crate::memory).

use serde::Serialize;

use crate::slab::{Cache, Slabs};

/// Which ends hold their sockets by direct descriptors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct DirectEnds {
    pub(crate) client: bool,
    pub(crate) server: bool,
}

/// What one cache adds to the server's side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Charge {
    pub(crate) cache: String,
    grew_objects: i64,
    bytes_each: f64,
    /// The server's objects per connection.
    server_objects: f64,
    pub(crate) server_bytes: f64,
    #[serde(skip)]
    pub(crate) part: Part,
}

/// What an object is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Part {
    Socket,
    Wait,
    DescriptorNode,
    Other,
}

/// What grew, split.
#[derive(Default)]
pub(crate) struct Bill {
    pub(crate) charged: Vec<Charge>,
    pub(crate) not_charged: Vec<Charge>,
    pub(crate) disturbed: Vec<String>,
}

/// Splits what grew into the server's part and what is not charged to it.
pub(crate) fn bill(before: &Slabs, full: &Slabs, conns: u64, direct: DirectEnds) -> Bill {
    let grew = |directory: &str, cache: &Cache| {
        let earlier = before.0.get(directory).map_or(0, |cache| cache.objects);
        cache.objects as i64 - earlier as i64
    };
    let growth_of = |name: &str| {
        let found = full.0.iter().find(|(_, cache)| cache.is(name));
        found.map_or(0, |(directory, cache)| grew(directory, cache))
    };
    let procfs = growth_of("proc_inode_cache");
    // Our own end never waits in epoll.
    let epoll = growth_of("eventpoll_pwq") * 4 >= conns as i64 * 3;
    let setting = Setting { conns, direct, epoll };
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
        let charge = Charge {
            cache: name,
            grew_objects,
            bytes_each: cache.bytes_each,
            server_objects: objects / conns.max(1) as f64,
            server_bytes: objects * cache.bytes_each / conns.max(1) as f64,
            part,
        };
        if objects > 0.0 {
            bill.charged.push(charge);
        } else if grew_objects.unsigned_abs() * 2 >= conns {
            bill.not_charged.push(charge);
        }
    }
    bill
}

/// What is known of the two ends.
struct Setting {
    conns: u64,
    direct: DirectEnds,
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
        let (one_end, both_ends) = (growth(self.conns), growth(2 * self.conns));
        let one_each = self.conns as f64;
        let half = grew as f64 / 2.0;
        if is_one_of(&SOCKET_CACHES) {
            return match both_ends {
                Nothing => Ok((Part::Socket, 0.0)),
                AsExpected => Ok((Part::Socket, half.min(one_each))),
                More if is_one_of(&SHARED_CACHES) => Ok((Part::Socket, one_each)),
                Less | More => Err(format!(
                    "two per connection are {}; is the server on this machine, and did other \
                     programs open or close sockets meanwhile?",
                    2 * self.conns
                )),
            };
        }
        if cache.is("io_kiocb") {
            return match (one_end, both_ends) {
                (_, AsExpected) => Ok((Part::Wait, half)),
                (Nothing, _) => Ok((Part::Wait, 0.0)),
                (AsExpected, _) if self.epoll => Ok((Part::Wait, 0.0)),
                _ => Err("not one armed poll on each end; a ring keeps those of earlier \
                          connections: measure a server that has just been started"
                    .to_owned()),
            };
        }
        if is_one_of(&EPOLL_CACHES) {
            let charged = self.epoll && matches!(one_end, AsExpected | More);
            return Ok((Part::Wait, if charged { one_each } else { 0.0 }));
        }
        if is_one_of(&NODE_CACHES) {
            let objects = match (self.direct.client, self.direct.server) {
                (true, true) if matches!(both_ends, AsExpected | More) => half.min(one_each),
                (false, true) if matches!(one_end, AsExpected | More) => one_each,
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

/// What one end of an established TCP connection consists of. The security modules' two are
/// missing where none is active.
const SOCKET_CACHES: [&str; 7] =
    ["TCP", "TCPv6", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// Those of them that other programs fill without sockets.
const SHARED_CACHES: [&str; 4] = ["filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// What each inode of procfs has one of, as a socket has.
const PROCFS_CACHES: [&str; 2] = ["dentry", "lsm_inode_cache"];

/// What an entry in epoll consists of.
const EPOLL_CACHES: [&str; 3] = ["eventpoll_epi", "eventpoll_pwq", "ep_head"];

/// Where the 24 bytes of a direct descriptor's node are, accounted to a control group or not.
const NODE_CACHES: [&str; 2] = ["kmalloc-32", "kmalloc-cg-32"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "counts every socket of the machine: run it by name while nothing else opens any"]
    fn agrees_with_single_sockets() {
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
        let Bill { charged, disturbed, .. } = bill(&before, &full, PAIRS, normal);
        assert_eq!(disturbed, Vec::<String>::new());
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
        let Bill { charged, disturbed, .. } = bill(&before, &full, PAIRS, normal);
        assert_eq!(disturbed, Vec::<String>::new());
        let alone: f64 = charged.iter().map(|charge| charge.server_bytes).sum();
        drop(single);

        eprintln!("attributed {attributed:.0} B, one socket alone {alone:.0} B");
        assert!(alone > 2_000.0, "the slabs did not grow by the sockets: {alone:.0} B");
        assert!((attributed / alone - 1.0).abs() < 0.05, "{attributed:.0} B and {alone:.0} B");
    }
}
