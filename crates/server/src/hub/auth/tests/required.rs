//! Tests of the claims that a token must have besides a valid signature.

use super::*;

fn check(required: &Required, claims: &Value) -> Result<(), BadToken> {
    let token = signed(Algorithm::HS256, claims);
    let mut verifier = Verifier::new(keys_for(Algorithm::HS256), required.clone(), 100);
    verifier.begin_turn(Duration::ZERO);
    match verifier.check(&token, None, Duration::ZERO, NOW) {
        Verdict::Good(_) => Ok(()),
        Verdict::Bad(bad) => Err(bad),
        other => panic!("one token in a turn is checked: {other:?}"),
    }
}

/// `aud` must name a required audience, and `iss` must be the required issuer; an error names the
/// claim. A claim that is not required is not read.
#[test]
fn audience_and_issuer() {
    let audience = Required { audience: Some("chat".into()), issuer: None };
    let issuer = Required { audience: None, issuer: Some("https://id.example".into()) };
    for (required, claim, named, missing, wrong_type) in [
        (&audience, "aud", "`aud`", BadToken::Audience, BadToken::AudienceType),
        (&issuer, "iss", "`iss`", BadToken::Issuer, BadToken::IssuerType),
    ] {
        assert!(missing.sentence().contains(named) && wrong_type.sentence().contains(named));
        assert_eq!(check(required, &json!({"sub": "alice"})), Err(missing));
        for (value, refused) in [
            (json!(""), missing),
            (json!("Chat"), missing),
            (json!("other"), missing),
            (json!(42), wrong_type),
            (json!(null), wrong_type),
            (json!({"chat": 1}), wrong_type),
            (json!(["chat", 1]), wrong_type),
        ] {
            let claims = json!({"sub": "alice", claim: value});
            assert_eq!(check(required, &claims), Err(refused), "{claims}");
            assert_eq!(check(&Required::default(), &claims), Ok(()), "{claims}");
        }
    }
    for aud in [json!("chat"), json!(["chat"]), json!(["other", "chat"])] {
        assert_eq!(check(&audience, &json!({"sub": "alice", "aud": aud})), Ok(()));
    }
    assert_eq!(check(&audience, &json!({"sub": "a", "aud": []})), Err(BadToken::Audience));
    let iss = |iss| check(&issuer, &json!({"sub": "alice", "iss": iss}));
    assert_eq!(iss("https://id.example"), Ok(()));
    assert_eq!(iss("https://id.example/"), Err(BadToken::Issuer));
}
