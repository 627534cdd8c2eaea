//! Probes of servers on loopback that answer as MySQL does, badly, not at all and endlessly.

mod fake;

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use self::fake::{Fake, LoginAs, Seen, Server, acceptor, in_sequence, saying};
use super::{
    greeting::{
        capability,
        tests::{USUAL, greeting},
    },
    password::Plugin,
    refusal::tests::refusal,
    rows::tests::payloads,
    wire::{Packets, tests::packet},
};
use crate::{
    event::ProbeResult,
    named::Named as _,
    probe::{
        Answer, Fault, Mark, Place, ProbeOutcome, Prober, Role, RoleReport,
        fixture::{AMPLE, Backend, configured, drain, probe_as, probe_within, told},
    },
};

const MARIADB: &str = "5.5.5-10.11.19-MariaDB";
const NATIVE: &str = "mysql_native_password";
const SHA2: &str = "caching_sha2_password";
const SHORT: Duration = Duration::from_millis(150);
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// The beginning of a command.
const QUIT: u8 = 1;
const QUERY: u8 = 3;

#[tokio::test]
async fn a_primary_and_a_replica_say_what_they_are() {
    let following: &[&[Option<&str>]] = &[&[Some("Yes"), Some("Yes"), Some("3"), Some("4")]];
    for (replica, role, is_following, lag, text) in [
        (&[][..], Role::Primary, false, None, "primary, server 7, GTID 0-7-9"),
        (following, Role::Replica, true, Some(Duration::from_secs(3)), "replica, 3s behind, server 7, GTID 0-7-9"),
    ] {
        let server = Fake { replica, ..Fake::default() }.start().await;

        let result = probe_as(server.backend.address, "type = 'mysql'").await;

        assert_eq!(told(&result), (ProbeOutcome::Success, text));
        let follows = is_following.then_some(4);
        let mark = Mark::Mysql { server: 7, follows, gtid: "0-7-9".to_owned() };
        assert_eq!(result.facts.role, Some(RoleReport { role, is_following, lag, mark }));
    }
}

#[tokio::test]
async fn probes_share_a_connection_and_take_leave_at_the_end() {
    let mut server = Fake::default().start().await;
    let mut prober = configured("type = 'mysql'").prober();

    for _ in 0..5 {
        probe(&mut prober, &server).await.unwrap();
    }
    drop(prober);

    assert_eq!(server.seen().await, Seen::Login("xlb".to_owned()));
    assert_eq!(server.seen().await, Seen::Quit);
}

#[tokio::test]
async fn a_restarted_server_is_no_failure() {
    let mut server = Fake { queries: 4, ..Fake::default() }.start().await;
    let mut prober = configured("type = 'mysql'").prober();

    // A login sends one query, a probe two: the server closes within the second probe.
    for _ in 0..4 {
        probe(&mut prober, &server).await.unwrap();
        assert!(matches!(server.seen().await, Seen::Login(_)));
    }
}

#[tokio::test]
async fn the_password_is_proven_for_the_nonce_of_the_plugin_of_the_user() {
    for suggested in [NATIVE, SHA2, "unknown"] {
        for plugin in [Plugin::Native, Plugin::CachingSha2] {
            let login = LoginAs { suggested, plugin: Some(plugin), remembers: true };
            let server = Fake { login: Some(login), ..Fake::default() }.start().await;

            let result = probe_with_password(&server, "secret", "").await;
            assert_eq!(result.outcome, ProbeOutcome::Success, "{suggested} {plugin:?}: {}", result.detail);

            let result = probe_with_password(&server, "wrong", "").await;
            let denied = "the server refuses: Access denied (error 1045)";
            assert_eq!(told(&result), (ProbeOutcome::Undecided, denied), "{suggested} {plugin:?}");
        }
    }
}

#[tokio::test]
async fn a_forgotten_password_is_sent_over_tls_only() {
    let login = LoginAs { suggested: SHA2, plugin: Some(Plugin::CachingSha2), remembers: false };
    let server = Fake { login: Some(login), tls: Some(acceptor()), ..Fake::default() }.start().await;

    let result = probe_with_password(&server, "secret", "").await;
    let wanted = "the server does not remember the login of `xlb`, or it is wrong: set `tls`, or log in once by \
                  another client";
    assert_eq!(told(&result), (ProbeOutcome::Undecided, wanted));

    let result = probe_with_password(&server, "secret", "tls = 'require'").await;
    assert_eq!(result.outcome, ProbeOutcome::Success, "{}", result.detail);

    let result = probe_with_password(&server, "wrong", "tls = 'require'").await;
    assert_eq!(result.outcome, ProbeOutcome::Undecided, "{}", result.detail);
}

#[tokio::test]
async fn over_tls_the_certificate_is_known_and_leave_is_taken() {
    let mut server = Fake { tls: Some(acceptor()), ..Fake::default() }.start().await;

    for _ in 0..2 {
        let result = probe_as(server.backend.address, "type = 'mysql'\ntls = 'require'").await;

        assert_eq!(told(&result), (ProbeOutcome::Success, "primary, server 7, GTID 0-7-9"));
        assert!(result.facts.certificate_ends.is_some());
        assert!(matches!(server.seen().await, Seen::Login(_)));
        assert_eq!(server.seen().await, Seen::Quit);
    }
}

#[tokio::test]
async fn a_login_that_cannot_succeed_is_ended_by_the_server() {
    let without_tls = Fake { login: Some(LoginAs::default()), ..Fake::default() };
    let mut server = without_tls.start().await;
    let result = probe_with_password(&server, "secret", "tls = 'require'").await;
    assert_eq!(told(&result), (ProbeOutcome::Failure, "the server has no TLS"));
    assert_eq!(server.seen().await, Seen::Refused("".to_owned()));

    let without_ca = Fake { login: Some(LoginAs::default()), tls: Some(acceptor()), ..Fake::default() };
    let mut server = without_ca.start().await;
    let result = probe_with_password(&server, "secret", "tls = 'verify'").await;
    let untrusted = "the certificate is self-signed, or its CA is not trusted: set `ca`";
    assert_eq!(told(&result), (ProbeOutcome::Failure, untrusted));
    assert_eq!(server.seen().await, Seen::Refused("".to_owned()));

    let login = LoginAs { plugin: None, ..LoginAs::default() };
    let mut server = Fake { login: Some(login), ..Fake::default() }.start().await;
    let result = probe_with_password(&server, "secret", "").await;
    let lacks = "the user `xlb` has the plugin `client_ed25519`, which xlb lacks: \
                 use mysql_native_password or caching_sha2_password";
    assert_eq!(told(&result), (ProbeOutcome::Undecided, lacks));
    assert_eq!(server.seen().await, Seen::Refused("xlb".to_owned()));
}

#[tokio::test]
async fn a_user_without_the_right_is_told_which_one() {
    let refusal = refusal(1227, "#42000Access denied; you need the REPLICA MONITOR privilege");
    let mut server = Fake { refusal: Some(refusal), ..Fake::default() }.start().await;
    let mut prober = configured("type = 'mysql'").prober();

    for _ in 0..2 {
        let grant = "its role is unknown, run GRANT REPLICA MONITOR ON *.* for the user of this check: \
                     Access denied; you need the REPLICA MONITOR privilege";
        assert_eq!(probe(&mut prober, &server).await, Err(Fault::Undecided(grant.to_owned())));

        // A right that is granted counts for the next login only.
        assert!(matches!(server.seen().await, Seen::Login(_)));
        assert_eq!(server.seen().await, Seen::Quit);
    }
}

#[tokio::test]
async fn servers_of_other_protocols_are_no_mysql() {
    for (first, fault) in [
        (&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], "not MySQL"),
        (b"220 mail.example.org ESMTP\r\n", "not MySQL"),
        (b"\x05\0\0\0\x0b\x08\x05\x1a\0", "not MySQL"),
        (b"\xff\xff\xff\0", "not MySQL"),
        (b"\0\0\0\0", "not MySQL"),
        (b"\x02\0\0\0\xff\x10", "not MySQL"),
        (b"", "closed without an answer"),
        (b"\x4a\0\0", "closed within an answer"),
    ] {
        let backend = saying(first.to_vec()).await;

        let result = probe_as(backend.address, "type = 'mysql'").await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, fault), "{first:?}");
    }
}

#[tokio::test]
async fn errors_before_the_login_are_told() {
    for (error, outcome, text) in [
        (refusal(1129, "Host is blocked"), ProbeOutcome::Undecided, "the server refuses: Host is blocked (error 1129)"),
        (refusal(1040, "#08004Too many"), ProbeOutcome::Undecided, "the server refuses: Too many (error 1040)"),
        (refusal(1053, "#08S01Shutdown"), ProbeOutcome::Failure, "the server refuses: Shutdown (error 1053)"),
    ] {
        let backend = saying(packet(0, &error)).await;

        let result = probe_as(backend.address, "type = 'mysql'").await;

        assert_eq!(told(&result), (outcome, text));
    }
}

#[tokio::test]
async fn what_comes_before_tls_is_refused() {
    let greeting = packet(0, &greeting(MARIADB, USUAL | capability::TLS, NATIVE));
    let backend = saying([greeting, packet(2, OK)].concat()).await;

    let result = probe_as(backend.address, "type = 'mysql'\ntls = 'require'").await;

    assert_eq!(told(&result), (ProbeOutcome::Failure, "not MySQL: more than a greeting"));
}

#[tokio::test]
async fn answers_that_are_too_long_or_wrong_are_refused() {
    let long = payloads(&["read_only"], &[&[Some(&"x".repeat(40_000))], &[Some(&"y".repeat(40_000))]]);
    for (answer, fault) in [
        (vec![packet(1, &refusal(1053, "#08S01x"))], "the server refuses: x (error 1053)"),
        (vec![b"\xff\xff\xff\x01\xffmuch".to_vec()], "answer longer than 64 KiB"),
        (vec![in_sequence(&long)], "answer longer than 64 KiB"),
        (vec![packet(1, &[0xfc, 0xff, 0xff])], "answer with too many columns"),
        (vec![in_sequence(&payloads(&["a"], &[&[None][..]; 100]))], "answer with too many rows"),
        (vec![packet(2, OK)], "packets out of order"),
        (vec![packet(1, b"\xfb/etc/passwd")], "a broken packet"),
        (vec![packet(1, OK)], "an answer without read_only"),
    ] {
        let server = Fake { state: Some(answer.concat()), ..Fake::default() }.start().await;

        let result = probe_as(server.backend.address, "type = 'mysql'").await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, fault));
    }
}

#[tokio::test]
async fn a_silent_or_slow_server_costs_its_timeout_only() {
    let silent = Backend::new(async |mut stream: TcpStream| drain(&mut stream).await).await;
    let slow = Backend::new(async |mut stream: TcpStream| {
        for byte in packet(0, &greeting(MARIADB, USUAL, NATIVE)) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await;
    let after_its_greeting = Backend::new(async |mut stream: TcpStream| {
        stream.write_all(&packet(0, &greeting(MARIADB, USUAL, NATIVE))).await.unwrap();
        drain(&mut stream).await;
    })
    .await;

    for backend in [silent, slow, after_its_greeting] {
        let result = probe_within(backend.address, configured("type = 'mysql'"), SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
    }
}

#[tokio::test]
async fn a_connection_that_was_silent_is_not_used_again() {
    // A login sends one query, a probe two.
    for tls in [None, Some(acceptor())] {
        let keys = if tls.is_some() { "type = 'mysql'\ntls = 'require'" } else { "type = 'mysql'" };
        let mut server = Fake { tls, answers: 3, ..Fake::default() }.start().await;
        let mut prober = configured(keys).prober();
        let place = Place { address: server.backend.address, source: None };

        assert!(prober.run(place, AMPLE).await.answer.is_ok());
        assert_eq!(prober.run(place, SHORT).await.answer, Err(Fault::Silent));
        assert!(prober.run(place, AMPLE).await.answer.is_ok());

        assert_eq!(server.seen().await, Seen::Login("xlb".to_owned()));
        assert_eq!(server.seen().await, Seen::Quit);
        assert_eq!(server.seen().await, Seen::Login("xlb".to_owned()));
    }
}

#[tokio::test]
async fn a_password_that_cannot_be_read_does_not_blame_the_server() {
    let server = Fake::default().start().await;

    let result = probe_as(server.backend.address, "type = 'mysql'\npassword_file = '/nonexistent/secret'").await;

    let lacks = "not probed, local error: /nonexistent/secret: No such file or directory (os error 2)";
    assert_eq!(told(&result), (ProbeOutcome::Undecided, lacks));
}

async fn probe(prober: &mut Prober, server: &Server) -> Result<Answer, Fault> {
    prober.run(Place { address: server.backend.address, source: None }, AMPLE).await.answer
}

async fn probe_with_password(server: &Server, password: &str, keys: &str) -> ProbeResult {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), password).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let path = file.path().display();
    probe_as(server.backend.address, &format!("type = 'mysql'\npassword_file = '{path}'\n{keys}")).await
}
