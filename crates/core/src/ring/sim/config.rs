//! The settings of a simulated ring.

use std::time::Duration;

use super::faults::Faults;
use super::log::Keep;

/// The settings of a [`SimRing`](super::SimRing).
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Every random decision follows from it.
    pub seed: u64,
    /// The faults to inject.
    pub faults: Faults,
    /// Whether peers can connect.
    pub listening: bool,
    /// Number of receive buffers.
    pub buffers: u16,
    /// Size of one receive buffer in bytes.
    pub buffer_bytes: u32,
    /// Largest number of bytes that a connection holds in each direction.
    pub socket_bytes: usize,
    /// The time for which the kernel retransmits to a peer that does not acknowledge.
    pub give_up: Duration,
    /// The events that the log keeps.
    pub keep: Keep,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            seed: 0,
            faults: Faults::none(),
            listening: true,
            buffers: 128,
            buffer_bytes: 4096,
            socket_bytes: 64 * 1024,
            // About the kernel's default (`net.ipv4.tcp_retries2`).
            give_up: Duration::from_secs(15 * 60),
            keep: Keep::Last,
        }
    }
}
