//! The receive buffers of one shard: one block of memory, leased in equal pieces.
//!
//! An idle connection has no buffer. The shard leases one when it submits a receive and gives it back
//! when it has consumed the bytes, mostly within the same turn. The buffer given back last, which is
//! still in the cache, is leased next. A shard needs few: if a turn has more to read than there are
//! buffers, the next turn reads the rest.

use std::io;
use std::ptr::{self, NonNull};

/// A buffer of the arena. Not `Clone`: it has one owner at a time.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease(u16);

impl Lease {
    pub(super) fn key(&self) -> u16 {
        self.0
    }

    /// The lease that `key` was taken from.
    pub(super) fn from_key(key: u16) -> Self {
        Lease(key)
    }
}

/// The block, and the buffers in it that are free.
pub(super) struct Arena {
    /// `count * size` bytes, mapped in `new` and owned by this.
    block: NonNull<u8>,
    size: usize,
    count: usize,
    free: Vec<u16>,
}

impl Arena {
    /// Makes `count` buffers of `size` bytes, in memory from the start: they are a cost of the shard, not
    /// of the first connections that use them.
    ///
    /// # Errors
    /// `ENOMEM` if there is no memory.
    pub(super) fn new(count: u16, size: u32) -> io::Result<Self> {
        assert!(count > 0 && size > 0);
        let (count, size) = (count as usize, size as usize);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choosing touches no memory of ours.
        let block = unsafe { libc::mmap(ptr::null_mut(), count * size, access, flags, -1, 0) };
        if block == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let block = NonNull::new(block.cast()).expect("nothing is mapped at zero");
        Ok(Arena { block, size, count, free: (0..count as u16).rev().collect() })
    }

    pub(super) fn lease(&mut self) -> Option<Lease> {
        self.free.pop().map(Lease)
    }

    pub(super) fn give_back(&mut self, lease: Lease) {
        self.free.push(lease.0);
        debug_assert!(self.free.len() <= self.count);
    }

    /// The leased buffer. While the kernel writes into it the lease is inside the ring, so no caller
    /// has it.
    pub(super) fn buffer(&mut self, lease: &Lease) -> &mut [u8] {
        let (start, len) = self.place(lease);
        // SAFETY: the buffer lies inside the block, which lives as long as `self` and was mapped full of
        // zeros. No other reference to it exists: a lease has one owner at a time, and the leases of
        // buffers that the kernel writes to are inside the ring until their operation has completed.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Address and size of the leased buffer, for the kernel.
    pub(super) fn place(&self, lease: &Lease) -> (*mut u8, usize) {
        let index = lease.0 as usize;
        assert!(index < self.count);
        // SAFETY: `index < count`, so the offset stays inside the block.
        (unsafe { self.block.as_ptr().add(index * self.size) }, self.size)
    }

    /// Address and size of the whole block, to register it.
    pub(super) fn block(&self) -> (*mut u8, usize) {
        (self.block.as_ptr(), self.count * self.size)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let (start, len) = self.block();
        // SAFETY: mapped in `new` with this length. No receive is in flight: they never wait, so
        // each has completed by the time the submission of it has returned.
        unsafe { libc::munmap(start.cast(), len) };
    }
}

// SAFETY: the block is owned, as a `Box` would own it; nothing of it is tied to a thread.
unsafe impl Send for Arena {}
