//! The name under which a responder knows a request.

use std::fmt;
use std::str::FromStr;

use super::entries::Key;

/// Names a request to the one who has it, as a short text (`17-9`), for as long as it may be
/// answered. It is only known on the responder's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub(super) Key);

/// A text that cannot name a request.
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

/// Reads what printing a number gives: no sign and no zeros in front.
fn number(text: &str) -> Result<u32, ParseRequestIdError> {
    if text.starts_with('+') || text.starts_with('0') && text.len() > 1 {
        return Err(ParseRequestIdError);
    }
    text.parse().map_err(|_| ParseRequestIdError)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed is read, and nothing else is.
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
