//! The allocator's free memory, which is the kernel's again only when the allocator is asked.

/// Gives back the pages of what has been freed, wherever between allocations they are (glibc's
/// `malloc_trim`, since 2.8; other allocators see to it themselves). Looks at what is free and not at
/// what is in use, so it costs little when nothing was freed; a thread that allocates meanwhile waits.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and any thread may call it at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
