//! Certificates and keys: from files, PEM and DER to what rustls takes. Errors name the file, and never what is in a key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, ErrorKind, Result};

/// Where certificates come from.
#[derive(Clone)]
pub(super) enum Certificates {
    File(PathBuf),
    Pem(Arc<[u8]>),
    Der(Vec<CertificateDer<'static>>),
}

/// Where a private key comes from.
#[derive(Clone)]
pub(super) enum Key {
    File(PathBuf),
    Pem(Arc<[u8]>),
    Der(Arc<[u8]>),
}

impl Certificates {
    /// At least one certificate.
    pub(super) fn load(&self) -> Result<Vec<CertificateDer<'static>>> {
        let octets;
        let pem: &[u8] = match self {
            Self::Der(certificates) if certificates.is_empty() => return Err(tls("no certificate was given")),
            Self::Der(certificates) => return Ok(certificates.clone()),
            Self::Pem(pem) => pem,
            Self::File(path) => {
                octets = read(path, "certificates")?;
                &octets
            }
        };
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(tls(format!("there is no certificate (BEGIN CERTIFICATE) in {self}")))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(broken_pem(&self.to_string(), &error)),
        }
    }
}

impl Key {
    pub(super) fn load(&self) -> Result<PrivateKeyDer<'static>> {
        let octets;
        let pem: &[u8] = match self {
            Self::Der(der) => return self.read_der(der),
            Self::Pem(pem) => pem,
            Self::File(path) => {
                octets = read(path, "private key")?;
                &octets
            }
        };
        let text = |words: &[u8]| pem.windows(words.len()).any(|part| part == words);
        if text(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || text(b"Proc-Type: 4,ENCRYPTED") {
            return Err(self.encrypted());
        }
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(key) => Ok(key),
            Err(pem::Error::NoItemsFound) => Err(tls(format!(
                "there is no private key (BEGIN PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY) in {self}"
            ))),
            Err(error) => Err(broken_pem(&self.to_string(), &error)),
        }
    }

    fn read_der(&self, der: &[u8]) -> Result<PrivateKeyDer<'static>> {
        if looks_encrypted(der) {
            return Err(self.encrypted());
        }
        PrivateKeyDer::try_from(der.to_vec())
            .map_err(|_| tls(format!("{self} is neither PKCS #8 nor PKCS #1 nor SEC 1 in DER")))
    }

    fn encrypted(&self) -> Error {
        tls(format!(
            "the private key in {self} is encrypted, which is not supported: decrypt it first, as in \
             `openssl pkey -in encrypted.pem -out key.pem`"
        ))
    }
}

/// An encrypted PKCS #8 key is a sequence that begins with a sequence, all the others begin with a version number.
fn looks_encrypted(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    let inner = match der {
        [SEQUENCE, length, rest @ ..] if *length < 0x80 => rest,
        [SEQUENCE, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..).unwrap_or_default(),
        _ => return false,
    };
    inner.first() == Some(&SEQUENCE)
}

fn read(path: &std::path::Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::with_source(ErrorKind::Tls, format!("the {what} in {} cannot be read", path.display()), error)
    })
}

/// In words of our own: what the parser says may repeat a line of the file.
fn broken_pem(place: &str, error: &pem::Error) -> Error {
    tls(match error {
        pem::Error::MissingSectionEnd { .. } => format!("{place} breaks off: a BEGIN has no END"),
        pem::Error::IllegalSectionStart { .. } => format!("{place} has a BEGIN line that cannot be understood"),
        pem::Error::Base64Decode(_) => format!("{place} is broken: what stands between BEGIN and END is not base64"),
        _ => format!("{place} is not PEM"),
    })
}

fn tls(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Tls, message)
}

impl fmt::Display for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pem(_) => f.write_str("the PEM that was given"),
            Self::Der(_) => f.write_str("the DER that was given"),
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pem(_) => f.write_str("the PEM that was given for the key"),
            Self::Der(_) => f.write_str("the DER that was given for the key"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
