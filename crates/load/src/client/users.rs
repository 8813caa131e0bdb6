//! The users of connections: tokens that the scenarios sign themselves, with the server's secret.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::json;

/// The secret for tokens, if there are users.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct UserArgs {
    /// The server's --jwt-hmac-secret-file: every connection is then the connection of a user of its own
    /// [default: anonymous connections]
    #[arg(long, value_name = "FILE")]
    token_secret_file: Option<PathBuf>,
}

impl UserArgs {
    /// Whether the connections are those of users.
    pub(crate) fn are_there(&self) -> bool {
        self.token_secret_file.is_some()
    }

    /// Signs the tokens of the users; `None` if there are none.
    pub(crate) fn signer(&self) -> anyhow::Result<Option<Signer>> {
        let Some(file) = &self.token_secret_file else { return Ok(None) };
        let secret = fs::read(file)
            .with_context(|| format!("--token-secret-file {} cannot be read", file.display()))?;
        let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
        Ok(Some(Signer(EncodingKey::from_secret(secret))))
    }
}

/// The secret that signs tokens.
#[derive(Clone)]
pub(crate) struct Signer(EncodingKey);

impl Signer {
    /// A token of a user that does not expire.
    pub(crate) fn token(&self, user: &str) -> String {
        let header = Header::new(Algorithm::HS256);
        encode(&header, &json!({"sub": user}), &self.0).expect("a secret can sign")
    }
}
