//! Pipelined requests in any pieces, and their limits.

use murre_codec::http::{self, Progress, RequestDecoder, RequestError, RequestLimits};

use crate::oracles::requests::{Outcome, outcome};

/// The result of a stream that arrives at once.
pub(crate) fn at_once(stream: &[u8]) -> Outcome {
    outcome([stream], &RequestLimits::default())
}

/// The status of the refusal, or 200.
pub(crate) fn status(stream: &[u8]) -> u16 {
    at_once(stream).refused.map_or(200, RequestError::status)
}

/// One request of each shape: bodies of several lengths, none, HTTP/1.0, empty lines before it.
fn pipeline() -> Vec<u8> {
    [
        &b"GET / HTTP/1.1\r\nHost: m\r\n\r\n"[..],
        b"POST /a?b=c HTTP/1.1\r\nhost:m\r\nContent-Length: 11\r\n\r\nhello\r\n\r\nhi",
        b"\r\n\r\nPUT /empty HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n",
        b"POST /again HTTP/1.1\r\nHost: m\r\nX-Empty:\r\nContent-Length: 0005\r\n\r\n12345",
        b"\r\nGET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nConnection: foo, Close\r\n\r\n",
    ]
    .concat()
}

/// Pipelined requests are read one by one, with their bodies.
#[test]
fn pipelined_requests() {
    let stream = pipeline();
    let outcome = at_once(&stream);
    assert_eq!((outcome.refused, outcome.size), (None, stream.len()));
    let [get, post, put, again, old, options] = &outcome.taken[..] else { panic!("{outcome:?}") };
    assert_eq!((&get.method[..], &get.target[..], &get.body[..]), ("GET", "/", &b""[..]));
    assert_eq!((&post.method[..], &post.target[..]), ("POST", "/a?b=c"));
    assert_eq!(post.body, b"hello\r\n\r\nhi");
    assert_eq!(put.body, b"");
    assert_eq!(again.body, b"12345");
    assert_eq!(again.headers[1], ("X-Empty".to_owned(), vec![]));
    assert_eq!((old.minor_version, old.keep_alive), (0, true));
    assert_eq!((options.minor_version, options.keep_alive), (1, false));
}

/// Chunks of every size and every cut into two give the same result as the whole.
#[test]
fn requests_in_any_pieces() {
    let stream = pipeline();
    let limits = RequestLimits::default();
    let expected = at_once(&stream);
    for size in 1..stream.len() {
        assert_eq!(outcome(stream.chunks(size), &limits), expected, "{size} bytes at a time");
    }
    for cut in 0..=stream.len() {
        let (first, second) = stream.split_at(cut);
        assert_eq!(outcome([first, second], &limits), expected, "cut at {cut}");
    }
}

/// A connection is idle until the first byte of a request. Empty lines do not count (RFC 9112
/// section 2.2), in whatever pieces, and their number is limited.
#[test]
fn empty_lines_before_a_request() {
    let get = b"GET / HTTP/1.1\r\nHost: m\r\n\r\n";
    for lines in 0..=6 {
        let stream = [&b"\r\n".repeat(lines)[..], get].concat();
        let outcome = outcome(stream.chunks(1), &RequestLimits::default());
        match lines {
            0..=4 => assert_eq!((outcome.taken.len(), outcome.size), (1, stream.len()), "{lines}"),
            _ => assert_eq!(outcome.refused, Some(RequestError::Malformed), "{lines}"),
        }
    }
    for (bytes, in_request) in [
        (&b""[..], false),
        (b"\r", false),
        (b"\r\n", false),
        (b"\r\n\r", false),
        (b"\r\nG", true),
        (b"GET / HTTP/1.1\r\nHost: m\r\n\r", true),
        (b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\n\r\n", true),
    ] {
        for pieces in [bytes.len().max(1), 1] {
            let outcome = outcome(bytes.chunks(pieces), &RequestLimits::default());
            assert_eq!(outcome.refused, None, "{bytes:?}");
            assert_eq!(outcome.in_request, in_request, "{bytes:?}");
        }
    }
    for wrong in [&b"\rGET"[..], b"\r\r\n", b"\n", b"\r\n\nG", b" GET / HTTP/1.1\r\n"] {
        assert_eq!(status(wrong), 400, "{wrong:?}");
    }
}

/// The connection continues or ends by RFC 9112 section 9.3.
#[test]
fn keep_alive() {
    for (version, connection, expected) in [
        (1, "", true),
        (1, "Connection: close\r\n", false),
        (1, "Connection: keep-alive\r\n", true),
        (1, "Connection: x\r\nConnection: y ,\tCLOSE\r\n", false),
        (1, "Connection: closed\r\n", true),
        (0, "", false),
        (0, "Connection: Keep-Alive\r\n", true),
        (0, "Connection: keep-alive, close\r\n", false),
    ] {
        let request = format!("GET / HTTP/1.{version}\r\nHost: m\r\n{connection}\r\n");
        let taken = &at_once(request.as_bytes()).taken[0];
        assert_eq!(taken.keep_alive, expected, "{request:?}");
    }
}

/// A client that waits gets one `100 Continue` when its head has arrived and its body has not, and
/// never in HTTP/1.0 (RFC 9110 section 10.1.1).
#[test]
fn expectations() {
    let post = |version: u8, expect: &str| {
        format!("POST / HTTP/1.{version}\r\nHost: m\r\nContent-Length: 3\r\n{expect}\r\nabc")
    };
    for (version, expect, continues, status) in [
        (1, "", 0, 200),
        (1, "Expect: 100-continue\r\n", 1, 200),
        (1, "expect: 100-Continue\r\n", 1, 200),
        (1, "Expect: 200-ok\r\n", 0, 417),
        (1, "Expect: 100-continue\r\nExpect: more\r\n", 0, 417),
        (1, "Expect:\r\n", 0, 417),
        (0, "Expect: 100-continue\r\n", 0, 200),
        (0, "Expect: 200-ok\r\n", 0, 200),
    ] {
        let post = post(version, expect);
        let outcome = outcome(post.as_bytes().chunks(1), &RequestLimits::default());
        assert_eq!(outcome.refused.map_or(200, RequestError::status), status, "{post:?}");
        assert_eq!(outcome.continues, continues, "{post:?}");
        // The body has arrived: the client does not wait.
        assert_eq!(at_once(post.as_bytes()).continues, 0, "{post:?}");
    }
    let nothing =
        b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!((at_once(nothing).continues, at_once(nothing).taken.len()), (0, 1));
    assert_eq!(http::CONTINUE, b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Every limit is exact to the byte and has its status, however the request arrives.
#[test]
fn limits_have_their_status() {
    let limits = RequestLimits {
        max_head_bytes: 512,
        max_target_bytes: 200,
        max_body_bytes: 100,
        max_header_fields: 20,
    };
    let head = |len: usize| {
        let head = "GET / HTTP/1.1\r\nHost: m\r\nX: \r\n\r\n";
        head.replace("X: ", &format!("X: {}", "x".repeat(len - head.len())))
    };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: m\r\n\r\n", "x".repeat(len - 1));
    let body = |len: usize| {
        format!("POST / HTTP/1.1\r\nHost: m\r\nContent-Length: {len}\r\n\r\n{}", "x".repeat(len))
    };
    let fields = |count: usize| {
        let others: String = (1..count).map(|number| format!("{number}:\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: m\r\n{others}\r\n")
    };
    let huge = "POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 99999999999999999999999\r\n\r\n";
    for (request, status) in [
        (head(512), 200),
        (head(513), 431),
        (head(5000), 431),
        (target(200), 200),
        (target(201), 414),
        (target(260), 414),
        (target(300), 414),
        (target(5000), 414),
        (body(100), 200),
        (body(101), 413),
        (huge.to_owned(), 413),
        (fields(20), 200),
        (fields(21), 431),
    ] {
        for size in [request.len(), 7, 1] {
            let outcome = outcome(request.as_bytes().chunks(size), &limits);
            let got = outcome.refused.map_or(200, RequestError::status);
            assert_eq!(got, status, "{size} bytes at a time: {request:?}");
        }
    }
}

/// If the target may be longer than the head, a request line that leaves no room for the rest of
/// the head counts as too long a target.
#[test]
fn the_line_is_part_of_the_head() {
    let limits =
        RequestLimits { max_head_bytes: 300, max_target_bytes: 1000, ..RequestLimits::default() };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: m\r\n\r\n", "x".repeat(len - 1));
    for (len, status) in [(274, 200), (275, 431), (284, 431), (285, 414), (900, 414), (5000, 414)] {
        for size in [6000, 7, 1] {
            let outcome = outcome(target(len).as_bytes().chunks(size), &limits);
            let got = outcome.refused.map_or(200, RequestError::status);
            assert_eq!(got, status, "{len}, {size} bytes at a time");
        }
    }
}

/// The largest limits do not overflow: the decoder waits for a body of 4 GiB.
#[test]
fn limits_without_a_limit() {
    let max = u32::MAX;
    let limits = RequestLimits {
        max_head_bytes: max,
        max_target_bytes: max,
        max_body_bytes: max,
        max_header_fields: u16::MAX,
    };
    for (length, refused) in [
        (u64::from(max) - 100, None),
        (u64::from(max) - 55, None),
        (u64::from(max), None),
        (u64::from(max) + 1, Some(RequestError::BodyTooLong)),
        (u64::MAX, Some(RequestError::BodyTooLong)),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: m\r\nContent-Length: {length}\r\n\r\n");
        for size in [head.len(), 1] {
            let outcome = outcome(head.as_bytes().chunks(size), &limits);
            assert_eq!(outcome.refused, refused, "{head:?}");
            assert_eq!(outcome.in_request, refused.is_none(), "{head:?}");
        }
    }
    assert_eq!(outcome([&pipeline()[..]], &limits), at_once(&pipeline()));
}

/// A limit is enforced without waiting for the end of the part that exceeds it.
#[test]
fn limits_do_not_wait() {
    let limits = RequestLimits {
        max_head_bytes: 512,
        max_target_bytes: 200,
        max_body_bytes: 100,
        max_header_fields: 20,
    };
    let endless_target = format!("GET /{}", "x".repeat(300));
    let endless_head = format!("GET / HTTP/1.1\r\nHost: m\r\nX: {}", "x".repeat(500));
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for (bytes, status) in
        [(endless_target.as_bytes(), 414), (endless_head.as_bytes(), 431), (&tls[..1], 400)]
    {
        assert_eq!(outcome([bytes], &limits).refused.map(RequestError::status), Some(status));
    }
}

/// A request returns its path, its query values and the answers to other questions of a handler.
#[test]
fn questions_to_a_request() {
    for (target, path, name, value) in [
        ("/", "/", "length", None),
        ("/?length=7", "/", "length", Some("7")),
        ("/a/b?x=1&length=&length=2", "/a/b", "length", Some("")),
        ("/a?lengths=1&length", "/a", "length", Some("")),
        ("/a?b=c?d=e", "/a", "b", Some("c?d=e")),
        ("/a?to=http://m/b", "/a", "to", Some("http://m/b")),
        ("http://m:80/a?b=1", "/a", "b", Some("1")),
        ("HTTPS://m", "/", "b", None),
        ("http://m?b=/c", "/", "b", Some("/c")),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: m\r\nA: 1\r\na: 2, Three\r\n\r\n");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        let progress = decoder.decode(head.as_bytes(), &mut fields, &RequestLimits::default());
        let Ok(Progress::Request(request)) = progress else { panic!("{progress:?}") };
        assert_eq!((request.path(), request.query(name)), (path, value), "{target}");
        assert_eq!((request.header("A"), request.header("b")), (Some(&b"1"[..]), None));
        assert_eq!(request.headers_named("a").collect::<Vec<_>>(), [&b"1"[..], b"2, Three"]);
        assert!(request.lists("a", "three") && request.lists("a", "1") && !request.lists("a", "3"));
        assert!(!request.wants_websocket());
    }
}

/// The text of each refusal is one line with the reason.
#[test]
fn refusals_say_why() {
    use RequestError::*;
    for bad in [
        Malformed,
        Version,
        Host,
        Length,
        Chunked,
        TargetTooLong,
        HeadTooLong,
        BodyTooLong,
        Expectation,
        Encoded,
        Tunnel,
    ] {
        assert!(bad.reason().ends_with('\n'), "{bad:?}");
        assert!((400..600).contains(&bad.status()), "{bad:?}");
    }
}
