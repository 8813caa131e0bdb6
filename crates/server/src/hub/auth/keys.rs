//! The keys with which tokens are verified, and the files of these keys.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::BadToken;
use super::jws::Jws;
use super::key::{self, Key};
use super::key_set;

/// The keys with which tokens are verified. Without keys the server accepts no tokens.
#[derive(Clone, Default)]
pub(crate) struct Keys(pub(super) Vec<Key>);

/// A key file that cannot be used.
#[derive(Debug)]
pub(crate) struct BadKeyFile {
    flag: &'static str,
    path: PathBuf,
    problem: String,
}

/// The key files. The server reads them at start and again on SIGHUP.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyFiles {
    /// Files with one secret each for HS256, HS384 and HS512.
    pub(crate) secrets: Vec<PathBuf>,
    /// Files with one public key each in PEM, for RS256, ES256 or EdDSA.
    pub(crate) public_keys: Vec<PathBuf>,
    /// The file of a JSON Web Key Set.
    pub(crate) key_set: Option<PathBuf>,
}

/// The most keys that the server tries for one token. Each costs a signature check.
const TRIES_MAX: usize = 4;

impl Keys {
    /// Reads all keys of the files.
    ///
    /// # Errors
    /// A file cannot be used. The error names the file, the problem and the remedy.
    pub(crate) fn read(files: &KeyFiles) -> Result<Keys, BadKeyFile> {
        type Parse = fn(&[u8]) -> Result<Vec<Key>, String>;
        let all: [(_, &[PathBuf], Parse); 3] = [
            ("--jwt-hmac-secret-file", &files.secrets, |file| Ok(vec![key::hmac(file)?])),
            ("--jwt-public-key-file", &files.public_keys, |file| Ok(vec![key::public_key(file)?])),
            ("--jwt-key-set-file", files.key_set.as_slice(), key_set::keys),
        ];
        let mut keys = Keys::default();
        for (flag, paths, parse) in all {
            for path in paths {
                let read = match fs::read(path) {
                    Ok(bytes) => parse(&bytes).and_then(|found| keys.add(found)),
                    Err(error) => Err(format!("{error}; check the path and its permissions")),
                };
                read.map_err(|problem| BadKeyFile { flag, path: path.clone(), problem })?;
            }
        }
        Ok(keys)
    }

    /// The keys of a set that anybody can read, as of a URL.
    ///
    /// # Errors
    /// It is not a key set, has a secret, or has no key that can be used.
    pub(crate) fn of_public_set(set: &[u8]) -> Result<Keys, String> {
        let keys = key_set::keys(set)?;
        if keys.iter().any(Key::is_secret) {
            return Err("it has a secret (`oct`), and everybody who reads it could sign tokens; \
                        publish public keys only"
                .into());
        }
        let mut set = Keys::default();
        set.add(keys)?;
        Ok(set)
    }

    /// These keys and `more`.
    ///
    /// # Errors
    /// More than [`TRIES_MAX`] keys without a `kid` have the same algorithm.
    pub(crate) fn with(mut self, more: Keys) -> Result<Keys, String> {
        self.add(more.0)?;
        Ok(self)
    }

    /// Adds keys.
    ///
    /// # Errors
    /// More than [`TRIES_MAX`] keys of one algorithm have the same `kid`, or none.
    fn add(&mut self, keys: Vec<Key>) -> Result<(), String> {
        self.0.extend(keys);
        let with_algorithms =
            self.0.iter().flat_map(|key| key.algorithms.iter().map(move |one| (&key.id, one)));
        for (id, algorithm) in with_algorithms {
            let alike = |key: &&Key| key.id == *id && key.algorithms.contains(algorithm);
            let count = self.0.iter().filter(alike).count();
            if count > TRIES_MAX {
                let id = id.as_ref().map_or("without a `kid`", |_| "with the same `kid`");
                return Err(format!(
                    "it is key {count} for {algorithm:?} {id}, and a token is tried with {TRIES_MAX}; \
                     put the keys into a set (--jwt-key-set-file) with a `kid` of its own each"
                ));
            }
        }
        Ok(())
    }

    /// The number of keys.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keys with one secret for HS256, HS384 and HS512.
    ///
    /// # Panics
    /// The secret is too short.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_secret(secret: &[u8]) -> Keys {
        Keys(vec![key::hmac(secret).expect("it is long enough")])
    }

    /// Whether there are no keys, so that no token can be verified.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that may have signed a token, at most [`TRIES_MAX`]: the key with its `kid`. If no
    /// key has that `kid`, the keys of its algorithm without a `kid`; if the token has no `kid`,
    /// all keys of its algorithm.
    ///
    /// # Errors
    /// No key is for the algorithm, every key for it has a `kid` other than the token's, or the token
    /// has no `kid` and more keys are for its algorithm than are tried.
    pub(super) fn of(&self, jws: &Jws<'_>) -> Result<impl Iterator<Item = &Key>, BadToken> {
        let id = jws.key_id.as_deref();
        let of_algorithm = || self.0.iter().filter(|key| key.algorithms.contains(&jws.algorithm));
        let named = id.is_some() && of_algorithm().any(|key| key.id.as_deref() == id);
        let fits = move |key: &&Key| match (id, &key.id) {
            (Some(id), Some(own)) => **own == *id,
            (Some(_), None) => !named,
            (None, _) => true,
        };
        match (of_algorithm().count(), of_algorithm().filter(fits).count()) {
            (0, _) => Err(BadToken::Algorithm),
            (_, 0) => Err(BadToken::KeyId),
            (_, ..=TRIES_MAX) => Ok(of_algorithm().filter(fits)),
            _ => Err(BadToken::NoKeyId),
        }
    }

    /// The algorithms of which there are more keys than are tried, so that their tokens need a `kid`,
    /// as a list.
    pub(crate) fn algorithms_with_key_ids(&self) -> String {
        let mut all = Vec::new();
        for algorithm in self.0.iter().flat_map(|key| key.algorithms) {
            let count = self.0.iter().filter(|key| key.algorithms.contains(algorithm)).count();
            if count > TRIES_MAX && !all.contains(&format!("{algorithm:?}")) {
                all.push(format!("{algorithm:?}"));
            }
        }
        all.join(", ")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms = self.0.iter().flat_map(|key| key.algorithms);
        f.debug_list().entries(algorithms).finish()
    }
}

impl fmt::Display for BadKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.flag, self.path.display(), self.problem)
    }
}
