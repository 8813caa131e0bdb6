//! A connection to one NATS server, up to the point where it takes operations.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::credentials::Credentials;
use super::settings::{Login, NatsServer, Settings};
use super::wire::{self, Message, Op};

/// An open connection.
pub(super) struct Connection {
    pub(super) input: BytesMut,
    pub(super) reader: ReadHalf<Box<dyn Stream>>,
    pub(super) writer: WriteHalf<Box<dyn Stream>>,
    pub(super) info: Info,
}

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// What a server says about itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    pub(super) server_name: String,
    pub(super) version: String,
    /// The name of its NATS cluster; empty outside one.
    pub(super) cluster: String,
    /// The addresses of the servers that are in its cluster now, as far as it tells them.
    pub(super) connect_urls: BTreeSet<String>,
    /// Bytes of a message and its headers at most.
    pub(super) max_payload: u64,
    headers: bool,
    tls_required: bool,
    nonce: String,
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another attempt, or another server, may help.
    Away(String),
    /// The operator has to change something. The sentence says what.
    Refused(String),
}

/// What this node needs to open connections, read from its files.
pub(super) struct Opener {
    credentials: Option<Credentials>,
    tls: Option<Arc<ClientConfig>>,
    /// The name by which operators of NATS know this connection.
    name: String,
    publication_bytes_max: u32,
    needs_jetstream: bool,
    replicas: u8,
}

/// The longest time in which a server has to take a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// The oldest version with direct gets of several messages in one request.
const VERSION_MIN: (u64, u64) = (2, 11);
/// What an envelope, headers and subjects add to a publication at most.
const OVERHEAD_BYTES: u64 = 4096;

impl Opener {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// A sentence that names a file, the problem and the remedy.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let uses_tls = settings.servers.iter().any(|server| server.tls)
            || settings.tls_ca.is_some()
            || settings.tls_client.is_some();
        Ok(Opener {
            credentials: settings.credentials.as_deref().map(Credentials::read).transpose()?,
            tls: uses_tls.then(|| tls(settings)).transpose()?.map(Arc::new),
            name: format!("murre {} {}", settings.cluster, settings.node),
            publication_bytes_max: settings.publication_bytes_max,
            needs_jetstream: !settings.kept.is_empty(),
            replicas: settings.replicas,
        })
    }

    /// Connects to a server, and waits until it has accepted us. One that is the first of this process must have
    /// JetStream, if this node needs it. Later it may be without a leader, and serve other channels.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn open(
        &self,
        server: &NatsServer,
        is_first: bool,
    ) -> Result<Connection, Failure> {
        match timeout(PATIENCE, self.greet(server, is_first)).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure::Away(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn greet(&self, server: &NatsServer, is_first: bool) -> Result<Connection, Failure> {
        let away = |error: io::Error| Failure::Away(error.to_string());
        let stream = TcpStream::connect((&*server.host, server.port)).await.map_err(away)?;
        stream.set_nodelay(true).map_err(away)?;
        let mut stream: Box<dyn Stream> = Box::new(stream);
        let mut input = BytesMut::new();
        let info = match next(&mut stream, &mut input).await? {
            Op::Info(json) => info(&json)?,
            _ => return Err(Failure::Away("the server does not begin as NATS does".into())),
        };
        self.check(&info)?;
        if self.tls.is_some() || info.tls_required {
            stream = self.secure(server, stream).await?;
        }
        stream.write_all(&self.connect(server, &info)).await.map_err(away)?;
        stream.flush().await.map_err(away)?;
        loop {
            match next(&mut stream, &mut input).await? {
                Op::Pong => break,
                Op::Error(why) => return Err(refusal(&why)),
                Op::Info(_) | Op::Ping | Op::Message(_) => {}
            }
        }
        if self.needs_jetstream && is_first {
            stream.write_all(JETSTREAM_QUESTION).await.map_err(away)?;
            stream.flush().await.map_err(away)?;
            loop {
                match next(&mut stream, &mut input).await? {
                    Op::Message(answer) => {
                        has_jetstream(&info, &answer)?;
                        break;
                    }
                    Op::Error(why) => return Err(refusal(&why)),
                    Op::Info(_) | Op::Ping | Op::Pong => {}
                }
            }
        }
        let (reader, writer) = tokio::io::split(stream);
        Ok(Connection { input, reader, writer, info })
    }

    fn check(&self, info: &Info) -> Result<(), Failure> {
        let Info { server_name, version, max_payload, cluster, .. } = info;
        if version_of(version) < VERSION_MIN || !info.headers {
            let (major, minor) = VERSION_MIN;
            return Err(Failure::Refused(format!(
                "the NATS server {server_name} has version {version}, and murre needs {major}.{minor} or \
                 later: update it, or name other servers with --cluster-nats"
            )));
        }
        if *max_payload < u64::from(self.publication_bytes_max).saturating_add(OVERHEAD_BYTES) {
            return Err(Failure::Refused(format!(
                "the NATS server {server_name} takes messages of {max_payload} bytes, too few for \
                 publications of {} bytes: raise its max_payload to {} or lower --max-publication-bytes",
                self.publication_bytes_max,
                u64::from(self.publication_bytes_max).saturating_add(OVERHEAD_BYTES),
            )));
        }
        if self.needs_jetstream && self.replicas > 1 && cluster.is_empty() {
            return Err(Failure::Refused(format!(
                "the NATS server {server_name} is in no cluster of NATS servers, and --cluster-replicas={} needs as \
                 many of them: connect it with others (--cluster_name, --cluster, --routes), or set \
                 --cluster-replicas=1",
                self.replicas
            )));
        }
        Ok(())
    }

    async fn secure(
        &self,
        server: &NatsServer,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, Failure> {
        let Some(tls) = &self.tls else {
            return Err(Failure::Refused(format!(
                "the NATS server {server} takes TLS connections alone: write tls:// in front of its \
                 address, and name the file of its certificates with --cluster-tls-ca if this machine \
                 does not trust them"
            )));
        };
        let name = ServerName::try_from(server.host.clone())
            .map_err(|error| Failure::Refused(format!("{server}: {error}")))?;
        let secured = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
        let failed = |error: io::Error| {
            Failure::Away(format!(
                "no TLS connection: {error}; check --cluster-tls-ca, --cluster-tls-cert and the \
                 certificate of the server"
            ))
        };
        Ok(Box::new(secured.map_err(failed)?))
    }

    /// The first operations of a client: who it is, and a ping, which the server answers when it has accepted
    /// that.
    fn connect(&self, server: &NatsServer, info: &Info) -> Vec<u8> {
        let mut options = json!({
            "verbose": false,
            "pedantic": false,
            "tls_required": self.tls.is_some(),
            "name": self.name,
            "lang": "murre",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1,
            "echo": true,
            "headers": true,
            "no_responders": true,
        });
        match &server.login {
            Login::Nobody => {}
            Login::Token(token) => options["auth_token"] = token.as_str().into(),
            Login::User { name, password } => {
                options["user"] = name.as_str().into();
                options["pass"] = password.as_str().into();
            }
        }
        if let Some(credentials) = &self.credentials {
            options["sig"] = credentials.sign(&info.nonce).into();
            match &credentials.jwt {
                Some(jwt) => options["jwt"] = jwt.as_str().into(),
                None => options["nkey"] = credentials.public_key().into(),
            }
        }
        format!("CONNECT {options}\r\nPING\r\n").into_bytes()
    }
}

/// What a server says about itself, from its JSON.
///
/// # Errors
/// It is no such JSON.
pub(super) fn info(json: &[u8]) -> Result<Info, Failure> {
    serde_json::from_slice(json)
        .map_err(|error| Failure::Away(format!("the server describes itself badly: {error}")))
}

/// The only operations with this number of a subscription.
const JETSTREAM_QUESTION: &[u8] = b"SUB _INBOX.murre.jetstream 0\r\nUNSUB 0 1\r\n\
                                    PUB $JS.API.INFO _INBOX.murre.jetstream 0\r\n\r\n";

/// Whether an answer of `$JS.API.INFO` says that streams can be had.
fn has_jetstream(info: &Info, answer: &Message) -> Result<(), Failure> {
    let server = &info.server_name;
    let answered: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
    let error = &answered["error"];
    // It is on in this account, but its cluster has no leader now.
    const NO_LEADER: u64 = 10008;
    if answer.status() == Some(503) {
        Err(Failure::Refused(format!(
            "the NATS server {server} has no JetStream, which channels with history need: start it with \
             --jetstream, or leave history-size out of all namespaces"
        )))
    } else if error["err_code"] == NO_LEADER {
        Err(Failure::Away("JetStream has no leader".into()))
    } else if error.is_object() {
        let why = error["description"].as_str().unwrap_or_default();
        Err(Failure::Refused(format!(
            "the NATS server {server} offers this node no JetStream ({why}), which channels with history \
             need: enable it for the account, or leave history-size out of all namespaces"
        )))
    } else {
        Ok(())
    }
}

/// Whether an error of a server is about who we are, which another attempt does not change.
pub(super) fn refusal(why: &str) -> Failure {
    let of_login = ["authorization", "authentication", "nkey", "jwt"];
    let lower = why.to_ascii_lowercase();
    if of_login.iter().any(|word| lower.contains(word)) && !lower.contains("timeout") {
        Failure::Refused(format!(
            "NATS refuses this node ({why}): check the user in --cluster-nats, and --cluster-credentials"
        ))
    } else {
        Failure::Away(why.to_owned())
    }
}

/// Major and minor version; 0.0 for a text that is none.
fn version_of(text: &str) -> (u64, u64) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The next operation of the server.
async fn next(stream: &mut Box<dyn Stream>, input: &mut BytesMut) -> Result<Op, Failure> {
    loop {
        let taken = wire::take(input);
        if let Some(op) = taken.map_err(|why| Failure::Away(why.0.into()))? {
            return Ok(op);
        }
        match stream.read_buf(input).await {
            Ok(0) => return Err(Failure::Away("the server closed the connection".into())),
            Ok(_) => {}
            Err(error) => return Err(Failure::Away(error.to_string())),
        }
    }
}

fn tls(settings: &Settings) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &settings.tls_ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| unusable(file, &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no certificates are trusted for TLS to NATS; name a file of them with \
                    --cluster-tls-ca"
            .into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &settings.tls_client {
        None => Ok(config.with_no_client_auth()),
        Some((certificate, key)) => {
            let key_read =
                PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
            let config = config.with_client_auth_cert(certificates(certificate)?, key_read);
            config.map_err(|error| unusable(certificate, &error))
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| unusable(file, &error);
    let all = CertificateDer::pem_file_iter(file).map_err(wrong)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(wrong)?;
    let none = || unusable(file, &"it has no certificate");
    if all.is_empty() { Err(none()) } else { Ok(all) }
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> String {
    let file = file.display();
    format!("{file} cannot be used for TLS to NATS: {why}; name a PEM file that this user can read")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions are compared by their numbers, and a text that is none is too old.
    #[test]
    fn versions() {
        for (text, enough) in [
            ("2.11.0", true),
            ("2.15.1", true),
            ("3.0.0-beta", true),
            ("2.9.99", false),
            ("2.10.26", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(version_of(text) >= VERSION_MIN, enough, "{text}");
        }
    }

    /// A refusal of the user is told from an error that passes.
    #[test]
    fn refusals() {
        assert!(matches!(refusal("Authorization Violation"), Failure::Refused(_)));
        assert!(matches!(refusal("User Authentication Expired"), Failure::Refused(_)));
        assert!(matches!(refusal("Authentication Timeout"), Failure::Away(_)));
        assert!(matches!(refusal("maximum connections exceeded"), Failure::Away(_)));
    }
}
