//! What went wrong with TLS, in words that a person can act on.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage, PeerIncompatible, PeerMisbehaved};

use super::hooks::Asked;
use crate::error::{Error, ErrorKind};

const WANTS_ONE: &str =
    "the server wants a client certificate, and none was sent: see TlsConfig::client_certificate_files";

/// For trouble that may have another cause.
fn hint(asked: Asked) -> &'static str {
    if asked == Asked::NoneSent { " (it had asked for a client certificate, and none was sent)" } else { "" }
}

/// Puts an error of the handshake, or of the first read behind it, into words. Only what rustls or the server complains about
/// is of the kind `Tls`; a connection that breaks or ends is what it is without TLS, and may work the next time.
pub(super) fn explain(error: io::Error, name: &str, asked: Asked) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => Error::explained(ErrorKind::Tls, in_words(inner, name, asked), inner.clone()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            let message = "the server closed the connection in the TLS handshake without a word, as one may that expects no \
                           TLS on this port";
            Error::new(ErrorKind::Handshake, format!("{message}{}", hint(asked)))
        }
        None => {
            let message = format!("the connection was lost in the TLS handshake{}", hint(asked));
            Error::with_source(ErrorKind::Handshake, message, error)
        }
    }
}

fn in_words(error: &rustls::Error, name: &str, asked: Asked) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error, name),
        rustls::Error::AlertReceived(alert) => alert_in_words(*alert, name, asked),
        // Eight octets that begin with AMQP are how a broker answers to what is not AMQP.
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge) => {
            "the server does not speak TLS on this port, as AMQP's plain port (5672, amqp://) does not; \
             TLS is usually on 5671"
                .to_owned()
        }
        rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "the server speaks none of the TLS versions that are wanted here".to_owned(),
        rustls::Error::PeerIncompatible(reason) => {
            format!("the server's TLS and ours have too little in common: {reason:?}")
        }
        rustls::Error::InvalidMessage(reason) => format!("the server sent something that is not TLS: {reason:?}"),
        // It is offered nevertheless: what is offered is said for both versions at once.
        rustls::Error::PeerMisbehaved(PeerMisbehaved::SignedKxWithWrongAlgorithm) => {
            "the kind of the server's key does not go with TLS 1.2 here (Ed25519 does not with the cryptography of the feature \
             tls): TLS 1.3, a certificate for a key of another kind, or the feature tls-ring would do"
                .to_owned()
        }
        rustls::Error::PeerMisbehaved(reason) => format!("the server broke the rules of TLS: {reason:?}"),
        other => format!("the TLS handshake with {name} failed: {other}"),
    }
}

fn certificate(error: &CertificateError, name: &str) -> String {
    let problem = match error {
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("expired on {}; by this machine's clock it is {}", date(*not_after), date(*time))
        }
        CertificateError::NotValidYet => "is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("is not valid before {}; by this machine's clock it is {}", date(*not_before), date(*time))
        }
        CertificateError::UnknownIssuer => "was issued by an authority that is not trusted here: if it should be, \
                                            hand in the authority's certificate (TlsConfig::root_file)"
            .to_owned(),
        CertificateError::NotValidForName => format!("is not for the name {name}"),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("is not for the name {name}, nor for any other: it has no subject alternative names")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|shown| bare_name(shown)).collect();
            format!(
                "is for {}, not for the name {name} that was asked for; TlsConfig::server_name asks for another one",
                names.join(", ")
            )
        }
        CertificateError::Revoked => "was revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => "is on no list that would say whether it was revoked".to_owned(),
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "cannot be looked up: the list of revoked certificates is out of date".to_owned()
        }
        CertificateError::BadSignature => "has a wrong signature: it is not what its issuer has signed".to_owned(),
        CertificateError::BadEncoding => "cannot be read".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not meant for servers (its extended key usage)".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not supported here".to_owned()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "is an authority's own: a server needs one that such a certificate has issued, or one that is no authority's \
             (CA:FALSE)"
                .to_owned()
        }
        other => format!("is not accepted: {other}"),
    };
    format!("the server's certificate {problem}")
}

fn alert_in_words(alert: Alert, name: &str, asked: Asked) -> String {
    let about_ours = match alert {
        Alert::CertificateExpired => Some("has expired"),
        Alert::CertificateRevoked => Some("was revoked"),
        Alert::UnknownCA => Some("was issued by an authority that it does not trust"),
        Alert::UnsupportedCertificate => Some("is of a kind that it does not support"),
        Alert::BadCertificate | Alert::CertificateUnknown => Some("is not acceptable to it"),
        Alert::AccessDenied => Some("is known to it and not let in"),
        _ => None,
    };
    match (about_ours, alert, asked) {
        (_, Alert::CertificateRequired, _) | (Some(_), _, Asked::NoneSent) => WANTS_ONE.to_owned(),
        (_, Alert::HandshakeFailure, Asked::NoneSent) => format!("{WANTS_ONE} (it said HandshakeFailure)"),
        (Some(why), _, Asked::Sent | Asked::Unknown) => {
            format!("the server refused the client certificate: it {why} ({alert:?})")
        }
        (_, Alert::HandshakeFailure, Asked::Sent) => {
            "the server refused the handshake (HandshakeFailure), most likely \
                                                      because of the kind of the client certificate's key"
                .to_owned()
        }
        (_, Alert::HandshakeFailure, _) => {
            "the server refused the handshake (HandshakeFailure): it and this client have \
                                            no cipher or signature in common, or it wants a client certificate"
                .to_owned()
        }
        (_, Alert::ProtocolVersion, _) => "the server speaks none of the TLS versions that are wanted here".to_owned(),
        (_, Alert::UnrecognisedName, _) => format!("the server has no certificate for the name {name}"),
        _ => format!("the server ended the TLS handshake with the alert {alert:?}{}", hint(asked)),
    }
}

/// `localhost` of `DnsName("localhost")`, `127.0.0.1` of `IpAddress(127.0.0.1)`.
fn bare_name(shown: &str) -> &str {
    shown.split_once('(').map_or(shown, |(_, rest)| rest.trim_end_matches(')').trim_matches('"'))
}

/// `2026-01-31 08:00:59 UTC`.
fn date(time: UnixTime) -> String {
    let seconds = time.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The Gregorian calendar repeats itself every 146097 days. Years begin in March, so that leap days are last.
    let from_march_of_year_0 = days + 719_468;
    let (era, day_of_era) = (from_march_of_year_0 / 146_097, from_march_of_year_0 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(error: rustls::Error, asked: Asked) -> String {
        let error = explain(io::Error::new(io::ErrorKind::InvalidData, error), "hare.example", asked);
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(std::error::Error::source(&error).unwrap().is::<rustls::Error>());
        error.to_string()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(at(seconds)), expected);
        }
    }

    #[test]
    fn a_servers_certificate_that_will_not_do() {
        use CertificateError as E;
        for (error, words) in [
            (E::Expired, "has expired"),
            (
                E::ExpiredContext { time: at(86_400), not_after: at(0) },
                "expired on 1970-01-01 00:00:00 UTC; by this machine's clock it is 1970-01-02",
            ),
            (E::NotValidYetContext { time: at(0), not_before: at(86_400) }, "is not valid before 1970-01-02"),
            (E::UnknownIssuer, "not trusted here"),
            (E::NotValidForName, "is not for the name hare.example"),
            (E::Revoked, "was revoked"),
            (E::BadSignature, "wrong signature"),
            (E::InvalidPurpose, "not meant for servers"),
            (E::ApplicationVerificationFailure, "is not accepted: ApplicationVerificationFailure"),
        ] {
            let said = said(rustls::Error::InvalidCertificate(error), Asked::No);
            assert!(said.starts_with("the server's certificate ") && said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_the_server_says_is_about_our_certificate_only_where_it_asked_for_one() {
        for (alert, asked, words) in [
            (Alert::CertificateRequired, Asked::NoneSent, "none was sent"),
            (Alert::HandshakeFailure, Asked::NoneSent, "none was sent"),
            (Alert::BadCertificate, Asked::NoneSent, "none was sent"),
            (
                Alert::UnknownCA,
                Asked::Sent,
                "the client certificate: it was issued by an authority that it does not trust",
            ),
            (Alert::CertificateExpired, Asked::Unknown, "the client certificate: it has expired"),
            (Alert::HandshakeFailure, Asked::No, "in common"),
            (Alert::BadCertificate, Asked::No, "the alert BadCertificate"),
            (Alert::UnrecognisedName, Asked::No, "for the name hare.example"),
            (Alert::ProtocolVersion, Asked::No, "TLS versions"),
            (Alert::InternalError, Asked::NoneSent, "InternalError (it had asked for a client certificate"),
        ] {
            let said = said(rustls::Error::AlertReceived(alert), asked);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_connection_that_breaks_may_work_the_next_time() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof] {
            for (asked, hinted) in [(Asked::No, false), (Asked::NoneSent, true)] {
                let error = explain(kind.into(), "hare.example", asked);
                assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Handshake, true));
                assert_eq!(error.to_string().contains("a client certificate, and none was sent"), hinted, "{error}");
            }
        }
    }
}
