//! TLS for the raw server and for whoever measures over it: blocking, by rustls with its defaults.
//!
//! The server makes itself a certificate and leaves it in a file named by its port, where the clients find whom to trust. All use
//! the same cryptography (ring), so that what differs is how a client feeds it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs, io};

use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The certificate of the raw server on this port, in PEM.
pub(crate) fn certificate_file(port: u16) -> PathBuf {
    env::temp_dir().join(format!("leveret-raw-server-{port}.pem"))
}

/// For the server, with a new certificate, which is written to its file.
pub(crate) fn server_config(port: u16) -> io::Result<Arc<ServerConfig>> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let params = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()]).map_err(io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    fs::write(certificate_file(port), certificate.pem())?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?.with_no_client_auth();
    Ok(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).map_err(io::Error::other)?))
}

/// For a client of the server on this port.
pub(crate) fn client_config(port: u16) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate_file(port)).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
