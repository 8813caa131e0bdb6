//! The request decoder beside a reading of the rules that is written for nothing but clarity.

use murre_codec::http::{BadRequest, HEADERS_MAX, Limits};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::requests::{Outcome, Taken, outcome};

const LIMITS: Limits = Limits { head_bytes_max: 300, target_bytes_max: 40, body_bytes_max: 20 };

/// What a stream that begins with a whole head ought to come to: the length of the first request,
/// or the status of its refusal. `None`: no head ends within the limit.
fn naive(stream: &[u8]) -> Option<Result<usize, u16>> {
    let lead = stream.chunks(2).take_while(|line| line == b"\r\n").count() * 2;
    let rest = &stream[lead..];
    let head = rest.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    if lead > 8 || head > LIMITS.head_bytes_max as usize {
        return None;
    }
    let length = naive_head(&rest[..head]);
    Some(length.map(|body| lead + head + body))
}

/// The length of the body.
fn naive_head(head: &[u8]) -> Result<usize, u16> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head);
    if !head[0].is_ascii_graphic() {
        return Err(400);
    }
    // The longest request line that is waited for.
    let line_max = LIMITS.target_bytes_max as usize + 64;
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
    if target.len() > LIMITS.target_bytes_max as usize {
        return Err(414);
    }
    let is_host = |text: &str| {
        let belongs =
            |letter: char| letter.is_ascii_alphanumeric() || "-._~!$&'()*+,;=%:[]".contains(letter);
        text.chars().all(belongs)
    };
    let has_host = |text: &str| is_host(text) && !text.is_empty() && !text.starts_with(':');
    let lower = target.to_ascii_lowercase();
    let uri = lower.strip_prefix("http://").or(lower.strip_prefix("https://"));
    let in_form = match request.method {
        _ if target.contains('#') => false,
        Some("CONNECT") => {
            let port = target.rsplit(':').next().unwrap_or_default();
            let is_port = !port.is_empty() && port.chars().all(|digit| digit.is_ascii_digit());
            has_host(target) && target.contains(':') && is_port
        }
        Some("OPTIONS") if target == "*" => true,
        _ if target.starts_with('/') => true,
        _ => uri.is_some_and(|uri| has_host(uri.split(['/', '?']).next().unwrap_or_default())),
    };
    let values = |name: &str| {
        let of_name = request.headers.iter().filter(|field| field.name.to_lowercase() == name);
        of_name.map(|field| field.value).collect::<Vec<_>>()
    };
    let one_dot_one = request.version == Some(1);
    let host_fits = match values("host")[..] {
        [] => !one_dot_one,
        [host] => std::str::from_utf8(host).is_ok_and(is_host),
        _ => false,
    };
    if !in_form || !host_fits {
        return Err(400);
    }
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => 0,
        ([], [_]) => return Err(501),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(length).map_or(0, |digits| digits.parse().unwrap_or(usize::MAX))
        }
        _ => return Err(400),
    };
    let known = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if one_dot_one && !values("expect").iter().all(known) {
        return Err(417);
    }
    if body > LIMITS.body_bytes_max as usize {
        return Err(413);
    }
    Ok(body)
}

/// Requests, most of them right or nearly so.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        10 => Just("GET"), 3 => Just("POST"), 1 => Just("OPTIONS"), 1 => Just("CONNECT"),
        1 => Just("get"), 1 => Just("X-Y"), 1 => Just(""),
    ];
    let target = prop_oneof![
        10 => "/[a-z?=/]{0,10}", 1 => Just("*".to_owned()), 1 => "https?://[a-z/?:@#]{0,5}",
        1 => "[a-z:]{1,5}", 1 => "[a-z]{0,2}:[0-9]{0,2}", 1 => "/x{36,44}", 1 => "\\PC{1,3}",
    ];
    let version = prop_oneof![
        10 => Just("HTTP/1.1"), 3 => Just("HTTP/1.0"), 1 => Just("HTTP/2.0"), 1 => Just("HTTP/1"),
    ];
    let name = prop_oneof![
        6 => Just("Host"), 4 => Just("Content-Length"), 1 => Just("content-LENGTH"),
        1 => Just("Transfer-Encoding"), 1 => Just("Expect"), 3 => Just("X"), 1 => Just("X "),
        1 => Just(" X"), 1 => Just(""),
    ];
    let value = prop_oneof![
        10 => "[0-9]{1,2}", 5 => Just("m".to_owned()), 2 => Just("100-continue".to_owned()),
        2 => Just("chunked".to_owned()), 1 => "\\PC{0,4}", 1 => "x{1,150}", 1 => "[0-9]{18,22}",
    ];
    let end = prop_oneof![40 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    let space = prop_oneof![20 => Just(" "), 1 => Just("  "), 1 => Just("\t"), 1 => Just("")];
    let field = (name, space.clone(), value, end.clone())
        .prop_map(|(name, space, value, end)| format!("{name}:{space}{value}{end}"));
    let line = (method, space.clone(), target, space, version, end).prop_map(
        |(method, a, target, b, version, end)| format!("{method}{a}{target}{b}{version}{end}"),
    );
    let host = prop_oneof![10 => Just("Host: m\r\n"), 1 => Just("")];
    (0..3_usize, line, host, vec(field, 0..4), vec(any::<u8>(), 0..30)).prop_map(
        |(lead, line, host, fields, body)| {
            let head = format!("{}{line}{host}{}\r\n", "\r\n".repeat(lead), fields.concat());
            [head.as_bytes(), &body].concat()
        },
    )
}

/// What httparse reads of a head that it takes.
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
        keep_alive: false,
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// Heads are taken and refused as httparse and the rules beside it say, with the same status.
    #[test]
    fn heads_are_judged_by_the_rules(
        stream in request(),
        flip in proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut stream = stream;
        if let Some((at, byte)) = flip {
            *at.get_mut(&mut stream) = byte;
        }
        let ours = outcome([&stream[..]], &LIMITS);
        match naive(&stream) {
            Some(Ok(size)) if size <= stream.len() => prop_assert_eq!(first(&ours), Some(Ok(()))),
            Some(Ok(_)) => prop_assert_eq!(first(&ours), None),
            Some(Err(status)) => prop_assert_eq!(first(&ours), Some(Err(status))),
            // Not a whole head, or too long a one.
            None => prop_assert!(ours.taken.is_empty()),
        }
    }

    /// What is taken, httparse takes with the same fields, and the bodies are what lies between.
    #[test]
    fn what_is_taken_is_what_httparse_reads(requests in vec(request(), 1..4)) {
        let stream = requests.concat();
        let ours = outcome([&stream[..]], &LIMITS);
        let mut rest = &stream[..];
        for mut taken in ours.taken {
            let size = naive(rest).and_then(Result::ok);
            let (request, after) = rest.split_at(size.expect("taken by the rules, too"));
            prop_assert!(request.ends_with(&taken.body));
            let head = &request[..request.len() - std::mem::take(&mut taken.body).len()];
            prop_assert!(head.ends_with(b"\r\n\r\n"));
            taken.keep_alive = false; // Not for httparse to say.
            prop_assert_eq!(as_httparse_reads(head), Some(taken));
            rest = after;
        }
        prop_assert_eq!(ours.size, stream.len() - rest.len());
    }

    /// Any stream, right or wrong, comes to the same in any pieces.
    #[test]
    fn streams_do_not_depend_on_cuts(requests in vec(request(), 1..4), size in 1..60_usize) {
        let stream = requests.concat();
        let whole = outcome([&stream[..]], &LIMITS);
        let pieces = outcome(stream.chunks(size), &LIMITS);
        prop_assert_eq!(
            (whole.taken, whole.refused, whole.size, whole.in_request),
            (pieces.taken, pieces.refused, pieces.size, pieces.in_request)
        );
    }

    /// No bytes whatever make it panic.
    #[test]
    fn no_bytes_panic(bytes in vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..80)) {
        let pieces = outcome(bytes.chunks(1), &LIMITS);
        prop_assert_eq!(pieces.refused.map(BadRequest::status), outcome([&bytes[..]], &LIMITS)
            .refused
            .map(BadRequest::status));
    }
}
