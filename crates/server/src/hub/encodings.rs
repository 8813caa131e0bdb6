//! The encodings of a publication, each made once for all sessions of the shard that need it.

use bytes::Bytes;
use murre_router::channels::Encoded;
use smallvec::SmallVec;

/// The number of an encoding: the WebSocket frame of a protocol, for instance, or its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding(pub(crate) u8);

/// The encodings of one publication that have been made. They are kept for as long as a subscriber of
/// the shard has yet to get the publication.
#[derive(Debug, Default)]
pub(crate) struct Encodings(SmallVec<[(Encoding, Bytes); 1]>);

impl Encodings {
    /// The publication in this encoding, which `make` makes the first time.
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

    /// Each encoding is made once, and the bytes of all of them count.
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
