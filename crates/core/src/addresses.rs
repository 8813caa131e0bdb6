//! How many connections each address has and how fast it opens new ones, over all shards, in memory with
//! the same bound however many addresses there are.
//!
//! Addresses are counted in two rows of cells, by hash. The count of an address is the lower of its two
//! cells: never less than its connections, and more only where it shares both cells with others (a
//! count-min sketch: Cormode and Muthukrishnan, 2005). With n connections open that is n / 65,536 too
//! many on average. The hash has a random key in every process, so a client cannot choose addresses that
//! share the cells of another.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::token_bucket::{BucketState, TokenBucket};

/// The limits of one address; `None` is no limit. An IPv6 address stands for its /64, which one host or
/// one household is given (RFC 6177).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Connections that are served at a time.
    pub max_conns_per_address: Option<u32>,
    /// New connections per second, averaged over ten seconds: all of those may come at once.
    pub max_handshakes_per_second: Option<u32>,
}

/// Which limit of its address a connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Excess {
    /// [`AddressLimits::max_conns_per_address`].
    Connections,
    /// [`AddressLimits::max_handshakes_per_second`].
    Handshakes,
    /// The address also has 16 refused connections that are not closed yet, so this one is aborted
    /// without an answer.
    Flood,
}

impl Excess {
    /// Every excess, by its discriminant.
    pub const ALL: [Excess; 3] = [Excess::Connections, Excess::Handshakes, Excess::Flood];
}

/// The connections of all addresses, shared by the shards of a server.
#[derive(Debug)]
pub struct Addresses {
    max_conns_per_address: Option<u32>,
    handshakes: Option<TokenBucket>,
    hash: RandomState,
    began: Instant,
    /// Both rows, in pages that take memory when an address is first counted in them.
    pages: Box<[OnceLock<Box<Page>>; 2 * CELLS / PAGE]>,
}

/// Where the connections of an address are counted; 0 is nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressPlace(u32);

#[derive(Debug, Default)]
struct Cell {
    /// Connections that are open.
    open: AtomicU32,
    /// The [`BucketState`] of new connections, on the clock of `Addresses::began`.
    handshakes: AtomicU64,
}

type Page = [Cell; PAGE];

/// Cells of one row: half of an `AddressPlace` chooses one.
const CELLS: usize = 1 << 16;
/// Cells of a page: 4 KiB.
const PAGE: usize = 256;
/// The bound of all of it.
const _: () = assert!(2 * CELLS * size_of::<Cell>() == 2 << 20);

/// The rate of new connections is averaged over so many seconds.
const BURST_SECONDS: u32 = 10;
/// Connections beyond the limit that get an answer: each has a slot until it is closed.
const REFUSED_MAX: u32 = 16;

impl AddressPlace {
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
    /// No connections yet.
    pub fn new(limits: AddressLimits) -> Self {
        let AddressLimits { max_conns_per_address, max_handshakes_per_second } = limits;
        let bucket = |rate: u32| TokenBucket::new(rate, rate.max(1).saturating_mul(BURST_SECONDS));
        Addresses {
            max_conns_per_address,
            handshakes: max_handshakes_per_second.map(bucket),
            hash: RandomState::new(),
            began: Instant::now(),
            pages: Box::new([const { OnceLock::new() }; 2 * CELLS / PAGE]),
        }
    }

    /// Counts a new connection of `ip`, within its limits or not, until it [`leave`]s.
    ///
    /// [`leave`]: Addresses::leave
    pub(crate) fn enter(&self, ip: IpAddr, now: Instant) -> (AddressPlace, Result<(), Excess>) {
        let (place, verdict) = self.enter_open(ip);
        let verdict = verdict.and_then(|()| match self.handshakes {
            Some(bucket) if !self.take_handshake(bucket, place, now) => Err(Excess::Handshakes),
            _ => Ok(()),
        });
        (place, verdict)
    }

    /// [`enter`](Addresses::enter) for a connection that is not new, whatever the rate of new ones.
    pub(crate) fn enter_open(&self, ip: IpAddr) -> (AddressPlace, Result<(), Excess>) {
        let place = self.place(ip);
        (place, self.enter_at(place))
    }

    /// Counts one more connection at a place, within its limit or not, until it [`leave`]s.
    ///
    /// [`leave`]: Addresses::leave
    pub(crate) fn enter_at(&self, place: AddressPlace) -> Result<(), Excess> {
        if place == AddressPlace::default() || !self.has_limits() {
            return Ok(());
        }
        let counts = self.cells(place).map(|cell| cell.open.fetch_add(1, Ordering::Relaxed) + 1);
        let (open, max) =
            (counts[0].min(counts[1]), self.max_conns_per_address.unwrap_or(u32::MAX));
        if open > max.saturating_add(REFUSED_MAX) {
            Err(Excess::Flood)
        } else if open > max {
            Err(Excess::Connections)
        } else {
            Ok(())
        }
    }

    /// Ends the count of a connection that [`enter`](Addresses::enter) began.
    pub(crate) fn leave(&self, place: AddressPlace) {
        if place != AddressPlace::default() && self.has_limits() {
            for cell in self.cells(place) {
                cell.open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether connections are counted. Without limits an address still has its place, by which others tell
    /// it from the rest ([`Place::key`]).
    fn has_limits(&self) -> bool {
        self.max_conns_per_address.is_some() || self.handshakes.is_some()
    }

    /// Whether the rate of new connections allows one more. A refused one costs nothing: of many clients
    /// behind one address that try again and again some are always served.
    fn take_handshake(&self, bucket: TokenBucket, place: AddressPlace, now: Instant) -> bool {
        let cells = self.cells(place);
        let [one, other] = cells.map(|cell| cell.handshakes.load(Ordering::Relaxed));
        let mut state = BucketState(one.min(other));
        let allowed = bucket.try_take(&mut state, now.saturating_duration_since(self.began));
        if allowed {
            for cell in cells {
                cell.handshakes.fetch_max(state.0, Ordering::Relaxed);
            }
        }
        allowed
    }

    fn place(&self, ip: IpAddr) -> AddressPlace {
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
        AddressPlace((hash as u32).max(1))
    }

    fn cells(&self, AddressPlace(place): AddressPlace) -> [&Cell; 2] {
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

    fn limited(
        max_conns_per_address: Option<u32>,
        max_handshakes_per_second: Option<u32>,
    ) -> Addresses {
        Addresses::new(AddressLimits { max_conns_per_address, max_handshakes_per_second })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many connections of `ip` are served at `now`, one after the other, up to `tries`.
    fn served(addresses: &Addresses, ip: IpAddr, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| addresses.enter(ip, now).1.is_ok()).count()
    }

    /// An address gets as many connections as its limit, then some refusals with an answer, then some
    /// without; and as many connections again as it closes.
    #[test]
    fn connections_of_an_address_are_limited() {
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
    fn addresses_that_count_as_one() {
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

    /// The connections of ten seconds may come at once, then as many a second as the rate; a refused
    /// connection costs nothing.
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

    /// The connections of many addresses take no more memory than the bound, hardly lower the limit of
    /// another address, and leave no count behind.
    #[test]
    fn a_crowd_is_counted_in_bounded_memory() {
        let addresses = limited(Some(100), Some(1));
        let now = Instant::now();
        let crowd: Vec<_> = (0..200_000_u32)
            .map(|host| addresses.enter(IpAddr::from(host.to_be_bytes()), now).0)
            .collect();
        // About three of the addresses are in each cell.
        assert!(served(&addresses, ip("2001:db8::1"), now, 100) >= 5);
        crowd.iter().for_each(|&place| addresses.leave(place));
        let open = |cell: &Cell| u64::from(cell.open.load(Ordering::Relaxed));
        let pages = addresses.pages.iter().filter_map(OnceLock::get);
        assert_eq!(pages.flat_map(|page| page.iter()).map(open).sum::<u64>(), 2 * 100);
    }

    /// Without limits nothing is counted, and no memory is used. Addresses are told apart all the same.
    #[test]
    fn no_limits_cost_nothing() {
        let addresses = Addresses::default();
        let enter = |text| addresses.enter(ip(text), Instant::now());
        let [one, same, other] = ["203.0.113.1", "203.0.113.1", "203.0.113.2"].map(enter);
        assert!([one, same, other].iter().all(|&(_, verdict)| verdict == Ok(())));
        assert!(one.0.key().is_some() && one.0 == same.0 && one.0 != other.0);
        [one, same, other].iter().for_each(|&(place, _)| addresses.leave(place));
        assert!(addresses.pages.iter().all(|page| page.get().is_none()));
    }
}
