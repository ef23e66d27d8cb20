//! TLS by rustls: whom to trust, who to be, and the handshake. No process-wide provider is installed or used.

mod hooks;
mod material;
mod provider;
mod stream;
mod words;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, SupportedProtocolVersion};

use hooks::{AnyCertificate, ClientCertificate};
use material::{Certificates, Key};
pub(crate) use stream::TlsReady;
pub(super) use stream::TlsStream;

use crate::error::{Error, ErrorKind, Result};

/// How TLS is done: whom to trust, and who to be.
///
/// | setting | default |
/// |---|---|
/// | roots | those of the platform |
/// | client certificate | none |
/// | server's name | the host that the connection goes to, each of several its own |
/// | versions | TLS 1.2 and 1.3 |
/// | cryptography | of the first feature that is on: `tls-aws-lc-rs`, `tls-ring`, `tls` (graviola, in Rust) |
///
/// Once roots are named, those of the platform do not count any more, unless they are named too. Files and the platform's roots
/// are read anew for each connection, on a thread where that disturbs nobody, so a renewed certificate is used from the next connection
/// on; [`check`](Self::check) reads them at once. ALPN is not used.
///
/// Keys may be RSA (2048 bits and more), ECDSA on P-256 or P-384, or Ed25519, at both ends. (A server with an Ed25519 key that
/// speaks TLS 1.2 alone is beyond the cryptography of the feature `tls`.)
///
/// `Debug` shows the names of files, and nothing of a key.
///
/// ```no_run
/// # async fn example() -> leveret::error::Result<()> {
/// use leveret::amqp::{Connection, TlsConfig};
///
/// let tls = TlsConfig::new().root_file("ca.pem").client_certificate_files("client.pem", "client.key");
/// let connection = Connection::builder("amqps://guest:guest@rabbit.example/%2f")?.tls(tls).open().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[doc(alias = "TlsAdaptor")]
#[doc(alias = "OwnedTLSConfig")]
pub struct TlsConfig {
    settings: Settings,
    server_name: Option<String>,
    /// Somebody else's work, instead of the settings.
    config: Option<Arc<ClientConfig>>,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    /// Of the platform, if empty.
    roots: Vec<Roots>,
    client_certificate: Option<(Certificates, Key)>,
    any_certificate: bool,
    /// The default ones, if empty.
    versions: Vec<TlsVersion>,
    provider: Option<Arc<CryptoProvider>>,
}

#[derive(Clone, Debug)]
enum Roots {
    Platform,
    #[cfg(feature = "tls-webpki-roots")]
    Webpki,
    Given(Certificates),
}

/// A version of TLS.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &rustls::version::TLS12,
            Self::Tls13 => &rustls::version::TLS13,
        }
    }
}

impl TlsConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whatever rustls can do: another verifier, lists of revoked certificates, keys in hardware, ALPN. It is used as it is, so of
    /// the settings here only [`server_name`](Self::server_name) goes with it; any other is an error when it is used. Configurations
    /// that are shared resume sessions.
    ///
    /// The version of rustls has to be this crate's: `leveret::amqp::rustls`.
    pub fn from_client_config(config: Arc<ClientConfig>) -> Self {
        Self { config: Some(config), ..Self::default() }
    }

    /// Trusts the authorities that the operating system trusts. This is the default as long as no other roots are named.
    ///
    /// The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others, as for other programs.
    #[must_use]
    pub fn platform_roots(mut self) -> Self {
        self.settings.roots.push(Roots::Platform);
        self
    }

    /// Trusts the authorities that Mozilla trusts, as they were when the crate `webpki-roots` was built.
    #[cfg(feature = "tls-webpki-roots")]
    #[must_use]
    pub fn webpki_roots(mut self) -> Self {
        self.settings.roots.push(Roots::Webpki);
        self
    }

    /// Trusts all certificates in a PEM file, and those that they have issued: mostly `ca.pem` or the like.
    #[must_use]
    pub fn root_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.roots.push(Roots::Given(Certificates::File(path.into())));
        self
    }

    /// Trusts all certificates in a PEM text, and those that they have issued.
    #[must_use]
    pub fn root_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.settings.roots.push(Roots::Given(Certificates::Pem(pem.as_ref().into())));
        self
    }

    /// Trusts a certificate in DER, and those that it has issued.
    #[must_use]
    pub fn root_der(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.settings.roots.push(Roots::Given(Certificates::Der(vec![der.into().into()])));
        self
    }

    /// Shows a certificate to servers that ask for one. Both files are PEM, and may be the same one: the certificate, then those
    /// between it and the root if there are any; the key in PKCS #8, PKCS #1 or SEC 1. Encrypted keys are not supported.
    #[must_use]
    pub fn client_certificate_files(mut self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.settings.client_certificate = Some((Certificates::File(certificates.into()), Key::File(key.into())));
        self
    }

    /// As [`client_certificate_files`](Self::client_certificate_files), with the PEM itself.
    #[must_use]
    pub fn client_certificate_pem(mut self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let (certificates, key) = (Certificates::Pem(certificates.as_ref().into()), Key::Pem(key.as_ref().into()));
        self.settings.client_certificate = Some((certificates, key));
        self
    }

    /// As [`client_certificate_files`](Self::client_certificate_files), with DER: the certificate and those between it and the root, and
    /// the key.
    #[must_use]
    pub fn client_certificate_der<C: Into<Vec<u8>>>(
        mut self,
        certificates: impl IntoIterator<Item = C>,
        key: impl AsRef<[u8]>,
    ) -> Self {
        let certificates = certificates.into_iter().map(|der| der.into().into()).collect();
        self.settings.client_certificate = Some((Certificates::Der(certificates), Key::Der(key.as_ref().into())));
        self
    }

    /// The name, or the IP address, that the server's certificate has to be for, where that is not the host that the connection goes
    /// to: behind a tunnel, or when connecting to an address. A name is also what the server is told (SNI).
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The versions that may be spoken.
    #[must_use]
    pub fn versions(mut self, versions: impl IntoIterator<Item = TlsVersion>) -> Self {
        self.settings.versions = versions.into_iter().collect();
        self
    }

    /// The cryptography to use, in place of that of the features.
    #[must_use]
    pub fn provider(mut self, provider: impl Into<Arc<CryptoProvider>>) -> Self {
        self.settings.provider = Some(provider.into());
        self
    }

    /// Talks to anybody (`verify_none`): whatever certificate the server shows will do, and roots and names do not count. Then
    /// whoever sits between can read everything, passwords too, and change it. For tests.
    #[must_use]
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.settings.any_certificate = true;
        self
    }

    /// Reads all files and looks whether they go together, as connecting does. It may block for some milliseconds.
    ///
    /// # Errors
    ///
    /// `Tls` for a file that cannot be read or understood, an encrypted key, a key that does not belong to its certificate, or a
    /// server's name that is none;
    /// `Unsupported` where there is no cryptography for this build or processor; `InvalidArgument` for settings beside a
    /// `ClientConfig`.
    pub fn check(&self) -> Result<()> {
        self.server_name.as_deref().map(server_name).transpose()?;
        self.build().map(drop)
    }

    /// Everything for a connection. Files are read on a thread where that disturbs nobody.
    pub(crate) async fn prepare(self) -> Result<TlsReady> {
        let name = self.server_name.as_deref().map(server_name).transpose()?;
        let built = tokio::task::spawn_blocking(move || self.build()).await;
        let (config, client_certificate) = built.map_err(|error| {
            Error::with_source(ErrorKind::Closed, "the runtime ended while TLS was made ready", error)
        })??;
        Ok(TlsReady { config, name, client_certificate })
    }

    fn build(&self) -> Result<(Arc<ClientConfig>, Option<Arc<ClientCertificate>>)> {
        let Some(config) = &self.config else { return self.settings.build() };
        if !self.settings.is_default() {
            let message =
                "a rustls::ClientConfig is used as it is: of the settings of TlsConfig only server_name goes with it";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok((Arc::clone(config), None))
    }
}

impl Settings {
    fn is_default(&self) -> bool {
        let Self { roots, client_certificate, any_certificate, versions, provider } = self;
        roots.is_empty()
            && client_certificate.is_none()
            && !any_certificate
            && versions.is_empty()
            && provider.is_none()
    }

    fn build(&self) -> Result<(Arc<ClientConfig>, Option<Arc<ClientCertificate>>)> {
        let provider = match &self.provider {
            Some(provider) => Arc::clone(provider),
            None => Arc::new(provider::default_provider()?),
        };
        let certified = match &self.client_certificate {
            Some((certificates, key)) => Some(certify(certificates, key, &provider)?),
            None => None,
        };
        let client_certificate = Arc::new(ClientCertificate::new(certified));

        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let versions: Vec<_> = self.versions.iter().map(|version| version.supported()).collect();
        let versions = if versions.is_empty() { rustls::DEFAULT_VERSIONS } else { &versions };
        let builder = builder.with_protocol_versions(versions).map_err(|error| {
            Error::with_source(
                ErrorKind::Unsupported,
                "the cryptography at hand has nothing for these versions of TLS",
                error,
            )
        })?;
        let builder = if self.any_certificate {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let config = builder.with_client_cert_resolver(Arc::clone(&client_certificate) as _);
        Ok((Arc::new(config), Some(client_certificate)))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        let named: &[Roots] = if self.roots.is_empty() { &[Roots::Platform] } else { &self.roots };
        for roots in named {
            match roots {
                Roots::Platform => platform(&mut store)?,
                #[cfg(feature = "tls-webpki-roots")]
                Roots::Webpki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
                Roots::Given(certificates) => {
                    for (at, certificate) in certificates.load()?.into_iter().enumerate() {
                        store.add(certificate).map_err(|error| {
                            let message = format!("certificate {} in {certificates} cannot be read", at + 1);
                            Error::explained(ErrorKind::Tls, message, error)
                        })?;
                    }
                }
            }
        }
        Ok(store)
    }
}

/// A platform has hundreds, of which some may be broken; that is not the program's fault as long as there are others.
fn platform(store: &mut RootCertStore) -> Result<()> {
    let found = rustls_native_certs::load_native_certs();
    let (added, _broken) = store.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(());
    }
    let way_out = "install them (Debian: apt-get install ca-certificates), or name others (TlsConfig::root_file)";
    let reasons: Vec<String> = found.errors.iter().map(|error| format!("; {error}")).collect();
    Err(tls(format!("this machine has no root certificates: {way_out}{}", reasons.concat())))
}

fn certify(certificates: &Certificates, key: &Key, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = certificates.load()?;
    CertifiedKey::from_der(chain, key.load()?, provider).map_err(|error| {
        let message = match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("the private key in {key} does not belong to the certificate in {certificates}")
            }
            rustls::Error::InvalidCertificate(_) => format!("the certificate in {certificates} cannot be read"),
            _ => format!("the private key in {key} cannot be read, or is of a kind that cannot be used here"),
        };
        Error::explained(ErrorKind::Tls, message, error)
    })
}

fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| tls(format!("no certificate can be for {name:?}, which is neither a DNS name nor an IP address")))
}

fn tls(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Tls, message)
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { roots, client_certificate, any_certificate, versions, provider } = &self.settings;
        f.debug_struct("TlsConfig")
            .field("roots", roots)
            .field("client_certificate", client_certificate)
            .field("server_name", &self.server_name)
            .field("any_certificate", any_certificate)
            .field("versions", versions)
            .field("own_provider", &provider.is_some())
            .field("client_config", &self.config.is_some())
            .finish()
    }
}
