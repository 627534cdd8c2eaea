use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, time::SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::rustls::{SupportedProtocolVersion, version::TLS12};

use super::{fixture::Authority, *};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4790);

#[tokio::test]
async fn two_nodes_of_a_group_connect_and_know_each_other() {
    let authority = Authority::new("ca");
    let (one, two) = pair(&authority);

    let (client, server) = handshake(&one, &two).await;

    assert_eq!(client, Ok(()));
    let server = server.unwrap();
    assert!(is_for(&server, "lb-1") && is_for(&server, "lb-1.example.org"));
    assert!(!is_for(&server, "lb-2") && !is_for(&server, "10.0.0.1") && !is_for(&server, ""));
}

#[tokio::test]
async fn a_node_of_another_ca_is_refused_by_both_sides() {
    let (authority, other) = (Authority::new("ca"), Authority::new("another"));
    let (one, two) = pair(&authority);
    let (foreign_one, foreign_two) = pair(&other);
    let unknown = "the certificate is not from the CA in `ca`";
    let refused = "it refuses the certificate of this node: UnknownCA";

    let (client, server) = handshake(&one, &foreign_two).await;
    assert_eq!((client.unwrap_err().as_str(), server.unwrap_err().as_str()), (unknown, refused));

    // It trusts the CA, and is not trusted.
    let (client, server) = handshake(&Group { ca: one.ca, ..foreign_one }, &two).await;
    assert_eq!((client.unwrap_err().as_str(), server.unwrap_err().as_str()), (refused, unknown));
}

#[tokio::test]
async fn a_node_with_the_certificate_of_another_is_not_the_one_that_was_wanted() {
    let authority = Authority::new("ca");
    let (one, two) = pair(&authority);
    let third = authority.group("lb-3", &["lb-3"], &[("lb-1", PEER)]);

    let (client, _) = handshake(&one, &Group { node: two.node, ..third }).await;

    assert_eq!(client.unwrap_err(), "the certificate is for another name than lb-2");
}

#[tokio::test]
async fn a_client_without_a_certificate_or_without_tls_1_3_is_refused() {
    let authority = Authority::new("ca");
    let (one, two) = pair(&authority);
    let roots = || Arc::new(tls_files::roots(&one.ca).unwrap());
    let builder = |version: &'static SupportedProtocolVersion| {
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap()
    };
    let anonymous = builder(&TLS13).with_root_certificates(roots()).with_no_client_auth();
    let old = builder(&TLS12).with_root_certificates(roots()).with_no_client_auth();
    for (config, expected) in [(anonymous, "it has no certificate"), (old, "no TLS 1.3: ")] {
        let (near, far) = duplex(64 * 1024);
        let connector = TlsConnector::from(Arc::new(config));
        let acceptor = Credentials::new(&two).acceptor().unwrap();

        let (_, server) =
            tokio::join!(connector.connect(server_name("lb-2").unwrap(), near), acceptor.accept(far));

        let why = of_io(&server.unwrap_err());
        assert!(why.starts_with(expected), "{why}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_counts_for_the_next_connection() {
    let authority = Authority::new("ca");
    let (one, two) = pair(&authority);
    let (mut client, mut server) = (Credentials::new(&one), Credentials::new(&two));
    assert_eq!(handshake_of(&mut client, &mut server).await.0, Ok(()));

    authority.certify("lb-2", &["lb-4"], |_| {});

    let (client, _) = handshake_of(&mut client, &mut server).await;
    assert_eq!(client.unwrap_err(), "the certificate is for another name than lb-2");
}

#[test]
fn files_that_cannot_be_used_say_why() {
    let authority = Authority::new("ca");
    let (one, two) = pair(&authority);
    assert_eq!((check_files(&one), check_certificate(&one)), (Ok(()), Ok(())));
    let shown = |path: &Path| path.display().to_string();

    let missing = check_files(&Group { ca: "/nonexistent/ca.pem".into(), ..one.clone() }).unwrap_err();
    assert_eq!(missing, "[group]: /nonexistent/ca.pem: No such file or directory (os error 2)");
    let mixed = check_files(&Group { key: two.key, ..one.clone() }).unwrap_err();
    assert!(mixed.starts_with(&format!("[group]: {} with ", shown(&one.cert))), "{mixed}");
    fs::set_permissions(&one.key, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = check_files(&one).unwrap_err();
    assert!(
        exposed.starts_with(&format!("[group]: {}: others can use this secret", shown(&one.key))),
        "{exposed}"
    );
}

#[test]
fn a_certificate_that_peers_will_refuse_says_why() {
    let authority = Authority::new("ca");
    let (one, _) = pair(&authority);
    let only_server =
        |it: &mut CertificateParams| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let old = |it: &mut CertificateParams| it.not_after = SystemTime::UNIX_EPOCH.into();
    let same = |_: &mut CertificateParams| {};
    type Change = fn(&mut CertificateParams);
    let changes: [(&str, Change, &str); 3] = [
        ("lb-9", same, "the certificate is for another name than lb-1"),
        ("lb-1", old, "the certificate has expired"),
        ("lb-1", only_server, "the certificate is not for this use: "),
    ];
    for (name, change, expected) in changes {
        authority.certify("lb-1", &[name], change);

        let why = check_certificate(&one).unwrap_err();

        let expected = format!("[group]: peers will refuse this node: {}: {expected}", one.cert.display());
        assert!(why.starts_with(&expected), "{why}");
    }
}

fn pair(authority: &Authority) -> (Group, Group) {
    let one = authority.group("lb-1", &["lb-1", "lb-1.example.org"], &[("lb-2", PEER)]);
    (one, authority.group("lb-2", &["lb-2"], &[("lb-1", PEER)]))
}

async fn handshake(
    client: &Group,
    server: &Group,
) -> (Result<(), String>, Result<server::TlsStream<DuplexStream>, String>) {
    handshake_of(&mut Credentials::new(client), &mut Credentials::new(server)).await
}

/// What each side has of it. In TLS 1.3, a client learns only from the first read that it is refused.
async fn handshake_of(
    client: &mut Credentials,
    server: &mut Credentials,
) -> (Result<(), String>, Result<server::TlsStream<DuplexStream>, String>) {
    let (near, far) = duplex(64 * 1024);
    let acceptor = server.acceptor().unwrap();
    let connecting = async {
        let mut stream = client.connect(near, "lb-2").await?;
        stream.read_u8().await.map(drop).map_err(|error| of_io(&error))
    };
    let accepting = async {
        let mut stream = acceptor.accept(far).await.map_err(|error| of_io(&error))?;
        stream.write_u8(0).await.unwrap();
        stream.flush().await.unwrap();
        Ok(stream)
    };
    tokio::join!(connecting, accepting)
}
