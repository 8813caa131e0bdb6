//! JSON text, for all protocols that carry it: what is taken, and its shortest form.

use std::{iter, mem};

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape};

/// Arrays and objects around a value, those of the message that carries it among them.
pub(crate) const DEPTH_MAX: usize = 32;

/// Why a text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// It is not JSON in UTF-8, or has a number that no double has room for.
    Malformed,
    /// It is nested more than [`DEPTH_MAX`] deep.
    TooDeep,
}

/// Checks a whole text by the rules for messages, so that what enters by one way is taken by all.
///
/// # Errors
/// Why it is not taken.
pub(crate) fn check(text: &[u8]) -> Result<(), JsonError> {
    Validator::default().check(text)
}

/// Checks texts, and keeps its memory from one to the next.
pub(crate) struct Validator {
    copy: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Validator {
    fn default() -> Self {
        let buffers = Buffers::with_max_depth(0, DEPTH_MAX);
        Validator { copy: Vec::new(), buffers, tape: Tape(Vec::new()) }
    }
}

impl Validator {
    /// Checks a whole text by the rules for messages.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn check(&mut self, text: &[u8]) -> Result<(), JsonError> {
        let Validator { copy, buffers, tape } = self;
        copy.clear();
        copy.shrink_to(COPY_KEPT_BYTES);
        copy.reserve(text.len() + INPUT_PADDING);
        copy.extend_from_slice(text);
        copy.resize(text.len() + INPUT_PADDING, b' ');
        let mut filled = mem::replace(tape, Tape(Vec::new())).reset();
        let checked = simd_json::fill_tape_padded(copy, text.len(), buffers, &mut filled);
        let checked = checked.map_err(|error| JsonError::from(error.error()));
        *tape = filled.reset();
        checked
    }
}

/// Bytes that a validator keeps for the next text.
const COPY_KEPT_BYTES: usize = 64 << 10;

impl From<&ErrorType> for JsonError {
    fn from(error: &ErrorType) -> Self {
        match error {
            ErrorType::DepthLimitExceeded => JsonError::TooDeep,
            _ => JsonError::Malformed,
        }
    }
}

/// Appends the value that valid JSON begins with, without the whitespace between its tokens. Returns
/// its length with the whitespace, and with that before it; 0 if there is no value.
pub(crate) fn compact(json: &[u8], out: &mut Vec<u8>) -> usize {
    walk(json, |token| out.extend_from_slice(token))
}

/// The length of the value that valid JSON begins with, and of the whitespace before it; 0 if there is
/// no value.
pub(crate) fn value_length(json: &[u8]) -> usize {
    walk(json, |_| ())
}

/// Shows each run of the value that valid JSON begins with: what lies between whitespace.
fn walk(json: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let begin = json.iter().take_while(|byte| is_whitespace(**byte)).count();
    let (mut run, mut at, mut depth) = (begin, begin, 0_usize);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                at += 1 + string_length(&json[at + 1..]);
                if depth == 0 {
                    break;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 1 => depth -= 1,
            b'}' | b']' => {
                // The end of the value, or of what it is in.
                at += depth;
                break;
            }
            b',' if depth == 0 => break,
            byte if is_whitespace(byte) => {
                if depth == 0 {
                    break;
                }
                each(&json[run..at]);
                run = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    each(&json[run..at]);
    if at == begin { 0 } else { at }
}

/// The first of several values of valid JSON that are separated by commas, without whitespace around it,
/// and the rest after its comma. `None` if no value comes first.
pub(crate) fn split_first(values: &[u8]) -> Option<(&[u8], &[u8])> {
    let (value, rest) = values.split_at(value_length(values));
    let comma = rest.iter().position(|&byte| byte == b',');
    let rest = comma.map_or(&[][..], |comma| &rest[comma + 1..]);
    (!value.is_empty()).then_some((value.trim_ascii_start(), rest))
}

/// The members of an object of valid JSON, in order: each key as it is between its quotes, and its
/// value. `None` if the value is no object.
pub(crate) fn members(object: &[u8]) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
    let mut rest = object.trim_ascii_start().strip_prefix(b"{")?;
    Some(iter::from_fn(move || {
        let text = rest.trim_ascii_start().strip_prefix(b"\"")?;
        let (key, after) = text.split_at(string_length(text));
        let (value, next) = split_first(after.trim_ascii_start().strip_prefix(b":")?)?;
        rest = next;
        Some((key.strip_suffix(b"\"")?, value))
    }))
}

fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The length of a string of valid JSON behind its first quote, with its last.
pub(crate) fn string_length(json: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value is compacted and its end is found, whatever follows it.
    #[test]
    fn values_are_compacted() {
        for (text, expected, length) in [
            (" [1, \"a, ] \" , {\"b\" : null}] , 7", r#"[1,"a, ] ",{"b":null}]"#, 28),
            ("12.5e3,", "12.5e3", 6),
            (r#""\"\\",1"#, r#""\"\\""#, 6),
            ("true]", "true", 4),
            ("7", "7", 1),
            ("  ] ", "", 0),
            ("  ", "", 0),
        ] {
            let mut out = Vec::new();
            assert_eq!(compact(text.as_bytes(), &mut out), length, "{text}");
            assert_eq!(out, expected.as_bytes(), "{text}");
            assert_eq!(value_length(text.as_bytes()), length, "{text}");
        }
    }

    /// The rules are those of messages: depth, numbers, UTF-8, nothing behind the value.
    #[test]
    fn texts_are_checked() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
        assert_eq!(check(nested(DEPTH_MAX + 1).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(check(nested(500_000).as_bytes()), Err(JsonError::TooDeep));
        for wrong in [&b""[..], b"1e400", b"[", b"1 2", b"\"\xff\"", b"{\"a\":}", b"nul"] {
            assert_eq!(check(wrong), Err(JsonError::Malformed), "{wrong:?}");
        }
    }

    /// The members of an object come in order, whatever their values and the whitespace are.
    #[test]
    fn objects_come_apart() {
        let object = br#" { "a" : [1, {"b":2}] ,"c\"}":"x,}" , "" :null,"d":{} } "#;
        let expected: [(&[u8], &[u8]); 4] =
            [(b"a", br#"[1, {"b":2}]"#), (br#"c\"}"#, br#""x,}""#), (b"", b"null"), (b"d", b"{}")];
        assert!(members(object).expect("an object").eq(expected));
        assert_eq!(members(b" {} ").map(Iterator::count), Some(0));
        for other in [&b"[]"[..], b"1", b"\"{\"", b""] {
            assert!(members(other).is_none());
        }
    }
}
