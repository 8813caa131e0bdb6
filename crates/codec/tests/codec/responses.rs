//! Responses as we write them, and as a client of ours reads them.

use bytes::Bytes;
use murre_codec::http::{self, BadResponse, Response, ResponseDecoder};

fn written(response: &Response, to_head: bool, keep_alive: bool, minor_version: u8) -> String {
    let mut out = vec![];
    response.write(&mut out, to_head, keep_alive, minor_version, None);
    String::from_utf8(out).expect("text")
}

/// The connection field says what the client's version does not take for granted (RFC 9112 section
/// 9.3), and the length is always there.
#[test]
fn responses_say_how_long_they_are() {
    let response = Response::text(200, "murre\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n";
    for (keep_alive, minor_version, connection) in [
        (true, 1, ""),
        (false, 1, "Connection: close\r\n"),
        (true, 0, "Connection: keep-alive\r\n"),
        (false, 0, ""),
    ] {
        let expected = format!("{head}{connection}\r\n");
        assert_eq!(written(&response, true, keep_alive, minor_version), expected);
        assert_eq!(written(&response, false, keep_alive, minor_version), expected + "murre\n");
    }
}

/// Fields of the answer's own, and the date if there is a clock.
#[test]
fn responses_have_fields() {
    let headers = &[("Allow", "GET, HEAD"), ("X", "y")];
    let response = Response { headers, ..Response::text(405, Bytes::new()) };
    let mut out = vec![];
    response.write(&mut out, false, true, 1, Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(
        String::from_utf8(out).as_deref(),
        Ok("HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nAllow: GET, HEAD\r\nX: y\r\n\r\n")
    );
}

/// Answers that end with their head say nothing about a body and have none (RFC 9110 section 8.6).
#[test]
fn responses_without_a_body() {
    for (status, phrase) in [(204, "No Content"), (304, "Not Modified")] {
        let response = Response::text(status, "never sent");
        assert_eq!(
            written(&response, false, true, 1),
            format!("HTTP/1.1 {status} {phrase}\r\n\r\n")
        );
    }
}

/// The status and body of each response in a stream that arrives in pieces of this size.
fn read(stream: &[u8], size: usize) -> Result<Vec<(u16, Vec<u8>, bool)>, BadResponse> {
    let mut decoder = ResponseDecoder::default();
    let (mut input, mut read) = (vec![], vec![]);
    for piece in stream.chunks(size) {
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
    assert_eq!(input, b"", "everything belongs to a response");
    Ok(read)
}

/// What a server of ours writes, a client of ours reads, in any pieces.
#[test]
fn a_client_reads_what_a_server_writes() {
    let big = "0123456789".repeat(1000);
    let mut stream = http::CONTINUE.to_vec();
    let mut expected = vec![(100, vec![], true)];
    for (status, body, keep_alive, minor_version) in [
        (200, "", true, 1),
        (404, "not found\r\n\r\n", true, 0),
        (204, "", true, 1),
        (200, &big, true, 1),
        (503, "bye", false, 1),
    ] {
        Response::text(status, body.to_owned()).write(
            &mut stream,
            false,
            keep_alive,
            minor_version,
            None,
        );
        expected.push((status, body.as_bytes().to_vec(), keep_alive));
    }
    for size in [1, 2, 3, 7, 100, 1000, 4096, stream.len()] {
        assert_eq!(read(&stream, size).as_ref(), Ok(&expected), "{size} bytes at a time");
    }
}

/// A response whose end is not clear is refused rather than guessed at.
#[test]
fn unclear_responses_are_refused() {
    use BadResponse::*;
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000));
    for (stream, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\nContent-Length: 1\n\n", Malformed),
        ("HTTP/1.1 2xx OK\r\n\r\n", Malformed),
        ("HTTP/2.0 200 OK\r\n\r\n", Malformed),
        ("\r\n\r\n", Malformed),
        ("SSH-2.0-OpenSSH\r\n\r\n", Malformed),
        (&long, HeadTooLong),
    ] {
        assert_eq!(read(stream.as_bytes(), stream.len()), Err(expected), "{stream:?}");
        assert_eq!(read(stream.as_bytes(), 1), Err(expected), "byte by byte: {stream:?}");
    }
}
