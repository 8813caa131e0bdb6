//! TLS between a server and PostgreSQL.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::store::Problem;

/// What is checked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// Nothing, as `sslmode=require` of libpq.
    Nothing,
    /// That it is of the host, and signed by somebody whom this machine trusts, or by the given certificates.
    Full,
}

/// Makes connections secure.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) verified: Verified,
    /// Certificates that sign that of the server; `None`: those that the machine trusts.
    pub(super) roots: Option<PathBuf>,
}

impl Tls {
    fn config(&self) -> Result<ClientConfig, Problem> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match self.verified {
            Verified::Nothing => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
            Verified::Full => config.with_root_certificates(self.roots()?),
        };
        Ok(config.with_no_client_auth())
    }

    fn roots(&self) -> Result<RootCertStore, Problem> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Some(file) => {
                let wrong = |problem: &dyn std::fmt::Display| {
                    Problem::from(format!("sslrootcert {}: {problem}", file.display()))
                };
                for certificate in
                    CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?
                {
                    let certificate = certificate.map_err(|error| wrong(&error))?;
                    roots.add(certificate).map_err(|error| wrong(&error))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"it has no certificates in PEM"));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(
                        "this machine trusts no certificates; install ca-certificates, or name a \
                                file with sslrootcert"
                            .into(),
                    );
                }
            }
        }
        Ok(roots)
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Connect;
    type Error = Problem;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connect, Problem> {
        // It is asked for Unix sockets, too, which have no such name and are never made secure.
        Ok(Connect { tls: self.clone(), host: host.to_owned() })
    }
}

/// Makes one connection to a host secure.
pub(super) struct Connect {
    tls: Tls,
    host: String,
}

impl TlsConnect<Socket> for Connect {
    type Stream = Stream;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Problem>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let config = Arc::new(self.tls.config()?);
            let host = ServerName::try_from(self.host)?;
            Ok(Stream(TlsConnector::from(config).connect(host, socket).await?))
        })
    }
}

/// A secure connection.
pub(super) struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Takes every certificate, and checks that the server has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
