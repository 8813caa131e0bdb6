//! What request smuggling is made of, each with the section of RFC 9112 or 9110 that it abuses. None
//! of it is taken, so that no proxy in front of us can be made to disagree with us about where a
//! request ends.

use crate::oracles::requests::outcome;
use crate::requests::{at_once, status};
use murre_codec::http::{BadRequest, Limits};

/// A POST with these fields and a body that could be another request.
fn post(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: m\r\n{fields}\r\nGET /admin HTTP/1.1\r\nHost: m\r\n\r\n")
}

/// The table. Two lengths are refused even if they are equal: RFC 9112 section 6.3 allows that, no
/// client of ours has a use for it, and a proxy may have picked another one of them.
#[test]
fn nothing_that_smuggles_is_taken() {
    let attempts = [
        // Two lengths.
        ("9112 6.3", 400, post("Content-Length: 4\r\nContent-Length: 5\r\n")),
        ("9112 6.3", 400, post("Content-Length: 4\r\nContent-Length: 4\r\n")),
        ("9112 6.3", 400, post("Content-Length: 4\r\ncontent-length: 0\r\n")),
        ("9112 6.3", 400, post("Content-Length: 4, 4\r\n")),
        ("9112 6.3", 400, post("Content-Length: 4,5\r\n")),
        // A length and a coding.
        ("9112 6.1", 400, post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n")),
        ("9112 6.1", 400, post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n")),
        ("9112 6.1", 400, post("Transfer-Encoding: identity\r\nContent-Length: 4\r\n")),
        ("9112 6.1", 400, post("transfer-ENCODING:\r\nContent-Length: 4\r\n")),
        // A coding: we take none, and do not skip what we do not know.
        ("9112 6.1", 501, post("Transfer-Encoding: chunked\r\n")),
        ("9112 6.1", 501, post("Transfer-Encoding: xchunked\r\n")),
        ("9112 6.1", 501, post("Transfer-Encoding: gzip, chunked\r\n")),
        ("9112 6.1", 501, post("Transfer-Encoding:\tchunked\r\n")),
        ("9112 6.1", 501, post("Transfer-Encoding: \"chunked\"\r\n")),
        ("9112 6.1", 501, post("Transfer-Encoding:\r\n")),
        // Lengths that are not digits.
        ("9110 8.6", 400, post("Content-Length: +4\r\n")),
        ("9110 8.6", 400, post("Content-Length: -4\r\n")),
        ("9110 8.6", 400, post("Content-Length: 0x4\r\n")),
        ("9110 8.6", 400, post("Content-Length: 4 4\r\n")),
        ("9110 8.6", 400, post("Content-Length: 4;\r\n")),
        ("9110 8.6", 400, post("Content-Length: 4.0\r\n")),
        ("9110 8.6", 400, post("Content-Length: 1e1\r\n")),
        ("9110 8.6", 400, post("Content-Length: \u{664}\r\n")),
        ("9110 8.6", 400, post("Content-Length:\r\n")),
        ("9110 8.6", 413, post("Content-Length: 18446744073709551620\r\n")), // 2^64 + 4
        ("9110 8.6", 413, post("Content-Length: 4294967300\r\n")),           // 2^32 + 4
        // Space before the colon, and folded lines.
        ("9112 5.1", 400, post("Content-Length : 4\r\n")),
        ("9112 5.1", 400, post("Transfer-Encoding : chunked\r\n")),
        ("9112 5.1", 400, post("Transfer-Encoding\t: chunked\r\n")),
        ("9112 5.2", 400, post("Transfer-Encoding:\r\n chunked\r\n")),
        ("9112 5.2", 400, post("X: a\r\n\tContent-Length: 4\r\n")),
        ("9112 2.2", 400, "GET / HTTP/1.1\r\n Host: m\r\n\r\n".to_owned()),
        // Line ends that are not CRLF.
        ("9112 2.2", 400, post("X: a\nContent-Length: 4\r\n")),
        ("9112 2.2", 400, post("X: a\rContent-Length: 4\r\n")),
        ("9112 2.2", 400, post("X: a\r\rContent-Length: 4\r\n")),
        ("9112 2.2", 400, post("X: a\r\n\rContent-Length: 4\r\n")),
        ("9112 2.2", 400, post("X: a\r\n\nGET /admin HTTP/1.1\r\n")),
        ("9112 2.2", 400, "GET / HTTP/1.1\nHost: m\n\n".to_owned()),
        ("9112 2.2", 400, "GET / HTTP/1.1\r\nHost: m\r\n\n".to_owned()),
        ("9112 2.2", 400, "GET / HTTP/1.1\r\nHost: m\n\r\n".to_owned()),
        ("9112 2.2", 400, "GET / HTTP/1.1\rHost: m\r\n\r\n".to_owned()),
        // Names and values with what does not belong there.
        ("9110 5.6.2", 400, post("Content\u{b}Length: 4\r\n")),
        ("9110 5.6.2", 400, post("Content-Length\0: 4\r\n")),
        ("9110 5.6.2", 400, post(": 4\r\n")),
        ("9110 5.6.2", 400, post("no colon\r\n")),
        ("9110 5.6.2", 400, post("(x): 4\r\n")),
        ("9110 5.5", 400, post("X: a\0b\r\n")),
        ("9110 5.5", 400, post("X: a\x7fb\r\n")),
        ("9110 5.5", 400, post("Transfer-Encoding: \u{b}chunked\r\n")),
        // Whose request it is.
        ("9112 3.2", 400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n".to_owned()),
        // Request lines that can be read in two ways.
        ("9112 3", 400, "GET  / HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3", 400, "GET /  HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3", 400, "GET /a b HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3", 400, "GET\t/ HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3", 400, "GET / HTTP/1.1 \r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3", 400, "GET /\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3", 400, "G(T / HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET a HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET * HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET a://b HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET /#b HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2", 400, "GET http://m#/a HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 4.2.1", 400, "GET http:///a HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 4.2.1", 400, "GET http:// HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 4.2.1", 400, "GET http://:80/ HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 4.2.1", 400, "GET https://?a HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 4.2.4", 400, "GET http://a@b/ HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2.2", 400, "GET http://a\\b/ HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2.3", 400, "CONNECT m HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2.3", 400, "CONNECT m: HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2.3", 400, "CONNECT :80 HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2.3", 400, "CONNECT /m:80 HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 3.2.3", 400, "CONNECT http://m:80 HTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        // Versions.
        ("9112 2.3", 400, "GET / http/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 2.3", 400, "GET / HTTP/1\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 2.3", 400, "GET / HTTP/1.10\r\nHost: m\r\n\r\n".to_owned()),
        ("9112 2.3", 400, "GET / XTTP/1.1\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 15.6.6", 505, "GET / HTTP/2.0\r\nHost: m\r\n\r\n".to_owned()),
        ("9110 15.6.6", 505, "GET / HTTP/0.9\r\n\r\n".to_owned()),
        ("9113 3.4", 505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ];
    for (section, expected, request) in attempts {
        assert_eq!(status(request.as_bytes()), expected, "{section}: {request:?}");
        assert!(at_once(request.as_bytes()).taken.is_empty(), "{section}: {request:?}");
        let trickle = outcome(request.as_bytes().chunks(1), &Limits::default());
        let trickled = trickle.refused.map(BadRequest::status);
        assert_eq!(trickled, Some(expected), "{section}, byte by byte: {request:?}");
    }
}

/// What is next to an attempt but can be read in one way only is taken.
#[test]
fn what_is_clear_is_taken() {
    for request in [
        "POST / HTTP/1.1\r\nHost: m\r\nContent-Length:\t4 \r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 00004\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: m\r\nX-Content-Length: 9\r\nContent-Length: 4\r\n\r\nabcd",
        "GET / HTTP/1.1\r\nHost: m\r\nTE: trailers\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]:8000\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: m\r\nX: \u{e9}\r\n\r\n",
        "GET http://other/ HTTP/1.1\r\nHost: m\r\n\r\n",
        "GET https://[::1]:443?a HTTP/1.1\r\nHost: m\r\n\r\n",
        "CONNECT m:80 HTTP/1.1\r\nHost: m\r\n\r\n",
        "CONNECT [::1]:80 HTTP/1.1\r\nHost: m\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let outcome = at_once(request.as_bytes());
        assert_eq!((outcome.refused, outcome.taken.len()), (None, 1), "{request:?}");
        assert_eq!(outcome.size, request.len(), "{request:?}");
    }
}
