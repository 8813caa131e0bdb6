//! Every case of `docs/http.md` as the decoder sees it: what it refuses, with which status, and what
//! it takes, at once and byte by byte.

use murre_codec::http::{RequestError, RequestLimits};

use crate::cases::{cases, sent, statuses};
use crate::oracles::requests::outcome;

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
                // What follows the last request is not for the decoder to leave alone.
                "closed" => assert_eq!(ends, Some(statuses.len() - 1), "{what}"),
                "open" | "WebSocket" | "waits" | "refused" => {
                    assert_eq!((outcome.taken.len(), ends), (statuses.len(), None), "{what}");
                }
                _ => panic!("{what}: then?"),
            }
            // Who sends the body without waiting is not told to go on.
            if size > 1 {
                assert_eq!(outcome.continues, continues, "{what}");
            }
            let waits = outcome.in_request || continues > 0;
            assert!(then != "waits" || waits || stream == b"\r\n", "{what}");
        }
    }
}
