//! A publication as bytes, made once for each protocol and form that a session on the shard needs.

use bytes::Bytes;
use murre_router::channels::Encoded;
use smallvec::SmallVec;

/// Names a protocol's form of a publication: a WebSocket message of one, an event of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding(pub(crate) u8);

/// The forms of one publication that have been made. Kept for as long as a subscriber of the shard
/// has yet to take it.
#[derive(Debug, Default)]
pub(crate) struct Encodings(SmallVec<[(Encoding, Bytes); 1]>);

impl Encodings {
    /// The publication in this form, which `make` makes if it is the first time.
    pub(crate) fn get(&mut self, encoding: Encoding, make: impl FnOnce() -> Bytes) -> &Bytes {
        let known = self.0.iter().position(|(known, _)| *known == encoding);
        let at = known.unwrap_or_else(|| {
            self.0.push((encoding, make()));
            self.0.len().saturating_sub(1)
        });
        &self.0[at].1
    }
}

impl Encoded for Encodings {
    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form is made once, and all that are made count.
    #[test]
    fn a_form_is_made_once() {
        let mut encodings = Encodings::default();
        assert_eq!(encodings.bytes(), 0);
        for _ in 0..2 {
            assert_eq!(encodings.get(Encoding(1), || Bytes::from_static(b"one")), "one");
            assert_eq!(encodings.get(Encoding(2), || Bytes::from_static(b"other")), "other");
        }
        assert_eq!(encodings.get(Encoding(1), || unreachable!("it is made")), "one");
        assert_eq!(encodings.bytes(), 8);
    }
}
