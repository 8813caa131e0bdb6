//! Tests of the rights that tokens grant: the claims `channels` and `subs`, and their memory.

use super::super::grants::{GRANT_BYTES_MAX, PATTERNS_MAX};
use super::*;

/// The grants of a token with these claims.
fn grants(claims: Value) -> Result<Option<Arc<Grants>>, BadToken> {
    let mut all = json!({"sub": "alice"});
    all.as_object_mut().expect("an object").extend(claims.as_object().expect("one").clone());
    let token = signed(Algorithm::HS256, &all);
    verify(&keys_for(Algorithm::HS256), &token, NOW).map(|user| user.grants)
}

/// The rights that these claims grant in a channel, by their first letters.
fn rights(claims: Value, channel: &str) -> String {
    let grants = grants(claims).expect("they are right").expect("they grant something");
    let granted = Right::ALL.into_iter().filter(|&right| grants.allow(right, channel));
    granted.map(|right| right.name()[..2].to_owned()).collect::<Vec<_>>().join(" ")
}

/// A pattern is a whole name, or a prefix before a `*` at its end; all patterns that match count.
#[test]
fn patterns() {
    let channels = json!({"channels": {
        "news": ["subscribe"],
        "chat:*": ["subscribe", "publish"],
        "chat:lobby": ["history"],
        "a*b": ["publish"],
        "none": [],
        "wild**": ["publish"],
    }});
    for (channel, expected) in [
        ("news", "su"),
        ("news:", ""),
        ("New", ""),
        ("NEWS", ""),
        ("chat:", "su pu"),
        ("chat:x", "su pu"),
        ("chat", ""),
        ("chat:lobby", "su pu hi"),
        ("chat:lobby2", "su pu"),
        ("a*b", "pu"),
        ("axb", ""),
        ("none", ""),
        ("wild", ""),
        ("wild*", "pu"),
        ("wild*x", "pu"),
        ("", ""),
    ] {
        assert_eq!(rights(channels.clone(), channel), expected, "{channel}");
    }
    assert_eq!(rights(json!({"channels": {"*": ["presence"]}}), "any"), "pr");
    assert_eq!(rights(json!({"channels": ["a", "b:*"]}), "b:x"), "su pr hi");
    assert_eq!(rights(json!({"subs": {"a": {}, "b": {"info": 1}}}), "b"), "su pr hi");
    let both = json!({"channels": {"a": ["publish"], "b": ["publish"]}, "subs": {"a": {}}});
    assert_eq!(rights(both.clone(), "a"), "su pu pr hi");
    assert_eq!(rights(both, "b"), "pu");
}

/// Empty claims grant nothing, and absent ones leave the rights to the namespace.
#[test]
fn empty_claims_grant_nothing() {
    for claims in [json!({"channels": []}), json!({"channels": {}}), json!({"subs": {}})] {
        assert_eq!(rights(claims, "a"), "");
    }
    assert_eq!(grants(json!({"groups": []})), Ok(None));
}

/// Claims of the wrong type, with unknown rights or invalid patterns are refused with a sentence that
/// names them, and never taken for absent.
#[test]
fn wrong_claims() {
    for (claims, refused) in [
        (json!({"channels": null}), BadToken::Channels),
        (json!({"channels": "a"}), BadToken::Channels),
        (json!({"channels": 1}), BadToken::Channels),
        (json!({"channels": [1]}), BadToken::Channels),
        (json!({"channels": [["a"]]}), BadToken::Channels),
        (json!({"channels": {"a": "subscribe"}}), BadToken::Channels),
        (json!({"channels": {"a": null}}), BadToken::Channels),
        (json!({"channels": {"a": [null]}}), BadToken::Channels),
        (json!({"channels": {"a": ["subscribe", "write"]}}), BadToken::UnknownRight),
        (json!({"channels": {"a": ["Subscribe"]}}), BadToken::UnknownRight),
        (json!({"channels": [""]}), BadToken::Pattern),
        (json!({"channels": ["a", "a"]}), BadToken::Pattern),
        (json!({"channels": ["a\n"]}), BadToken::Pattern),
        (json!({"channels": {"\u{85}": []}}), BadToken::Pattern),
        (json!({"channels": ["x".repeat(256)]}), BadToken::Pattern),
        (json!({"subs": null}), BadToken::Subs),
        (json!({"subs": []}), BadToken::Subs),
        (json!({"subs": {"a": null}}), BadToken::Subs),
        (json!({"subs": {"a": []}}), BadToken::Subs),
        (json!({"subs": {"a*": {}}}), BadToken::Subs),
        (json!({"subs": {"": {}}}), BadToken::Pattern),
        (json!({"channel": ""}), BadToken::Channel),
        (json!({"channel": null}), BadToken::Channel),
        (json!({"channel": ["a"]}), BadToken::Channel),
        (json!({"channel": "x".repeat(256)}), BadToken::Channel),
    ] {
        assert_eq!(grants(claims.clone()), Err(refused), "{claims}");
        let named = ["`channel", "`subs`"].iter().any(|claim| refused.sentence().contains(claim));
        assert!(named, "{refused:?}");
    }
    for json in [
        r#"{"sub":"a","channels":{"x":["publish"],"x":[]}}"#,
        r#"{"sub":"a","channels":{"x":["publish"],"\u0078":[]}}"#,
        r#"{"sub":"a","subs":{"x":{},"x":{}}}"#,
        r#"{"sub":"a","channels":[],"channels":["x"]}"#,
    ] {
        let parsed = Claims::parse(json.as_bytes(), &Required::default(), &mut Default::default());
        assert!(parsed.is_err(), "{json}");
    }
}

/// The numbers and sizes of patterns have bounds, and a token at the bounds is good.
#[test]
fn bounds() {
    let names = |count: usize, length: usize| -> Vec<String> {
        (0..count).map(|n| format!("{n:0length$}")).collect()
    };
    let fit = (GRANT_BYTES_MAX / (255 + 2), 255);
    for (count, length, good) in [
        (PATTERNS_MAX, 38, true),
        (PATTERNS_MAX, 39, false),
        (PATTERNS_MAX + 1, 3, false),
        (fit.0, fit.1, true),
        (fit.0 + 1, fit.1, false),
        (3000, 4, false),
    ] {
        let parsed = grants(json!({"channels": names(count, length)}));
        assert_eq!(parsed.is_ok(), good, "{count} {length}");
        assert!(good || parsed == Err(BadToken::TooManyPatterns));
    }
    let both = json!({"channels": names(60, 3), "subs": {"a": {}, "b": {}}});
    assert!(grants(both).is_ok());
}

/// Users whose tokens grant the same share one copy, in whatever order the claims are written. When no
/// session and no cached token has it, it is gone.
#[test]
fn grants_are_shared() {
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), Required::default(), 100);
    let mut user = |name: &str, channels: Value| {
        verifier.begin_turn(Duration::ZERO);
        let token = signed(Algorithm::HS256, &json!({"sub": name, "channels": channels}));
        match verifier.check(&token, None, Duration::ZERO, NOW) {
            Verdict::Good(user) => user.grants.expect("it has some"),
            other => panic!("{other:?}"),
        }
    };
    let one = user("a", json!({"x": ["publish", "history"], "y": []}));
    let other = user("b", json!({"y": [], "x": ["history", "publish"]}));
    let third = user("c", json!({"y": ["publish"]}));
    assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &third));
    drop((one, other, third));
    for minutes in 1..=4 {
        verifier.begin_turn(Duration::from_secs(minutes * 300));
    }
    assert_eq!(verifier.kept(), 0);
}

/// What grants cost: 8 bytes a session in the record of its user, and for each different list of rights
/// of a shard the bytes of its patterns and two beside each.
#[test]
fn memory() {
    assert_eq!(size_of::<Option<Arc<Grants>>>(), 8);
    let granted = grants(json!({"channels": ["chat:*", "user:42"]})).expect("they are right");
    assert_eq!(granted.expect("it grants something").heap_bytes(), 8 + 9);
}

/// A token for a subscription is for its channel and its user, and is no token for a connection.
#[test]
fn subscription_tokens() {
    let keys = keys_for(Algorithm::HS256);
    let check = |claims: Value, channel: &str, user: Option<&str>| {
        let mut verifier = Verifier::new(keys.clone(), Required::default(), 100);
        let token = signed(Algorithm::HS256, &claims);
        let [first, second] = [(); 2].map(|()| {
            verifier.begin_turn(Duration::ZERO);
            verifier.check_subscription(&token, (channel, user), Some(1), Duration::ZERO, NOW)
        });
        assert_eq!(first, second);
        match first {
            Verdict::Good(token) => Ok(token.expires.map(UnixSeconds::get)),
            Verdict::Bad(bad) => Err(bad),
            other => panic!("{other:?}"),
        }
    };
    let of_ann = json!({"sub": "ann", "channel": "a", "exp": NOW + 60});
    assert_eq!(check(of_ann.clone(), "a", Some("ann")), Ok(Some(NOW + 60)));
    assert_eq!(check(json!({"channel": "a"}), "a", None), Ok(None));
    for (claims, channel, user, refused) in [
        (of_ann.clone(), "b", Some("ann"), BadToken::OtherChannel),
        (of_ann.clone(), "a", Some("bob"), BadToken::OtherUser),
        (of_ann.clone(), "a", None, BadToken::OtherUser),
        (json!({"channel": "a"}), "a", Some("ann"), BadToken::OtherUser),
        (json!({"sub": "ann"}), "a", Some("ann"), BadToken::ForConnection),
        (json!({"sub": "", "channel": "a"}), "a", None, BadToken::Subject),
        (
            json!({"sub": "ann", "channel": "a", "exp": NOW - 60}),
            "a",
            Some("ann"),
            BadToken::Expired,
        ),
        (
            json!({"sub": "ann", "channel": "a", "nbf": NOW + 60}),
            "a",
            Some("ann"),
            BadToken::TooEarly,
        ),
    ] {
        assert_eq!(check(claims.clone(), channel, user), Err(refused), "{claims}");
    }
    let token = signed(Algorithm::HS256, &of_ann);
    assert_eq!(verify(&keys, &token, NOW), Err(BadToken::ForSubscription));
}

/// The parser agrees with a model on claims that are put together of such parts at random.
#[test]
fn claims_agree_with_the_model() {
    const PARTS: [&str; 30] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"sub\":\"ann\"",
        "\"channels\":",
        "\"subs\":",
        "\"a\"",
        "\"a*\"",
        "\"*\"",
        "\"subscribe\"",
        "\"publish\"",
        "\"history\"",
        "\"write\"",
        "{}",
        "[]",
        "null",
        "1",
        "\"channel\":\"a\"",
        "\"exp\":1e9",
        "\"\"",
        "\"\\u0061\"",
        "\"\\n\"",
        "\"b\":[\"presence\"]",
        "\"channels\":[\"a\",\"b*\"]",
        "\"channels\":{\"a\":[\"publish\"]}",
        "\"subs\":{\"a\":{}}",
        " ",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let count = random.usize(1..12);
        let mut claims = String::from("{\"sub\":\"ann\",");
        for _ in 0..count {
            claims += PARTS[random.usize(..PARTS.len())];
            if random.bool() {
                claims += ",";
            }
        }
        let claims = claims.trim_end_matches(',').to_owned() + "}";
        claims_oracle::check(claims.as_bytes());
    }
}

/// Claims that fuzzing has kept come to what the model says.
#[test]
fn claims_of_the_corpus() {
    crate::corpus::each("claims", claims_oracle::check);
}
