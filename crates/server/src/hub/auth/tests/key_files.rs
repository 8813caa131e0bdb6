//! Tests of key files: the accepted forms, and the errors for others.

use std::path::{Path, PathBuf};

use super::*;

/// The line end of a file is not part of the secret, and short secrets are refused with a remedy.
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

/// The error for a file without a supported public key names the problem or the command that helps.
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

/// Keys are read from all files, and the error for a wrong file is one line that names the file and
/// its flag.
#[test]
fn files() {
    let path = |name: &str| -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub/auth/keys").join(name)
    };
    let files = |secrets: &[&str], public_keys: &[&str], key_set: Option<&str>| KeyFiles {
        secrets: secrets.iter().map(|name| path(name)).collect(),
        public_keys: public_keys.iter().map(|name| path(name)).collect(),
        key_set: key_set.map(path),
    };
    let keys = Keys::read(&files(&[], &["ed.public.pem", "ec.public.pem"], None)).expect("keys");
    assert_eq!(format!("{keys:?}"), "[EdDSA, ES256]");
    assert_eq!(Keys::read(&KeyFiles::default()).expect("nothing is wrong").len(), 0);
    let five = ["ed.public.pem"; 5];
    for (files, flag, named) in [
        (files(&["none"], &[], None), "--jwt-hmac-secret-file", "none"),
        (files(&["ed.public.pem"], &[], None), "--jwt-hmac-secret-file", "ed.public.pem"),
        (files(&[], &["ed.private.pem"], None), "--jwt-public-key-file", "ed.private.pem"),
        (files(&[], &["ec.public.pem", "none"], None), "--jwt-public-key-file", "none"),
        (files(&[], &five, None), "--jwt-public-key-file", "key 5 for EdDSA without a `kid`"),
        (files(&[], &[], Some("ed.public.pem")), "--jwt-key-set-file", "JSON Web Key Set"),
    ] {
        let line = Keys::read(&files).expect_err("one is wrong").to_string();
        assert!(line.starts_with(flag) && line.contains(named), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

/// An RSA key with an exponent of 1 is refused, because every message would be its own signature.
#[test]
fn rsa_exponents() {
    for (exponent, good) in [(1, false), (3, true)] {
        let (_, document) = Document::from_pem(RSA_PUBLIC).expect("it is PEM");
        let mut der = document.as_bytes().to_vec();
        // The exponent 65537 is at the end, in three bytes. An exponent of one byte makes three
        // enclosing lengths smaller by two.
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

/// A point off the curve is an error when the file is read, and not only when a token is checked.
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
