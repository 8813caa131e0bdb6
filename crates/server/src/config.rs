//! What to run: flags, `MURRE_*` environment variables and a TOML file, in this order of precedence.
//!
//! Every setting is declared once, as a flag. The environment is read by the same parser, and so is
//! the file: each of its keys that neither a flag nor a variable has set is handed to the parser as
//! if it had been a flag. So all three take the same values and give the same errors. Namespaces are
//! tables there, each of which is the value of one `--namespace`.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ipnet::IpNet;
use murre_core::host::{Descriptors, Io};
use murre_core::{AddressLimits, Origins, Proxies};
use tracing_subscriber::filter::Targets;

use crate::channels::command::Limits;
use crate::channels::namespaces::{Namespace, Namespaces};

/// What `murre` was asked to do.
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
    Serve(Config),
}

/// Every setting of `murre serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Config {
    /// TOML file; its keys are the long flags without their dashes. Flags and variables go first
    #[arg(long, env = "MURRE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where clients connect
    #[arg(long, env = "MURRE_LISTEN", hide_env_values = true, value_name = "ADDR:PORT")]
    #[arg(default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,

    /// Where /healthz, /metrics and /stats are served
    #[arg(long, env = "MURRE_ADMIN", hide_env_values = true, value_name = "ADDR:PORT")]
    #[arg(default_value = "127.0.0.1:8001")]
    pub(crate) admin: SocketAddr,

    /// Event loops, each on a thread of its own [default: as many as there are cores, and more
    /// where direct descriptors need them to hold --max-conns]
    #[arg(long, env = "MURRE_SHARDS", hide_env_values = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) shards: Option<u16>,

    /// Connections to have room for, over all shards [default: what the limit of open files allows]
    #[arg(long, env = "MURRE_MAX_CONNS", hide_env_values = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub(crate) max_conns: Option<u32>,

    // A carrier's NAT has some hundred people behind one address, an office a few thousand at most: one
    // host that wants everything is stopped, they are not. After a restart all of them may come back
    // at once.
    /// Connections that one address may have (of IPv6 a /64; this machine's are not counted); 0: any
    #[arg(long, env = "MURRE_MAX_CONNS_PER_ADDRESS", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 1000)]
    pub(crate) max_conns_per_address: u32,

    /// Connections that one address may open per second, ten times as many at once; 0: any
    #[arg(long, env = "MURRE_MAX_HANDSHAKES_PER_SECOND", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 100)]
    pub(crate) max_handshakes_per_second: u32,

    /// Addresses or networks of proxies that are believed about where their connections are from,
    /// as 10.0.0.0/8, separated by commas. They must set X-Forwarded-For [default: none]
    #[arg(long = "trusted-proxy", env = "MURRE_TRUSTED_PROXY", hide_env_values = true)]
    #[arg(value_name = "NETWORKS", value_delimiter = ',', value_parser = network)]
    pub(crate) trusted_proxies: Vec<IpNet>,

    /// Trusted proxies begin each connection with a header of the PROXY protocol instead
    #[arg(long, env = "MURRE_PROXY_PROTOCOL", hide_env_values = true, value_name = "BOOL")]
    #[arg(action = ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_parser = BoolishValueParser::new())]
    pub(crate) proxy_protocol: bool,

    /// How to talk to the kernel: uring, uring-plain for its forms of Linux 5.10, epoll, or auto,
    /// which is uring, and epoll where that is refused
    #[arg(long, env = "MURRE_IO", hide_env_values = true, default_value = "auto")]
    #[arg(value_parser = io_choice)]
    pub(crate) io: IoChoice,

    /// Where sockets are kept: normal, direct (tables of the rings, which hold more than the limit
    /// of open files), or auto
    #[arg(long, env = "MURRE_DESCRIPTORS", hide_env_values = true, default_value = "auto")]
    #[arg(value_name = "KIND", value_parser = descriptors_choice)]
    pub(crate) descriptors: DescriptorsChoice,

    /// Also answer what the load scenarios ask: /?length=N, /scenario, WebSocket /echo and /upper
    #[arg(long, env = "MURRE_BENCH", hide_env_values = true, value_name = "BOOL")]
    #[arg(action = ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_parser = BoolishValueParser::new())]
    pub(crate) bench: bool,

    /// Folder whose files are served, all but hidden ones, as they are at start [default: none]
    #[arg(long, env = "MURRE_FILES", hide_env_values = true, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,

    /// Memory that those files may take, in bytes
    #[arg(long, env = "MURRE_FILES_BYTES_MAX", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(0..=1 << 30))]
    pub(crate) files_bytes_max: u32,

    /// Memory that the history of channels may take, in bytes
    #[arg(long, env = "MURRE_MAX_HISTORY_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 1 << 30)]
    pub(crate) max_history_bytes: u64,

    /// File with the key of the admin port's API, at least 12 bytes [default: the API is off]
    #[arg(long, env = "MURRE_API_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Connections accepted per second, and a tenth of that at once; more wait in the backlog
    /// [default: 25,000 for each core]
    // About half of what a core can take (56,250: bench-results, 18,000 idle WebSockets), so that
    // the other half is left to those who are connected.
    #[arg(long, env = "MURRE_MAX_ACCEPTS_PER_SECOND", hide_env_values = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) max_accepts_per_second: Option<u32>,

    /// Bytes of memory that are to be left, of the machine's and of the control group's: with less new
    /// connections are refused, with half of it they wait; 0 for no floor [default: a twentieth, at
    /// least 64 MiB and at most 512 MiB]
    // A storm takes 26 MB for each core between two looks at it, and what clients talk takes more.
    #[arg(long, env = "MURRE_MEMORY_FLOOR_BYTES", hide_env_values = true, value_name = "N")]
    pub(crate) memory_floor_bytes: Option<u64>,

    /// Percent of the time, of ten seconds, in which nobody gets on for want of memory: with more new
    /// connections are refused; 100 for any
    // A machine with enough memory is at 0, one that swaps all the time is near 100.
    #[arg(long, env = "MURRE_MAX_MEMORY_PRESSURE", hide_env_values = true, value_name = "PERCENT")]
    #[arg(default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) max_memory_pressure: u8,

    /// Seconds in which the head of a request must have come, the first one's from the connection on
    #[arg(long, env = "MURRE_HANDSHAKE_TIMEOUT", hide_env_values = true, value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = seconds)]
    pub(crate) handshake_timeout: Duration,

    /// Seconds for which an HTTP connection may rest between two requests
    #[arg(long, env = "MURRE_HTTP_IDLE_TIMEOUT", hide_env_values = true, value_name = "SECONDS")]
    #[arg(default_value = "120", value_parser = seconds)]
    pub(crate) http_idle_timeout: Duration,

    /// Seconds of silence after which a WebSocket is pinged; and in which some of what is queued for a
    /// client must be taken
    #[arg(long, env = "MURRE_PING_INTERVAL", hide_env_values = true, value_name = "SECONDS")]
    #[arg(default_value = "25", value_parser = seconds)]
    pub(crate) ping_interval: Duration,

    /// Seconds in which something must arrive after a ping
    #[arg(long, env = "MURRE_PONG_TIMEOUT", hide_env_values = true, value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = seconds)]
    pub(crate) pong_timeout: Duration,

    /// The longest WebSocket message taken from a client, in bytes
    #[arg(long, env = "MURRE_MAX_MESSAGE_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub(crate) max_message_bytes: u32,

    /// Origins whose pages may open WebSockets, as https://HOST or https://*.HOST, separated by
    /// commas; or any [default: pages of the host that the WebSocket is opened to]
    #[arg(long = "allow-origin", env = "MURRE_ALLOW_ORIGIN", hide_env_values = true)]
    #[arg(value_name = "ORIGINS", value_parser = origins, default_value = "", hide_default_value = true)]
    pub(crate) allow_origins: Origins,

    /// Frames in which a WebSocket message may come
    #[arg(long, env = "MURRE_MAX_FRAGMENTS", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_fragments: u32,

    /// Pings and pongs that a WebSocket may send within a second; 255: any
    #[arg(long, env = "MURRE_MAX_PINGS_PER_SECOND", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) max_pings_per_second: u8,

    // The slowest uplink in use, GPRS, makes 2,500.
    /// Bytes per second at which bodies and messages must come, beyond the handshake timeout
    #[arg(long, env = "MURRE_MIN_BYTES_PER_SECOND", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) min_bytes_per_second: u32,

    /// The longest request head, in bytes
    #[arg(long, env = "MURRE_MAX_HEAD_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 8192, value_parser = clap::value_parser!(u32).range(256..=1 << 16))]
    pub(crate) max_head_bytes: u32,

    /// The longest request body, in bytes
    #[arg(long, env = "MURRE_MAX_BODY_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(0..=1 << 30))]
    pub(crate) max_body_bytes: u32,

    /// Bytes that may be queued to one connection; a client that reads too slowly for this is closed
    #[arg(long, env = "MURRE_MAX_SEND_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1024..=1 << 30))]
    pub(crate) max_send_bytes: u32,

    /// Rules for the channels and services of a namespace, as chat,publish=anyone,history-size=100,
    /// or of all others, if it is called default. May be repeated, or separated by semicolons. The
    /// rules: publish, subscribe, serve, request (anyone, authenticated, nobody), history-size,
    /// history-ttl (seconds), slow (disconnect, drop_oldest, latest_only) [default: no rules]
    #[arg(long = "namespace", env = "MURRE_NAMESPACE", hide_env_values = true)]
    #[arg(value_name = "RULES", value_delimiter = ';')]
    namespaces: Vec<Namespace>,

    /// File with the secret of tokens that are signed with HS256, HS384 or HS512 [default: none]
    #[arg(long, env = "MURRE_JWT_HMAC_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) jwt_hmac_secret_file: Option<PathBuf>,

    /// PEM file with the public key of tokens that are signed with RS256, ES256 or EdDSA
    /// [default: none]
    #[arg(long, env = "MURRE_JWT_PUBLIC_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) jwt_public_key_file: Option<PathBuf>,

    /// Channels that one connection may be subscribed to
    #[arg(long, env = "MURRE_MAX_CHANNELS", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_channels: u32,

    /// The longest name of a channel or a service, in bytes
    #[arg(long, env = "MURRE_MAX_IDENTIFIER_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 255, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) max_identifier_bytes: u8,

    /// The longest data of a publication, a request or a reply, in bytes
    #[arg(long, env = "MURRE_MAX_PUBLICATION_BYTES", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub(crate) max_publication_bytes: u32,

    /// Commands that one connection may send per second; twice as many at once
    #[arg(long, env = "MURRE_MAX_COMMANDS_PER_SECOND", hide_env_values = true, value_name = "N")]
    #[arg(default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_commands_per_second: u32,

    /// Seconds over which connections are closed after SIGTERM, in random order
    #[arg(long, env = "MURRE_DRAIN_TIMEOUT", hide_env_values = true, value_name = "SECONDS")]
    #[arg(default_value = "10", value_parser = seconds)]
    pub(crate) drain_timeout: Duration,

    /// Seconds within which clients that are sent away are asked to come back; each is told a number
    /// of its own, from 1 to this
    #[arg(long, env = "MURRE_RETRY_AFTER", hide_env_values = true, value_name = "SECONDS")]
    #[arg(default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=3600))]
    pub(crate) retry_after: u16,

    /// text, or json with one object a line
    #[arg(long, env = "MURRE_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    #[arg(default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// What to log: a level, or levels by module as in info,murre_core=debug
    #[arg(long, env = "MURRE_LOG_FILTER", hide_env_values = true, value_name = "FILTER")]
    #[arg(default_value = "info")]
    pub(crate) log_filter: Targets,
}

/// Which interface of the kernel to use; `None` leaves it to what the machine allows.
pub(crate) type IoChoice = Option<Io>;

/// Which descriptors to use; `None` leaves it to what the machine allows.
pub(crate) type DescriptorsChoice = Option<Descriptors>;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// Bad arguments or variables, or a wish for help: the parser has its own words and exit code.
    Arguments(clap::Error),
    /// The file cannot be read or says something it must not.
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
    /// Reads the command line and, for what it leaves open, the environment and the file.
    pub(crate) fn read(arguments: Vec<OsString>) -> Result<Cli, ConfigError> {
        let matches =
            Cli::command().try_get_matches_from(&arguments).map_err(ConfigError::Arguments)?;
        let cli = Cli::from_arg_matches(&matches).and_then(Cli::checked);
        let cli = cli.map_err(ConfigError::Arguments)?;
        let Command::Serve(Config { config: Some(path), .. }) = &cli.command else {
            return Ok(cli);
        };
        let (_, given) = matches.subcommand().expect("`serve` was parsed");
        let wrong = |problem| ConfigError::File { path: path.clone(), problem };
        let settings = file_settings(path, given).map_err(wrong)?;
        let all: Vec<OsString> = arguments.into_iter().chain(settings).collect();
        // The arguments alone were right, so whatever is wrong now comes from the file.
        let cli = Cli::try_parse_from(all).and_then(Cli::checked);
        cli.map_err(|error| wrong(first_line(&error)))
    }

    /// What the parser cannot see, as it looks at one value at a time.
    fn checked(self) -> Result<Self, clap::Error> {
        let Command::Serve(config) = &self.command;
        if config.proxy_protocol && config.trusted_proxies.is_empty() {
            let problem =
                "'--proxy-protocol' is for known proxies; say where with '--trusted-proxy'";
            return Err(Cli::command().error(ErrorKind::MissingRequiredArgument, problem));
        }
        match Namespaces::new(&config.namespaces) {
            Ok(_) => Ok(self),
            Err(twice) => {
                let problem =
                    format!("'--namespace' has '{twice}' twice; put all its rules into one value");
                Err(Cli::command().error(ErrorKind::ArgumentConflict, problem))
            }
        }
    }
}

impl Config {
    /// Connections accepted per second at most, on so many cores.
    pub(crate) fn accepts_per_second(&self, cores: usize) -> u32 {
        self.max_accepts_per_second.unwrap_or(ACCEPTS_PER_CORE.saturating_mul(cores as u32))
    }

    /// The rules of all channels and services.
    pub(crate) fn namespaces(&self) -> Namespaces {
        Namespaces::new(&self.namespaces).expect("no name is there twice, as was checked")
    }

    /// What one address may have and do.
    pub(crate) fn address_limits(&self) -> AddressLimits {
        let limit = |number| (number > 0).then_some(number);
        AddressLimits {
            conns_max: limit(self.max_conns_per_address),
            handshakes_per_second_max: limit(self.max_handshakes_per_second),
        }
    }

    /// Who is believed about where connections are from.
    pub(crate) fn proxies(&self) -> Proxies {
        Proxies { networks: self.trusted_proxies.clone(), header: self.proxy_protocol }
    }

    /// How long names and data may be.
    pub(crate) fn command_limits(&self) -> Limits {
        Limits {
            identifier_bytes_max: usize::from(self.max_identifier_bytes),
            publication_bytes_max: self.max_publication_bytes as usize,
        }
    }
}

const ACCEPTS_PER_CORE: u32 = 25_000;

/// The file's settings that are not `given` already, each as the flag it stands for.
fn file_settings(path: &Path, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot be read: {error}; check the path and its permissions"))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })?;
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("`serve` is declared");
    let settings = || {
        let named =
            serve.get_arguments().filter_map(|argument| Some((argument.get_long()?, argument)));
        // A file that names a file would be two.
        named.filter(|&(key, _)| key != "config")
    };
    let mut flags = Vec::new();
    for (key, value) in &table {
        let Some((_, argument)) = settings().find(|(known, _)| known == key) else {
            let keys: Vec<&str> = settings().map(|(key, _)| key).collect();
            return Err(format!("unknown key `{key}`; the keys are {}", keys.join(", ")));
        };
        let values = match (argument.get_id().as_str(), value) {
            ("namespaces", toml::Value::Table(tables)) => namespaces(tables)?,
            ("namespaces", _) => {
                return Err(format!("`{key}` must be tables, as [namespace.chat]"));
            }
            _ => vec![scalar(value).ok_or(format!("`{key}` must be {SCALAR}"))?],
        };
        let source = given.value_source(argument.get_id().as_str());
        if matches!(source, None | Some(ValueSource::DefaultValue)) {
            flags.extend(values.iter().map(|value| format!("--{key}={value}").into()));
        }
    }
    Ok(flags)
}

/// The file's tables `[namespace.NAME]`, each as the value of the flag it stands for.
fn namespaces(tables: &toml::Table) -> Result<Vec<String>, String> {
    let namespace = |(name, rules): (&String, &toml::Value)| {
        let toml::Value::Table(rules) = rules else {
            return Err(format!("`namespace.{name}` must be a table, as [namespace.{name}]"));
        };
        let mut value = plain(name).ok_or(format!("`namespace.{name}` {NOT_PLAIN}"))?.to_owned();
        for (rule, setting) in rules {
            let key = format!("namespace.{name}.{rule}");
            let setting = scalar(setting).ok_or(format!("`{key}` must be {SCALAR}"))?;
            let (Some(rule), Some(setting)) = (plain(rule), plain(&setting)) else {
                return Err(format!("`{key}` {NOT_PLAIN}"));
            };
            value += &format!(",{rule}={setting}");
        }
        Ok(value)
    };
    tables.iter().map(namespace).collect()
}

/// A text that is one part of a flag and not several.
fn plain(text: &str) -> Option<&str> {
    (!text.contains([',', ';', '='])).then_some(text)
}

const NOT_PLAIN: &str = "has a comma, a semicolon or an equals sign; leave it out";

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(value.to_string())
        }
        _ => None,
    }
}

const SCALAR: &str = "a string, a number, true or false";

/// The parser's message without its advice, which speaks of the command line.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn io_choice(text: &str) -> Result<IoChoice, String> {
    match text {
        "auto" => Ok(None),
        "uring" => Ok(Some(Io::Uring)),
        "uring-plain" => Ok(Some(Io::UringPlain)),
        "epoll" => Ok(Some(Io::Epoll)),
        _ => Err("it is one of auto, uring, uring-plain, epoll".into()),
    }
}

fn descriptors_choice(text: &str) -> Result<DescriptorsChoice, String> {
    match text {
        "auto" => Ok(None),
        "normal" => Ok(Some(Descriptors::Normal)),
        "direct" => Ok(Some(Descriptors::Direct)),
        _ => Err("it is one of auto, normal, direct".into()),
    }
}

/// One address is a network, too.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = || text.parse().map(|ip: IpAddr| IpNet::from(ip));
    let network = text.parse().or_else(|_| address());
    network.map_err(|_| "it is an address or a network, as 192.0.2.1 or 10.0.0.0/8".into())
}

/// Nothing stands for the own host.
fn origins(text: &str) -> Result<Origins, String> {
    match text {
        "" => Ok(Origins::Own),
        "any" => Ok(Origins::Any),
        list => {
            let origins: Result<_, _> = list.split(',').map(|one| one.trim().parse()).collect();
            Ok(Origins::Listed(origins?))
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|_| "it is a number of seconds")?;
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("it is between {SECONDS_MIN} and {SECONDS_MAX} seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 3600.0;

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("it is one of text, json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Default for Config {
        fn default() -> Self {
            read(&[]).expect("the defaults are valid")
        }
    }

    /// The configuration from these flags after `murre serve`.
    fn read(flags: &[&str]) -> Result<Config, ConfigError> {
        let arguments = ["murre", "serve"].iter().chain(flags).map(OsString::from);
        Cli::read(arguments.collect()).map(|Cli { command: Command::Serve(config) }| config)
    }

    /// The same with a file of its own.
    fn read_with_file(name: &str, text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let path = std::env::temp_dir().join(format!("murre-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).expect("there is room for a file");
        let file = format!("--config={}", path.display());
        let config = read(&[&[file.as_str()], flags].concat());
        fs::remove_file(&path).expect("it was there");
        config
    }

    /// The parser's own checks of how the flags are declared.
    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Without any setting the contract's defaults are in force.
    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = read(&[]).expect("defaults are valid");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.admin.to_string(), "127.0.0.1:8001");
        assert_eq!((config.shards, config.max_conns), (None, None));
        assert_eq!((config.io, config.descriptors, config.bench), (None, None, false));
        assert_eq!((config.files, config.files_bytes_max), (None, 64 * 1024 * 1024));
    }

    /// A flag goes before the file, and the file before the default.
    #[test]
    fn flags_go_before_the_file() {
        let text = "shards = 3\nlisten = \"[::1]:9000\"\nbench = true\nping-interval = 0.5\n";
        let config = read_with_file("order", text, &["--shards=4", "--bench=false"]);
        let config = config.expect("all of it is valid");
        assert_eq!(config.shards, Some(4));
        assert_eq!(config.listen.to_string(), "[::1]:9000");
        assert!(!config.bench);
        assert_eq!(config.ping_interval, Duration::from_millis(500));
        assert_eq!(config.pong_timeout, Duration::from_secs(10));
    }

    /// Namespaces come from flags, from tables of the file, and from the flags alone where there are
    /// both.
    #[test]
    fn namespaces_from_every_source() {
        let sizes = |config: &Config| {
            let namespaces = config.namespaces();
            ["chat:x", "a.b:x", "other"].map(|name| namespaces.rules(name).history_size)
        };
        let flags = &["--namespace=chat,history-size=1", "--namespace", "default,history-size=2;x"];
        let text = "[namespace.chat]\nhistory-size = 3\nhistory-ttl = 1.5\nslow = \"latest_only\"\n\
                    [namespace.default]\n[namespace.\"a.b\"]\nhistory-size = \"4\"\n";
        assert_eq!(sizes(&read(&[]).expect("none")), [0, 0, 0]);
        assert_eq!(sizes(&read(flags).expect("flags")), [1, 2, 2]);
        let file = read_with_file("namespaces", text, &[]).expect("a file");
        assert_eq!(sizes(&file), [3, 4, 0]);
        assert_eq!(file.namespaces().rules("chat:x").history_ttl, Duration::from_millis(1500));
        assert_eq!(sizes(&read_with_file("both", text, flags).expect("both")), [1, 2, 2]);
    }

    /// Of two namespaces of one name it is not clear which is meant.
    #[test]
    fn a_namespace_is_given_once() {
        for flags in
            [&["--namespace=a;b;a"][..], &["--namespace=a", "--namespace=a,publish=anyone"]]
        {
            let error = read(flags).expect_err("it is there twice");
            assert!(matches!(error, ConfigError::Arguments(_)));
            assert!(error.to_string().contains("'a' twice"), "{error}");
        }
    }

    /// The limits of commands can be set, and not beyond what the protocol has room for.
    #[test]
    fn limits_of_commands() {
        let limits = read(&[]).expect("defaults are valid").command_limits();
        assert_eq!((limits.identifier_bytes_max, limits.publication_bytes_max), (255, 65_536));
        let flags = ["--max-identifier-bytes=1", "--max-publication-bytes=2"];
        let limits = read(&flags).expect("they are valid").command_limits();
        assert_eq!((limits.identifier_bytes_max, limits.publication_bytes_max), (1, 2));
        for flag in [
            "--max-identifier-bytes=256",
            "--max-identifier-bytes=0",
            "--max-channels=0",
            "--max-publication-bytes=0",
            "--max-commands-per-second=0",
        ] {
            assert!(read(&[flag]).is_err(), "{flag}");
        }
    }

    /// The rate of accepts follows from the cores where it is not set; a floor of 0 and any pressure
    /// are ways to say no.
    #[test]
    fn bounds_of_admission() {
        let config = read(&[]).expect("defaults are valid");
        assert_eq!((config.accepts_per_second(1), config.accepts_per_second(4)), (25_000, 100_000));
        assert_eq!((config.memory_floor_bytes, config.max_memory_pressure), (None, 20));
        let flags =
            ["--max-accepts-per-second=7", "--memory-floor-bytes=0", "--max-memory-pressure=100"];
        let config = read(&flags).expect("they are valid");
        assert_eq!(config.accepts_per_second(4), 7);
        assert_eq!((config.memory_floor_bytes, config.max_memory_pressure), (Some(0), 100));
        for flag in ["--max-accepts-per-second=0", "--max-memory-pressure=101"] {
            assert!(read(&[flag]).is_err(), "{flag}");
        }
    }

    /// Every key of the file that no flag has, and every value that its flag would not take, is
    /// named.
    #[test]
    fn wrong_files_are_refused_by_name() {
        for (text, named) in [
            ("max_conns = 5", "`max_conns`"),
            ("config = \"other.toml\"", "`config`"),
            ("[limits]\nshards = 1", "`limits`"),
            ("max-conns = -5", "--max-conns"),
            ("io = \"kqueue\"", "one of auto, uring, uring-plain, epoll"),
            ("bench = 2", "--bench"),
            ("shards = 1\nshards = 2", "line 2"),
            ("namespace = \"chat\"", "`namespace` must be tables"),
            ("namespaces = 1", "unknown key `namespaces`; the keys are listen,"),
            ("[namespace]\nchat = 1", "`namespace.chat` must be a table"),
            ("[namespace.chat]\npublish = []", "`namespace.chat.publish` must be"),
            ("[namespace.chat]\npublish = \"all\"", "'chat,publish=all'"),
            ("[namespace.chat]\npublsh = \"all\"", "no rule `publsh`"),
            ("[namespace.chat]\nhistory-size = -1", "`history-size` is a number"),
            ("[namespace.chat]\nslow = \"disconnect,publish=anyone\"", "`namespace.chat.slow` has"),
            ("[namespace.\"a;b\"]", "`namespace.a;b` has"),
            ("[namespace.\"a:b\"]", "`a:b` is no name"),
            ("[namespace.chat]\n[namespace.chat]", "line 2"),
            ("max-identifier-bytes = 256", "--max-identifier-bytes"),
        ] {
            let error = read_with_file("wrong", text, &[]).expect_err(text);
            assert!(matches!(error, ConfigError::File { .. }), "{text}");
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }

    /// Durations are positive and finite, in seconds.
    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "10s", ""] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }
}
