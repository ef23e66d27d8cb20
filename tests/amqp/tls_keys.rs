//! Keys of every usual kind, in every form that files have them in, at both ends of TLS.

use graviola::signing::rsa;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

use crate::certificates::Authority;
use crate::tls::{ONLY_12, ONLY_13, Stage};

const KINDS: [Kind; 4] = [Kind::Rsa2048, Kind::EcdsaP256, Kind::EcdsaP384, Kind::Ed25519];

/// The cryptography is in C: it is what somebody has switched on on purpose, and goes before the default.
const OF_C: bool = cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs"));

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Rsa2048,
    EcdsaP256,
    EcdsaP384,
    Ed25519,
}

impl Kind {
    fn generate(self) -> KeyPair {
        match self {
            Self::Rsa2048 => {
                let key = rsa::SigningKey::generate(rsa::KeySize::Rsa2048).unwrap();
                let pkcs8 = key.to_pkcs8_der(&mut [0; 4096]).unwrap().to_vec();
                KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.into(), &PKCS_RSA_SHA256).unwrap()
            }
            Self::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            Self::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            Self::Ed25519 => KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        }
    }

    /// The forms that a key of this kind has, each with what stands behind `BEGIN` where it is PEM.
    fn forms(self, key: &KeyPair) -> Vec<(&'static str, Vec<u8>)> {
        let pkcs8 = key.serialize_der();
        match self {
            Self::Rsa2048 => vec![("RSA PRIVATE KEY", inner(&pkcs8).to_vec()), ("PRIVATE KEY", pkcs8)],
            Self::EcdsaP256 => vec![("EC PRIVATE KEY", sec1(&pkcs8, P256)), ("PRIVATE KEY", pkcs8)],
            Self::EcdsaP384 => vec![("EC PRIVATE KEY", sec1(&pkcs8, P384)), ("PRIVATE KEY", pkcs8)],
            // PKCS #8 in its first version, as OpenSSL writes it, and in the second, with the public key behind the other.
            Self::Ed25519 => {
                let [version, algorithm, key, _public] = elements(content(&pkcs8))[..] else { panic!("{pkcs8:?}") };
                assert_eq!(version, [INTEGER, 1, 1]);
                vec![("PRIVATE KEY", der(SEQUENCE, &[&[INTEGER, 1, 0], algorithm, key])), ("PRIVATE KEY", pkcs8)]
            }
        }
    }
}

on_its_own! {
    async fn servers_with_keys_of_every_kind() {
        for kind in KINDS {
            let key = kind.generate();
            for versions in [ONLY_12, ONLY_13] {
                let authority = Authority::new("the authority");
                let pair = authority.server_for(&key);
                let stage = Stage::with(authority, &pair, versions, None).await;
                println!("{kind:?} {versions:?}");
                if kind == Kind::Ed25519 && versions == ONLY_12 && !OF_C {
                    // Graviola has no suite for it, others have.
                    stage.refuses(stage.tls(), &["Ed25519", "TLS 1.2", "tls-ring"]).await;
                    let ring = rustls::crypto::ring::default_provider();
                    stage.opens(stage.tls().provider(ring)).await;
                } else {
                    stage.opens(stage.tls()).await;
                }
            }
        }
    }

    async fn clients_with_keys_of_every_kind_in_every_form() {
        let clients = Authority::new("the clients' authority");
        for versions in [ONLY_12, ONLY_13] {
            let stage = Stage::for_clients_of(&clients, versions).await;
            for kind in KINDS {
                let key = kind.generate();
                let pair = clients.client_for("hare", &key);
                for (label, der) in kind.forms(&key) {
                    println!("{kind:?} as {label}, {versions:?}");
                    let pem = pem(label, &der);
                    stage.opens(stage.tls().client_certificate_pem(&pair.certificate, &pem)).await;
                    // `openssl ecparam -genkey` puts the curve before the key.
                    let behind = format!("{}{pem}", self::pem("EC PARAMETERS", P256));
                    stage.opens(stage.tls().client_certificate_pem(&pair.certificate, behind)).await;
                    stage.opens(stage.tls().client_certificate_der([pair.certificate_der.as_slice()], der)).await;
                }
            }
        }
    }
}

// ----------------------------------------------------------------------------------------------- from one form to another

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// The names of the curves.
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";

/// What stands inside the first element, and what stands behind it.
fn split(der: &[u8]) -> (&[u8], &[u8]) {
    let (start, len) = match der[1] {
        length @ ..=0x7F => (2, usize::from(length)),
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        length => panic!("{length}"),
    };
    der[start..].split_at(len)
}

fn content(der: &[u8]) -> &[u8] {
    split(der).0
}

fn elements(mut der: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (element, behind) = der.split_at(der.len() - split(der).1.len());
        found.push(element);
        der = behind;
    }
    found
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let inside = parts.concat();
    let length = match inside.len().to_be_bytes() {
        [.., 0, short @ ..=0x7F] => vec![short],
        [.., 0, longer] => vec![0x81, longer],
        [.., high, low] => vec![0x82, high, low],
    };
    [&[tag][..], &length, &inside].concat()
}

/// The key inside of PKCS #8: a version, what kind of key it is, and the key.
fn inner(pkcs8: &[u8]) -> &[u8] {
    let key = elements(content(pkcs8))[2];
    assert_eq!(key[0], OCTETS);
    content(key)
}

/// SEC 1 stands alone, so it names the curve; inside of PKCS #8 that is named outside.
fn sec1(pkcs8: &[u8], curve: &[u8]) -> Vec<u8> {
    let [version, key, public] = elements(content(inner(pkcs8)))[..] else { panic!("{pkcs8:?}") };
    der(SEQUENCE, &[version, key, &der(0xA0, &[curve]), public])
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let octet = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at > three.len() { '=' } else { char::from(digit) });
        }
    }
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
