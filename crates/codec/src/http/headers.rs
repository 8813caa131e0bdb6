//! Header fields of a response.

use bytes::Bytes;

/// Header fields of a response, encoded. A clone shares them.
///
/// Every name and value is valid, so none can end its line and begin another field, and none gives the
/// length of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// These fields and one more.
    ///
    /// # Panics
    /// If it is not a field (RFC 9110 sections 5.1 and 5.5) in ASCII, or if it is `Content-Length` or
    /// `Transfer-Encoding`. The caller must check or encode values that come from a peer.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        assert!(is_name(name) && is_value(value), "{name:?} with {value:?} is not a field");
        assert!(!gives_the_length(name), "{name:?} follows from the body");
        let parts: [&[u8]; 5] = [&self.0, b"\r\n", name.as_bytes(), b": ", value.as_bytes()];
        Headers(parts.concat().into())
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let lines = str::from_utf8(&self.0).expect("ASCII");
        let mut fields = lines.split("\r\n").filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The fields, each with CRLF before it.
    pub(super) fn lines(&self) -> &[u8] {
        &self.0
    }
}

/// A token (RFC 9110 section 5.6.2).
fn is_name(name: &str) -> bool {
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(belongs)
}

/// Visible characters, with spaces and tabs between them.
fn is_value(value: &str) -> bool {
    let belongs = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
    value.bytes().all(belongs) && value.trim_ascii().len() == value.len()
}

fn gives_the_length(name: &str) -> bool {
    ["content-length", "transfer-encoding"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// Fields are found by name in any case, and leave in their order.
    #[test]
    fn fields_are_kept_in_order() {
        let headers = Headers::default().with("Allow", "GET, HEAD").with("X-Empty", "");
        assert_eq!(headers.lines(), b"\r\nAllow: GET, HEAD\r\nX-Empty: ");
        assert_eq!(headers.get("allow"), Some("GET, HEAD"));
        assert_eq!(headers.get("x-empty"), Some(""));
        assert_eq!(headers.get("x"), None);
        assert_eq!(Headers::default().lines(), b"");
    }

    /// Names and values that are no field, or would be several, and a second length are refused.
    #[test]
    fn nothing_but_fields_gets_in() {
        for (name, value) in [
            ("X", "a\r\nSet-Cookie: b"),
            ("X", "a\nb"),
            ("X", "a\rb"),
            ("X", "a\0b"),
            ("X", "a\x7fb"),
            ("X", "é"),
            ("X", " a"),
            ("X", "a\t"),
            ("X\r\nY", "a"),
            ("X:", "a"),
            ("X Y", "a"),
            ("", "a"),
            ("content-length", "5"),
            ("Transfer-Encoding", "chunked"),
        ] {
            let with = catch_unwind(|| Headers::default().with(name, value));
            assert!(with.is_err(), "{name:?}: {value:?}");
        }
    }
}
