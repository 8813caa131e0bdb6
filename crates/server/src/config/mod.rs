//! Configuration: flags, `MURRE_*` environment variables and a TOML file, in this order of
//! precedence.
//!
//! A setting is declared once, as a field of [`Config`] or [`LimitSettings`]; all its names follow
//! from the name of the field. The parser of the command line also reads the environment and the
//! file.

mod file;
mod limits;
mod listen;
mod nearest;
mod settings;
#[cfg(test)]
mod tests;
mod values;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use murre_core::host::Plan;
use murre_core::{AddressLimits, Proxies};
use serde_json::{Map, Value};

pub(crate) use self::limits::LimitSettings;
pub(crate) use self::listen::Listen;
pub(crate) use self::settings::Config;
pub(crate) use self::values::{CallUrl, LogFormat, Mount, TrustedProxy, UnixMode};
use crate::backend::{BackendConfig, CallKind};
use crate::backplane::nats;
use crate::bench::CHAT_MOUNT;
use crate::control::KeySetUrl;
use crate::hub::auth::{KeyFiles, Required};
use crate::hub::limits::NameLimits;
use crate::hub::rules::{Namespace, Namespaces};
use crate::session_log::SessionsCommand;
use crate::token::TokenCommand;
use crate::webhooks::{self, Webhooks};

/// The command line of `murre`.
#[derive(Debug, Parser)]
#[command(version, about = "A connection server on io_uring")]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve WebSocket and HTTP connections until SIGTERM or SIGINT
    Serve(Box<Config>),
    /// Make and check tokens, as clients present them
    #[command(subcommand)]
    Token(TokenCommand),
    /// Ask a session log who was online, when and for how long
    #[command(subcommand)]
    Sessions(SessionsCommand),
}

/// The reason why there is no configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// Bad arguments or variables, or a request for help. The parser has its own text and exit
    /// code.
    Arguments(clap::Error),
    /// The configuration file cannot be read, or a setting in it is wrong.
    File { path: PathBuf, problem: String },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Arguments(error) => error.fmt(f),
            ConfigError::File { path, problem } => {
                write!(f, "configuration file {}: {problem}", path.display())
            }
        }
    }
}

impl Cli {
    /// Reads the command line and, for settings that it leaves open, the environment and the file.
    ///
    /// # Errors
    /// An argument, a variable or a setting of the file is wrong, or the file cannot be read.
    pub(crate) fn read(arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
        let matches = command().try_get_matches_from(&arguments);
        let matches = matches.map_err(without_secrets).map_err(ConfigError::Arguments)?;
        let cli = Cli::from_arg_matches(&matches).and_then(Cli::checked);
        let cli = cli.map_err(ConfigError::Arguments)?;
        let Command::Serve(config) = &cli.command else { return Ok(cli) };
        let Some(path) = &config.config else { return Ok(cli) };
        let wrong = |problem| ConfigError::File { path: path.clone(), problem };
        let (_, given) = matches.subcommand().expect("`serve` was parsed");
        let flags = file::flags(path, serve(&command()), given).map_err(wrong)?;
        let all: Vec<OsString> = arguments.into_iter().chain(flags).collect();
        // The arguments alone were right, so the file causes any error now.
        let matches = command().try_get_matches_from(all);
        let cli =
            matches.and_then(|matches| Cli::from_arg_matches(&matches)).and_then(Cli::checked);
        cli.map_err(|error| wrong(first_line(&without_secrets(error))))
    }

    /// Checks the rules between settings; the parser checks each value alone.
    fn checked(self) -> Result<Self, clap::Error> {
        let Command::Serve(config) = &self.command else { return Ok(self) };
        if config.proxy_protocol && config.trusted_proxy.is_empty() {
            let problem =
                "'--proxy-protocol' needs the addresses of the proxies; add '--trusted-proxy'";
            return Err(command().error(ErrorKind::MissingRequiredArgument, problem));
        }
        if let Some(problem) = config.shared_path() {
            return Err(command().error(ErrorKind::ArgumentConflict, problem));
        }
        let wrong = match Namespaces::new(&config.namespace) {
            Ok(namespaces) => {
                let unknown = config.unknown_in_filters(&namespaces).map(|name| {
                    let problem = format!(
                        "'--webhook' names the namespace '{name}', which has no '--namespace'"
                    );
                    command().error(ErrorKind::ValueValidation, problem)
                });
                let missing =
                    |problem| command().error(ErrorKind::MissingRequiredArgument, problem);
                unknown.or_else(|| config.backend().err().map(missing))
            }
            Err(twice) => {
                let problem =
                    format!("'--namespace' has '{twice}' twice; put all its rules into one value");
                Some(command().error(ErrorKind::ArgumentConflict, problem))
            }
        };
        wrong.map_or(Ok(self), Err)
    }
}

/// The error without the value that was given, if that may have a password: an address with a user, or with
/// parameters.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let has_secret = |value: &str| value.contains("://") && value.contains(['@', '?']);
    if matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if has_secret(value))
    {
        let hidden = ContextValue::String("(not shown)".into());
        error.insert(ContextKind::InvalidValue, hidden);
    }
    error
}

/// The parser of the command line, in which each flag of `serve` has its variable. An empty
/// variable counts as not set, because container templates write an empty value for a missing one.
fn command() -> clap::Command {
    let with_variable = |setting: Arg| {
        let name = variable(&setting);
        let is_empty = env::var_os(&name).is_some_and(|value| value.is_empty());
        if is_empty { setting } else { setting.env(name).hide_env_values(true) }
    };
    Cli::command().mut_subcommand("serve", |serve| serve.mut_args(with_variable))
}

/// The name of the environment variable of a setting.
fn variable(setting: &Arg) -> String {
    format!("{PREFIX}{}", setting.get_id().as_str().to_uppercase())
}

const PREFIX: &str = "MURRE_";

/// The rules of the rooms of the chat page of `bench`, and of its signs of typing.
const CHAT_NAMESPACES: [&str; 2] = [
    "demo-chat,publish=anyone,history-size=100,history-ttl=86400,presence=members,presence-key=client",
    "demo-typing,publish=anyone,phoenix-push=broadcast_from",
];

/// Whether the namespace is one of the pages of `bench`, not of an application.
pub(crate) fn is_of_demo(namespace: &str) -> bool {
    CHAT_NAMESPACES.iter().any(|rules| rules.split(',').next() == Some(namespace))
}

/// Environment variables that begin with `MURRE_` and belong to no setting, each with the setting's
/// variable of a similar name, if there is one. Such a variable is misspelt or belongs to another
/// tool.
pub(crate) fn unknown_variables() -> Vec<(String, Option<String>)> {
    let cli = Cli::command();
    let known: Vec<String> = serve(&cli).get_arguments().map(variable).collect();
    let names = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    unknown
        .map(|name| {
            let nearest = nearest::nearest(&name, known.iter().map(String::as_str));
            let nearest = nearest.map(str::to_owned);
            (name, nearest)
        })
        .collect()
}

/// The command `serve`, whose flags are the settings.
fn serve(command: &clap::Command) -> &clap::Command {
    command.find_subcommand("serve").expect("`serve` is declared")
}

/// The first line of the parser's message. The other lines give advice about the command line.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl Config {
    /// A sentence about a path that two settings name, one of which would have no effect; `None` if there
    /// is none.
    fn shared_path(&self) -> Option<String> {
        let shared = |path: &&Mount| self.phoenix_path.contains(path);
        let of_chat = |path: &&Mount| self.bench && path.0 == CHAT_MOUNT;
        let both = |path: &Mount, other: &str| {
            format!("'--supabase-path' and {other} both have {path}; give each a path of its own")
        };
        let paths = || self.supabase_path.iter();
        let with_phoenix = paths().find(shared).map(|path| both(path, "'--phoenix-path'"));
        with_phoenix
            .or_else(|| paths().find(of_chat).map(|path| both(path, "the chat page of '--bench'")))
    }

    /// The configuration in force. Settings that were left open have the values that the server
    /// chose, and addresses have the ports that the kernel chose.
    pub(crate) fn in_force(&self, plan: &Plan, listen: Vec<Listen>, admin: Listen) -> Self {
        let limits = LimitSettings {
            max_conns: Some(plan.max_conns()),
            max_accepts_per_second: Some(self.limits.accepts_per_second(plan.cores)),
            ..self.limits.clone()
        };
        Config {
            listen,
            admin,
            shards: Some(plan.shards as u16),
            io: Some(plan.io),
            descriptors: Some(plan.descriptors),
            limits,
            ..self.clone()
        }
    }

    /// Every setting by its name: the settings that are not limits, then the limits.
    pub(crate) fn by_name(&self) -> (Map<String, Value>, Map<String, Value>) {
        let table = serde_json::to_value(self).expect("settings are numbers, texts and lists");
        let Value::Object(mut settings) = table else { panic!("a struct is an object") };
        match settings.remove("limits") {
            Some(Value::Object(limits)) => (settings, limits),
            _ => panic!("the limits are a field of the table"),
        }
    }

    /// The rules of all channels and services, with `bench` also those of its chat page, unless they are
    /// configured.
    pub(crate) fn namespaces(&self) -> Namespaces {
        let mut namespaces = self.namespace.clone();
        if self.bench {
            let of_chat = CHAT_NAMESPACES.map(|text| text.parse::<Namespace>().expect("rules"));
            let is_new =
                |one: &Namespace| self.namespace.iter().all(|known| known.name() != one.name());
            namespaces.extend(of_chat.into_iter().filter(is_new));
        }
        let namespaces = Namespaces::new(&namespaces);
        let namespaces = namespaces.expect("names were checked to be there once");
        if self.strict_namespaces { namespaces.strict() } else { namespaces }
    }

    /// The files of the keys with which tokens are verified.
    pub(crate) fn key_files(&self) -> KeyFiles {
        KeyFiles {
            secrets: self.jwt_hmac_secret_file.clone(),
            public_keys: self.jwt_public_key_file.clone(),
            key_set: self.jwt_key_set_file.clone(),
        }
    }

    /// The URL of the key set, and how often it is fetched.
    pub(crate) fn key_set_url(&self) -> Option<KeySetUrl> {
        let interval = self.jwt_key_set_interval.0;
        self.jwt_key_set_url.clone().map(|url| KeySetUrl { url, interval })
    }

    /// The calls of the backend; `None` if there are none.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the settings together.
    pub(crate) fn backend(&self) -> Result<Option<BackendConfig>, String> {
        let url = |kind: CallKind| {
            let own = match kind {
                CallKind::Connect => &self.backend_connect,
                CallKind::Refresh => &self.backend_refresh,
                CallKind::Subscribe => &self.backend_subscribe,
                CallKind::Publish => &self.backend_publish,
                CallKind::Rpc => &self.backend_rpc,
            };
            match (own, &self.backend) {
                (Some(CallUrl::Url(url)), _) => Ok(Some(url.clone())),
                (Some(CallUrl::Off), _) | (None, None) => Ok(None),
                (None, Some(base)) => values::below(base, kind.name()).map(Some),
            }
        };
        let mut urls = [const { None }; 5];
        for (kind, place) in CallKind::ALL.into_iter().zip(&mut urls) {
            *place = url(kind).map_err(|why| format!("'--backend': {why}"))?;
        }
        let namespaces = self.namespaces();
        for (name, rule, kind) in namespaces.that_ask() {
            if urls[kind as usize].is_none() {
                let call = kind.name();
                return Err(format!(
                    "namespace '{name}' has {rule}=backend, which needs a URL for the call {call}; add                      '--backend' or '--backend-{call}'"
                ));
            }
        }
        let makes_calls = urls.iter().any(Option::is_some);
        Ok(makes_calls.then(|| BackendConfig {
            urls,
            timeout: self.backend_timeout.0,
            headers: self.backend_header.as_slice().into(),
            data_bytes_max: self.limits.max_publication_bytes as usize,
        }))
    }

    /// A namespace that the filter of a webhook names and that is not configured.
    fn unknown_in_filters(&self, namespaces: &Namespaces) -> Option<&str> {
        let is_there = |name: &str| namespaces.publishers().any(|(known, _)| known == name);
        let mut named = self.webhook.iter().flat_map(|webhook| webhook.filter.namespaces());
        named.find(|name| !is_there(name))
    }

    /// The settings of the session log; `None` without one.
    pub(crate) fn session_log(&self) -> Option<murre_session_log::Settings> {
        let days = Duration::from_secs(24 * 60 * 60);
        let node = self.cluster_node.clone().unwrap_or_else(nats::Token::of_machine);
        Some(murre_session_log::Settings {
            place: self.sessions.clone()?,
            node: node.to_string(),
            lease: murre_session_log::LEASE,
            spool: self.session_spool.clone().map(|file| murre_session_log::Spooled {
                file,
                bytes_max: self.session_spool_bytes,
            }),
            gap: self.session_gap.0,
            retention: (self.session_retention > 0)
                .then(|| days.saturating_mul(self.session_retention)),
        })
    }

    /// The settings of the cluster; `None` if this node is alone.
    pub(crate) fn cluster(&self) -> Option<nats::Settings> {
        if self.cluster_nats.is_empty() {
            return None;
        }
        let tls_client = self.cluster_tls_cert.clone().zip(self.cluster_tls_key.clone());
        let namespaces = self.namespaces();
        let kept = namespaces.with_history().map(|(namespace, size, ttl)| nats::Kept {
            namespace: namespace.into(),
            size,
            ttl,
        });
        Some(nats::Settings {
            servers: self.cluster_nats.clone(),
            cluster: self.cluster_name.clone(),
            node: self.cluster_node.clone().unwrap_or_else(nats::Token::of_machine),
            credentials: self.cluster_credentials.clone(),
            tls_ca: self.cluster_tls_ca.clone(),
            tls_client,
            storage: self.cluster_storage,
            replicas: self.cluster_replicas,
            publication_bytes_max: self.limits.max_publication_bytes,
            kept: kept.collect(),
            namespaces,
        })
    }

    /// The webhooks; `None` without any.
    ///
    /// # Errors
    /// A file of keys cannot be used. The error names the file, the problem and the remedy.
    pub(crate) fn webhooks(&self) -> Result<Option<Webhooks>, String> {
        let settings = webhooks::Settings {
            key_files: self.webhook_key_file.clone(),
            batch: self.webhook_batch,
            delay: self.webhook_delay.0,
            timeout: self.webhook_timeout.0,
            retry: self.webhook_retry.0,
            bytes_max: self.webhook_queue_bytes,
        };
        Webhooks::new(&self.webhook, settings)
    }

    /// The claims that a token must have besides a good signature.
    pub(crate) fn required_of_tokens(&self) -> Required {
        Required {
            audience: self.jwt_audience.as_deref().map(Box::from),
            issuer: self.jwt_issuer.as_deref().map(Box::from),
        }
    }

    /// The proxies that are trusted to name the address of a client.
    pub(crate) fn proxies(&self) -> Proxies {
        let trusted = &self.trusted_proxy;
        Proxies {
            networks: trusted.iter().filter_map(TrustedProxy::network).collect(),
            unix: trusted.contains(&TrustedProxy::Unix),
            header: self.proxy_protocol,
        }
    }

    /// The limits of names and payloads, in bytes.
    pub(crate) fn name_and_payload_limits(&self) -> NameLimits {
        NameLimits {
            max_name_bytes: usize::from(self.limits.max_name_bytes),
            max_publication_bytes: self.limits.max_publication_bytes as usize,
        }
    }
}

impl LimitSettings {
    /// The most connections that the server accepts per second on a machine with `cores` cores.
    pub(crate) fn accepts_per_second(&self, cores: usize) -> u32 {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        self.max_accepts_per_second.unwrap_or(ACCEPTS_PER_CORE.saturating_mul(cores))
    }

    /// The limits of one client address. A setting of 0 gives `None`: no limit.
    pub(crate) fn of_addresses(&self) -> AddressLimits {
        let limit = |number| (number > 0).then_some(number);
        AddressLimits {
            max_conns_per_address: limit(self.max_conns_per_address),
            max_handshakes_per_second: limit(self.max_handshakes_per_second),
        }
    }
}

const ACCEPTS_PER_CORE: u32 = 25_000;
