//! Two places where rustls asks back: for a client certificate, and whether a server's certificate will do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Whether the server asked for a client certificate, and what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The configuration is somebody else's, who keeps that to himself.
    Unknown,
    /// It did not ask.
    No,
    /// It did, and there was none for it.
    NoneSent,
    Sent,
}

/// Hands out the one client certificate that there may be, and remembers that it was asked.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    certificate: Option<Arc<CertifiedKey>>,
    seen: AtomicU8,
}

impl ClientCertificate {
    const NONE_SENT: u8 = 1;
    const SENT: u8 = 2;

    pub(super) fn new(certificate: Option<CertifiedKey>) -> Self {
        Self { certificate: certificate.map(Arc::new), seen: AtomicU8::new(0) }
    }

    /// Another handshake begins.
    pub(super) fn forget(&self) {
        self.seen.store(0, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> Asked {
        match self.seen.load(Ordering::Relaxed) {
            Self::NONE_SENT => Asked::NoneSent,
            Self::SENT => Asked::Sent,
            _ => Asked::No,
        }
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // A key that can sign in none of the ways that the server knows is of no use to it, and rustls sends none then.
        let certificate = self.certificate.as_ref().filter(|certified| certified.key.choose_scheme(schemes).is_some());
        let seen = if certificate.is_some() { Self::SENT } else { Self::NONE_SENT };
        self.seen.store(seen, Ordering::Relaxed);
        certificate.cloned()
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

/// Takes any certificate. The server still has to prove that it has the certificate's key.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
