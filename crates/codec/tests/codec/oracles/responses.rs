//! Responses, held against httparse and the rules of their length.

use murre_codec::http::{self, HEADERS_MAX, Response, ResponseDecoder, ResponseError};

use super::requests::keeps_alive;

/// Any bytes: what is to be done, and a stream. It is judged by the rules and in any pieces alike,
/// and what it is made of can be answered and read again.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&[choices, size], stream)) = bytes.split_first_chunk() else { return };
    the_first_is_judged_by_the_rules(stream);
    let whole = read([stream]);
    for size in [1, usize::from(size) + 1] {
        assert_eq!(read(stream.chunks(size)), whole, "{size} bytes at a time");
    }
    answers_are_read(choices, stream);
}

/// The status and body of each response in a stream that arrives in these pieces, and whether the
/// connection goes on.
pub(crate) fn read<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> Result<Vec<(u16, Vec<u8>, bool)>, ResponseError> {
    let mut decoder = ResponseDecoder::default();
    let (mut input, mut read) = (vec![], vec![]);
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let mut fields = http::fields();
            let Some(response) = decoder.decode(&input, &mut fields)? else { break };
            assert!(!decoder.in_response());
            read.push((response.status, response.body.to_vec(), response.keep_alive));
            let size = response.size;
            input.drain(..size);
        }
        assert_eq!(decoder.in_response(), !input.is_empty());
    }
    Ok(read)
}

/// The first response is taken with what httparse reads of its head and the body that follows, or
/// refused for the same reason as by the rules.
pub(crate) fn the_first_is_judged_by_the_rules(stream: &[u8]) {
    let mut fields = http::fields();
    let ours = ResponseDecoder::default().decode(stream, &mut fields);
    let Some(head) = head(stream) else { return assert!(ours.is_ok_and(|ours| ours.is_none())) };
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut theirs = httparse::Response::new(&mut fields);
    let size = head.and_then(|head| {
        if theirs.parse(head) != Ok(httparse::Status::Complete(head.len())) {
            return Err(ResponseError::Malformed);
        }
        let body = body(theirs.code.unwrap_or_default(), theirs.headers)?;
        Ok(head.len().saturating_add(body))
    });
    let (ours, size) = match (ours, size) {
        (Ok(Some(ours)), Ok(size)) => (ours, size),
        (ours, Ok(size)) => {
            // It is waited for, as long as its length can be noted.
            let expected = u32::try_from(size).map(|_| ()).map_err(|_| ResponseError::Length);
            assert!(size > stream.len());
            return assert_eq!(ours.map(|_| ()), expected);
        }
        (ours, Err(bad)) => return assert_eq!(ours.map(|_| ()), Err(bad)),
    };
    assert_eq!((ours.size, Some(ours.status)), (size, theirs.code));
    assert_eq!(ours.headers, theirs.headers);
    assert_eq!(ours.body, &stream[size - ours.body.len()..size]);
    assert!(stream[..size - ours.body.len()].ends_with(b"\r\n\r\n"));
    assert_eq!(ours.keep_alive, keeps_alive(theirs.headers, theirs.version.unwrap_or_default()));
}

/// The head, once it has ended or gone wrong.
fn head(stream: &[u8]) -> Option<Result<&[u8], ResponseError>> {
    let seen = &stream[..stream.len().min(16 * 1024)];
    let end = seen.windows(4).position(|end| end == b"\r\n\r\n").map(|end| end + 4);
    let head = &seen[..end.unwrap_or(seen.len())];
    let bare = |at: usize| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r');
    match end {
        _ if (0..head.len()).any(bare) => Some(Err(ResponseError::Malformed)),
        Some(_) => Some(Ok(head)),
        None => (seen.len() == 16 * 1024).then_some(Err(ResponseError::HeadTooLong)),
    }
}

/// RFC 9112 section 6.3, for lengths that are given in one way.
fn body(status: u16, fields: &[httparse::Header<'_>]) -> Result<usize, ResponseError> {
    let values = |name: &str| {
        let of_name = fields.iter().filter(|field| field.name.to_lowercase() == name);
        of_name.map(|field| field.value).collect::<Vec<_>>()
    };
    if (100..200).contains(&status) || [204, 304].contains(&status) {
        return Ok(0);
    }
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            let digits = std::str::from_utf8(length).map_err(|_| ResponseError::Length)?;
            // What does not fit is longer than anything.
            digits.parse().or(Ok(usize::MAX))
        }
        _ => Err(ResponseError::Length),
    }
}

/// What we answer, a client of ours reads.
fn answers_are_read(choices: u8, body: &[u8]) {
    let status = [200, 204, 304, 404, 503, 299, 101, 100][usize::from(choices & 7)];
    let (keep_alive, minor_version) = (choices & 8 == 0, choices >> 4 & 1);
    let response = Response::text(status, body.to_vec()).with("X", "y");
    let mut out = vec![];
    response.write(&mut out, false, keep_alive, minor_version, None);
    let sent = if response.sends_body(false) { body } else { &[] };
    // Closing goes without saying to a client of HTTP/1.0, which ours is not.
    let goes_on = keep_alive || minor_version == 0;
    assert_eq!(read([&out[..]]), Ok(vec![(status, sent.to_vec(), goes_on)]));
}
