//! Tests of signatures and of the forms of tokens.

use super::*;

/// Tokens for alice, valid from 1000000000 to 2000000000, made with Python's hmac and with `openssl
/// dgst` and `openssl pkeyutl`.
const TOKENS: &str = include_str!("../tokens.txt");

/// Tokens from other implementations are verified for every algorithm, and only with the key of
/// that algorithm.
#[test]
fn tokens_of_others() {
    let tokens: Vec<_> = TOKENS.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(tokens.len(), ALGORITHMS.len());
    for (&(name, token), algorithm) in tokens.iter().zip(ALGORITHMS) {
        assert_eq!(name, format!("{algorithm:?}"));
        let keys = keys_for(algorithm);
        assert_eq!(verify(&keys, token, NOW), Ok(alice(Some(2_000_000_000))), "{name}");
        let own = format!("{keys:?}");
        for (other, token) in tokens.iter().filter(|(other, _)| !own.contains(other)) {
            assert_eq!(verify(&keys, token, NOW), Err(BadToken::Algorithm), "{name} {other}");
        }
    }
}

/// A secret and a public key can be used together.
#[test]
fn two_keys() {
    let keys = Keys(vec![key_for(Algorithm::HS256), key_for(Algorithm::ES256)]);
    for algorithm in [Algorithm::HS512, Algorithm::ES256] {
        let token = signed(algorithm, &json!({"sub": "alice"}));
        assert_eq!(verify(&keys, &token, NOW), Ok(alice(None)));
    }
    let token = signed(Algorithm::EdDSA, &json!({"sub": "alice"}));
    assert_eq!(verify(&keys, &token, NOW), Err(BadToken::Algorithm));
}

/// A changed byte in a token, a foreign signature and another key are all refused.
#[test]
fn signatures_count() {
    for algorithm in ALGORITHMS {
        let keys = keys_for(algorithm);
        let token = signed(algorithm, &json!({"sub": "alice"}));
        let forged = forged(algorithm, &json!({"sub": "mallory"}));
        let (message, _) = forged.rsplit_once('.').expect("there are three parts");
        assert_eq!(verify(&keys, &forged, NOW), Err(BadToken::Signature), "{algorithm:?}");
        assert_eq!(verify(&keys, &format!("{message}."), NOW), Err(BadToken::Signature));
        for at in (0..token.len()).step_by(7) {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("it is ASCII");
            assert!(verify(&keys, &changed, NOW).is_err(), "{algorithm:?} {at}");
        }
    }
    let other = Keys(vec![hmac(&[b'x'; 32]).expect("it is long enough")]);
    let token = signed(Algorithm::HS256, &json!({"sub": "alice"}));
    assert_eq!(verify(&other, &token, NOW), Err(BadToken::Signature));
}

/// The algorithm `none`, an HMAC with the public key as its secret, and other algorithms of the
/// same key are refused.
#[test]
fn no_confusion_of_algorithms() {
    let encoded = |json: Value| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string())
    };
    let keys = keys_for(Algorithm::RS256);
    let claims = json!({"sub": "mallory"});
    for algorithm in ["none", "None", "NONE", "", "HS257"] {
        for signature in ["", "AAAA"] {
            let header = encoded(json!({"alg": algorithm, "typ": "JWT"}));
            let token = format!("{header}.{}.{signature}", encoded(claims.clone()));
            assert_eq!(verify(&keys, &token, NOW), Err(BadToken::Algorithm), "{algorithm}");
        }
    }
    let document = Document::from_pem(RSA_PUBLIC).expect("it is PEM").1;
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim_end().as_bytes(), document.as_bytes()] {
        let key = EncodingKey::from_secret(secret);
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).expect("it is signed");
        assert_eq!(verify(&keys, &token, NOW), Err(BadToken::Algorithm));
    }
    for algorithm in [Algorithm::RS384, Algorithm::PS256] {
        let token = signed(algorithm, &claims);
        assert_eq!(verify(&keys, &token, NOW), Err(BadToken::Algorithm));
    }
}

/// Malformed tokens, tokens that are too long, and tokens with critical extensions are refused.
#[test]
fn malformed_tokens() {
    let keys = keys_for(Algorithm::HS256);
    let good = signed(Algorithm::HS256, &json!({"sub": "alice"}));
    let long = signed(Algorithm::HS256, &json!({"sub": "alice", "x": "y".repeat(1 << 16)}));
    let spaced = format!("{good} ");
    for token in ["", ".", "..", "a.b.c", "\u{20ac}.\u{20ac}.\u{20ac}", &good[1..], &long, &spaced]
    {
        let refused = verify(&keys, token, NOW).expect_err("it is malformed");
        assert!(matches!(refused, BadToken::Malformed | BadToken::Signature), "{refused:?}");
    }
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".into()]);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&header, &json!({"sub": "alice"}), &key).expect("it can be signed");
    assert_eq!(verify(&keys, &token, NOW), Err(BadToken::Malformed));
}

/// Without keys every token is refused, and the sentence names the flags that set keys.
#[test]
fn no_keys() {
    let token = signed(Algorithm::HS256, &json!({"sub": "alice"}));
    let refused = verify(&Keys::default(), &token, NOW).expect_err("there are no keys");
    assert!(refused.sentence().contains("--jwt-hmac-secret-file"));
    assert!(refused.sentence().contains("--jwt-public-key-file"));
}

/// A token with an `exp` after the year 9999 has no expiry. A token with a claim of the wrong type
/// is refused with a sentence that names the claim.
#[test]
fn claims_are_read() {
    let keys = keys_for(Algorithm::HS256);
    for exp in [json!(1e19), json!(1e300), json!(u64::MAX), json!(u64::MAX - 5), json!(1_u64 << 53)]
    {
        let token = signed(Algorithm::HS256, &json!({"sub": "alice", "exp": exp}));
        assert_eq!(verify(&keys, &token, NOW), Ok(alice(None)), "{exp}");
    }
    for (claims, refused, named) in [
        (json!({"sub": 42}), BadToken::SubjectType, "`sub`"),
        (json!({"sub": "alice", "exp": "123"}), BadToken::ExpiryType, "`exp`"),
        (json!({"sub": "alice", "nbf": "123"}), BadToken::NotBeforeType, "`nbf`"),
        (json!({"exp": 2_000_000_000}), BadToken::Subject, "`sub`"),
    ] {
        let token = signed(Algorithm::HS256, &claims);
        assert_eq!(verify(&keys, &token, NOW), Err(refused), "{claims}");
        assert!(refused.sentence().contains(named), "{claims}");
        // The error for a token with a wrong signature does not mention its claims.
        let forged = forged(Algorithm::HS256, &claims);
        assert_eq!(verify(&keys, &forged, NOW), Err(BadToken::Signature), "{claims}");
    }
}
