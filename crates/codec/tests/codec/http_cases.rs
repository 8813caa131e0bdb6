//! Every case of `docs/http.md` for the decoder: the requests that it refuses, with their status,
//! and those that it accepts, at once and byte by byte.

use murre_codec::http::{RequestError, RequestLimits};

use crate::cases::{cases, sent, statuses};
use crate::oracles::requests::outcome;
/// The decoder's result equals the documented result in every case of `docs/http.md`.

#[test]
fn requests_come_to_what_the_document_says() {
    let cases = cases();
    assert!(cases.len() > 200, "{} cases", cases.len());
    for [section, case, code, answers, then] in cases {
        let (stream, mut statuses) = (sent(code), statuses(answers));
        let continues = statuses.extract_if(.., |status| *status == 100).count();
        let refused = if then == "refused" { statuses.pop() } else { None };
        for size in [stream.len(), 1] {
            let outcome = outcome(stream.chunks(size), &RequestLimits::default());
            let what = format!("{section}, {case}, {size} bytes at a time: {code}");
            assert_eq!(outcome.refused.map(RequestError::status), refused, "{what}");
            let ends = outcome.taken.iter().position(|taken| !taken.keep_alive);
            match then {
                // The decoder also reads requests after the last one; the server ignores them.
                "closed" => assert_eq!(ends, Some(statuses.len() - 1), "{what}"),
                // The server ends the connection, and does not read on.
                "ended" => assert_eq!(ends, None, "{what}"),
                "open" | "WebSocket" | "waits" | "refused" => {
                    assert_eq!((outcome.taken.len(), ends), (statuses.len(), None), "{what}");
                }
                _ => panic!("{what}: then?"),
            }
            // A client that sends the body without waiting gets no `100 Continue`.
            if size > 1 {
                assert_eq!(outcome.continues, continues, "{what}");
            }
            let waits = outcome.in_request || continues > 0;
            assert!(then != "waits" || waits || stream == b"\r\n", "{what}");
        }
    }
}
