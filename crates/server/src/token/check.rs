//! `murre token check`.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgGroup, Args};

use crate::hub::auth::{Grants, Inspected, KeyFiles, Keys, Required, Token, UnixSeconds, inspect};
use crate::hub::unix_seconds;

/// A token, and the keys that may have signed it.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("keys").required(true).multiple(true))]
pub(crate) struct Check {
    /// The token [default: read from the standard input]
    token: Option<String>,

    /// Files with secrets, as for `murre serve`
    #[arg(long, value_name = "FILES", value_delimiter = ',', group = "keys")]
    jwt_hmac_secret_file: Vec<PathBuf>,

    /// PEM files with public keys, as for `murre serve`
    #[arg(long, value_name = "FILES", value_delimiter = ',', group = "keys")]
    jwt_public_key_file: Vec<PathBuf>,

    /// File with a JSON Web Key Set, as for `murre serve`
    #[arg(long, value_name = "FILE", group = "keys")]
    jwt_key_set_file: Option<PathBuf>,

    /// Audience that the token must name, as for `murre serve`
    #[arg(long, value_name = "TEXT")]
    jwt_audience: Option<String>,

    /// Issuer that the token must name, as for `murre serve`
    #[arg(long, value_name = "TEXT")]
    jwt_issuer: Option<String>,
}

impl Check {
    /// What the token says, as far as its signature is good, and why the server would refuse it.
    pub(super) fn report(self) -> (String, Option<String>) {
        let mut report = String::new();
        let problem = self.write_report(&mut report, unix_seconds()).err();
        (report, problem)
    }

    fn write_report(self, report: &mut String, now: u64) -> Result<(), String> {
        let token = match self.token {
            Some(token) => token,
            None => io::read_to_string(io::stdin())
                .map_err(|error| format!("the token cannot be read: {error}"))?,
        };
        let keys = Keys::read(&KeyFiles {
            secrets: self.jwt_hmac_secret_file,
            public_keys: self.jwt_public_key_file,
            key_set: self.jwt_key_set_file,
        });
        let keys = keys.map_err(|error| error.to_string())?;
        let required = Required {
            audience: self.jwt_audience.map(Into::into),
            issuer: self.jwt_issuer.map(Into::into),
        };
        let inspected = inspect(token.trim(), &keys, &required, now);
        let Inspected { algorithm, key_id, token, not_before, valid } =
            inspected.map_err(|bad| bad.sentence().to_owned())?;
        let mut line = |name: &str, value: &str| {
            // Writing to a text does not fail.
            let _ = writeln!(report, "{name:<10} {value}");
        };
        line("algorithm", &algorithm);
        line("key", key_id.as_deref().unwrap_or("no kid"));
        if not_before > 0 {
            line("from", &date(UnixSeconds::new(not_before)));
        }
        let (user, expires) = match &token {
            Token::Connection(user) => (Some(&*user.name), user.expires),
            Token::Subscription(token) => (token.user.as_deref(), token.expires),
        };
        line("user", user.unwrap_or("none: a connection without a user"));
        line("until", &date(expires));
        match &token {
            Token::Subscription(token) => {
                line("for", &format!("the subscription to {}", token.channel));
            }
            Token::Connection(user) => {
                line("for", "a connection");
                rights(user.grants.as_deref(), &mut line);
            }
        }
        valid.map_err(|bad| bad.sentence().to_owned())
    }
}

fn rights(grants: Option<&Grants>, line: &mut impl FnMut(&str, &str)) {
    let Some(grants) = grants else {
        return line("rights", "as the rules of the namespaces say");
    };
    let mut name = "rights";
    for (pattern, rights) in grants.patterns() {
        let rights: Vec<&str> = rights.map(|right| right.name()).collect();
        let rights = if rights.is_empty() { "none".into() } else { rights.join(", ") };
        line(name, &format!("{pattern}: {rights}"));
        name = "";
    }
    if name == "rights" {
        line(name, "none in any channel");
    }
}

/// A time, or `None` for ever.
fn date(time: Option<UnixSeconds>) -> String {
    let time = time.and_then(|time| UNIX_EPOCH.checked_add(Duration::from_secs(time.get())));
    time.map_or("for ever".into(), httpdate::fmt_http_date)
}
