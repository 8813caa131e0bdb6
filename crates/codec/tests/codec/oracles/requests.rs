//! Requests, compared with httparse and with an implementation of the rules that aims only at
//! clarity.

use murre_codec::http::{self, HEADERS_MAX, Progress, RequestDecoder, RequestError, RequestLimits};

/// Checks any bytes: choices, and a stream. The decoder follows the rules, in any pieces.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&[choices, size], stream)) = bytes.split_first_chunk() else { return };
    let limits = if choices & 1 == 0 { TIGHT } else { RequestLimits::default() };
    heads_are_judged_by_the_rules(stream, &limits);
    what_is_taken_is_what_httparse_reads(stream, &limits);
    for size in [1, usize::from(size) + 1] {
        pieces_do_not_matter(stream, size, &limits);
    }
}

/// Limits that short streams can exceed.
pub(crate) const TIGHT: RequestLimits = RequestLimits {
    max_head_bytes: 300,
    max_target_bytes: 40,
    max_body_bytes: 20,
    max_header_fields: 5,
};

/// The first head is accepted or refused as httparse and the rules beside it say, with the same
/// status.
pub(crate) fn heads_are_judged_by_the_rules(stream: &[u8], limits: &RequestLimits) {
    let ours = outcome([stream], limits);
    match naive(stream, limits) {
        Some(Ok(size)) if size <= stream.len() => assert_eq!(first(&ours), Some(Ok(()))),
        Some(Ok(_)) => assert_eq!(first(&ours), None),
        Some(Err(status)) => assert_eq!(first(&ours), Some(Err(status))),
        // The head is incomplete or too long.
        None => assert!(ours.taken.is_empty()),
    }
}

/// Httparse reads every accepted request with the same fields, and the bodies are the bytes between
/// the heads.
pub(crate) fn what_is_taken_is_what_httparse_reads(stream: &[u8], limits: &RequestLimits) {
    let ours = outcome([stream], limits);
    let mut rest = stream;
    for mut taken in ours.taken {
        let size = naive(rest, limits).and_then(Result::ok);
        let (request, after) = rest.split_at(size.expect("taken by the rules, too"));
        assert!(request.ends_with(&taken.body));
        let head = &request[..request.len() - std::mem::take(&mut taken.body).len()];
        assert!(head.ends_with(b"\r\n\r\n"));
        assert_eq!(as_httparse_reads(head), Some(taken));
        rest = after;
    }
    assert_eq!(ours.size, stream.len() - rest.len());
}

/// Any stream, valid or not, gives the same result in any pieces.
pub(crate) fn pieces_do_not_matter(stream: &[u8], size: usize, limits: &RequestLimits) {
    let whole = outcome([stream], limits);
    let pieces = outcome(stream.chunks(size), limits);
    assert_eq!(
        (whole.taken, whole.refused, whole.size, whole.in_request),
        (pieces.taken, pieces.refused, pieces.size, pieces.in_request),
        "{size} bytes at a time"
    );
}

/// An accepted request, with owned fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taken {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
    pub(crate) minor_version: u8,
}

/// The result of a stream of requests: the accepted requests, the number of `100 Continue`
/// responses, and the refusal that ended the stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) taken: Vec<Taken>,
    pub(crate) continues: usize,
    pub(crate) refused: Option<RequestError>,
    /// The bytes of all accepted requests.
    pub(crate) size: usize,
    pub(crate) in_request: bool,
}

/// Feeds a stream in pieces to a decoder, as the server does.
pub(crate) fn outcome<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
    limits: &RequestLimits,
) -> Outcome {
    let mut decoder = RequestDecoder::default();
    let mut outcome = Outcome::default();
    let mut input = vec![];
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let mut fields = http::fields();
            let request = match decoder.decode(&input, &mut fields, limits) {
                Ok(Progress::Request(request)) => request,
                Ok(Progress::Partial) => break,
                Ok(Progress::Continue) => {
                    outcome.continues += 1;
                    break;
                }
                Err(bad) => {
                    outcome.refused = Some(bad);
                    return outcome;
                }
            };
            assert!(!decoder.in_request(), "a whole request leaves nothing behind");
            assert!(!request.path().contains('?'), "a path has no query");
            let size = request.size;
            outcome.size += size;
            outcome.taken.push(Taken {
                method: request.method.to_owned(),
                target: request.target.to_owned(),
                headers: (request.headers.iter())
                    .map(|field| (field.name.to_owned(), field.value.to_vec()))
                    .collect(),
                body: request.body.to_vec(),
                keep_alive: request.keep_alive,
                minor_version: request.minor_version,
            });
            input.drain(..size);
        }
    }
    outcome.in_request = decoder.in_request();
    outcome
}

/// The expected result for a stream that begins with a whole head: the length of the first request,
/// or the status of its refusal. `None`: no head ends within the limit.
fn naive(stream: &[u8], limits: &RequestLimits) -> Option<Result<usize, u16>> {
    let lead = stream.chunks(2).take_while(|line| line == b"\r\n").count() * 2;
    let rest = &stream[lead..];
    let head = rest.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    if lead > 8 || head > limits.max_head_bytes as usize {
        return None;
    }
    let length = naive_head(&rest[..head], limits);
    Some(length.map(|body| lead + head + body))
}

/// The length of the body, or the status of the refusal.
fn naive_head(head: &[u8], limits: &RequestLimits) -> Result<usize, u16> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.max_header_fields.into()];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head);
    if !head[0].is_ascii_graphic() {
        return Err(400);
    }
    // The longest request line for which the decoder waits.
    let line_max = (limits.max_target_bytes as usize + 64).min(limits.max_head_bytes as usize - 1);
    if head.len() > line_max && !head[..line_max].contains(&b'\n') {
        return Err(414);
    }
    if (1..head.len()).any(|at| head[at] == b'\n' && head[at - 1] != b'\r') {
        return Err(400);
    }
    match parsed {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(400),
        Err(httparse::Error::Version) => {
            let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            let [_, _, version] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(400) };
            let digits = version.strip_prefix("HTTP/").and_then(|digits| digits.split_once('.'));
            let is_digit = |text: &str| text.len() == 1 && text.as_bytes()[0].is_ascii_digit();
            let named = digits.is_some_and(|(major, minor)| is_digit(major) && is_digit(minor));
            return Err(if named { 505 } else { 400 });
        }
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    }
    let target = request.path.unwrap_or_default();
    if target.len() > limits.max_target_bytes as usize {
        return Err(414);
    }
    if request.method == Some("CONNECT") {
        return Err(501);
    }
    let lower = target.to_ascii_lowercase();
    let uri = lower.strip_prefix("http://").or(lower.strip_prefix("https://"));
    let in_form = match request.method {
        _ if target.contains('#') || !target.is_ascii() => false,
        Some("OPTIONS") if target == "*" => true,
        _ if target.starts_with('/') => true,
        _ => uri.is_some_and(|uri| {
            let authority = uri.split(['/', '?']).next().unwrap_or_default();
            naive_host(authority) && !authority.is_empty() && !authority.starts_with(':')
        }),
    };
    let values = |name: &str| {
        let of_name = request.headers.iter().filter(|field| field.name.to_lowercase() == name);
        of_name.map(|field| field.value).collect::<Vec<_>>()
    };
    let one_dot_one = request.version == Some(1);
    let host_fits = match values("host")[..] {
        [] => !one_dot_one,
        [host] => std::str::from_utf8(host).is_ok_and(naive_host),
        _ => false,
    };
    if !in_form || !host_fits {
        return Err(400);
    }
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => 0,
        ([], [codings]) => {
            let codings = codings.to_ascii_lowercase();
            let codings: Vec<_> =
                codings.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).collect();
            let chunks = codings.iter().filter(|&&coding| coding == b"chunked").count();
            let at_the_end = codings.last() == Some(&&b"chunked"[..]);
            return Err(match (one_dot_one && at_the_end && chunks == 1, codings.len()) {
                (false, _) => 400,
                (true, 1) => 411,
                (true, _) => 501,
            });
        }
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(length).map_or(0, |digits| digits.parse().unwrap_or(usize::MAX))
        }
        _ => return Err(400),
    };
    let known = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if one_dot_one && !values("expect").iter().all(known) {
        return Err(417);
    }
    if body > limits.max_body_bytes as usize {
        return Err(413);
    }
    Ok(body)
}

/// Whether the text is a name without colons or an address in brackets, with an optional port.
fn naive_host(text: &str) -> bool {
    let belongs =
        |letter: char| letter.is_ascii_alphanumeric() || "-._~!$&'()*+,;=%".contains(letter);
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], &text[end + 1..]),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => {
            let (address, zone) = address.split_once('%').unwrap_or((address, ""));
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && zone.chars().all(|letter| belongs(letter) || letter == ':')
        }
        None => host.chars().all(belongs),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    is_host
        && (port.is_empty() || port.starts_with(':'))
        && digits.chars().all(|digit| digit.is_ascii_digit())
}

/// The request that httparse reads, if it accepts the head.
fn as_httparse_reads(head: &[u8]) -> Option<Taken> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let whole = request.parse(head).ok()?.is_complete();
    let headers = request.headers.iter();
    whole.then_some(Taken {
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        headers: headers.map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
        body: vec![],
        keep_alive: keeps_alive(request.headers, request.version?),
        minor_version: request.version?,
    })
}

fn first(outcome: &Outcome) -> Option<Result<(), u16>> {
    match (&outcome.taken[..], outcome.refused) {
        ([_, ..], _) => Some(Ok(())),
        ([], Some(bad)) => Some(Err(bad.status())),
        ([], None) => None,
    }
}

/// Whether the connection continues, by RFC 9112 section 9.3.
pub(super) fn keeps_alive(headers: &[httparse::Header<'_>], minor_version: u8) -> bool {
    let fields = headers.iter().filter(|field| field.name.to_lowercase() == "connection");
    let fields = fields.map(|field| String::from_utf8_lossy(field.value).to_ascii_lowercase());
    let fields = fields.collect::<Vec<_>>().join(",");
    let has = |option| fields.split(',').any(|item| item.trim_ascii() == option);
    !has("close") && (minor_version == 1 || has("keep-alive"))
}
