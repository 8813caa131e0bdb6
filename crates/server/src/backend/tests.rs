//! Tests of answers: which are read, and how.

use super::*;

fn read(kind: CallKind, body: &str) -> Result<Answer, String> {
    Answer::read(kind, body.as_bytes())
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
        "meta":{"x": 1},"info":{},"data":{ "a" : [1, "b c"] },"override":null},"error":null} "#;
    let read = result(CallKind::Connect, body);
    assert_eq!((read.user.as_deref(), read.expire_at), (Some("ann"), Some(1_700_000_000)));
    assert_eq!(read.data, Some(Data::Json(br#"{"a":[1,"b c"]}"#.to_vec())));
    let text = |json: &Option<RawJson>| json.as_ref().map(|json| json.0.get().to_owned());
    assert_eq!(text(&read.channels).as_deref(), Some(r#"["a"]"#));
    assert_eq!(text(&read.meta).as_deref(), Some(r#"{"x": 1}"#));
    for body in ["{}", r#"{"result":{}}"#, r#"{"result":{"user":"","expire_at":0}}"#] {
        assert_eq!(result(CallKind::Connect, body), CallResult::default(), "{body}");
    }
    assert!(result(CallKind::Refresh, "{}").expired);
    let binary = result(CallKind::Publish, r#"{"result":{"data":1,"b64data":"AAE="}}"#);
    assert_eq!(binary.data, Some(Data::Binary(vec![0, 1])));
    assert_eq!(result(CallKind::Rpc, r#"{"result":{"data":null}}"#).data, None);
    assert_eq!(
        result(CallKind::Connect, r#"{"result":{"expire_at":1e19}}"#).expire_at,
        Some(10u64.pow(19))
    );
    assert_eq!(
        result(CallKind::Connect, r#"{"result":{"expire_at":1e300}}"#).expire_at,
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
    let meta = format!(r#"{{"result":{{"meta":"{}"}}}}"#, "m".repeat(4096));
    assert!(read(CallKind::Connect, &meta).expect_err("too long").contains("`meta`"));
}
