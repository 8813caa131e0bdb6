//! Tests of several keys: the choice of keys for a token, and the replacement of keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::UintRef;
use spki::der::{Decode, Reader, SliceReader};

use super::super::key_set;
use super::*;

const SECRETS: [&str; 5] = [
    "the first secret of thirty-two bytes",
    "the second secret of thirty-two bytes",
    "the third secret of thirty-two bytes",
    "the fourth secret of thirty-two bytes",
    "a secret that the server does not have",
];

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The public keys as members of a key set, named r, e and d, and two secrets, named first and
/// second.
fn set() -> Vec<Value> {
    let bits = |pem: &str| {
        let document = Document::from_pem(pem).expect("it is PEM").1;
        let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes()).expect("it is a key");
        info.subject_public_key.as_bytes().expect("whole bytes").to_vec()
    };
    let (rsa, ec, ed) = (bits(RSA_PUBLIC), bits(EC_PUBLIC), bits(ED_PUBLIC));
    let numbers = SliceReader::new(&rsa).and_then(|mut reader| {
        reader.sequence(|numbers| {
            let next = UintRef::decode(numbers)?.as_bytes().to_vec();
            Ok((next, UintRef::decode(numbers)?.as_bytes().to_vec()))
        })
    });
    let (n, e): (Vec<u8>, Vec<u8>) = numbers.map_err(|error: spki::der::Error| error).expect("two");
    let oct =
        |name: &str, secret: &str| json!({"kty": "oct", "kid": name, "k": text(secret.as_bytes())});
    vec![
        json!({"kty": "RSA", "kid": "r", "use": "sig", "n": text(&n), "e": text(&e)}),
        json!({"kty": "EC", "kid": "e", "crv": "P-256", "x": text(&ec[1..33]), "y": text(&ec[33..])}),
        json!({"kty": "OKP", "kid": "d", "alg": "EdDSA", "crv": "Ed25519", "x": text(&ed)}),
        oct("first", SECRETS[0]),
        oct("second", SECRETS[1]),
    ]
}

fn keys(set: &[Value]) -> Result<Keys, String> {
    key_set::keys(json!({"keys": set}).to_string().as_bytes()).map(Keys)
}

/// A token is verified with the key of its `kid`; a token without a `kid` is verified with any key
/// of its algorithm.
#[test]
fn a_token_names_its_key() {
    let keys = keys(&set()).expect("they are keys");
    let secret = |at: usize| SECRETS[at].as_bytes();
    for (algorithm, kid, secret, expected) in [
        (Algorithm::RS256, Some("r"), secret(0), Ok(())),
        (Algorithm::ES256, Some("e"), secret(0), Ok(())),
        (Algorithm::EdDSA, Some("d"), secret(0), Ok(())),
        (Algorithm::RS256, None, secret(0), Ok(())),
        (Algorithm::HS256, Some("first"), secret(0), Ok(())),
        (Algorithm::HS512, Some("second"), secret(1), Ok(())),
        (Algorithm::HS256, None, secret(0), Ok(())),
        (Algorithm::HS256, None, secret(1), Ok(())),
        (Algorithm::HS256, Some("first"), secret(1), Err(BadToken::Signature)),
        (Algorithm::HS256, None, secret(4), Err(BadToken::Signature)),
        (Algorithm::RS256, Some("e"), secret(0), Err(BadToken::KeyId)),
        (Algorithm::RS256, Some("new"), secret(0), Err(BadToken::KeyId)),
    ] {
        let token = signed_as(algorithm, kid, secret);
        let verified = verify(&keys, &token, NOW).map(|_| ());
        assert_eq!(verified, expected, "{algorithm:?} {kid:?}");
    }
    assert!(BadToken::KeyId.sentence().contains("`kid`"));
}

/// Keys of two kinds may have one `kid`: the algorithm of the token chooses between them.
#[test]
fn keys_of_two_kinds_share_a_name() {
    let mut set = set()[..2].to_vec();
    set.iter_mut().for_each(|key| key["kid"] = json!("shared"));
    let keys = keys(&set).expect("they are keys");
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let token = signed_as(algorithm, Some("shared"), b"");
        assert_eq!(verify(&keys, &token, NOW).map(|_| ()), Ok(()), "{algorithm:?}");
    }
}

/// A key with `alg` serves only that algorithm, and a key without a `kid` is tried if no `kid`
/// fits.
#[test]
fn keys_without_a_name_and_for_one_algorithm() {
    let mut first = set()[3].clone();
    first["alg"] = json!("HS384");
    let mut keys = keys(&[first]).expect("it is a key");
    let token = |algorithm, kid, secret: &str| signed_as(algorithm, kid, secret.as_bytes());
    let narrow = token(Algorithm::HS256, Some("first"), SECRETS[0]);
    assert_eq!(verify(&keys, &narrow, NOW), Err(BadToken::Algorithm));
    let fits = token(Algorithm::HS384, Some("first"), SECRETS[0]);
    assert_eq!(verify(&keys, &fits, NOW), Ok(alice(None)));
    keys.0.push(hmac(SECRETS[1].as_bytes()).expect("it is long enough"));
    let other = token(Algorithm::HS384, Some("of another issuer"), SECRETS[1]);
    assert_eq!(verify(&keys, &other, NOW), Ok(alice(None)));
}

/// Up to four keys of one algorithm are tried in turn for a token without a `kid`, and each try counts
/// as a check. With more keys such a token is refused without a check, whichever key has signed it.
#[test]
fn keys_are_tried_in_turn() {
    let secrets = &SECRETS[..4];
    let key = |secret: &&str| hmac(secret.as_bytes()).expect("it is long enough");
    let keys = Keys(secrets.iter().map(key).collect());
    for secret in secrets {
        let token = signed_as(Algorithm::HS256, None, secret.as_bytes());
        assert_eq!(verify(&keys, &token, NOW), Ok(alice(None)));
    }
    assert_eq!(keys.algorithms_with_key_ids(), "");
    let checked = |keys: Keys, token: &str| {
        let mut verifier = Verifier::new(keys, Required::default(), 100);
        verifier.begin_turn(Duration::ZERO);
        let verdict = verifier.check(token, None, Duration::ZERO, NOW);
        (verdict, verifier.counts().checks)
    };
    let unknown = signed_as(Algorithm::HS256, None, b"a secret that the server has never seen");
    assert_eq!(checked(keys, &unknown), (Verdict::Bad(BadToken::Signature), 4));

    let named = |(number, secret): (usize, &&str)| json!({"kty": "oct", "alg": "HS256", "kid": number.to_string(), "k": text(secret.as_bytes())});
    let set: Vec<_> = SECRETS.iter().enumerate().map(named).collect();
    let many = || self::keys(&set).expect("they are keys");
    for (number, secret) in SECRETS.iter().enumerate() {
        let nameless = signed_as(Algorithm::HS256, None, secret.as_bytes());
        assert_eq!(checked(many(), &nameless), (Verdict::Bad(BadToken::NoKeyId), 0));
        let number = number.to_string();
        let named = signed_as(Algorithm::HS256, Some(&number), secret.as_bytes());
        assert_eq!(checked(many(), &named), (Verdict::Good(alice(None)), 1));
    }
    assert_eq!(many().algorithms_with_key_ids(), "HS256");
}

/// Keys for other uses are left out; the errors for a wrong key and for a set without usable keys
/// name the problem.
#[test]
fn other_sets() {
    let mut others = set();
    others[0]["key_ops"] = json!(["verify"]);
    others.extend([
        json!({"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "key_ops": ["encrypt", "wrapKey"], "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
        json!({"kty": "RSA", "alg": "PS256", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "of another kind"}),
    ]);
    assert_eq!(keys(&others).expect("some are ours").len(), 5);
    let mut private = set()[1].clone();
    private["d"] = json!("AQAB");
    for (set, named) in [
        (vec![], "no key for"),
        (vec![others[5].clone()], "no key for"),
        (vec![private], "private key"),
        (vec![json!({"kty": "RSA", "e": "AQAB"})], "key 0 of the set: `n` is missing"),
        (vec![json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})], "this one has 17"),
        (vec![json!({"kty": "RSA", "n": "A=", "e": "AQAB"})], "`n` is not base64url"),
        (vec![json!({"kty": "oct", "k": "AQAB"})], "at least 32 bytes"),
        (vec![json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"})], "32 bytes"),
        (vec![json!({"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"})], "32 bytes"),
        (vec![json!({"kid": "x"})], "kty"),
        (vec![json!(7)], "key 0 of the set"),
    ] {
        let why = keys(&set).expect_err("it cannot be used");
        assert!(why.contains(named), "{set:?}: {why}");
    }
    for file in ["", "[]", "{}", r#"{"keys":{}}"#] {
        let why = key_set::keys(file.as_bytes()).err().expect("it is no set");
        assert!(why.contains("JSON Web Key Set"), "{file}: {why}");
    }
}

/// After keys are replaced, a token of a former key is refused even if it was cached.
#[test]
fn keys_are_replaced() {
    let [former, next] = [SECRETS[0], SECRETS[1]].map(|secret| {
        let keys = Keys(vec![hmac(secret.as_bytes()).expect("it is long enough")]);
        (keys, signed_as(Algorithm::HS256, None, secret.as_bytes()))
    });
    let mut verifier = Verifier::new(former.0, Required::default(), 100);
    let is_good = |verifier: &mut Verifier, token: &str| {
        verifier.begin_turn(Duration::ZERO);
        matches!(verifier.check(token, None, Duration::ZERO, NOW), Verdict::Good(_))
    };
    assert!(is_good(&mut verifier, &former.1) && !is_good(&mut verifier, &next.1));
    verifier.replace_keys(next.0);
    assert!(!is_good(&mut verifier, &former.1) && is_good(&mut verifier, &next.1));
}
