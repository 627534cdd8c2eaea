//! Over TLS: the handshake begins after the server has agreed to it.

use rcgen::{CertificateParams, SanType};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::probe::fixture::tls::{Authority, self_signed};

#[tokio::test]
async fn a_server_with_the_right_certificate_tells_its_role() {
    let authority = Authority::new();
    let (connections, terminations, mut terminated) = counters();
    let server = encrypted(authority.certifies(|_| {}), Arc::clone(&connections), terminations).await;
    let mut prober = configured(&verify(&authority)).prober();

    for _ in 0..2 {
        let answer = probe(&mut prober, &server).await.unwrap();

        assert_eq!(answer.text, "primary, timeline 3, 0/3000148");
        assert!(answer.facts.certificate_ends.is_some());
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);

    drop(prober);

    assert_eq!(terminated.recv().await, Some(b'X'), "the server is told before the connection is closed");
}

#[tokio::test]
async fn a_server_with_a_wrong_certificate_receives_no_login() {
    let authority = Authority::new();
    let other_name = |it: &mut CertificateParams| {
        it.subject_alt_names = vec![SanType::DnsName("db.example.org".try_into().unwrap())];
    };
    for (acceptor, expected) in [
        (
            authority.certifies(other_name),
            "the certificate is for db.example.org, not for www.example.org: set `server_name`",
        ),
        (self_signed(|_| {}), "the certificate is self-signed, or its CA is not trusted: set `ca`"),
    ] {
        let (connections, terminations, mut terminated) = counters();
        let server = encrypted(acceptor, Arc::clone(&connections), terminations).await;

        let result = probe_as(server.address, &verify(&authority)).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, expected));
        assert_eq!(connections.load(Ordering::Relaxed), 0, "handshakes that have succeeded");

        let result = probe_as(server.address, &format!("{KEYS}\ntls = 'require'")).await;

        assert_eq!(told(&result), (ProbeOutcome::Success, "primary, timeline 3, 0/3000148"));
        assert_eq!(terminated.recv().await, Some(b'X'));
    }
}

#[tokio::test]
async fn a_server_that_agrees_to_tls_and_does_not_speak_it_is_a_failure() {
    let authority = Authority::new();
    for (answer, expected) in [
        (&b"S"[..], "closed during the TLS handshake"),
        (b"SHTTP/1.1 400 Bad Request\r\n\r\n", "not TLS"),
        (b"G", "not PostgreSQL"),
    ] {
        let server = Backend::new(async move |mut stream: TcpStream| {
            read_startup(&mut stream).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            drain(&mut stream).await;
        })
        .await;

        let result = probe_as(server.address, &verify(&authority)).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, expected), "{}", answer.escape_ascii());
    }
}

fn verify(authority: &Authority) -> String {
    format!("{KEYS}\ntls = 'verify'\n{}", authority.keys())
}

/// A server that answers queries over TLS, and counts handshakes that have succeeded.
async fn encrypted(acceptor: TlsAcceptor, handshakes: Arc<AtomicUsize>, others: mpsc::Sender<u8>) -> Backend {
    Backend::new(move |mut stream: TcpStream| {
        let (acceptor, handshakes, others) = (acceptor.clone(), Arc::clone(&handshakes), others.clone());
        async move {
            read_startup(&mut stream).await;
            let _ = stream.write_all(b"S").await;
            if let Ok(stream) = acceptor.accept(stream).await {
                handshakes.fetch_add(1, Ordering::Relaxed);
                serve(stream, others).await;
            }
        }
    })
    .await
}
