//! Connections whose messages continue in the next turn of the shard.

use std::collections::VecDeque;

use murre_core::ConnId;

/// The capacity that an idle table of paused messages keeps.
pub(super) const PAUSED_KEPT: usize = 64;

/// Continues the connections that wait in the queue `next_turn` of `incoming`, each once and in order.
/// `proceed` puts a connection back into the queue if the budget of this turn is spent; that connection
/// is then the first of the next turn.
pub(super) fn continue_waiting<I>(
    incoming: &mut I,
    next_turn: impl Fn(&mut I) -> &mut VecDeque<ConnId>,
    mut proceed: impl FnMut(&mut I, ConnId),
) {
    for _ in 0..next_turn(incoming).len() {
        let conn = next_turn(incoming).pop_front().expect("just counted");
        proceed(incoming, conn);
        let waiting = next_turn(incoming);
        if waiting.back() == Some(&conn) {
            waiting.rotate_right(1);
            break;
        }
    }
    next_turn(incoming).shrink_to(PAUSED_KEPT);
}
