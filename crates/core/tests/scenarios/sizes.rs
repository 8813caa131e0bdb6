//! The memory of an idle connection.

use murre_core::{CONN_BYTES, TIMER_BYTES};

/// The transport keeps half a cache line and a timer for a connection, and nothing else.
#[test]
fn the_transport_keeps_34_bytes_for_a_connection() {
    assert_eq!(CONN_BYTES, 32);
    assert_eq!(TIMER_BYTES, 2);
}
