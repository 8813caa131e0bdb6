//! The users of connections: tokens that the scenarios sign themselves, with the server's secret, and the
//! members of channels that the connections of users are, as the server counts them.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use murre_record::PresenceCount;
use serde::Serialize;
use serde_json::json;

use crate::measure::admin::AdminArgs;

/// The secret for tokens, if there are users, and where the server counts them as members.
#[derive(clap::Args, Clone, Serialize)]
pub(crate) struct UserArgs {
    /// The server's --jwt-hmac-secret-file: every connection is then the connection of a user of its own
    /// [default: anonymous connections]
    #[arg(long, value_name = "FILE")]
    token_secret_file: Option<PathBuf>,

    #[command(flatten)]
    #[serde(flatten)]
    admin: AdminArgs,

    /// The server's count of members at the end.
    #[arg(skip)]
    #[serde(skip)]
    counted: Arc<OnceLock<PresenceCount>>,
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

    /// The error of a secret that cannot be read.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.signer().map(|_| ()).map_err(|error| format!("{error:#}"))
    }

    /// Asks the server for the number of members of these channels, if it can be asked.
    ///
    /// # Errors
    /// There are not `expected` members, nor some seconds later, or the server gives no answer.
    pub(crate) fn verify_members(
        &self,
        channels: &[String],
        expected: PresenceCount,
    ) -> anyhow::Result<()> {
        let count = self.admin.count_members(channels, |count| count == expected)?;
        let Some(count) = count else { return Ok(()) };
        let _ = self.counted.set(count);
        ensure!(count == expected, "the server counts {count:?} in all channels, not {expected:?}");
        Ok(())
    }

    /// Where the server is asked.
    pub(crate) fn admin(&self) -> &AdminArgs {
        &self.admin
    }

    /// The server's count of members at the end, if it was asked.
    pub(crate) fn members(&self) -> Option<PresenceCount> {
        self.counted.get().copied()
    }
}

/// The name of the user of a connection.
pub(crate) fn user(connection: u32) -> String {
    format!("{USER}{connection}")
}

/// The connection whose user has this name.
pub(crate) fn connection_of(user: &str) -> Option<u32> {
    user.strip_prefix(USER)?.parse().ok()
}

const USER: &str = "user-";

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
