//! Where a request has its token.

use murre_codec::http::{self, Limits, Progress, RequestDecoder};

use crate::transports::token;

/// A token in a handshake is found in both places, the field first.
#[test]
fn tokens_of_requests() {
    for (target, field, expected) in [
        ("/ws", "", None),
        ("/ws?token=a.b.c", "", Some("a.b.c")),
        ("/ws?x=1&token=a%2Eb.c", "", Some("a.b.c")),
        ("/ws?token=", "", Some("")),
        ("/ws?token=%ff%zz", "", Some("\u{fffd}%zz")),
        ("/ws", "Authorization: Bearer a.b.c\r\n", Some("a.b.c")),
        ("/ws", "authorization:bEARER   a.b.c  \r\n", Some("a.b.c")),
        ("/ws?token=query", "Authorization: Bearer field\r\n", Some("field")),
        ("/ws?token=query", "Authorization: Basic eDp5\r\n", Some("query")),
        ("/ws", "Authorization: Basic eDp5\r\n", None),
        ("/ws", "Authorization: Bearer\r\n", None),
        ("/ws", "Authorization: Bearertoken\r\n", None),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: murre\r\n{field}\r\n");
        let mut fields = http::fields();
        let mut decoder = RequestDecoder::default();
        let decoded = decoder.decode(head.as_bytes(), &mut fields, &Limits::default());
        let Ok(Progress::Request(request)) = decoded else { panic!("{head:?} is no request") };
        assert_eq!(token(&request).as_deref(), expected, "{head:?}");
    }
}
