//! Valid and nearly valid requests, compared with the rules.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::oracles::requests::{self as oracle, TIGHT};

/// Requests, most of them valid or nearly valid.
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
        2 => "(gzip,|chunked, ?)?(chunked|Chunked)",
        1 => "\\[?[:1a]{1,4}\\]?(:[0-9]?)?", 1 => "\\PC{0,4}", 1 => "x{1,150}", 1 => "[0-9]{18,22}",
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// Heads are accepted and refused as httparse and the rules beside it say, with the same
    /// status.
    #[test]
    fn heads_are_judged_by_the_rules(
        stream in request(),
        flip in proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut stream = stream;
        if let Some((at, byte)) = flip {
            *at.get_mut(&mut stream) = byte;
        }
        oracle::heads_are_judged_by_the_rules(&stream, &TIGHT);
    }

    /// Httparse reads every accepted request with the same fields, and the bodies are the bytes
    /// between the heads.
    #[test]
    fn what_is_taken_is_what_httparse_reads(requests in vec(request(), 1..4)) {
        oracle::what_is_taken_is_what_httparse_reads(&requests.concat(), &TIGHT);
    }

    /// Any stream, valid or not, gives the same result in any pieces.
    #[test]
    fn streams_do_not_depend_on_cuts(requests in vec(request(), 1..4), size in 1..60_usize) {
        oracle::pieces_do_not_matter(&requests.concat(), size, &TIGHT);
    }

    /// No input makes the decoder panic.
    #[test]
    fn no_bytes_panic(bytes in vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..80)) {
        oracle::pieces_do_not_matter(&bytes, 1, &TIGHT);
    }
}
