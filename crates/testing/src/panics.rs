//! Turns panics into values.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The message of a panic within [`catch_panic`] on this thread.
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `run`. If it panics, returns the message and its source location instead of printing them.
///
/// # Errors
/// The message, if `run` panics.
pub fn catch_panic<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let other_threads = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let caught = MESSAGE.with_borrow_mut(|message| match message {
                Some(message) => {
                    *message = info.to_string();
                    true
                }
                None => false,
            });
            if !caught {
                other_threads(info);
            }
        }));
    });
    MESSAGE.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let message = MESSAGE.take().unwrap_or_default();
    result.map_err(|_| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic becomes its message and location, a value passes through, and the next call starts
    /// afresh.
    #[test]
    fn panics_become_messages() {
        let message = catch_panic(|| panic!("seed {}", 17)).expect_err("it panics");
        assert!(message.contains("seed 17") && message.contains("panics.rs"), "{message}");
        assert_eq!(catch_panic(|| 5), Ok(5));
    }
}
