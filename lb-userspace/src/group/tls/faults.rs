//! Why a connection between nodes failed, in the operator's words.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use crate::text::shorten;

/// Of a connection that is encrypted, or should be.
pub fn of_io(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(cause) => of_tls(cause),
        None if is_closed(error.kind()) => "it closed the connection".to_owned(),
        None => shorten(&error.to_string()),
    }
}

/// A reset is how a connection looks that was closed before everything in it was read.
fn is_closed(kind: io::ErrorKind) -> bool {
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&kind)
}

/// Of the handshake.
pub fn of_tls(error: &Error) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate has many rare errors")]
    let words = match error {
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::NoCertificatesPresented => "it has no certificate".to_owned(),
        Error::InvalidMessage(_) => "not TLS".to_owned(),
        Error::PeerIncompatible(why) => format!("no TLS 1.3: {why:?}"),
        Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate),
        ) => format!("it refuses the certificate of this node: {alert:?}"),
        Error::AlertReceived(alert) => format!("it ended the TLS connection: {alert:?}"),
        other => format!("TLS error: {other}"),
    };
    shorten(&words)
}

fn of_certificate(error: &CertificateError) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate has many rare errors")]
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, .. } => {
            format!("the certificate is for another name than {}", expected.to_str())
        }
        CertificateError::UnknownIssuer => "the certificate is not from the CA in `ca`".to_owned(),
        CertificateError::BadSignature => {
            "the certificate is from another CA of the same name, or broken".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for this use: extendedKeyUsage must be absent, or have both serverAuth and clientAuth"
                .to_owned()
        }
        other => format!("the certificate is not valid: {other}"),
    }
}
