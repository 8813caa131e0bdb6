//! Counts of payload that waits for congested connections.

use super::MemberEntries;

/// Counts what is parked for a member, unless it is too much.
pub(super) fn park(
    has: &mut MemberEntries,
    parked_bytes: &mut usize,
    bytes: usize,
    max: usize,
) -> bool {
    let fits = has.parked_bytes.saturating_add(bytes) <= max;
    if fits {
        has.parked_bytes += bytes;
        *parked_bytes += bytes;
    }
    fits
}

/// Something that was parked is not any more.
pub(super) fn unpark(has: &mut MemberEntries, parked_bytes: &mut usize, parked: Option<usize>) {
    has.parked_bytes -= parked.unwrap_or(0);
    *parked_bytes -= parked.unwrap_or(0);
}
