//! Tests of answers: which are read, and how.

use super::answer::without_effect;
use super::*;

/// Bytes of data at most.
const DATA_MAX: usize = 100;

fn read(kind: CallKind, body: &str) -> Result<Answer, String> {
    Answer::read(kind, body.as_bytes(), DATA_MAX)
}

fn result(kind: CallKind, body: &str) -> CallResult {
    match read(kind, body) {
        Ok(Answer::Result(result)) => *result,
        other => panic!("{body}: {other:?}"),
    }
}

/// The documented members are read; others, and those that are null, are ignored.
#[test]
fn results() {
    let body = r#" {"result":{"user":"ann","expire_at":1700000000,"channels":["a"],"subs":{"b":{}},
        "meta":{"x": 1},"info":{ "n": 1.0 },"data":{ "a" : [1, "b c"] },"override":null},"error":null} "#;
    let read = result(CallKind::Connect, body);
    assert_eq!((read.user.as_deref(), read.expire_at), (Some("ann"), Some(1_700_000_000)));
    assert_eq!(read.data, Some(Data::Json(br#"{"a":[1,"b c"]}"#.to_vec())));
    let text = |json: &Option<RawJson>| json.as_ref().map(|json| json.0.get().to_owned());
    assert_eq!(text(&read.channels).as_deref(), Some(r#"["a"]"#));
    assert_eq!(text(&read.meta).as_deref(), Some(r#"{"x": 1}"#));
    assert_eq!(read.info.as_deref(), Some(&br#"{"n":1.0}"#[..]));
    let nobody = r#"{"result":{"user":"","expire_at":0,"channels":null,"subs":null}}"#;
    for body in [r#"{"result":{}}"#, nobody] {
        assert_eq!(result(CallKind::Connect, body), CallResult::default(), "{body}");
    }
    assert!(result(CallKind::Refresh, "{}").expired);
    let binary = result(CallKind::Publish, r#"{"result":{"data":1,"b64data":"AAE="}}"#);
    assert_eq!(binary.data, Some(Data::Binary(vec![0, 1])));
    assert_eq!(result(CallKind::Rpc, r#"{"result":{"data":null}}"#).data, None);
    assert_eq!(
        result(CallKind::Refresh, r#"{"result":{"expire_at":1e19}}"#).expire_at,
        Some(10u64.pow(19))
    );
    assert_eq!(
        result(CallKind::Refresh, r#"{"result":{"expire_at":1e300}}"#).expire_at,
        Some(u64::MAX)
    );
}

/// An answer that ends the session goes before an error, and an error before a result.
#[test]
fn refusals() {
    let both = r#"{"result":{},"error":{"code":103,"message":"no"},"disconnect":{"code":4000,"reason":"x"}}"#;
    assert!(matches!(read(CallKind::Publish, both), Ok(Answer::Disconnect { code: 4000, .. })));
    let error = r#"{"result":{},"error":{"code":103,"message":"no","temporary":false}}"#;
    let Ok(Answer::Error { code, message }) = read(CallKind::Publish, error) else {
        panic!("{error}")
    };
    assert_eq!((code, &*message), (103, "no"));
    let long = format!(r#"{{"error":{{"code":1,"message":"{}"}}}}"#, "ß".repeat(2000));
    let Ok(Answer::Error { message, .. }) = read(CallKind::Publish, &long) else {
        panic!("{long}")
    };
    assert_eq!(message.len(), 1024);
}

/// Anything else is no answer, and the problem is named.
#[test]
fn nonsense() {
    for (body, named) in [
        ("", "not a JSON object"),
        ("{}", "there is no `result`"),
        (r#"{"result":[]}"#, "not a JSON object"),
        (r#"{"result":[null,null,null,null,null,null,null,null]}"#, "not a JSON object"),
        (r#"{"result":{"expire_at":-1}}"#, "before 1970"),
        (r#"{"result":{"expire_at":"1"}}"#, "invalid type"),
        (r#"{"result":{"data":{"a":1e999}}}"#, "`data`"),
        (r#"{"result":{"user":"a\u0000"}}"#, "control characters"),
        (r#"{"result":{},"result":{}}"#, "duplicate"),
        (r#"{"error":{"message":"no code"}}"#, "missing field"),
        (r#"{"error":{"code":1e3}}"#, "invalid type"),
        (r#"{"disconnect":{"code":-1}}"#, "invalid value"),
    ] {
        let problem = read(CallKind::Subscribe, body).expect_err(body);
        assert!(problem.contains(named), "{body}: {problem}");
    }
    let deep = format!(r#"{{"result":{{"data":{}{}}}}}"#, "[".repeat(40), "]".repeat(40));
    assert!(read(CallKind::Rpc, &deep).expect_err("too deep").contains("TooDeep"));
    for member in ["meta", "info"] {
        let long = format!(r#"{{"result":{{"{member}":"{}"}}}}"#, "m".repeat(4095));
        let problem = read(CallKind::Connect, &long).expect_err("too long");
        assert!(problem.contains(&format!("`{member}` is longer")), "{problem}");
        let longest = format!(r#"{{"result":{{"{member}":"{}"}}}}"#, "m".repeat(4094));
        result(CallKind::Connect, &longest);
    }
}

/// Data is as long as a publication may be, in whatever form, and rights are those of a token.
#[test]
fn bounds_and_rights() {
    for kind in [CallKind::Connect, CallKind::Subscribe, CallKind::Publish, CallKind::Rpc] {
        let json = |bytes: usize| format!(r#"{{"result":{{"data": "{}"}}}}"#, "d".repeat(bytes));
        result(kind, &json(DATA_MAX - 2));
        assert!(read(kind, &json(DATA_MAX - 1)).expect_err("too long").contains("max-publication"));
        let binary = format!(r#"{{"result":{{"b64data":"{}"}}}}"#, "AAAA".repeat(34));
        assert!(read(kind, &binary).expect_err("too long").contains("max-publication"));
    }
    for body in [
        r#"{"result":{"expire_at":1700000000}}"#,
        r#"{"result":{"user":"","channels":[]}}"#,
        r#"{"result":{"user":null,"subs":{}}}"#,
    ] {
        let problem = read(CallKind::Connect, body).expect_err(body);
        assert!(problem.contains("need a `user`"), "{body}: {problem}");
    }
    let rights = r#"{"result":{"user":"ann","channels":5}}"#;
    assert!(read(CallKind::Connect, rights).expect_err("no rights").contains("channels"));
}

/// An answer that says neither yes nor no is no consent: it ends a session that is asked about, and begins
/// none.
#[test]
fn neither_yes_nor_no() {
    for body in ["{}", r#"{"result":null}"#, r#"{"message":"internal error"}"#] {
        for kind in CallKind::ALL {
            match kind {
                CallKind::Refresh => assert!(result(kind, body).expired, "{body}"),
                _ => assert!(read(kind, body).is_err(), "{body}"),
            }
        }
    }
}

/// Members that a kind of call does not have are named if they ask for something.
#[test]
fn members_without_effect() {
    let body =
        r#"{"result":{"data":1,"skip_history":true,"tags":{"a":"b"},"user":"ann","expireAt":1}}"#;
    let of = |kind| without_effect(kind, body.as_bytes()).join(" ");
    assert_eq!(of(CallKind::Publish), "expireAt skip_history tags user");
    assert_eq!(of(CallKind::Connect), "expireAt skip_history tags");
    let silent =
        r#"{"result":{"skip_history":false,"tags":{},"override":null,"version":0,"delta":""}}"#;
    assert_eq!(without_effect(CallKind::Publish, silent.as_bytes()), [""; 0]);
    assert_eq!(without_effect(CallKind::Publish, br#"{"error":{"code":1}}"#), [""; 0]);
}
