//! Which key files can be used.

use std::path::Path;

use super::*;

/// A line end is not part of the secret, and short secrets are refused.
#[test]
fn secrets() {
    let token = signed(Algorithm::HS384, &json!({"sub": "alice"}));
    for end in ["", "\n", "\r\n"] {
        let keys = Keys(vec![hmac(format!("{SECRET}{end}").as_bytes()).expect("it is one")]);
        assert_eq!(verify(&keys, &token, NOW), Ok(alice(None)));
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
        (include_str!("../keys/rsa.pkcs1.pem"), "openssl rsa"),
        (include_str!("../keys/rsa-1024.public.pem"), "this one has 1024"),
        (include_str!("../keys/p384.public.pem"), "neither RSA nor EC P-256"),
    ] {
        let found = public_key(file.as_bytes()).err().expect("it cannot be used");
        assert!(found.contains(problem), "{file}: {found}");
    }
}

/// Files are read, and what is wrong with one names it and its flag in one line.
#[test]
fn files() {
    let path =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub/auth/keys").join(name);
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

/// An RSA key with an exponent of 1, which every message fits, is refused.
#[test]
fn rsa_exponents() {
    for (exponent, good) in [(1, false), (3, true)] {
        let (_, document) = Document::from_pem(RSA_PUBLIC).expect("it is PEM");
        let mut der = document.as_bytes().to_vec();
        // 65537 stands at the end, in three bytes. One byte takes two off the three sequences.
        assert!(der.ends_with(&[2, 3, 1, 0, 1]));
        der.truncate(der.len() - 5);
        der.extend([2, 1, exponent]);
        for length in [3, 22, 27] {
            der[length] -= 2;
        }
        let document = Document::try_from(&*der).expect("it is DER");
        let pem = document.to_pem("PUBLIC KEY", Default::default()).expect("it can be written");
        match public_key(pem.as_bytes()) {
            Ok(_) => assert!(good),
            Err(problem) => assert!(!good && problem.contains("this one has 1"), "{problem}"),
        }
    }
}

/// Numbers that are not a point on the curve are found when the file is read, not by every token.
#[test]
fn points_off_the_curve() {
    for (pem, length) in [(EC_PUBLIC, 91), (ED_PUBLIC, 44)] {
        let (_, document) = Document::from_pem(pem).expect("it is PEM");
        let mut der = document.as_bytes().to_vec();
        assert_eq!(der.len(), length);
        let off = (0..=255).find_map(|byte| {
            *der.last_mut().expect("it has bytes") = byte;
            let document = Document::try_from(&*der).expect("it is DER");
            let pem = document.to_pem("PUBLIC KEY", Default::default()).expect("it can be written");
            public_key(pem.as_bytes()).err()
        });
        assert!(off.expect("half of all numbers are off the curve").contains("no key"));
    }
}
