//! Authorities and certificates for one run: good ones, and ones with a flaw each.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};

use crate::support::unique;

/// Issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) der: Vec<u8>,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) certificate_der: Vec<u8>,
    pub(crate) key: String,
    pub(crate) key_der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        Self::of(subject)
    }

    /// Claims to be one of those whom everybody trusts: Let's Encrypt's root, by its full name.
    pub(crate) fn impostor() -> Self {
        let mut subject = DistinguishedName::new();
        for (part, value) in [
            (DnType::CountryName, "US"),
            (DnType::OrganizationName, "Internet Security Research Group"),
            (DnType::CommonName, "ISRG Root X1"),
        ] {
            subject.push(part, DnValue::PrintableString(value.try_into().unwrap()));
        }
        Self::of(subject)
    }

    fn of(subject: DistinguishedName) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = subject;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().to_vec());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// For a server with these names.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.server_with(names, |_| ())
    }

    pub(crate) fn server_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        self.issue(params, &KeyPair::generate().unwrap())
    }

    /// For `localhost`, with a key of one's own.
    pub(crate) fn server_for(&self, key: &KeyPair) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, key)
    }

    /// For a client of this name.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.client_for(name, &KeyPair::generate().unwrap())
    }

    /// With a key of one's own.
    pub(crate) fn client_for(&self, name: &str, key: &KeyPair) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, key)
    }

    fn issue(&self, params: CertificateParams, key: &KeyPair) -> Pair {
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Pair {
            certificate: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            key: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }

    /// A list that says that the certificate with this number is revoked, in DER.
    pub(crate) fn revoke(&self, serial: SerialNumber) -> Vec<u8> {
        let revoked = RevokedCertParams {
            serial_number: serial,
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

pub(crate) fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 3, 4);
}

pub(crate) fn not_yet_valid(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2998, 5, 6);
    params.not_after = date_time_ymd(2999, 1, 1);
}

/// A directory that goes with the test.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(unique("certificates"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Writes a file and says where it is.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
