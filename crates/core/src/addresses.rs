//! How many connections each address has and how fast it opens new ones, over all shards: in memory
//! that has the same bound however many addresses there are.
//!
//! Addresses are counted in two rows of cells, by hash. An address is taken to have what the lower
//! of its two cells says: never less than it has, and more only where it shares both cells with
//! others (a count-min sketch: Cormode and Muthukrishnan, 2005). With n connections open that is n /
//! 65,536 too many on average. The hash has a key of its own in every process, so that nobody can
//! choose addresses that share their cells with somebody else's.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// What one address may have and do; `None` is no limit. An IPv6 address stands for its /64, which
/// is what one host or one household is given (RFC 6177).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections that are served at a time.
    pub conns_max: Option<u32>,
    /// New connections per second, over ten seconds: all of those may come at once.
    pub handshakes_per_second_max: Option<u32>,
}

/// Why a connection of an address is not to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Excess {
    /// It has as many as it may have.
    Connections,
    /// It opens them too fast.
    Handshakes,
    /// It has so many more than it may have, of connections that were refused and are not closed
    /// yet, that it is not even to be told.
    Flood,
}

impl Excess {
    /// All of them, in the order of their numbers.
    pub const ALL: [Excess; 3] = [Excess::Connections, Excess::Handshakes, Excess::Flood];
}

/// The connections of all addresses. Shared by the shards of a server.
#[derive(Debug)]
pub struct Addresses {
    limits: AddressLimits,
    hash: RandomState,
    began: Instant,
    /// Both rows, in pages that take memory when an address is in them first.
    pages: Box<[OnceLock<Box<Page>>; 2 * CELLS / PAGE]>,
}

/// Where the connection of an address is counted; 0: nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(u32);

#[derive(Debug, Default)]
struct Cell {
    /// Connections that are open.
    open: AtomicU32,
    /// Nanoseconds since `Addresses::began`, from which on nothing is owed for those opened.
    paid: AtomicU64,
}

type Page = [Cell; PAGE];

/// Cells of one row: half of a `Place` chooses one.
const CELLS: usize = 1 << 16;
/// Cells of a page: 4 KiB.
const PAGE: usize = 256;
/// The bound of all of it.
const _: () = assert!(2 * CELLS * size_of::<Cell>() == 2 << 20);

/// What has not been opened in this time may be opened at once.
const BURST: u64 = 10 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// Connections beyond the limit that are told so: each has a slot until it is closed.
const REFUSED_MAX: u32 = 16;

impl Place {
    /// A number that all connections of an address share; `None` if they are not counted.
    pub(crate) fn key(self) -> Option<u32> {
        (self.0 != 0).then_some(self.0)
    }
}

impl Default for Addresses {
    /// Without limits.
    fn default() -> Self {
        Addresses::new(AddressLimits::default())
    }
}

impl Addresses {
    /// Nobody is connected yet.
    pub fn new(limits: AddressLimits) -> Self {
        Addresses {
            limits,
            hash: RandomState::new(),
            began: Instant::now(),
            pages: Box::new([const { OnceLock::new() }; 2 * CELLS / PAGE]),
        }
    }

    /// Counts a connection of `ip`, whether it is to be served or not, until it [`leave`]s.
    ///
    /// [`leave`]: Addresses::leave
    pub(crate) fn enter(&self, ip: IpAddr, now: Instant) -> (Place, Result<(), Excess>) {
        let AddressLimits { conns_max, handshakes_per_second_max } = self.limits;
        if conns_max.is_none() && handshakes_per_second_max.is_none() {
            return (Place::default(), Ok(()));
        }
        let place = self.place(ip);
        let counts = self.cells(place).map(|cell| cell.open.fetch_add(1, Ordering::Relaxed) + 1);
        let (open, conns_max) = (counts[0].min(counts[1]), conns_max.unwrap_or(u32::MAX));
        let verdict = if open > conns_max.saturating_add(REFUSED_MAX) {
            Err(Excess::Flood)
        } else if open > conns_max {
            Err(Excess::Connections)
        } else if handshakes_per_second_max.is_some_and(|rate| !self.pay(place, rate, now)) {
            Err(Excess::Handshakes)
        } else {
            Ok(())
        };
        (place, verdict)
    }

    /// The connection is over.
    pub(crate) fn leave(&self, place: Place) {
        if place != Place::default() {
            for cell in self.cells(place) {
                cell.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether an address may open one more. Those that are refused cost nothing: of a crowd that
    /// comes again and again some are always served.
    fn pay(&self, place: Place, per_second: u32, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began).as_nanos() as u64; // For 584 years.
        let cells = self.cells(place);
        let [one, other] = cells.map(|cell| cell.paid.load(Ordering::Relaxed).max(now));
        let paid = one.min(other) + SECOND / u64::from(per_second.max(1));
        if paid > now + BURST {
            return false;
        }
        for cell in cells {
            cell.paid.fetch_max(paid, Ordering::Relaxed);
        }
        true
    }

    fn place(&self, ip: IpAddr) -> Place {
        let hash = match ip.to_canonical() {
            IpAddr::V4(ip) => self.hash.hash_one(ip.octets()),
            IpAddr::V6(ip) => match (ip.segments(), ip.octets()) {
                // The clients of a NAT64 are IPv4 addresses, in one /64 all of them: those of the
                // well-known prefix (RFC 6052 section 2.1), and of the local one, which has them in
                // several places (RFC 8215).
                ([0x64, 0xff9b, 0, 0, 0, 0, ..], octets) => {
                    self.hash.hash_one::<[u8; 4]>(*octets.last_chunk().expect("16 octets"))
                }
                ([0x64, 0xff9b, 1, ..], octets) => self.hash.hash_one(octets),
                (_, octets) => self.hash.hash_one(&octets[..8]),
            },
        };
        Place((hash as u32).max(1))
    }

    fn cells(&self, Place(place): Place) -> [&Cell; 2] {
        let [one, other] = [place as usize % CELLS, CELLS + place as usize / CELLS];
        [one, other].map(|at| {
            let page = self.pages[at / PAGE]
                .get_or_init(|| Box::new([(); PAGE].map(|()| Cell::default())));
            &page[at % PAGE]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limited(conns_max: Option<u32>, handshakes_per_second_max: Option<u32>) -> Addresses {
        Addresses::new(AddressLimits { conns_max, handshakes_per_second_max })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many connections of `ip` are served at `now`, one after the other, up to `tries`.
    fn served(addresses: &Addresses, ip: IpAddr, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| addresses.enter(ip, now).1.is_ok()).count()
    }

    /// So many, then some that are told so, then those that are not; and as many again as leave.
    #[test]
    fn an_address_has_its_connections_and_no_more() {
        let addresses = limited(Some(3), None);
        let (one, now) = (ip("203.0.113.1"), Instant::now());
        let entered: Vec<_> = (0..30).map(|_| addresses.enter(one, now)).collect();
        let verdicts: Vec<_> = entered.iter().map(|&(_, verdict)| verdict).collect();
        let refused = 3 + REFUSED_MAX as usize;
        assert_eq!(verdicts[..3], [Ok(()); 3]);
        assert!(verdicts[3..refused].iter().all(|&verdict| verdict == Err(Excess::Connections)));
        assert!(verdicts[refused..].iter().all(|&verdict| verdict == Err(Excess::Flood)));
        assert_eq!(addresses.enter(ip("203.0.113.2"), now).1, Ok(()), "another address");
        entered.iter().for_each(|&(place, _)| addresses.leave(place));
        assert_eq!(served(&addresses, one, now, 10), 3);
    }

    /// An IPv6 address stands for its /64, an IPv4 address for itself however it is written.
    #[test]
    fn what_an_address_is() {
        let addresses = Addresses::default();
        let same = |one, other| addresses.place(ip(one)) == addresses.place(ip(other));
        assert!(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("203.0.113.1", "::ffff:203.0.113.1"));
        assert!(!same("203.0.113.1", "203.0.113.2"));
        // Behind a NAT64 each IPv4 address is one.
        assert!(!same("64:ff9b::203.0.113.1", "64:ff9b::203.0.113.2"));
        assert!(same("64:ff9b::203.0.113.1", "203.0.113.1"));
        assert!(!same("64:ff9b:1::203.0.113.1", "64:ff9b:1::203.0.113.2"));
        assert!(same("64:ff9b:1:2:0:3::", "64:ff9b:1:2:0:3::"));
        assert!(same("64:ff9b::1:0:0:1", "64:ff9b::1:0:0:2"), "it is no address of a NAT64");
    }

    /// What ten seconds allow may come at once, then so many a second; who is refused has not spent
    /// anything.
    #[test]
    fn connections_are_opened_at_a_rate() {
        let addresses = limited(None, Some(5));
        let (one, now) = (ip("2001:db8::1"), addresses.began);
        assert_eq!(served(&addresses, one, now, 1000), 50);
        assert_eq!(served(&addresses, ip("2001:db8:1::1"), now, 1000), 50, "another address");
        for second in 1..=3 {
            assert_eq!(served(&addresses, one, now + Duration::from_secs(second), 1000), 5);
        }
        assert_eq!(served(&addresses, one, now + Duration::from_secs(3600), 1000), 50);
    }

    /// A crowd of addresses takes no more memory than the bound, hardly keeps a newcomer from what
    /// it may have, and leaves nothing behind.
    #[test]
    fn a_crowd_is_counted_in_bounded_memory() {
        let addresses = limited(Some(100), Some(1));
        let now = Instant::now();
        let crowd: Vec<_> = (0..200_000_u32)
            .map(|host| addresses.enter(IpAddr::from(host.to_be_bytes()), now).0)
            .collect();
        // About three strangers in each cell.
        assert!(served(&addresses, ip("2001:db8::1"), now, 100) >= 5);
        crowd.iter().for_each(|&place| addresses.leave(place));
        let open = |cell: &Cell| u64::from(cell.open.load(Ordering::Relaxed));
        let pages = addresses.pages.iter().filter_map(OnceLock::get);
        assert_eq!(pages.flat_map(|page| page.iter()).map(open).sum::<u64>(), 2 * 100);
    }

    /// Without limits nothing is counted, and no memory taken.
    #[test]
    fn no_limits_cost_nothing() {
        let addresses = Addresses::default();
        let (place, verdict) = addresses.enter(ip("203.0.113.1"), Instant::now());
        assert_eq!((place, verdict), (Place::default(), Ok(())));
        assert!(addresses.pages.iter().all(|page| page.get().is_none()));
    }
}
