//! Every row of the tables, hostile messages, and serde_json with the rules as oracle.

use std::str;

use proptest::prelude::*;
use serde_json::{Value as Tree, json};

use super::*;
use crate::hub::ErrorCode;
use crate::protocols::murre_v1::decode_oracle;

const LIMITS: NameLimits = NameLimits { max_name_bytes: 255, max_publication_bytes: 65_536 };

/// An item without the message's lifetime: what tests compare.
#[derive(Debug, PartialEq)]
struct Seen {
    id: RequestId,
    /// The command as it prints, or the code and whether the error names what it is about.
    outcome: Result<String, (Code, bool)>,
    data: Option<String>,
}

/// What is read in a message.
fn read(message: &[u8]) -> Vec<Seen> {
    read_with(&mut Parser::default(), message, &LIMITS)
}

fn read_with(parser: &mut Parser, message: &[u8], limits: &NameLimits) -> Vec<Seen> {
    let mut all = Vec::new();
    parser.read(message, limits, |item| all.push(seen(item)));
    all
}

fn seen(Item { request, command }: Item<'_>) -> Seen {
    let text = |data: &Payload| Some(str::from_utf8(data.data()).expect("data is text").to_owned());
    let (outcome, data) = match command {
        Ok(Command::Publish { channel, payload, to: Audience::Everybody }) => {
            (Ok(format!("publish {channel}")), text(&payload))
        }
        Ok(Command::Request { service, payload, timeout_ms }) => {
            (Ok(format!("request {service} {timeout_ms}")), text(&payload))
        }
        Ok(Command::Respond { request, answer: Ok(payload) }) => {
            (Ok(format!("reply {request}")), text(&payload))
        }
        Ok(Command::History { channel, query }) => {
            let HistoryQuery { start, limit, bytes_max, direction } = query;
            assert_eq!((bytes_max, direction), (HISTORY_BYTES_MAX, Direction::Forward));
            (Ok(format!("history {channel} {limit} {start:?}")), None)
        }
        Ok(other) => (Ok(format!("{other:?}")), None),
        Err(WireError { code, message, about }) => {
            assert!(message.len() > 15, "{message}");
            (Err((code, about.is_some())), None)
        }
    };
    Seen { id: request, outcome, data }
}

/// The one outcome of a message with one command.
fn outcome(message: &str) -> Result<String, (Code, bool)> {
    let mut seen = read(message.as_bytes());
    assert_eq!(seen.len(), 1, "{message}");
    seen.remove(0).outcome
}

/// Every row of the table of commands, with and without what is optional.
#[test]
fn every_command() {
    for (message, expected) in [
        (
            r#"{"action":"subscribe","identifier":"AAPL"}"#,
            r#"Subscribe { channel: "AAPL", start: Head, token: None, presence: PresenceOptions { watch: None, meta: None, is_hidden: false, key: None } }"#,
        ),
        (
            r#"{"action":"subscribe","identifier":"a","token":"x.y.z"}"#,
            r#"Subscribe { channel: "a", start: Head, token: Some("x.y.z"), presence: PresenceOptions { watch: None, meta: None, is_hidden: false, key: None } }"#,
        ),
        (
            r#"{"action":"subscribe","identifier":"a",
                "position":{"epoch":4294967295,"offset":18446744073709551615}}"#,
            "Subscribe { channel: \"a\", start: \
             After(Position { epoch: 4294967295, offset: 18446744073709551615 }), token: None, presence: PresenceOptions { watch: None, meta: None, is_hidden: false, key: None } }",
        ),
        (
            r#"{"action":"subscribe","identifier":"a","presence":"counts","meta":{"n" : 1}}"#,
            "Subscribe { channel: \"a\", start: Head, token: None, presence: PresenceOptions { \
             watch: Some(Counts), meta: Some(Meta([123, 34, 110, 34, 58, 49, 125])), \
             is_hidden: false, key: None } }",
        ),
        (
            r#"{"action":"subscribe","identifier":"a","hidden":true}"#,
            "Subscribe { channel: \"a\", start: Head, token: None, presence: PresenceOptions { \
             watch: None, meta: None, is_hidden: true, key: None } }",
        ),
        (r#"{"action":"presence_leave","identifier":"a"}"#, r#"PresenceLeave { channel: "a" }"#),
        (r#"{"action":"unsubscribe","identifier":"a"}"#, r#"Unsubscribe { channel: "a" }"#),
        (r#"{"action":"publish","identifier":"a","data":null}"#, "publish a"),
        (r#"{"action":"history","identifier":"a"}"#, "history a 100 Head"),
        (
            r#"{"action":"history","identifier":"a","limit":1000,
                "position":{"epoch":0,"offset":0,"more":1}}"#,
            "history a 1000 After(Position { epoch: 0, offset: 0 })",
        ),
        (r#"{"action":"ping"}"#, "Ping"),
        (r#"{"action":"auth","token":"x.y.z"}"#, r#"Authenticate { token: "x.y.z" }"#),
        (r#"{"action":"serve","service":"s"}"#, r#"Serve { service: "s" }"#),
        (r#"{"action":"unserve","service":"s"}"#, r#"Unserve { service: "s" }"#),
        (r#"{"action":"request","service":"s","data":1,"id":0}"#, "request s 10000"),
        (
            r#"{"action":"request","service":"s","data":1,"id":0,"timeout":60000}"#,
            "request s 60000",
        ),
        (r#"{"action":"reply","request":"1-2","data":1}"#, "reply 1-2"),
        (
            r#"{"action":"reply","request":"1-2","error":"no"}"#,
            r#"Respond { request: "1-2", answer: Err("no") }"#,
        ),
    ] {
        assert_eq!(outcome(message), Ok(expected.to_owned()), "{message}");
    }
}

/// A member that is missing, of the wrong type or out of range is an error, with its subject if that much
/// is known.
#[test]
fn every_error() {
    use Code::{BadCommand, BadJson, BatchTooLong, UnknownAction};
    const BAD_NAME: Code = Code::Hub(ErrorCode::BadChannel);
    for (message, expected) in [
        ("", (BadJson, false)),
        (" ", (BadJson, false)),
        ("{", (BadJson, false)),
        (r#"{"action":"ping"} {"action":"ping"}"#, (BadJson, false)),
        (r#"{"action":"ping",}"#, (BadJson, false)),
        ("7", (BadCommand, false)),
        ("null", (BadCommand, false)),
        (r#""ping""#, (BadCommand, false)),
        ("{}", (BadCommand, false)),
        (r#"{"action":7}"#, (BadCommand, false)),
        (r#"{"action":null}"#, (BadCommand, false)),
        (r#"{"action":["ping"]}"#, (BadCommand, false)),
        (r#"{"action":""}"#, (UnknownAction, false)),
        (r#"{"action":"Ping"}"#, (UnknownAction, false)),
        (r#"{"action":"ping\u0000"}"#, (UnknownAction, false)),
        (r#"{"action":"subscribe"}"#, (BadCommand, false)),
        (r#"{"action":"subscribe","identifier":7}"#, (BadCommand, false)),
        (r#"{"action":"subscribe","identifier":""}"#, (BAD_NAME, false)),
        (r#"{"action":"subscribe","identifier":"a\u0000"}"#, (BAD_NAME, false)),
        (r#"{"action":"subscribe","identifier":"a\nb"}"#, (BAD_NAME, false)),
        (r#"{"action":"subscribe","identifier":"a\u007f"}"#, (BAD_NAME, false)),
        (r#"{"action":"subscribe","identifier":"a\u0085"}"#, (BAD_NAME, false)),
        (r#"{"action":"subscribe","identifier":"a\ud800"}"#, (BadJson, false)),
        (r#"{"action":"subscribe","identifier":"a","position":"1-2"}"#, (BadCommand, true)),
        (r#"{"action":"subscribe","identifier":"a","position":{"epoch":1}}"#, (BadCommand, true)),
        (
            r#"{"action":"subscribe","identifier":"a","position":{"epoch":4294967296,"offset":1}}"#,
            (BadCommand, true),
        ),
        (
            r#"{"action":"subscribe","identifier":"a","position":{"epoch":1,"offset":-1}}"#,
            (BadCommand, true),
        ),
        (
            r#"{"action":"subscribe","identifier":"a","position":{"epoch":1,"offset":1.0}}"#,
            (BadCommand, true),
        ),
        (
            r#"{"action":"history","identifier":"a",
                "position":{"epoch":1,"offset":18446744073709551616}}"#,
            (BadCommand, true),
        ),
        (r#"{"action":"unsubscribe","identifier":[]}"#, (BadCommand, false)),
        (r#"{"action":"publish","identifier":"a"}"#, (BadCommand, true)),
        (r#"{"action":"publish","data":1}"#, (BadCommand, false)),
        (r#"{"action":"history","identifier":"a","limit":1001}"#, (BadCommand, true)),
        (r#"{"action":"history","identifier":"a","limit":-1}"#, (BadCommand, true)),
        (r#"{"action":"history","identifier":"a","limit":"1"}"#, (BadCommand, true)),
        (r#"{"action":"auth"}"#, (BadCommand, false)),
        (r#"{"action":"auth","token":{}}"#, (BadCommand, false)),
        (r#"{"action":"serve","identifier":"a"}"#, (BadCommand, false)),
        (r#"{"action":"serve","service":""}"#, (BAD_NAME, false)),
        (r#"{"action":"unserve","service":"\t"}"#, (BAD_NAME, false)),
        (r#"{"action":"request","service":"s","data":1}"#, (BadCommand, true)),
        (r#"{"action":"request","service":"s","id":1}"#, (BadCommand, true)),
        (r#"{"action":"request","service":"s","data":1,"id":1,"timeout":0}"#, (BadCommand, true)),
        (
            r#"{"action":"request","service":"s","data":1,"id":1,"timeout":60001}"#,
            (BadCommand, true),
        ),
        (r#"{"action":"reply","data":1}"#, (BadCommand, false)),
        (r#"{"action":"reply","request":"1-2"}"#, (BadCommand, false)),
        (r#"{"action":"reply","request":1,"data":1}"#, (BadCommand, false)),
        (r#"{"action":"reply","request":"1-2","error":1}"#, (BadCommand, false)),
        (r#"{"action":"reply","request":"1-2","error":"e","data":1}"#, (BadCommand, false)),
        ("[]", (BatchTooLong, false)),
    ] {
        assert_eq!(outcome(message), Err(expected), "{message}");
    }
}

/// Ids come back as they were given, also with what is wrong; an id that cannot be is the error.
#[test]
fn ids() {
    let long = "i".repeat(64);
    for (given, expected) in [
        ("0".to_owned(), RequestId::Number(0)),
        ("9007199254740992".to_owned(), RequestId::Number(1 << 53)),
        (r#""""#.to_owned(), RequestId::Text("".into())),
        (r#""\ud83d\ude00""#.to_owned(), RequestId::Text("\u{1f600}".into())),
        (format!("{long:?}"), RequestId::Text(long.into())),
        ("null".to_owned(), RequestId::None),
    ] {
        for action in ["ping", "pong"] {
            let message = format!(r#"{{"action":"{action}","id":{given}}}"#);
            let seen = read(message.as_bytes());
            assert_eq!(seen[0].id, expected, "{message}");
            assert_eq!(seen[0].outcome.is_ok(), action == "ping", "{message}");
        }
    }
    let long = format!("{:?}", "i".repeat(65));
    for given in ["-1", "9007199254740993", "1.0", "1e3", "true", "[]", &long] {
        let seen = read(format!(r#"{{"action":"ping","id":{given}}}"#).as_bytes());
        let outcome = Err((Code::BadCommand, false));
        assert_eq!(seen, [Seen { id: RequestId::None, outcome, data: None }], "{given}");
    }
}

/// Commands wait for answers, so an id is small.
#[test]
fn an_id_is_small() {
    assert_eq!(size_of::<RequestId>(), 24);
}

/// A batch is obeyed in order; what is wrong in it is refused alone.
#[test]
fn batches() {
    let message = br#" [ {"action":"ping","id":1} , 7, {"action":"publish","identifier":"a",
        "data":[ 1 , "x y" ],"id":"two"},{"action":"nothing","id":3}, [] ] "#;
    let seen = read(message);
    let ids: Vec<_> = seen.iter().map(|seen| seen.id.clone()).collect();
    let two = RequestId::Text("two".into());
    assert_eq!(
        ids,
        [RequestId::Number(1), RequestId::None, two, RequestId::Number(3), RequestId::None]
    );
    let (bad, unknown) = (Some(Code::BadCommand), Some(Code::UnknownAction));
    assert_eq!(codes(&seen), [None, bad, None, unknown, bad]);
    assert_eq!(seen[2].data.as_deref(), Some(r#"[1,"x y"]"#));
    for (count, fits) in [(100, true), (101, false)] {
        let message = format!("[{}]", vec![r#"{"action":"ping"}"#; count].join(","));
        let expected = if fits { vec![None; count] } else { vec![Some(Code::BatchTooLong)] };
        assert_eq!(codes(&read(message.as_bytes())), expected);
    }
}

/// `data` keeps its digits, its escapes and the order of its members, wherever it stands and however
/// its key is written. Of two the last counts.
#[test]
fn data_stays_as_it_is() {
    for (given, expected) in [
        ("1.10", "1.10"),
        ("-0", "-0"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1E+2", "1E+2"),
        (
            r#" { "b" : 1 , "a" : [ ] , "b" : "\u0041\/ \" " } "#,
            r#"{"b":1,"a":[],"b":"\u0041\/ \" "}"#,
        ),
        ("\t[\r\n1 ,\n2 ]", "[1,2]"),
        (r#""\\""#, r#""\\""#),
        ("true", "true"),
    ] {
        for message in [
            format!(r#"{{"action":"publish","identifier":"a","data":{given}}}"#),
            format!(r#"{{"data":{given},"action":"publish","identifier":"a"}}"#),
            format!(r#"[{{"\"":"\n","d\u0061ta" :{given} ,"identifier":"a","action":"publish"}}]"#),
            format!(r#"{{"data":[7],"action":"publish","identifier":"a","data":{given}}}"#),
        ] {
            let seen = read(message.as_bytes());
            assert_eq!(seen[0].data.as_deref(), Some(expected), "{message}");
        }
    }
    // Beyond what a double can hold it is as little a number for others as it is for simd-json.
    let message = r#"{"action":"publish","identifier":"a","data":1e400}"#;
    assert_eq!(outcome(message), Err((Code::BadJson, false)));
}

/// The last of two members of the same name counts, also for what is not `data`.
#[test]
fn the_last_member_counts() {
    let seen = read(br#"{"action":7,"id":1,"action":"ping","id":2}"#);
    assert_eq!((&seen[0].id, &seen[0].outcome), (&RequestId::Number(2), &Ok("Ping".into())));
    let message = r#"{"action":"subscribe","identifier":"a",
        "position":{"epoch":"x","offset":1,"epoch":2,"offset":3}}"#;
    let start = "After(Position { epoch: 2, offset: 3 })";
    let expected = format!(
        "Subscribe {{ channel: \"a\", start: {start}, token: None, \
         presence: PresenceOptions {{ watch: None, meta: None, is_hidden: false, key: None }} }}"
    );
    assert_eq!(outcome(message), Ok(expected));
}

/// The limits hold to the byte. Data is measured as it goes out.
#[test]
fn limits() {
    let limits = NameLimits { max_name_bytes: 4, max_publication_bytes: 6 };
    for (name, data, expected) in [
        ("\u{20ac}x", "[1, 23 ]", None),
        ("abcd", r#" "1234" "#, None),
        ("abcde", "1", Some((Code::Hub(ErrorCode::BadChannel), false))),
        ("\u{20ac}xy", "1", Some((Code::Hub(ErrorCode::BadChannel), false))),
        ("abcd", r#""12345""#, Some((Code::Hub(ErrorCode::BadPublication), true))),
    ] {
        for action in ["publish", "request", "reply"] {
            let message = format!(
                r#"{{"action":"{action}","identifier":"{name}","service":"{name}",
                    "request":"1-2","id":1,"data":{data}}}"#
            );
            let seen = read_with(&mut Parser::default(), message.as_bytes(), &limits);
            let expected = match (action, expected) {
                ("reply", Some((Code::Hub(ErrorCode::BadChannel), _))) => None,
                ("reply", Some((code, _))) => Some((code, false)),
                _ => expected,
            };
            assert_eq!(seen[0].outcome.as_ref().err(), expected.as_ref(), "{message}");
        }
    }
    for (error, fits) in [("123456", true), ("1234567", false)] {
        let message = format!(r#"{{"action":"reply","request":"1-2","error":"{error}"}}"#);
        let seen = read_with(&mut Parser::default(), message.as_bytes(), &limits);
        assert_eq!(codes(&seen), [(!fits).then_some(Code::Hub(ErrorCode::BadPublication))]);
    }
}

/// 32 levels and no more, however many there are and whatever they are made of.
#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let publish =
        |depth| format!(r#"{{"action":"publish","identifier":"a","data":{}}}"#, nested(depth));
    let deep = Err((Code::BadJson, false));
    assert_eq!(outcome(&publish(31)), Ok("publish a".into()));
    assert_eq!(outcome(&publish(32)), deep);
    assert_eq!(outcome(&format!("[{}]", publish(30))), Ok("publish a".into()));
    assert_eq!(outcome(&format!("[{}]", publish(31))), deep);
    for message in [
        nested(1_000_000),
        publish(1_000_000),
        "[".repeat(1_000_000),
        r#"{"a":"#.repeat(1_000_000),
        r#"[{"":"#.repeat(1_000_000),
    ] {
        assert_eq!(outcome(&message), deep);
    }
}

/// Long and strange, but no harm: one error each, and the parser is as good as new.
#[test]
fn hostile_messages() {
    let mut parser = Parser::default();
    for message in [
        format!("{{{}\"z\":0}}", "\"action\":7,".repeat(100_000)).as_bytes(),
        "\"".repeat(1_000_001).as_bytes(),
        format!("\"{}\"", "\\\"".repeat(500_000)).as_bytes(),
        format!("{{\"{}\":1}}", "\\n".repeat(500_000)).as_bytes(),
        "1".repeat(1_000_000).as_bytes(),
        "\\".repeat(1_000_000).as_bytes(),
        "{\"action\":\"ping\"".repeat(10_000).as_bytes(),
        b"{\"action\":\"\xff\"}",
        b"\xef\xbb\xbf{\"action\":\"ping\"}",
        b"{\"action\":\"ping\"}\0",
        b"\0",
        b"{\"action\":\"\\uDC00\"}",
        b"{\"action\":\"\\uD800\\u0041\"}",
        b"{\"action\":\"\\u00\"}",
        b"{\"action\":\"pi\nng\"}",
    ] {
        let seen = read_with(&mut parser, message, &LIMITS);
        assert!(seen.len() == 1 && seen[0].outcome.is_err(), "{:?}", seen[0]);
        let ping = read_with(&mut parser, br#"{"action":"ping"}"#, &LIMITS);
        assert_eq!(ping[0].outcome, Ok("Ping".into()));
    }
}

fn codes(seen: &[Seen]) -> Vec<Option<Code>> {
    let codes = seen.iter().map(|seen| seen.outcome.as_ref().err().map(|&(code, _)| code));
    codes.collect()
}

fn as_the_model(message: &[u8]) {
    decode_oracle::as_the_model(&mut Parser::default(), message, &LIMITS);
}

/// Whatever fuzzing has found is read as the model says.
#[test]
fn messages_of_the_corpus() {
    crate::corpus::each("commands", decode_oracle::check);
}

/// JSON as a list of tokens, between which there may be whitespace.
fn tokens() -> impl Strategy<Value = Vec<String>> {
    let text = || any::<String>().prop_map(|text| json!(text).to_string());
    let escapes = r#""([ -!#-\[\]-~]|\\[\\"/bfnrt]|\\u[0-9a-cA-CeEfF][0-9a-fA-F]{3}|\\ud83d\\ude[0-9a-f]{2}){0,80}""#;
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| json!(number).to_string()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?",
        text(),
        escapes,
    ];
    leaf.prop_map(|token| vec![token]).prop_recursive(6, 60, 8, move |value| {
        let member = (text(), value.clone())
            .prop_map(|(key, value)| [vec![key, ":".into()], value].concat());
        prop_oneof![
            prop::collection::vec(value, 0..8).prop_map(|items| enclosed("[", &items, "]")),
            prop::collection::vec(member, 0..8).prop_map(|items| enclosed("{", &items, "}")),
        ]
    })
}

fn enclosed(open: &str, items: &[Vec<String>], close: &str) -> Vec<String> {
    let inner = items.join(&",".to_owned());
    [vec![open.to_owned()], inner, vec![close.to_owned()]].concat()
}

/// A member of a command with a value that it could have, more often right than wrong.
fn member() -> impl Strategy<Value = String> {
    let actions = [
        "\"subscribe\"",
        "\"unsubscribe\"",
        "\"publish\"",
        "\"history\"",
        "\"ping\"",
        "\"auth\"",
        "\"serve\"",
        "\"unserve\"",
        "\"request\"",
        "\"reply\"",
        r#""pi\u006eg""#,
        "\"what\"",
        "7",
    ];
    let names = ["\"a\"", "\"a\"", "\"a:b\"", "\"\"", "7", "null", r#""\u009f""#, r#""\ud800""#];
    let ids = ["0", "1", "\"x\"", "null", "9007199254740992", "9007199254740993", "1.0"];
    let data =
        ["null", "1", "[1, 2]", r#"{"id":0}"#, "1e9999999999", "0e9999999999", "01", "[1 2]"];
    let positions =
        [r#"{"epoch":1,"offset":2}"#, r#"{"epoch":1}"#, "null", "[]", r#"{"offset":0,"epoch":-1}"#];
    let numbers = ["0", "1", "1000", "1001", "60000", "60001", "null", "-1", "1.5", "\"1\""];
    let texts = ["\"t\"", "\"t\"", "7", "null"];
    let values = ["{}", "[[[[]]]]", "-", "tru", "\"\\x\""];
    let pair = |key: &'static str, values: &[&'static str]| {
        let values = prop::sample::select(values.to_vec());
        values.prop_map(move |value| format!("\"{key}\":{value}"))
    };
    prop_oneof![
        8 => pair("action", &actions),
        4 => pair("identifier", &names),
        4 => pair("service", &names),
        3 => pair("id", &ids),
        4 => pair("data", &data),
        2 => pair("position", &positions),
        1 => pair("limit", &numbers),
        1 => pair("timeout", &numbers),
        2 => pair("token", &texts),
        3 => pair("request", &texts),
        1 => pair("error", &texts),
        1 => pair("other", &values),
    ]
}

proptest! {
    /// Whatever stands between its tokens, `data` comes out as the tokens alone, byte by byte.
    #[test]
    fn data_is_kept_and_compact(
        tokens in tokens(),
        blanks in prop::collection::vec("[ \t\r\n]{0,3}", 64),
    ) {
        let mut spaced = String::new();
        for (token, blank) in tokens.iter().zip(blanks.iter().cycle()) {
            spaced += blank;
            spaced += token;
        }
        let message =
            format!("{{\"action\":\"publish\",\"identifier\":\"a\",\"data\":{spaced}{}}}", blanks[0]);
        let seen = read(message.as_bytes());
        as_the_model(message.as_bytes());
        if seen[0].outcome.is_ok() {
            let data = seen[0].data.as_deref().expect("it is published");
            prop_assert_eq!(data, tokens.concat());
            let as_sent: Tree = serde_json::from_str(&spaced).expect("it is JSON");
            prop_assert_eq!(serde_json::from_str::<Tree>(data).expect("it is JSON"), as_sent);
        }
    }

    /// Any bytes: no panic, and refused for the reasons that the model finds.
    #[test]
    fn any_bytes(message in prop::collection::vec(any::<u8>(), 0..200)) {
        as_the_model(&message);
    }

    /// What looks like JSON, mostly is not and sometimes is.
    #[test]
    fn almost_json(
        message in r#"([\[\]{}:,"\\ 0-9eE.+\-\n\t]|true|null|\\u[dD][89cC][0-9]{2}|"a"|\{"action":"ping"\}){0,40}"#
    ) {
        as_the_model(message.as_bytes());
    }

    /// Numbers, well formed or not.
    #[test]
    fn almost_numbers(message in r"-?[0-9]{0,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{0,12})?[ ,x]?") {
        let message = format!("[{message}]");
        as_the_model(message.as_bytes());
    }

    /// Commands of right and wrong members, alone and in batches.
    #[test]
    fn commands_of_any_members(
        commands in prop::collection::vec(prop::collection::vec(member(), 0..7), 1..4),
        batch in any::<bool>(),
    ) {
        let objects = commands.iter().map(|members| format!("{{{}}}", members.join(" , ")));
        let objects: Vec<String> = objects.collect();
        let message = if batch { format!("[{}]", objects.join(",")) } else { objects[0].clone() };
        as_the_model(message.as_bytes());
    }

    /// A good message with some bytes changed.
    #[test]
    fn changed_bytes(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut message =
            br#"[{"action":"publish","identifier":"a","data":{"x":[1.5e3,"\u00e9\n"]},"id":7},
            {"action":"subscribe","identifier":"b","position":{"epoch":1,"offset":2}}]"#.to_vec();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        as_the_model(&message);
    }
}
