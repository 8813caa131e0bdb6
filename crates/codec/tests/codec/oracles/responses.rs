//! Responses, compared with httparse and with the rules of their length.

use murre_codec::http::{
    self, HEADERS_MAX, Response, ResponseDecoder, ResponseError, ResponseOptions,
};

use super::requests::keeps_alive;

/// Checks any bytes: choices, and a stream. The decoder follows the rules, in any pieces, and a
/// response made from the bytes can be written and read again.
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
/// connection continues.
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

/// The decoder accepts the first response with the head that httparse reads and the body after it,
/// or refuses it for the same reason as the rules.
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
            // The decoder waits for the body if it can store the length.
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

/// The head, once it is complete or invalid.
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

/// The length of the body by RFC 9112 section 6.3, for a length that is given only once.
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
            // A number that does not fit a `usize` exceeds every limit.
            digits.parse().or(Ok(usize::MAX))
        }
        _ => Err(ResponseError::Length),
    }
}

/// A client of ours reads every response that we write.
fn answers_are_read(choices: u8, body: &[u8]) {
    let status = [200, 204, 304, 404, 503, 299, 101, 100][usize::from(choices & 7)];
    let (keep_alive, minor_version) = (choices & 8 == 0, choices >> 4 & 1);
    let response = Response::text(status, body.to_vec()).with("X", "y");
    let mut out = vec![];
    let options = ResponseOptions { keep_alive, minor_version, ..ResponseOptions::default() };
    response.write(&mut out, &options);
    let sent = if response.sends_body(&options) { body } else { &[] };
    // A response to a client of HTTP/1.0 needs no field to close the connection, but our client
    // speaks HTTP/1.1.
    let goes_on = keep_alive || minor_version == 0;
    assert_eq!(read([&out[..]]), Ok(vec![(status, sent.to_vec(), goes_on)]));
}
