//! The part of a content that a `Range` field requests.

use std::ops::Range;

/// The part of the content that an answer has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// The whole content: the field is malformed, or is not one range of bytes.
    Whole,
    /// The bytes of this range, which is not empty.
    Part(Range<usize>),
    /// No part: the range begins behind the end of the content.
    Beyond,
}

/// Parses the field (RFC 9110 section 14.1.2) for a content of `size` bytes. A server may ignore a
/// request for several ranges (section 14.2); this one does, because such requests can be abused.
pub(super) fn requested(field: &[u8], size: usize) -> Requested {
    one_range(field, size as u64).unwrap_or(Requested::Whole)
}

fn one_range(field: &[u8], size: u64) -> Option<Requested> {
    let (unit, range) = str::from_utf8(field).ok()?.split_once('=')?;
    let (first, last) = range.trim_matches([' ', '\t']).split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (start, end) = match (first, last) {
        ("", length) => match number(length)? {
            // The last bytes of an empty content have no range that `Content-Range` could name.
            1.. if size == 0 => return None,
            length => (size.saturating_sub(length), size),
        },
        (first, "") => (number(first)?, size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, last.saturating_add(1).min(size))
        }
    };
    // Both numbers are at most `size`.
    let part = || Requested::Part(start as usize..end as usize);
    Some(if start < size { part() } else { Requested::Beyond })
}

/// Parses a number of digits only. A number that overflows becomes the largest.
fn number(digits: &str) -> Option<u64> {
    let digits_only = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits_only.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a range by the definition of RFC 9110, one by one.
    fn naive(first: Option<usize>, last: Option<usize>, size: usize) -> Vec<usize> {
        let asked = |at: &usize| match (first, last) {
            (Some(first), Some(last)) => (first..=last).contains(at),
            (Some(first), None) => *at >= first,
            (None, Some(length)) => *at + length >= size,
            (None, None) => true,
        };
        (0..size).filter(asked).collect()
    }

    /// Every range of every small content gives the bytes of the definition, or `Beyond` if there
    /// are none.
    #[test]
    fn ranges_are_what_they_mean() {
        let text = |bound: Option<usize>| bound.map_or(String::new(), |bound| bound.to_string());
        let bounds = || (0..8).map(Some).chain([None]);
        for size in 1..6 {
            for (first, last) in bounds().flat_map(|first| bounds().map(move |last| (first, last)))
            {
                let field = format!("bytes={}-{}", text(first), text(last));
                let backwards = first.zip(last).is_some_and(|(first, last)| last < first);
                let expected = match naive(first, last, size) {
                    _ if backwards || (first, last) == (None, None) => Requested::Whole,
                    bytes if bytes.is_empty() => Requested::Beyond,
                    bytes => Requested::Part(bytes[0]..bytes[0] + bytes.len()),
                };
                assert_eq!(requested(field.as_bytes(), size), expected, "{field} of {size}");
            }
        }
    }

    /// Numbers of any length do not overflow, units are read in any case, and an empty content has
    /// no first byte.
    #[test]
    fn odd_ranges() {
        let huge = "9".repeat(40);
        for (field, size, expected) in [
            (format!("bytes=2-{huge}"), 5, Requested::Part(2..5)),
            (format!("bytes=-{huge}"), 5, Requested::Part(0..5)),
            (format!("bytes={huge}-"), 5, Requested::Beyond),
            ("Bytes= 1-2\t".into(), 5, Requested::Part(1..3)),
            ("bytes=0-".into(), 0, Requested::Beyond),
            ("bytes=-0".into(), 0, Requested::Beyond),
            ("bytes=-5".into(), 0, Requested::Whole),
        ] {
            assert_eq!(requested(field.as_bytes(), size), expected, "{field} of {size}");
        }
    }

    /// A field that is not exactly one range of bytes is ignored.
    #[test]
    fn what_is_no_range_is_the_whole() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=1",
            "bytes=a-b",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "bytes=0-0,2-3",
            "bytes=0-0,",
            "lines=1-2",
            "=1-2",
            "bytes =1-2",
            "bytes=1-2;q=1",
            "bytes=\u{661}-2",
        ] {
            assert_eq!(requested(field.as_bytes(), 5), Requested::Whole, "{field:?}");
        }
        assert_eq!(requested(b"bytes=1-\xff", 5), Requested::Whole);
    }
}
