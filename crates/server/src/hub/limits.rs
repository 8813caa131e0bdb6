//! The limits of names and payloads. Every channel, service and payload is checked here, whatever its
//! transport.

use murre_router::channels::Payload;

use super::error::ErrorCode;

/// The largest names and payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameLimits {
    /// Bytes of the name of a channel or a service; at most 255.
    pub(crate) max_name_bytes: usize,
    /// Bytes of a publication, a request or a response.
    pub(crate) max_publication_bytes: usize,
}

impl NameLimits {
    /// Checks the name of a channel or a service.
    ///
    /// # Errors
    /// `BadChannel`. The error does not repeat the name, which may be long or unprintable.
    pub(crate) fn name<'a>(&self, name: &'a str) -> Result<&'a str, ErrorCode> {
        let fits = (1..=self.max_name_bytes).contains(&name.len());
        let right = fits && !name.contains(char::is_control);
        right.then_some(name).ok_or(ErrorCode::BadChannel)
    }

    /// Checks the size of a payload.
    ///
    /// # Errors
    /// `BadPublication`.
    pub(crate) fn payload(&self, payload: &Payload) -> Result<(), ErrorCode> {
        self.size(payload.bytes.len())
    }

    /// Checks a size in bytes.
    ///
    /// # Errors
    /// `BadPublication`.
    pub(crate) fn size(&self, bytes: usize) -> Result<(), ErrorCode> {
        (bytes <= self.max_publication_bytes).then_some(()).ok_or(ErrorCode::BadPublication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names have from 1 byte to the bound, and no control characters.
    #[test]
    fn names() {
        let limits = NameLimits { max_name_bytes: 4, max_publication_bytes: 3 };
        for name in ["a", "abcd", "a:b", "ß:", " "] {
            assert_eq!(limits.name(name), Ok(name));
        }
        for name in ["", "abcde", "ßßß", "a\n", "\u{80}", "\0"] {
            assert_eq!(limits.name(name), Err(ErrorCode::BadChannel), "{name:?}");
        }
        assert_eq!((limits.size(3), limits.size(4)), (Ok(()), Err(ErrorCode::BadPublication)));
    }
}
