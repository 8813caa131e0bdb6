//! Tokens made by hand, by openssl and by the library, and the key files that there are.

use jsonwebtoken::{EncodingKey, Header, encode};
use murre_codec::http::{self, Limits, Progress, RequestDecoder};
use serde_json::{Value, json};

use super::*;

/// What signs and what verifies, by algorithm. The secret is that of `tokens.txt`.
const SECRET: &str = "thirty-two bytes or more of secret";
const RSA_PUBLIC: &str = include_str!("keys/rsa.public.pem");
const EC_PUBLIC: &str = include_str!("keys/ec.public.pem");
const ED_PUBLIC: &str = include_str!("keys/ed.public.pem");
const RSA_PRIVATE: &str = include_str!("keys/rsa.private.pem");
const EC_PRIVATE: &str = include_str!("keys/ec.private.pem");
const ED_PRIVATE: &str = include_str!("keys/ed.private.pem");

/// Made with Python's hmac and `openssl dgst` and `pkeyutl`, for alice, from 1000000000 to
/// 2000000000.
const TOKENS: &str = include_str!("tokens.txt");
const NOW: u64 = 1_500_000_000;

fn keys_for(algorithm: Algorithm) -> Keys {
    let key = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => hmac(SECRET.as_bytes()),
        Algorithm::RS256 => public_key(RSA_PUBLIC.as_bytes()),
        Algorithm::ES256 => public_key(EC_PUBLIC.as_bytes()),
        _ => public_key(ED_PUBLIC.as_bytes()),
    };
    Keys(vec![key.expect("it is a key")])
}

/// A token signed by the library.
fn signed(algorithm: Algorithm, claims: &Value) -> String {
    let der = |pem: &str| Document::from_pem(pem).expect("it is PEM").1;
    let key = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            EncodingKey::from_secret(SECRET.as_bytes())
        }
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::PS256 => {
            EncodingKey::from_rsa_der(der(RSA_PRIVATE).as_bytes())
        }
        Algorithm::ES256 => EncodingKey::from_ec_der(der(EC_PRIVATE).as_bytes()),
        _ => EncodingKey::from_ed_der(der(ED_PRIVATE).as_bytes()),
    };
    encode(&Header::new(algorithm), claims, &key).expect("it can be signed")
}

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
];

fn alice(expires: Option<u64>) -> User {
    User { name: "alice".into(), expires }
}

/// What others have signed is verified with every algorithm, and by no other key.
#[test]
fn tokens_of_others() {
    let tokens: Vec<_> = TOKENS.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(tokens.len(), ALGORITHMS.len());
    for (&(name, token), algorithm) in tokens.iter().zip(ALGORITHMS) {
        assert_eq!(name, format!("{algorithm:?}"));
        let keys = keys_for(algorithm);
        assert_eq!(keys.verify(token, NOW), Ok(alice(Some(2_000_000_000))), "{name}");
        let own = format!("{keys:?}");
        for (other, token) in tokens.iter().filter(|(other, _)| !own.contains(other)) {
            assert_eq!(keys.verify(token, NOW), Err(BadToken::Algorithm), "{name} {other}");
        }
    }
}

/// A secret and a public key stand side by side.
#[test]
fn two_keys() {
    let both = [keys_for(Algorithm::HS256).0, keys_for(Algorithm::ES256).0].concat();
    let keys = Keys(both);
    for algorithm in [Algorithm::HS512, Algorithm::ES256] {
        let token = signed(algorithm, &json!({"sub": "alice"}));
        assert_eq!(keys.verify(&token, NOW), Ok(alice(None)));
    }
    let token = signed(Algorithm::EdDSA, &json!({"sub": "alice"}));
    assert_eq!(keys.verify(&token, NOW), Err(BadToken::Algorithm));
}

/// Not one bit of a token can be changed, and another key does not do.
#[test]
fn signatures_count() {
    for algorithm in ALGORITHMS {
        let keys = keys_for(algorithm);
        let token = signed(algorithm, &json!({"sub": "alice"}));
        let forged = signed(algorithm, &json!({"sub": "mallory"}));
        let (_, signature) = token.rsplit_once('.').expect("there are three parts");
        let (message, _) = forged.rsplit_once('.').expect("there are three parts");
        let forged = format!("{message}.{signature}");
        assert_eq!(keys.verify(&forged, NOW), Err(BadToken::Signature), "{algorithm:?}");
        assert_eq!(keys.verify(&format!("{message}."), NOW), Err(BadToken::Signature));
        for at in (0..token.len()).step_by(7) {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("it is ASCII");
            assert!(keys.verify(&changed, NOW).is_err(), "{algorithm:?} {at}");
        }
    }
    let other = Keys(vec![hmac(&[b'x'; 32]).expect("it is long enough")]);
    let token = signed(Algorithm::HS256, &json!({"sub": "alice"}));
    assert_eq!(other.verify(&token, NOW), Err(BadToken::Signature));
}

/// Neither `none` nor an HMAC with the public key as secret is a signature, nor another algorithm of
/// the same key.
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
            assert_eq!(keys.verify(&token, NOW), Err(BadToken::Malformed), "{algorithm}");
        }
    }
    let document = Document::from_pem(RSA_PUBLIC).expect("it is PEM").1;
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim_end().as_bytes(), document.as_bytes()] {
        let key = EncodingKey::from_secret(secret);
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).expect("it is signed");
        assert_eq!(keys.verify(&token, NOW), Err(BadToken::Algorithm));
    }
    for algorithm in [Algorithm::RS384, Algorithm::PS256] {
        let token = signed(algorithm, &claims);
        assert_eq!(keys.verify(&token, NOW), Err(BadToken::Algorithm));
    }
}

/// Times count to the second, with ten of leeway, and may have fractions.
#[test]
fn times() {
    let keys = keys_for(Algorithm::HS256);
    let verify = |claims: Value, now| keys.verify(&signed(Algorithm::HS256, &claims), now);
    let expiring = json!({"sub": "alice", "exp": 1000});
    assert_eq!(verify(expiring.clone(), 1009), Ok(alice(Some(1000))));
    assert_eq!(verify(expiring, 1010), Err(BadToken::Expired));
    let starting = json!({"sub": "alice", "nbf": 1000});
    assert_eq!(verify(starting.clone(), 990), Ok(alice(None)));
    assert_eq!(verify(starting, 989), Err(BadToken::TooEarly));
    assert_eq!(verify(json!({"sub": "alice", "exp": 1000.9}), 0), Ok(alice(Some(1000))));
    assert_eq!(verify(json!({"sub": "alice", "exp": 1e300}), 0), Ok(alice(Some(u64::MAX))));
    assert_eq!(verify(json!({"sub": "alice", "exp": -1}), NOW), Err(BadToken::Expired));
    assert_eq!(verify(json!({"sub": "alice", "exp": "1000"}), 0), Err(BadToken::Malformed));
    assert!(!alice(None).has_expired(u64::MAX));
}

/// A token names its user; what else it says is not ours.
#[test]
fn the_user_is_required() {
    let keys = keys_for(Algorithm::HS256);
    let verify = |claims| keys.verify(&signed(Algorithm::HS256, &claims), NOW);
    for sub in [json!(null), json!(""), json!("a\nb"), json!("n".repeat(256))] {
        assert_eq!(verify(json!({"sub": sub})), Err(BadToken::User));
    }
    assert_eq!(verify(json!({"iss": "x"})), Err(BadToken::User));
    assert_eq!(verify(json!({"sub": 7})), Err(BadToken::Malformed));
    assert!(verify(json!({"sub": "n".repeat(255), "aud": "x", "iss": "y", "more": [1]})).is_ok());
}

/// What is not a token at all, or too much of one, or asks for more than we know.
#[test]
fn malformed_tokens() {
    let keys = keys_for(Algorithm::HS256);
    let good = signed(Algorithm::HS256, &json!({"sub": "alice"}));
    let long = signed(Algorithm::HS256, &json!({"sub": "alice", "x": "y".repeat(1 << 16)}));
    let spaced = format!("{good} ");
    for token in ["", ".", "..", "a.b.c", "\u{20ac}.\u{20ac}.\u{20ac}", &good[1..], &long, &spaced]
    {
        let refused = keys.verify(token, NOW).expect_err("it is malformed");
        assert!(matches!(refused, BadToken::Malformed | BadToken::Signature), "{refused:?}");
    }
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".into()]);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&header, &json!({"sub": "alice"}), &key).expect("it can be signed");
    assert_eq!(keys.verify(&token, NOW), Err(BadToken::Malformed));
}

/// Without keys every token is refused, and the sentence says which flags are missing.
#[test]
fn no_keys() {
    let token = signed(Algorithm::HS256, &json!({"sub": "alice"}));
    let refused = Keys::default().verify(&token, NOW).expect_err("there are no keys");
    assert!(refused.sentence().contains("--jwt-hmac-secret-file"));
    assert!(refused.sentence().contains("--jwt-public-key-file"));
}

/// A line end is not part of the secret, and short secrets are refused.
#[test]
fn secrets() {
    let token = signed(Algorithm::HS384, &json!({"sub": "alice"}));
    for end in ["", "\n", "\r\n"] {
        let keys = Keys(vec![hmac(format!("{SECRET}{end}").as_bytes()).expect("it is one")]);
        assert_eq!(keys.verify(&token, NOW), Ok(alice(None)));
    }
    for (file, remedy) in [
        ("", "openssl rand"),
        ("thirty-one bytes are not enough\n", "openssl rand"),
        (RSA_PUBLIC, "--jwt-public-key-file"),
    ] {
        let problem = hmac(file.as_bytes()).err().expect("it is none");
        assert!(problem.contains(remedy), "{problem}");
    }
}

/// What is no public key that we can use says what helps.
#[test]
fn other_key_files() {
    let cut = &ED_PUBLIC[..ED_PUBLIC.len() - 40];
    let certificate = RSA_PUBLIC.replace("PUBLIC KEY", "CERTIFICATE");
    for (file, problem) in [
        ("", "not a key in PEM"),
        (SECRET, "not a key in PEM"),
        (cut, "not a key in PEM"),
        (RSA_PRIVATE, "openssl pkey"),
        (EC_PRIVATE, "openssl pkey"),
        (&certificate, "openssl x509"),
        (include_str!("keys/rsa.pkcs1.pem"), "openssl rsa"),
        (include_str!("keys/rsa-1024.public.pem"), "this one has 1024"),
        (include_str!("keys/p384.public.pem"), "neither RSA nor EC P-256"),
    ] {
        let found = public_key(file.as_bytes()).err().expect("it cannot be used");
        assert!(found.contains(problem), "{file}: {found}");
    }
}

/// Files are read, and what is wrong with one names it and its flag in one line.
#[test]
fn files() {
    let path = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/channels/auth/keys").join(name)
    };
    let public = path("ed.public.pem");
    let keys = Keys::read(None, Some(&public)).expect("it is a key");
    assert_eq!(format!("{keys:?}"), "[EdDSA]");
    assert_eq!(Keys::read(None, None).expect("nothing is wrong").0.len(), 0);
    for (secret, public, flag) in [
        (Some(path("none")), None, "--jwt-hmac-secret-file"),
        (Some(public), None, "--jwt-hmac-secret-file"),
        (None, Some(path("ed.private.pem")), "--jwt-public-key-file"),
    ] {
        let error = Keys::read(secret.as_deref(), public.as_deref()).expect_err("one is wrong");
        let line = error.to_string();
        let path = secret.or(public).expect("one is given").display().to_string();
        assert!(line.starts_with(flag) && line.contains(&path) && line.lines().count() == 1);
    }
}

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
