//! Counts of payload that waits for congested connections.

use super::limits::ServiceLimits;
use super::records::MemberEntries;

/// Counts `bytes` of payload as parked for a member, unless they exceed the bound of the member or
/// that of the shard. `total` counts the shard's. Returns whether they fit.
pub(super) fn park(
    member: &mut MemberEntries,
    total: &mut usize,
    bytes: usize,
    limits: &ServiceLimits,
) -> bool {
    let fits = member.parked_bytes.saturating_add(bytes) <= limits.parked_bytes_max
        && total.saturating_add(bytes) <= limits.parked_bytes_total_max;
    if fits {
        member.parked_bytes += bytes;
        *total += bytes;
    }
    fits
}

/// Ends the count of a payload that was parked with this many bytes, if it was parked.
pub(super) fn unpark(member: &mut MemberEntries, total: &mut usize, parked: Option<usize>) {
    let bytes = parked.unwrap_or(0);
    member.parked_bytes -= bytes;
    *total -= bytes;
}
