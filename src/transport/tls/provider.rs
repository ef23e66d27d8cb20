//! Which cryptography TLS works with: the features' choice, and whether this processor can do it.

use rustls::crypto::CryptoProvider;

use crate::error::Result;

// What somebody has switched on on purpose goes before the default.
#[cfg(feature = "tls-aws-lc-rs")]
use aws_lc_rs as chosen;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
use ring as chosen;
#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
use without_c as chosen;

/// The provider of the first of these features that is on: `tls-aws-lc-rs`, `tls-ring`, `tls`. One that the process has
/// installed is not looked at.
pub(super) fn default_provider() -> Result<CryptoProvider> {
    chosen::provider()
}

#[cfg(feature = "tls-aws-lc-rs")]
mod aws_lc_rs {
    pub(super) fn provider() -> super::Result<super::CryptoProvider> {
        Ok(rustls::crypto::aws_lc_rs::default_provider())
    }
}

#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
mod ring {
    pub(super) fn provider() -> super::Result<super::CryptoProvider> {
        Ok(rustls::crypto::ring::default_provider())
    }
}

/// Graviola, where it is switched on, exists and can run.
#[cfg(any(test, not(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))))]
#[cfg_attr(any(feature = "tls-ring", feature = "tls-aws-lc-rs"), expect(dead_code, reason = "only its tests use it"))]
mod without_c {
    use super::{CryptoProvider, Result};
    use crate::error::{Error, ErrorKind};

    #[cfg(all(feature = "tls", any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn provider() -> Result<CryptoProvider> {
        // It panics on a processor that lacks one of them.
        able(&processor())?;
        Ok(rustls_graviola::default_provider())
    }

    #[cfg(all(feature = "tls", not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    pub(super) fn provider() -> Result<CryptoProvider> {
        Err(unsupported("the cryptography of the feature tls exists for x86_64 and aarch64 only"))
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn provider() -> Result<CryptoProvider> {
        Err(unsupported("leveret was built without cryptography for TLS (feature tls)"))
    }

    /// What graviola asks of the processor (its `verify_cpu_features`), and whether it is there.
    #[cfg(all(feature = "tls", target_arch = "x86_64"))]
    fn processor() -> [(&'static str, bool); 7] {
        [
            ("aes", is_x86_feature_detected!("aes")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("bmi1", is_x86_feature_detected!("bmi1")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("adx", is_x86_feature_detected!("adx")),
            ("avx", is_x86_feature_detected!("avx")),
            ("avx2", is_x86_feature_detected!("avx2")),
        ]
    }

    #[cfg(all(feature = "tls", target_arch = "aarch64"))]
    fn processor() -> [(&'static str, bool); 4] {
        use std::arch::is_aarch64_feature_detected as detected;
        [
            ("neon", detected!("neon")),
            ("aes", detected!("aes")),
            ("pmull", detected!("pmull")),
            ("sha2", detected!("sha2")),
        ]
    }

    #[cfg(any(test, all(feature = "tls", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    pub(super) fn able(processor: &[(&str, bool)]) -> Result<()> {
        let missing: Vec<&str> = processor.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(unsupported(&format!("the cryptography of the feature tls needs {missing}, which this processor lacks")))
    }

    fn unsupported(why: &str) -> Error {
        let way_out = "switch on leveret's feature tls-ring or tls-aws-lc-rs, or hand in a provider of your own \
                       (TlsConfig::provider, TlsConfig::from_client_config)";
        Error::new(ErrorKind::Unsupported, format!("{why}: {way_out}"))
    }
}

#[cfg(test)]
mod tests {
    use super::without_c::able;
    use crate::error::ErrorKind;

    /// The same one whatever else is switched on, by this program or by one of its dependencies, and whatever the process has installed.
    #[cfg(any(feature = "tls-aws-lc-rs", feature = "tls-ring"))]
    #[test]
    fn of_several_features_the_first_has_the_say() {
        let whose = if cfg!(feature = "tls-aws-lc-rs") { "aws_lc_rs" } else { "ring" };
        for _ in 0..2 {
            let name = format!("{:?}", super::default_provider().unwrap().key_provider).to_lowercase();
            assert!(name.replace("awslc", "aws_lc_").contains(whose), "{name} and not {whose}");
            // Whoever comes first decides for the process; here it is somebody else.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
    }

    #[test]
    fn a_processor_that_lacks_something_is_told_what_and_what_to_do() {
        able(&[("aes", true), ("adx", true)]).unwrap();
        let error = able(&[("aes", true), ("adx", false), ("avx2", false)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let said = error.to_string();
        assert!(said.contains("needs adx, avx2,") && said.contains("tls-ring"), "{said}");
        assert!(said.contains("from_client_config"), "{said}");
    }
}
