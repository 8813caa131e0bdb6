//! The `user_data` of a submission: kind 8 bits, key 24 bits, slot 32 bits.
//!
//! The key is the connection's generation, or, for operations that hold memory, the key of that memory.

use crate::ring::operation::OpKind;

pub(super) const ACCEPT: u8 = OpKind::Accept as u8;
pub(super) const CONNECT: u8 = OpKind::Connect as u8;
pub(super) const POLL: u8 = OpKind::Poll as u8;
pub(super) const RECV: u8 = OpKind::Recv as u8;
pub(super) const SEND: u8 = OpKind::Send as u8;
pub(super) const CLOSE: u8 = OpKind::Close as u8;
/// A descriptor of the process for a direct descriptor that will be shut down.
pub(super) const SHUTDOWN: u8 = OpKind::Shutdown as u8;

// Beside the kinds of `OpKind`, operations of the ring's own:
pub(super) const WAKE: u8 = 128;
/// An operation whose failure shows in a later one.
pub(super) const IGNORED: u8 = 129;
pub(super) const TIMEOUT: u8 = 130;
/// The ring's `SHUTDOWN`, after [`SHUTDOWN`] has found no free descriptor.
pub(super) const SLOW_SHUTDOWN: u8 = 131;

pub(super) const KEY_MASK: u32 = (1 << 24) - 1;

pub(super) fn pack(kind: u8, key: u32, slot: u32) -> u64 {
    assert!(key <= KEY_MASK, "24 bits for keys: 16 million operations of one kind in flight");
    u64::from(kind) << 56 | u64::from(key) << 32 | u64::from(slot)
}

/// Kind, key and slot.
pub(super) fn unpack(user_data: u64) -> (u8, u32, u32) {
    ((user_data >> 56) as u8, (user_data >> 32) as u32 & KEY_MASK, user_data as u32)
}
