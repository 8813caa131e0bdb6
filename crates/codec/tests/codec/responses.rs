//! Responses as the server writes them, and as our client reads them.

use bytes::Bytes;
use murre_codec::http::{self, Response, ResponseError, ResponseOptions};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::oracles::responses::{read, the_first_is_judged_by_the_rules};

const USUAL: ResponseOptions<'_> =
    ResponseOptions { to_head: false, keep_alive: true, minor_version: 1, date: None };

fn written(response: &Response, options: ResponseOptions<'_>) -> String {
    let mut out = vec![];
    response.write(&mut out, &options);
    String::from_utf8(out).expect("text")
}

/// A response has a `Connection` field if it differs from the default of the client's version (RFC
/// 9112 section 9.3), and always has a length.
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
        let options = ResponseOptions { keep_alive, minor_version, ..USUAL };
        assert_eq!(written(&response, ResponseOptions { to_head: true, ..options }), expected);
        assert_eq!(written(&response, options), expected + "murre\n");
    }
}

/// A response has its own fields, and a `Date` if there is a clock.
#[test]
fn responses_have_fields() {
    let response = Response::text(405, Bytes::new()).with("Allow", "GET, HEAD").with("X", "y");
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(
        written(&response, ResponseOptions { date, ..USUAL }),
        "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nAllow: GET, HEAD\r\nX: y\r\n\r\n"
    );
}

/// Responses that end with their head have no body and no length (RFC 9110 section 8.6).
#[test]
fn responses_without_a_body() {
    for (status, phrase) in [(204, "No Content"), (304, "Not Modified")] {
        let response = Response::text(status, "never sent");
        assert_eq!(written(&response, USUAL), format!("HTTP/1.1 {status} {phrase}\r\n\r\n"));
    }
}

/// A head that is written alone equals the response to HEAD, and has the length of the body.
#[test]
fn a_head_can_go_before_its_body() {
    let response = Response::text(206, "murre\n").with("Content-Range", "bytes 0-5/12");
    let mut head = vec![];
    response.write_head(&mut head, &USUAL);
    let to_head = ResponseOptions { to_head: true, ..USUAL };
    assert_eq!(String::from_utf8(head), Ok(written(&response, to_head)));
    assert!(response.sends_body(&USUAL) && !response.sends_body(&to_head));
    assert!(!Response::text(304, "").sends_body(&USUAL));
}

/// Our client reads every response of our server, in any pieces.
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
        let options = ResponseOptions { keep_alive, minor_version, ..USUAL };
        Response::text(status, body.to_owned()).write(&mut stream, &options);
        expected.push((status, body.as_bytes().to_vec(), keep_alive));
    }
    for size in [1, 2, 3, 7, 100, 1000, 4096, stream.len()] {
        assert_eq!(read(stream.chunks(size)).as_ref(), Ok(&expected), "{size} bytes at a time");
    }
    for cut in (0..=stream.len()).filter(|cut| cut % 64 == 0 || !(600..10_000).contains(cut)) {
        let (first, second) = stream.split_at(cut);
        assert_eq!(read([first, second]).as_ref(), Ok(&expected), "cut at {cut}");
    }
}

/// A response whose end is ambiguous is refused.
#[test]
fn unclear_responses_are_refused() {
    use ResponseError::*;
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
        assert_eq!(read([stream.as_bytes()]), Err(expected), "{stream:?}");
        assert_eq!(read(stream.as_bytes().chunks(1)), Err(expected), "byte by byte: {stream:?}");
    }
}

/// Responses that end with their head have no body, whatever length the head has (RFC 9112 section
/// 6.3).
#[test]
fn lengths_of_bodies_that_are_not_sent() {
    for status in [100, 101, 103, 204, 304] {
        for field in ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y"] {
            let stream = format!("HTTP/1.1 {status} X\r\n{field}\r\n\r\n");
            let expected = vec![(status, vec![], true)];
            assert_eq!(read([stream.as_bytes()]), Ok(expected), "{stream:?}");
        }
    }
}

/// Responses, most of them valid or nearly valid.
fn response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        10 => Just("HTTP/1.1 200 OK"), 2 => Just("HTTP/1.0 404 Not Found"),
        1 => Just("HTTP/1.1 204 "), 1 => Just("HTTP/1.1 101"), 1 => Just("HTTP/2 200"),
        1 => Just("HTTP/1.1 20 x"), 1 => Just("HTTP/1.1  200 OK"), 1 => Just(""),
    ];
    let field = prop_oneof![
        6 => "Content-Length: [0-9]{1,2}", 1 => "content-length: [0-9]{9,20}",
        1 => Just("Transfer-Encoding: chunked".to_owned()), 2 => "Connection: (close|x|, )",
        2 => "[a-zX]{0,3}:? ?\\PC{0,3}",
    ];
    let end = || prop_oneof![40 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    let body = vec(any::<u8>(), 0..60);
    (line, end(), vec((field, end()), 0..3), end(), body).prop_map(
        |(line, end, fields, last, body)| {
            let fields: String =
                fields.into_iter().map(|(field, end)| format!("{field}{end}")).collect();
            [format!("{line}{end}{fields}{last}").as_bytes(), &body].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Any stream, valid or not, gives the same result in any pieces, without a panic.
    #[test]
    fn streams_do_not_depend_on_cuts(responses in vec(response(), 1..4), size in 1..60_usize) {
        let stream = responses.concat();
        prop_assert_eq!(read([&stream[..]]), read(stream.chunks(size)));
    }

    /// The decoder accepts what httparse reads, or refuses for the reason of the rules.
    #[test]
    fn responses_are_judged_by_the_rules(stream in response()) {
        the_first_is_judged_by_the_rules(&stream);
    }

    /// No input makes the decoder panic.
    #[test]
    fn no_bytes_panic(bytes in vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..80)) {
        prop_assert_eq!(read(bytes.chunks(1)), read([&bytes[..]]));
    }
}
