//! The id by which a responder knows a request.

use std::fmt;
use std::str::FromStr;

use super::entries::Key;

/// The id of a request for its responder, for as long as the request may be answered. Its text is short
/// (`17-9`), and it is valid on the responder's shard only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub(super) Key);

/// A text that is no request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseRequestIdError;

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.0.index, self.0.generation)
    }
}

impl FromStr for RequestId {
    type Err = ParseRequestIdError;

    fn from_str(text: &str) -> Result<Self, ParseRequestIdError> {
        let (index, generation) = text.split_once('-').ok_or(ParseRequestIdError)?;
        Ok(RequestId(Key { index: number(index)?, generation: number(generation)? }))
    }
}

/// Reads a number as it is printed: without a sign and without leading zeros.
fn number(text: &str) -> Result<u32, ParseRequestIdError> {
    if text.starts_with('+') || text.starts_with('0') && text.len() > 1 {
        return Err(ParseRequestIdError);
    }
    text.parse().map_err(|_| ParseRequestIdError)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A printed id is read again, and no other text is.
    #[test]
    fn text_and_back() {
        for (index, generation) in [(0, 0), (17, 9), (u32::MAX, u32::MAX)] {
            let id = RequestId(Key { index, generation });
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in
            ["", "-", "1", "1-", "-1", "+1-2", "1-+2", "01-2", "1-2-3", "1-2 ", "4294967296-1"]
        {
            assert_eq!(text.parse::<RequestId>(), Err(ParseRequestIdError), "{text}");
        }
    }
}
