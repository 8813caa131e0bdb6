//! Receive buffers, which the caller or the kernel chooses.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Receive buffers, and the ring of buffers that the kernel may choose from.
#[derive(Default)]
pub(crate) struct Buffers {
    block: Vec<Buffer>,
    pub(crate) free: Vec<u16>,
    /// Memory for as many entries as there are buffers.
    entries: Vec<Buffer>,
    tail: u16,
}

#[derive(Clone)]
#[repr(align(4096))]
struct Buffer([u8; BUFFER_BYTES]);

/// As in a shard's arena.
pub(crate) const BUFFER_BYTES: usize = 8192;
/// The number of the only ring of buffers.
pub(crate) const GROUP: u16 = 0;

impl Buffers {
    /// `count` buffers, a power of two.
    pub(crate) fn new(count: u16) -> Self {
        let entry_bytes = usize::from(count) * size_of::<BufRingEntry>();
        Buffers {
            block: vec![Buffer([0; BUFFER_BYTES]); count.into()],
            free: (0..count).rev().collect(),
            entries: vec![Buffer([0; BUFFER_BYTES]); entry_bytes.div_ceil(BUFFER_BYTES)],
            tail: 0,
        }
    }

    fn count(&self) -> u16 {
        self.block.len() as u16
    }

    /// Where the buffer is, for the kernel.
    pub(crate) fn place(&mut self, id: u16) -> *mut u8 {
        self.block[usize::from(id)].0.as_mut_ptr()
    }

    /// The bytes of a receive that has completed.
    pub(crate) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        &self.block[usize::from(id)].0[..len]
    }

    pub(crate) fn register(&mut self, ring: &IoUring) -> io::Result<()> {
        let len = self.block.len() * BUFFER_BYTES;
        let block = libc::iovec { iov_base: self.block.as_mut_ptr().cast(), iov_len: len };
        // SAFETY: the block is freed after the ring is closed.
        unsafe { ring.submitter().register_buffers(&[block]) }
    }

    pub(crate) fn provide_all(&mut self, ring: &IoUring) -> io::Result<()> {
        let entries = self.entries.as_mut_ptr() as u64;
        // SAFETY: there are so many entries, and they are freed after the ring is closed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries, self.count(), GROUP, 0)?;
        }
        for id in 0..self.count() {
            self.provide(id);
        }
        Ok(())
    }

    /// Gives a buffer to the kernel.
    pub(crate) fn provide(&mut self, id: u16) {
        let (start, entries) = (self.place(id), self.entries.as_mut_ptr().cast::<BufRingEntry>());
        let at = usize::from(self.tail % self.count());
        // SAFETY: within the entries, page-aligned zeros at first; the kernel reads only those
        // before the tail, and there are no more buffers than entries.
        let entry = unsafe { &mut *entries.add(at) };
        entry.set_addr(start as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned, and the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
