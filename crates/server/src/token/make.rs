//! `murre token make`.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::hub::auth::{Right, Signer, check_claims};
use crate::hub::unix_seconds;

/// What a token says, and the key that signs it.
#[derive(Debug, Args)]
pub(crate) struct Make {
    /// File with a secret of at least 32 bytes (signs with HS256), or with a private key in PEM
    /// (RS256, ES256 or EdDSA, according to the key)
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,

    /// The user
    #[arg(long, value_name = "USER", required_unless_present = "subscription")]
    sub: Option<String>,

    /// Time for which the token is good, as 90s, 15m, 1h or 30d; or never
    #[arg(long, value_name = "TIME", default_value = "1h")]
    ttl: Ttl,

    /// Rights in the channels that match a pattern, as 'chat:*=subscribe,publish'; the rights are
    /// subscribe, publish, presence and history. May be repeated [default: as the rules of the
    /// namespaces say]
    #[arg(long, value_name = "PATTERN=RIGHTS")]
    channel: Vec<Grant>,

    /// Grant no right in any channel, instead of leaving it to the rules of the namespaces
    #[arg(long, conflicts_with = "channel")]
    no_channels: bool,

    /// Make a token for the subscription to this channel, and for nothing else
    #[arg(long, value_name = "CHANNEL", conflicts_with_all = ["channel", "no_channels"])]
    subscription: Option<String>,

    /// The audience, `aud`
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,

    /// The issuer, `iss`
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,

    /// The name of the key in a key set, `kid`
    #[arg(long, value_name = "TEXT")]
    key_id: Option<String>,
}

/// A time span in seconds; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ttl(Option<u64>);

impl FromStr for Ttl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Ttl(None));
        }
        let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
        let unit = match &text[number.len()..] {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(60 * 60),
            "d" => Some(24 * 60 * 60),
            _ => None,
        };
        let seconds = number.parse().ok().zip(unit);
        let seconds = seconds.and_then(|(number, unit): (u64, u64)| number.checked_mul(unit));
        let seconds = seconds.filter(|seconds| (1..=TTL_SECONDS_MAX).contains(seconds));
        seconds.map(|seconds| Ttl(Some(seconds))).ok_or(TTL)
    }
}

/// A hundred years.
const TTL_SECONDS_MAX: u64 = 36_500 * 24 * 60 * 60;
const TTL: &str = "it is a number with s, m, h or d, up to 36500d, or never";

/// The rights for a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    pattern: String,
    rights: Vec<&'static str>,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, rights) = text
            .rsplit_once('=')
            .ok_or("write it as 'chat:*=subscribe,publish', or 'chat:*=' for no right")?;
        let named = |name: &str| {
            let right = Right::named(name).ok_or_else(|| {
                format!("`{name}` is no right; they are subscribe, publish, presence, history")
            });
            right.map(Right::name)
        };
        let rights = rights.split(',').filter(|name| !name.is_empty()).map(named);
        Ok(Grant { pattern: pattern.to_owned(), rights: rights.collect::<Result<_, _>>()? })
    }
}

impl Make {
    /// The token.
    ///
    /// # Errors
    /// The key cannot be used, or the server would refuse the token. The error says what to do.
    pub(super) fn token(&self) -> Result<String, String> {
        let path = self.key_file.display();
        let file = fs::read(&self.key_file);
        let file = file.map_err(|error| {
            format!("--key-file {path}: {error}; check the path and its permissions")
        })?;
        let signer = Signer::read(&file).map_err(|why| format!("--key-file {path}: {why}"))?;
        let claims = Value::Object(self.claims()?);
        check_claims(claims.to_string().as_bytes()).map_err(|bad| bad.sentence().to_owned())?;
        signer.sign(&claims, self.key_id.as_deref())
    }

    fn claims(&self) -> Result<Map<String, Value>, String> {
        let mut claims = Map::new();
        let texts = [
            ("sub", &self.sub),
            ("channel", &self.subscription),
            ("aud", &self.audience),
            ("iss", &self.issuer),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                claims.insert(name.to_owned(), json!(text));
            }
        }
        let now = unix_seconds();
        claims.insert("iat".to_owned(), json!(now));
        if let Ttl(Some(seconds)) = self.ttl {
            claims.insert("exp".to_owned(), json!(now.saturating_add(seconds)));
        }
        if self.no_channels || !self.channel.is_empty() {
            let mut channels = Map::new();
            for Grant { pattern, rights } in &self.channel {
                if channels.insert(pattern.clone(), json!(rights)).is_some() {
                    return Err(format!(
                        "--channel has `{pattern}` twice; put all its rights into one value"
                    ));
                }
            }
            claims.insert("channels".to_owned(), Value::Object(channels));
        }
        Ok(claims)
    }
}
