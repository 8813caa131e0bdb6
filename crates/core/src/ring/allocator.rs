//! Returning the allocator's free memory to the kernel.

/// Returns all free pages to the kernel, also those between allocations (glibc's `malloc_trim`, since
/// 2.8; other allocators do so themselves). It visits free memory only, so it costs little if little
/// was freed. A thread that allocates meanwhile waits.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and any thread may call it at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
