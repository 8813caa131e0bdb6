//! Any bytes as what NATS sends, and as messages of other nodes in it.

use bytes::BytesMut;

use super::envelope;
use super::services;
use super::wire::{self, NotNats, Op};
use crate::protocols::json::Validator;

/// Checks bytes after one that says as what they are read.
pub(crate) fn check(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((0, bytes)) => services::check(bytes),
        Some((1, bytes)) => {
            if let Some((payload, except)) = envelope::open(bytes, &mut Validator::default()) {
                assert!(payload.side_len as usize <= payload.bytes.len());
                assert_eq!(envelope::wrap(&payload, except), bytes);
            }
        }
        Some((at, bytes)) => {
            let (first, second) = bytes.split_at(bytes.len().min(usize::from(*at)));
            let mut input = BytesMut::from(bytes);
            let whole = operations(&mut input);
            let mut input = BytesMut::from(first);
            let pieces = operations(&mut input).and_then(|mut pieces| {
                input.extend_from_slice(second);
                pieces.extend(operations(&mut input)?);
                Ok(pieces)
            });
            assert_eq!(pieces, whole);
        }
    }
}

/// All operations that are there, or why the peer is no server.
fn operations(input: &mut BytesMut) -> Result<Vec<Op>, NotNats> {
    std::iter::from_fn(|| wire::take(input).transpose()).collect()
}

#[cfg(test)]
mod tests {
    /// What fuzzing has found, of these messages and of those about members.
    #[test]
    fn messages_of_the_corpus() {
        crate::corpus::each("nodes", crate::backplane::check);
    }
}
