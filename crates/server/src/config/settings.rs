//! The table of settings. Each setting is one field, and all its names follow from the name of the
//! field.
//!
//! The field `max_conns` is the flag `--max-conns`, the variable `MURRE_MAX_CONNS`, the key
//! `max-conns` of the TOML file, and `max_conns` in `/stats` and in the start line. Limits are in
//! [`LimitSettings`].

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, value_parser};
use hyper::Uri;
use hyper::header::HeaderName;
use murre_core::{Origins, Pin};
use murre_session_log::Place;
use serde::Serialize;
use tracing_subscriber::filter::Targets;

use super::limits::LimitSettings;
use super::listen::Listen;
use super::values::{
    self, CallUrl, DescriptorsChoice, IoChoice, LogFormat, Mount, Seconds, TrustedProxy, UnixMode,
};
use crate::backplane::nats::{NatsServer, Storage, Token};
use crate::hub::rules::Namespace;
use crate::webhooks::Webhook;

/// Every setting of `murre serve`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Config {
    /// TOML file; its keys are the long flags without their dashes. Flags and variables take
    /// precedence
    #[arg(long, value_name = "FILE")]
    #[serde(serialize_with = "values::path")]
    pub(super) config: Option<PathBuf>,

    /// Addresses where clients connect, separated by commas or by repeating the flag: ADDRESS:PORT,
    /// NAME:PORT, :PORT (all addresses) or unix:PATH. Sockets from systemd go before this
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:8000")]
    #[arg(value_delimiter = ',')]
    #[serde(serialize_with = "values::joined")]
    pub(crate) listen: Vec<Listen>,

    /// Permissions of the files of Unix sockets in --listen, in octal, as 0660 [default: those of the
    /// umask]
    #[arg(long, value_name = "MODE")]
    pub(crate) unix_mode: Option<UnixMode>,

    /// Address of /healthz, /readyz, /metrics, /stats and the API: ADDRESS:PORT, NAME:PORT or :PORT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    #[arg(value_parser = values::tcp)]
    #[serde(serialize_with = "values::display")]
    pub(crate) admin: Listen,

    /// Event loops, spread over a thread for each core [default: the number of cores, or more where direct
    /// descriptors need them to hold --max-conns]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    pub(crate) shards: Option<u16>,

    /// Interface to the kernel: uring, uring-plain (only the features of Linux 5.10), epoll, or
    /// auto (uring, or epoll where io_uring is refused)
    #[arg(long, default_value = "auto", value_parser = values::io_choice)]
    #[serde(serialize_with = "values::io_name")]
    pub(crate) io: IoChoice,

    /// Descriptors of sockets: normal, direct (tables of the rings, which hold more sockets than
    /// the limit of open files), or auto
    #[arg(long, value_name = "KIND", default_value = "auto")]
    #[arg(value_parser = values::descriptors_choice)]
    #[serde(serialize_with = "values::descriptors_name")]
    pub(crate) descriptors: DescriptorsChoice,

    /// Addresses or networks of trusted proxies, such as 10.0.0.0/8, separated by commas; unix is
    /// all peers at Unix sockets. They must set X-Forwarded-For [default: none]
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<TrustedProxy>,

    /// Trusted proxies send a PROXY protocol header on each connection, instead of X-Forwarded-For
    #[arg(long, value_name = "BOOL")]
    #[arg(action = ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_parser = BoolishValueParser::new())]
    pub(crate) proxy_protocol: bool,

    /// Origins whose pages may use channels, as https://HOST, https://*.HOST, http://localhost:*,
    /// null or file://, separated by commas; or any [default: the host of the request]
    #[arg(long, value_name = "ORIGINS", value_parser = values::origins)]
    #[arg(default_value = "", hide_default_value = true)]
    #[serde(serialize_with = "values::debug")]
    pub(crate) allow_origin: Origins,

    /// Also answer the requests of the load scenarios: /?length=N, /scenario, WebSocket /echo and
    /// /upper; and serve demos at /demo/quotes and /demo/chat
    #[arg(long, value_name = "BOOL")]
    #[arg(action = ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_parser = BoolishValueParser::new())]
    pub(crate) bench: bool,

    /// Folder whose files are read at start and served, except hidden ones [default: none]
    #[arg(long, value_name = "DIR")]
    #[serde(serialize_with = "values::path")]
    pub(crate) files: Option<PathBuf>,

    /// Path of the file of --files that is the page at all paths without a file, as /index.html,
    /// for single-page applications [default: 404]
    #[arg(long, value_name = "PATH", requires = "files")]
    pub(crate) files_fallback: Option<String>,

    /// Paths of the sockets of Phoenix clients, separated by commas: with /socket they connect to
    /// /socket/websocket and /socket/longpoll [default: none]
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    #[serde(serialize_with = "values::joined")]
    pub(crate) phoenix_path: Vec<Mount>,

    /// Paths of the sockets of Supabase's realtime-js, separated by commas: with /realtime/v1 they
    /// connect to /realtime/v1/websocket and send to /realtime/v1/api/broadcast [default: none]
    #[arg(long, value_name = "PATHS", value_delimiter = ',')]
    #[serde(serialize_with = "values::joined")]
    pub(crate) supabase_path: Vec<Mount>,

    // `/stats` does not show this setting, because it has many rules for each namespace and does
    // not fit one line.
    /// Rules of a namespace's channels and services, as chat,publish=anyone,history-size=100; the
    /// namespace `default` is for all others. May be repeated, or separated by semicolons. Rules:
    /// publish, subscribe, presence-access, history (anyone, authenticated, subscriber, token,
    /// nobody; publish and subscribe also backend), serve, request (anyone, authenticated, nobody;
    /// request also backend), user-limited (true, false),
    /// history-size, history-ttl (seconds), slow (disconnect, drop_oldest, latest_only), presence
    /// (off, count, members), presence-push-max, presence-interval (seconds), presence-meta-max
    /// (bytes), presence-grace (seconds), presence-key (user, client), phoenix-push (broadcast,
    /// broadcast_from, request, backend) [default: no rules]
    #[arg(long, value_name = "RULES", value_delimiter = ';')]
    #[serde(skip)]
    pub(super) namespace: Vec<Namespace>,

    /// Refuse channels and services whose names have a prefix before `:` that is no configured
    /// namespace, instead of treating them as those of `default`
    #[arg(long, value_name = "BOOL")]
    #[arg(action = ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, value_parser = BoolishValueParser::new())]
    pub(super) strict_namespaces: bool,

    /// File with the key of the admin port's API, at least 12 bytes [default: the API is off]
    #[arg(long, value_name = "FILE")]
    #[serde(serialize_with = "values::path")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Files with the secrets of tokens that are signed with HS256, HS384 or HS512, one secret a
    /// file, separated by commas [default: none]
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    #[serde(serialize_with = "values::paths")]
    pub(crate) jwt_hmac_secret_file: Vec<PathBuf>,

    /// PEM files with the public keys of tokens that are signed with RS256, ES256 or EdDSA, one key
    /// a file, separated by commas [default: none]
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    #[serde(serialize_with = "values::paths")]
    pub(crate) jwt_public_key_file: Vec<PathBuf>,

    /// File with a JSON Web Key Set (JWKS); a token chooses its key by `kid`. SIGHUP reads the
    /// files of all keys again [default: none]
    #[arg(long, value_name = "FILE")]
    #[serde(serialize_with = "values::path")]
    pub(crate) jwt_key_set_file: Option<PathBuf>,

    /// URL of a JSON Web Key Set, http or https, beside the files of keys. It is fetched at start, at
    /// the interval, on SIGHUP, and once between two fetches when a token names an unknown key
    /// [default: none]
    #[arg(long, value_name = "URL", value_parser = values::url)]
    #[serde(serialize_with = "values::optional")]
    pub(super) jwt_key_set_url: Option<Uri>,

    /// Seconds between two fetches of --jwt-key-set-url
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    pub(super) jwt_key_set_interval: Seconds,

    /// Audience that tokens must name in `aud` [default: any, or none]
    #[arg(long, value_name = "TEXT")]
    pub(crate) jwt_audience: Option<String>,

    /// Issuer that tokens must name in `iss` [default: any, or none]
    #[arg(long, value_name = "TEXT")]
    pub(crate) jwt_issuer: Option<String>,

    /// URL of the application that decides over HTTP, http or https. It gets the calls connect, refresh,
    /// subscribe, publish and rpc, each at a path of this name below the URL [default: no calls]
    #[arg(long, value_name = "URL", value_parser = values::url)]
    #[serde(serialize_with = "values::optional")]
    pub(super) backend: Option<Uri>,

    /// URL of the call that says who a client without a token is; or off [default: /connect below
    /// --backend]
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "values::optional")]
    pub(super) backend_connect: Option<CallUrl>,

    /// URL of the call that says whether a client whose `expire_at` has passed may stay; or off [default:
    /// /refresh below --backend]
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "values::optional")]
    pub(super) backend_refresh: Option<CallUrl>,

    /// URL of the call for namespaces with subscribe=backend; or off [default: /subscribe below --backend]
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "values::optional")]
    pub(super) backend_subscribe: Option<CallUrl>,

    /// URL of the call for namespaces with publish=backend; or off [default: /publish below --backend]
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "values::optional")]
    pub(super) backend_publish: Option<CallUrl>,

    /// URL of the call for namespaces with request=backend or phoenix-push=backend; or off [default: /rpc
    /// below --backend]
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "values::optional")]
    pub(super) backend_rpc: Option<CallUrl>,

    /// Seconds from queueing a call of the backend to the last byte of its answer
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    pub(super) backend_timeout: Seconds,

    /// Header fields of clients' requests that calls of the backend get, separated by commas, as
    /// cookie,x-forwarded-for. Each connection keeps its fields [default: none]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = values::header)]
    #[serde(serialize_with = "values::joined")]
    pub(super) backend_header: Vec<HeaderName>,

    /// URLs, http or https, that are told of connections, members and channels by POST. May be repeated, or
    /// separated by semicolons. A filter may follow, as
    /// URL,events=connections+members+channels,namespaces=chat+news [default: none]
    #[arg(long, value_name = "WEBHOOK", value_delimiter = ';', value_parser = values::webhook)]
    #[serde(serialize_with = "values::joined")]
    pub(super) webhook: Vec<Webhook>,

    /// Files with the keys that sign webhooks, at least 32 bytes, one key a file, separated by commas.
    /// SIGHUP reads them again [default: no signature]
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    #[serde(serialize_with = "values::paths")]
    pub(super) webhook_key_file: Vec<PathBuf>,

    /// Events in one request of a webhook at most
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(super) webhook_batch: u32,

    /// Longest time in seconds for which an event of a webhook waits for others
    #[arg(long, value_name = "SECONDS", default_value = "0.2")]
    pub(super) webhook_delay: Seconds,

    /// Longest time in seconds of one request of a webhook
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    pub(super) webhook_timeout: Seconds,

    /// Seconds for which events are sent again to a webhook that fails, before they are dropped
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    pub(super) webhook_retry: Seconds,

    /// Bytes of events that wait for one webhook; further ones are dropped
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 16 << 20, value_parser = value_parser!(u64).range(1 << 16..=1 << 32))]
    pub(super) webhook_queue_bytes: u64,

    /// Session log, which records when each user was online: a file, a SQLite database that only this server
    /// writes, or postgres://USER:PASSWORD@HOST/DATABASE, which several servers write [default: no log]
    #[arg(long, value_name = "FILE_OR_URL")]
    #[serde(serialize_with = "values::optional")]
    pub(super) sessions: Option<Place>,

    /// File in which ended sessions wait while the PostgreSQL of the session log is away [default: they wait in
    /// memory, within 32 MiB]
    #[arg(long, value_name = "FILE", requires = "sessions")]
    #[serde(serialize_with = "values::path")]
    pub(super) session_spool: Option<PathBuf>,

    /// Longest size in bytes of that file; further sessions wait in memory
    #[arg(long, value_name = "N")]
    #[arg(default_value_t = 256 << 20, value_parser = value_parser!(u64).range(1 << 16..=1 << 40))]
    pub(super) session_spool_bytes: u64,

    /// Seconds within which a user that comes back has not left: the session goes on
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = values::delay)]
    pub(super) session_gap: Seconds,

    /// Days for which ended sessions are kept; 0: for ever
    #[arg(long, value_name = "DAYS")]
    #[arg(default_value_t = 0, value_parser = value_parser!(u32).range(0..=36_500))]
    pub(super) session_retention: u32,

    /// NATS servers that connect the nodes of a cluster, separated by commas: HOST:PORT,
    /// nats://USER:PASSWORD@HOST:PORT or tls://HOST:PORT [default: this node is alone]
    #[arg(long, value_name = "SERVERS", value_delimiter = ',')]
    #[serde(serialize_with = "values::joined")]
    pub(super) cluster_nats: Vec<NatsServer>,

    /// Name of the cluster, a part of its subjects and streams in NATS: letters, digits, hyphens and
    /// underscores
    #[arg(long, value_name = "NAME", default_value = "murre")]
    pub(super) cluster_name: Token,

    /// Name of this node [default: the name of the machine]
    #[arg(long, value_name = "NAME")]
    pub(super) cluster_node: Option<Token>,

    /// File of credentials for NATS, as `nsc generate creds` writes it, or with the seed of a user's key
    /// [default: none]
    #[arg(long, value_name = "FILE", requires = "cluster_nats")]
    #[serde(serialize_with = "values::path")]
    pub(super) cluster_credentials: Option<PathBuf>,

    /// PEM file of the certificates that sign those of the NATS servers [default: those that the machine
    /// trusts]
    #[arg(long, value_name = "FILE", requires = "cluster_nats")]
    #[serde(serialize_with = "values::path")]
    pub(super) cluster_tls_ca: Option<PathBuf>,

    /// PEM file of the certificate that this node presents to NATS [default: none]
    #[arg(long, value_name = "FILE", requires = "cluster_tls_key")]
    #[serde(serialize_with = "values::path")]
    pub(super) cluster_tls_cert: Option<PathBuf>,

    /// PEM file of the key of --cluster-tls-cert [default: none]
    #[arg(long, value_name = "FILE", requires = "cluster_tls_cert")]
    #[serde(serialize_with = "values::path")]
    pub(super) cluster_tls_key: Option<PathBuf>,

    /// Where the NATS servers keep history: memory or file
    #[arg(long, value_name = "KIND", default_value = "file")]
    pub(super) cluster_storage: Storage,

    /// NATS servers that keep each publication of a channel with history: 1, or 3 in a cluster of NATS
    /// servers
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::replicas)]
    pub(super) cluster_replicas: u8,

    /// Whether each shard stays on one core: always, never, or auto (where the shards take all
    /// cores and no quota of CPU time is in force)
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = values::pin)]
    #[serde(serialize_with = "values::pin_name")]
    pub(crate) pin: Pin,

    /// Seconds from SIGTERM or SIGINT to the closing of the listener, in which readiness checks get
    /// 503 already (/healthz of the data port, /readyz of the admin port); 0: none
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = values::delay)]
    pub(crate) drain_delay: Seconds,

    /// Seconds over which connections are closed after that, in random order
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub(crate) drain_timeout: Seconds,

    /// Longest time in seconds after which a refused or disconnected client is asked to come back;
    /// each client gets a random number from 1 to this
    #[arg(long, value_name = "SECONDS")]
    #[arg(default_value_t = 5, value_parser = value_parser!(u16).range(0..=3600))]
    pub(crate) retry_after: u16,

    /// Format of log lines: text, or json with one object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Level of log lines (error, warn, info, debug, trace), and levels of modules, as in
    /// info,murre::connections=debug, which logs the start and end of each connection
    #[arg(long, value_name = "FILTER", default_value = "info")]
    #[serde(serialize_with = "values::display")]
    pub(crate) log_filter: Targets,

    /// The limits of the resources of clients.
    #[command(flatten)]
    pub(crate) limits: LimitSettings,
}
