//! Any bytes as messages of other nodes.

use std::sync::Arc;

use super::exchange::{Clocks, Exchange};
use super::wire::Message;

/// Hears messages of any bytes, each after a byte with its length and one that says when and on which subject it comes.
/// What can be decoded is the same after it was encoded again.
pub(crate) fn check(mut bytes: &[u8]) {
    let mut exchange = Exchange::new(
        1,
        "node".into(),
        2,
        Box::new(|channel| channel.len() as u16 % 2),
        Arc::default(),
    );
    let mut now = 0_u64;
    while let Some((&[how, length], rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(rest.len().min(length.into()));
        bytes = rest;
        if let Ok(decoded) = Message::decode(message) {
            assert_eq!(Message::decode(&decoded.encode()), Ok(decoded));
        }
        now = now.saturating_add(u64::from(how >> 2).saturating_mul(100));
        let channel = (how & 1 > 0).then(|| Arc::from("a"));
        exchange.hear(channel.as_ref(), message, now);
        exchange.tick(Clocks { steady: now, wall: now });
        exchange.take_out();
    }
}
