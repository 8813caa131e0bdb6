//! The choice of a content coding for a client (RFC 9110 section 12.5.3) among the forms of a file.

use murre_codec::http::Request;

use super::File;

/// A coding in which a folder may hold a file in addition to the file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    /// All codings. The first one is preferred at equal weights and sizes.
    pub(super) const ALL: [Coding; 2] = [Coding::Brotli, Coding::Gzip];

    /// The name of the coding in `Content-Encoding` and `Accept-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// The suffix of the name of a file in this coding.
    pub(super) fn suffix(self) -> &'static [u8] {
        match self {
            Coding::Brotli => b".br",
            Coding::Gzip => b".gz",
        }
    }
}

/// The form of a file with the highest weight for the client; among equal weights, the smallest
/// form.
pub(super) fn selected<'f>(
    file: &'f File,
    encoded: &'f [(Coding, File)],
    request: &Request<'_, '_>,
) -> &'f File {
    if encoded.is_empty() {
        return file;
    }
    let accepted = Accepted::of(request);
    // The plain file may be sent even if the client accepts no form.
    let mut best = (accepted.weight("identity").unwrap_or(0), file);
    for (coding, form) in encoded {
        let Some(weight) = accepted.weight(coding.name()).filter(|&weight| weight > 0) else {
            continue;
        };
        let is_smaller = form.content.len() < best.1.content.len();
        if weight > best.0 || weight == best.0 && is_smaller {
            best = (weight, form);
        }
    }
    best.1
}

/// The codings of `Accept-Encoding`, each with its weight in thousandths.
struct Accepted<'r>(Vec<(&'r [u8], u16)>);

impl<'r> Accepted<'r> {
    fn of(request: &Request<'r, '_>) -> Self {
        let lists = request.headers_named("accept-encoding");
        let members = lists.flat_map(|list| list.split(|&byte| byte == b',')).take(MEMBERS_MAX);
        let read = |member: &'r [u8]| {
            let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let coding = parts.next().filter(|coding| !coding.is_empty())?;
            let weight = parts.find_map(|part| {
                part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")).map(thousandths)
            });
            Some((coding, weight.unwrap_or(1000)))
        };
        Accepted(members.filter_map(read).collect())
    }

    /// The weight of a coding; `None` if the client does not name it, so that it accepts only
    /// `identity`.
    fn weight(&self, name: &str) -> Option<u16> {
        let is = |coding: &[u8], name: &str| {
            coding.eq_ignore_ascii_case(name.as_bytes())
                || name == "gzip" && coding.eq_ignore_ascii_case(b"x-gzip")
        };
        let of = |name: &str| self.0.iter().find(|(coding, _)| is(coding, name));
        of(name).or_else(|| of("*")).map(|&(_, weight)| weight)
    }
}

/// The most codings that are read: more than any client sends.
const MEMBERS_MAX: usize = 32;

/// Parses a weight (RFC 9110 section 12.4.2) in thousandths; a malformed weight is 0.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return 0,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    let weight = u16::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    weight.min(1000)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use murre_codec::http::{self, Progress, RequestDecoder, RequestLimits};

    use super::*;

    /// The form of a file follows from `Accept-Encoding`, its weights and the sizes of the forms.
    #[test]
    fn the_client_chooses() {
        let form = |size| File::new(vec![b'x'; size], "text/plain", SystemTime::UNIX_EPOCH, None);
        let file = form(30);
        let encoded = [(Coding::Brotli, form(10)), (Coding::Gzip, form(20))];
        for (accepted, size) in [
            (None, 30),
            (Some(""), 30),
            (Some("gzip"), 20),
            (Some("br"), 10),
            (Some("gzip, deflate, br, zstd"), 10),
            (Some("GZIP"), 20),
            (Some("x-gzip"), 20),
            (Some("*"), 10),
            (Some("br;q=0, *"), 20),
            (Some("*;q=0"), 30),
            (Some("br;q=0.5, gzip;q=0.8"), 20),
            (Some("br;q=0.5, gzip;q=0.8, identity;q=0.9"), 30),
            (Some("br ; q=0.800 ,gzip;q=0.799"), 10),
            (Some("br;q=0, gzip;q=0.0"), 30),
            (Some("br;q=0, gzip;q=0, identity;q=0"), 30),
            (Some("br;q=2, gzip"), 20),
            (Some("br;q=-1"), 30),
            (Some("deflate"), 30),
            (Some("brotli, gzi"), 30),
            (Some("identity, br"), 10),
        ] {
            let field =
                accepted.map_or(String::new(), |value| format!("Accept-Encoding: {value}\r\n"));
            let head = format!("GET / HTTP/1.1\r\nHost: m\r\n{field}\r\n");
            let (mut room, mut decoder) = (http::fields(), RequestDecoder::default());
            match decoder.decode(head.as_bytes(), &mut room, &RequestLimits::default()) {
                Ok(Progress::Request(request)) => {
                    let form = selected(&file, &encoded, &request);
                    assert_eq!(form.content.len(), size, "{accepted:?}");
                }
                _ => panic!("{head:?} is no whole request"),
            }
        }
    }
}
