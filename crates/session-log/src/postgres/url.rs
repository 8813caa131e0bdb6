//! The URL of a database.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Socket};

use super::tls::{Tls, Verified};
use crate::store::Problem;

/// The URL of a PostgreSQL database, as libpq has it
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>).
#[derive(Clone, Debug)]
pub struct PostgresUrl {
    config: Box<Config>,
    tls: Tls,
    /// Without password and parameters.
    shown: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl PostgresUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        // The driver would take what is before the first `@` for the user, and the rest for the host.
        if query.contains('@') || place.matches('@').count() > 1 {
            return Err(
                "write ? as %3F and @ as %40 in the user, the password and parameters".into()
            );
        }
        let (mut ssl_mode, mut verified, mut roots) = (None, Verified::Nothing, None);
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                // The driver does not know these.
                Some(("sslmode", mode)) => {
                    (ssl_mode, verified) = match mode {
                        "disable" => (Some(SslMode::Disable), Verified::Nothing),
                        "prefer" => (Some(SslMode::Prefer), Verified::Nothing),
                        "require" => (Some(SslMode::Require), Verified::Nothing),
                        "verify-full" => (Some(SslMode::Require), Verified::Full),
                        _ => {
                            return Err("sslmode is disable, prefer, require or verify-full".into());
                        }
                    };
                }
                Some(("sslrootcert", file)) => {
                    let file = percent_decode_str(file)
                        .decode_utf8()
                        .map_err(|error| error.to_string())?;
                    roots = Some(PathBuf::from(&*file));
                }
                _ => others.push(parameter),
            }
        }
        if roots.is_some() && verified != Verified::Full {
            return Err("sslrootcert is for sslmode=verify-full".into());
        }
        let mut plain = place.to_owned();
        if !others.is_empty() {
            plain = format!("{place}?{}", others.join("&"));
        }
        let config = plain.parse::<Config>().map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!(
                "it is not postgres://USER:PASSWORD@HOST:PORT/DATABASE: {}",
                source.unwrap_or_else(|| error.to_string())
            )
        })?;
        let mut config = config;
        if config.get_hosts().is_empty() {
            return Err("it names no host".into());
        }
        config.ssl_mode(ssl_mode.unwrap_or(SslMode::Prefer));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
        let shown = match rest.rsplit_once('@') {
            Some((user, rest)) => {
                let user = user.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}@{rest}")
            }
            None => place.to_owned(),
        };
        let config = Box::new(config);
        Ok(PostgresUrl { config, tls: Tls { verified, roots }, shown })
    }

    /// Connects, and gives the task that moves bytes.
    pub(super) async fn connect(
        &self,
    ) -> Result<(Client, tokio_postgres::Connection<Socket, super::tls::Stream>), Problem> {
        Ok(self.config.connect(self.tls.clone()).await?)
    }
}

/// The URL without password and parameters.
impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passwords are never shown, whatever they have in them. Wrong parameters are refused.
    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            (
                "postgres://murre:secr%40%3Fet@db:5432/log?sslmode=require",
                "postgres://murre@db:5432/log",
            ),
            ("postgresql://db/log?user=murre&password=secret", "postgresql://db/log"),
        ] {
            let url = PostgresUrl::parse(text).expect("a URL");
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secr"), "{url:?}");
        }
        for (text, problem) in [
            ("postgres://db/log?sslmode=always", "sslmode is"),
            ("postgres://db/log?sslmode=require&sslrootcert=ca.pem", "sslmode=verify-full"),
            ("postgres://db/log?colour=red", "colour"),
            ("postgres:///log", "no host"),
            ("postgres://murre:pa@ss@db/log", "%40"),
            ("postgres://murre:pa?ss@db/log?sslmode=require", "%3F"),
            ("postgres://db:port/log", "port"),
        ] {
            let found = PostgresUrl::parse(text).expect_err("it is wrong");
            assert!(found.contains(problem), "{found}");
        }
    }
}
