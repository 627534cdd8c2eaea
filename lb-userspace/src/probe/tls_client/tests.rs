//! Probes of servers whose TLS is good, wrong or none, with the types `https` and `tls`.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, SanType};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::probe::{
    ProbeOutcome,
    fixture::{
        Backend, configured, drain, probe_as, probe_within,
        tls::{Authority, NAME, self_signed},
        told,
    },
};

const HOUR: Duration = Duration::from_hours(1);
const TYPES: [&str; 2] = ["https", "tls"];
/// How long a test waits for a timeout.
const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_good_certificate_is_accepted_and_its_end_is_known() {
    let authority = Authority::new();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let server = serving(authority.certifies(|it| it.not_after = end.into())).await;

    for (kind, text) in [("https", "HTTP 200"), ("tls", "TLS 1.3")] {
        let result = probe_as(server.address, &keys(kind, &authority)).await;

        assert_eq!(told(&result), (ProbeOutcome::Success, text));
        assert_eq!(result.facts.certificate_ends, Some(end));
    }
}

#[tokio::test]
async fn a_wrong_certificate_is_a_failure_that_says_what_is_wrong() {
    let authority = Authority::new();
    let (before, after) = (|time| SystemTime::now() - time, |time| SystemTime::now() + time);
    let name = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let is_ca = |it: &mut CertificateParams| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let untrusted = "the certificate is self-signed, or its CA is not trusted: set `ca`";
    for (acceptor, expected) in [
        (
            authority.certifies(|it| it.not_after = before(36 * HOUR).into()),
            "the certificate expired 1 day ago",
        ),
        (
            authority.certifies(|it| it.not_after = before(HOUR).into()),
            "the certificate expired less than a day ago",
        ),
        (
            authority.certifies(|it| it.not_before = after(60 * HOUR).into()),
            "the certificate is not valid yet: it begins in 2 days",
        ),
        (
            authority.certifies(|it| {
                it.subject_alt_names = vec![
                    SanType::Rfc822Name("postmaster@example.org".try_into().unwrap()),
                    name("db.example.org"),
                    name("*.example.net"),
                    SanType::IpAddress([192, 0, 2, 1].into()),
                ]
            }),
            "the certificate is for db.example.org, *.example.net, 192.0.2.1, not for www.example.org: set `server_name`",
        ),
        (
            authority.certifies(|it| it.subject_alt_names.clear()),
            "the certificate is for no name, not for www.example.org: set `server_name`",
        ),
        (self_signed(|_| {}), untrusted),
        (Authority::named("another").certifies(|_| {}), untrusted),
        (
            Authority::new().certifies(|_| {}),
            "the certificate is from another CA of the same name, or broken: set `ca`",
        ),
        (
            authority.certifies(is_ca),
            "the certificate is that of a CA, as self-signed ones often are: let a CA sign one for the server, or use tls = \"require\"",
        ),
    ] {
        let server = serving(acceptor).await;

        for kind in TYPES {
            let result = probe_as(server.address, &keys(kind, &authority)).await;

            assert_eq!(told(&result), (ProbeOutcome::Failure, expected), "{kind}");
            assert_eq!(result.facts.certificate_ends, None);
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_verified_may_have_any_certificate() {
    let long_ago = |it: &mut CertificateParams| it.not_after = SystemTime::UNIX_EPOCH.into();
    let server = serving(self_signed(long_ago)).await;

    for (kind, text) in [("https", "HTTP 200"), ("tls", "TLS 1.3")] {
        let result = probe_as(server.address, &format!("type = '{kind}'\ntls = 'require'")).await;

        assert_eq!(told(&result), (ProbeOutcome::Success, text));
        assert_eq!(result.facts.certificate_ends, Some(SystemTime::UNIX_EPOCH));
    }
}

#[tokio::test]
async fn the_address_is_the_name_if_none_is_configured() {
    let authority = Authority::new();
    let of_address = SanType::IpAddress([127, 0, 0, 1].into());
    let right = serving(authority.certifies(|it| it.subject_alt_names = vec![of_address])).await;
    let wrong = serving(authority.certifies(|_| {})).await;
    let by_address = |kind| keys(kind, &authority).replace(&format!("server_name = '{NAME}'"), "");

    for kind in TYPES {
        assert_eq!(probe_as(right.address, &by_address(kind)).await.outcome, ProbeOutcome::Success);
        let expected = "the certificate is for www.example.org, not for 127.0.0.1: set `server_name`";
        assert_eq!(
            told(&probe_as(wrong.address, &by_address(kind)).await),
            (ProbeOutcome::Failure, expected)
        );
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_a_timeout() {
    let authority = Authority::new();
    let silent = Backend::new(async |mut stream: TcpStream| drain(&mut stream).await).await;
    // The head of a handshake message that is longer than what follows.
    let stuck = saying(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", Then::Waits).await;

    for server in [silent, stuck] {
        for kind in TYPES {
            let probe = configured(&keys(kind, &authority));

            let result = probe_within(server.address, probe, SHORT).await;

            assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_a_failure() {
    let authority = Authority::new();
    for (words, then, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], Then::Closes, "not TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Then::Waits, "not TLS"),
        (
            b"\x15\x03\x01\x00\x02\x02\x28",
            Then::Closes,
            "the server ended the TLS handshake: HandshakeFailure",
        ),
        (b"\x15\x03\x01", Then::Closes, "closed during the TLS handshake"),
        (b"", Then::Closes, "closed during the TLS handshake"),
        (b"", Then::Resets, "connection reset by peer"),
    ] {
        let server = saying(words, then).await;

        for kind in TYPES {
            let result = probe_as(server.address, &keys(kind, &authority)).await;

            assert_eq!(told(&result), (ProbeOutcome::Failure, expected), "{kind} {}", words.escape_ascii());
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_tls_but_no_http_fails_for_https_alone() {
    let authority = Authority::new();
    let acceptor = authority.certifies(|_| {});
    let server = Backend::new(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;

    let https = probe_as(server.address, &keys("https", &authority)).await;
    let tls = probe_as(server.address, &keys("tls", &authority)).await;

    assert_eq!(told(&https), (ProbeOutcome::Failure, "not HTTP"));
    assert_eq!(told(&tls), (ProbeOutcome::Success, "TLS 1.3"));
}

fn keys(kind: &str, authority: &Authority) -> String {
    format!("type = '{kind}'\n{}", authority.keys())
}

/// A web server.
async fn serving(acceptor: TlsAcceptor) -> Backend {
    Backend::new(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[derive(Clone, Copy)]
enum Then {
    Waits,
    Closes,
    Resets,
}

/// A server that says this to the first bytes of a client.
async fn saying(words: &'static [u8], then: Then) -> Backend {
    Backend::new(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(words).await;
        match then {
            Then::Waits => drain(&mut stream).await,
            Then::Closes => {
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
            Then::Resets => stream.set_zero_linger().unwrap(),
        }
    })
    .await
}
