//! TLS, with the certificates that the machine trusts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The trusted certificates. They are read again after a while, so that new ones count without a
/// restart.
#[derive(Default)]
pub(super) struct Tls(Mutex<Option<(Instant, Arc<ClientConfig>)>>);

/// The time for which certificates are kept. To read them takes some milliseconds.
const KEPT: Duration = Duration::from_secs(10);

impl Tls {
    /// Makes a connection to `name` secure.
    ///
    /// # Errors
    /// What went wrong, and for certificates what helps.
    pub(super) async fn connect(
        &self,
        name: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(self.config()?);
        connector.connect(name, stream).await.map_err(|error| error.to_string())
    }

    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, config)) = &*kept
            && since.elapsed() < KEPT
        {
            return Ok(Arc::clone(config));
        }
        let config = read()?;
        *kept = Some((Instant::now(), Arc::clone(&config)));
        Ok(config)
    }
}

fn read() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this machine trusts no certificates; install ca-certificates, or name a file \
                    of certificates with SSL_CERT_FILE"
                .into(),
        );
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
