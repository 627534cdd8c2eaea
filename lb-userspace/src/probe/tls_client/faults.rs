//! Why a handshake failed, in the operator's words.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime};

use super::super::Fault;
use crate::text::{counted, shorten};

const DAY_SECONDS: u64 = 24 * 60 * 60;

pub fn of_handshake(error: io::Error) -> Fault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(cause) => of_tls(cause),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::Failed("closed during the TLS handshake".to_owned())
        }
        None => error.into(),
    }
}

pub fn of_tls(error: &Error) -> Fault {
    Fault::Failed(shorten(&words(error)))
}

fn words(error: &Error) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate has many rare errors")]
    match error {
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::InvalidMessage(_) => "not TLS".to_owned(),
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server offers no protocol of this check (ALPN)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the server ended the TLS handshake: {alert:?}"),
        Error::PeerIncompatible(why) => format!("no TLS version or cipher in common: {why:?}"),
        other => format!("TLS error: {other}"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate has many rare errors")]
    match error {
        CertificateError::Expired => "the certificate has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the certificate expired {} ago", days(*not_after, *time))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("the certificate is not valid yet: it begins in {}", days(*time, *not_before))
        }
        CertificateError::NotValidForName => {
            "the certificate is for another name: set `server_name`".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().filter_map(|it| name(it)).take(3).collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            format!("the certificate is for {names}, not for {}: set `server_name`", expected.to_str())
        }
        CertificateError::UnknownIssuer => {
            "the certificate is self-signed, or its CA is not trusted: set `ca`".to_owned()
        }
        CertificateError::BadSignature => {
            "the certificate is from another CA of the same name, or broken: set `ca`".to_owned()
        }
        CertificateError::Other(why) if why.to_string().contains("CaUsedAsEndEntity") => {
            "the certificate is that of a CA, as self-signed ones often are: let a CA sign one for the server, or use tls = \"require\"".to_owned()
        }
        other => format!("the certificate is not valid: {other}"),
    }
}

/// One of the certificate's names, which the library writes as `DnsName("www.example.org")` or `IpAddress(192.0.2.1)`. Those of
/// other kinds are not names of servers.
fn name(written: &str) -> Option<&str> {
    let dns = written.strip_prefix("DnsName(\"").and_then(|rest| rest.strip_suffix("\")"));
    dns.or_else(|| written.strip_prefix("IpAddress(")?.strip_suffix(')'))
}

fn days(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    match seconds / DAY_SECONDS {
        0 => "less than a day".to_owned(),
        days => counted(days, "day"),
    }
}
