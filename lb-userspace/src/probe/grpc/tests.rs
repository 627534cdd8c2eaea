//! Probes of gRPC servers on loopback: well-behaved, broken and hostile ones.

use std::{fs, sync::Arc};

use h2::{SendStream, server};
use hyper::{
    body::Bytes,
    http::{HeaderMap, Request, Response},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use super::*;
use crate::probe::{
    ProbeOutcome,
    fixture::{Backend, configured, drain, probe_as, probe_within, refusing, told},
};

const KEYS: &str = "type = 'grpc'";
const SHORT: Duration = Duration::from_millis(150);
const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

#[tokio::test]
async fn the_status_of_the_service_decides() {
    for (message, outcome, detail) in [
        (SERVING, ProbeOutcome::Success, "SERVING"),
        (b"\0\0\0\0\x02\x08\x02", ProbeOutcome::Failure, "NOT_SERVING"),
        (b"\0\0\0\0\x02\x08\x03", ProbeOutcome::Failure, "SERVICE_UNKNOWN"),
        (b"\0\0\0\0\0", ProbeOutcome::Failure, "UNKNOWN"),
        (b"\x01\0\0\0\x02\x08\x01", ProbeOutcome::Failure, "a compressed message, which was not asked for"),
        (b"", ProbeOutcome::Failure, "an answer without a message"),
    ] {
        let backend = Grpcs::answering(ok(), message, trailers(&[("grpc-status", "0")])).await;

        assert_eq!(told(&probe_as(backend.address, KEYS).await), (outcome, detail));
    }
}

#[tokio::test]
async fn the_call_names_the_service_and_the_server() {
    let (send, mut calls) = mpsc::unbounded_channel();
    let backend = Grpcs::serving(move |request, body, mut respond| {
        send.send((request, body)).unwrap();
        let mut stream = respond.send_response(ok(), false).unwrap();
        finish(&mut stream, SERVING, trailers(&[("grpc-status", "0")]));
    })
    .await;

    probe_as(backend.address, &format!("{KEYS}\nservice = 'a.B'")).await;

    let (request, body) = calls.recv().await.unwrap();
    let expected = format!("http://{}/grpc.health.v1.Health/Check", backend.address);
    assert_eq!((request.uri().to_string(), request.method().as_str()), (expected, "POST"));
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(body, b"\0\0\0\0\x05\x0a\x03a.B");
}

#[tokio::test]
async fn a_call_that_fails_says_why() {
    let cases = [
        (&[("grpc-status", "5"), ("grpc-message", "unknown%20service")][..], "NOT_FOUND: `unknown service`"),
        (&[("grpc-status", "12")], "the server has no grpc.health.v1: UNIMPLEMENTED"),
        (&[], "an answer without grpc-status"),
    ];
    for (pairs, detail) in cases {
        let in_trailers = Grpcs::answering(ok(), b"", trailers(pairs)).await;
        let mut head = ok();
        head.headers_mut().extend(trailers(pairs));
        let in_headers = Grpcs::answering_with_headers(head).await;

        for backend in [in_trailers, in_headers] {
            let result = probe_as(backend.address, KEYS).await;

            assert_eq!(told(&result), (ProbeOutcome::Failure, detail));
        }
    }
}

#[tokio::test]
async fn what_is_no_grpc_is_refused() {
    let response = |status: u16, kind: &str| {
        let head = Response::builder().status(status).header("content-type", kind);
        head.body(()).unwrap()
    };
    for (head, detail) in [
        (response(200, "text/html"), "not gRPC: content type `text/html`"),
        (response(200, "application/grpc-web"), "not gRPC: content type `application/grpc-web`"),
        (Response::new(()), "not gRPC: no content type"),
        (response(404, "application/grpc"), "HTTP 404"),
    ] {
        let backend = Grpcs::answering_with_headers(head).await;

        assert_eq!(told(&probe_as(backend.address, KEYS).await), (ProbeOutcome::Failure, detail));
    }
    let backend =
        Grpcs::answering(response(200, "application/grpc+proto"), SERVING, trailers(&[("grpc-status", "0")]));
    assert_eq!(told(&probe_as(backend.await.address, KEYS).await), (ProbeOutcome::Success, "SERVING"));
}

#[tokio::test]
async fn the_connection_is_closed_cleanly() {
    let (send, mut ends) = mpsc::unbounded_channel();
    let backend = Backend::new(move |stream| {
        let send = send.clone();
        async move {
            let mut connection = server::handshake(stream).await.unwrap();
            let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(ok(), false).unwrap();
            finish(&mut stream, SERVING, trailers(&[("grpc-status", "0")]));
            send.send(connection.accept().await.map(|next| next.err().map(|error| error.to_string()))).unwrap();
        }
    })
    .await;

    probe_as(backend.address, KEYS).await;

    assert_eq!(ends.recv().await, Some(None), "GOAWAY without an error, then a FIN");
}

#[tokio::test]
async fn an_endless_message_is_cut_off() {
    let backend = Grpcs::serving(|_, _, mut respond| {
        let mut stream = respond.send_response(ok(), false).unwrap();
        stream.send_data(Bytes::from(vec![0; MAX_RESPONSE_AND_MORE]), false).unwrap();
        std::mem::forget(stream);
    })
    .await;

    let result = probe_as(backend.address, KEYS).await;

    assert_eq!(told(&result), (ProbeOutcome::Failure, "a message of more than 64 KiB"));
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let large = {
        let mut head = ok();
        head.headers_mut().insert("x", "x".repeat(17 * 1024).parse().unwrap());
        Grpcs::answering_with_headers(head).await
    };
    // The beginning of a literal header whose value has 126 bytes.
    let endless = raw(frame(1, 0, 1, b"\x88"), frame(9, 0, 1, &[b"\0\x01x\x7e".to_vec(), vec![b'y'; 126]].concat()));
    let empty = raw(frame(1, 0, 1, b"\x88"), frame(9, 0, 1, b""));

    for backend in [large, endless.await, empty.await] {
        let result = probe_as(backend.address, KEYS).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "headers that are malformed or longer than 16 KiB"));
    }
}

#[tokio::test]
async fn endless_pings_and_empty_data_are_timeouts() {
    for backend in [
        raw(Vec::new(), frame(6, 0, 0, &[0; 8])).await,
        raw(frame(1, 4, 1, b"\x88\x0f\x10\x10application/grpc"), frame(0, 0, 1, b"")).await,
    ] {
        let result = probe_within(backend.address, configured(KEYS), SHORT).await;

        assert_ne!(result.outcome, ProbeOutcome::Success, "{result:?}");
        assert!(result.duration < Duration::from_secs(2), "{result:?}");
    }
}

#[tokio::test]
async fn servers_of_other_protocols_are_no_http_2() {
    for greeting in [
        &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
        b"220 mail.example.org ESMTP\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x15\x03\x03\0\x02\x02\x46 and more",
    ] {
        let backend = Backend::answering(greeting.to_vec()).await;

        assert_eq!(told(&probe_as(backend.address, KEYS).await), (ProbeOutcome::Failure, "not HTTP/2"));
    }
}

#[tokio::test]
async fn a_server_that_ends_the_connection_is_down() {
    let closing = Backend::new(async |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.shutdown().await;
        drain(&mut stream).await;
    })
    .await;
    let leaving = raw(frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0b"), Vec::new()).await;
    let resetting = raw(frame(3, 0, 1, b"\0\0\0\x07"), Vec::new()).await;

    for (address, detail) in [
        (closing.address, "closed without an answer"),
        (leaving.address, "the server closed the HTTP/2 connection: ENHANCE_YOUR_CALM"),
        (resetting.address, "the server reset the call: REFUSED_STREAM"),
        (refusing().await, "connection refused"),
    ] {
        assert_eq!(told(&probe_as(address, KEYS).await), (ProbeOutcome::Failure, detail));
    }
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let silent = Backend::new(async |mut stream: TcpStream| drain(&mut stream).await).await;
    let without_answer = raw(Vec::new(), Vec::new()).await;
    let without_trailers = Grpcs::serving(|_, _, mut respond| {
        let mut stream = respond.send_response(ok(), false).unwrap();
        stream.send_data(SERVING.into(), false).unwrap();
        std::mem::forget(stream);
    })
    .await;
    for backend in [silent, without_answer, without_trailers] {
        let result = probe_within(backend.address, configured(KEYS), SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
    }
}

#[tokio::test]
async fn over_tls_the_server_must_choose_http_2() {
    let directory = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["grpc.example".to_owned()]).unwrap();
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, cert.pem()).unwrap();
    let keys = |more: &str| format!("{KEYS}\nserver_name = 'grpc.example'\n{more}");
    let verify = keys(&format!("tls = 'verify'\nca = '{}'", ca.display()));
    let acceptor = |protocols: &[&[u8]]| {
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    };

    let http2 = Grpcs::over_tls(acceptor(&[b"h2"])).await;
    let http1 = Grpcs::over_tls(acceptor(&[b"http/1.1"])).await;
    let ignoring = Grpcs::over_tls(acceptor(&[])).await;

    let verified = probe_as(http2.address, &verify).await;
    assert_eq!(told(&verified), (ProbeOutcome::Success, "SERVING"));
    assert!(verified.facts.certificate_ends.is_some());
    assert_eq!(probe_as(http2.address, &keys("tls = 'require'")).await.outcome, ProbeOutcome::Success);
    assert_eq!(
        told(&probe_as(http1.address, &verify).await),
        (ProbeOutcome::Failure, "the server offers no protocol of this check (ALPN)")
    );
    assert_eq!(
        told(&probe_as(ignoring.address, &verify).await),
        (ProbeOutcome::Failure, "no HTTP/2 over TLS: the server ignores ALPN")
    );
    assert_eq!(told(&probe_as(http2.address, KEYS).await), (ProbeOutcome::Failure, "not HTTP/2"));
}

#[test]
fn the_authority_is_the_name_of_the_server_or_its_address() {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    for (name, probed, authority) in [
        ("", "192.0.2.1:50051", "192.0.2.1:50051"),
        ("", "[2001:db8::1]:50051", "[2001:db8::1]:50051"),
        ("server_name = 'grpc.example'", "192.0.2.1:443", "grpc.example:443"),
        ("server_name = '2001:db8::1'", "192.0.2.1:443", "[2001:db8::1]:443"),
    ] {
        let crate::probe::Probe::Grpc(grpc) = configured(&format!("{KEYS}\ntls = 'require'\n{name}")) else {
            panic!()
        };

        assert_eq!(grpc.authority(address(probed)), authority);
    }
}

const MAX_RESPONSE_AND_MORE: usize = message::MAX_RESPONSE + 1;

struct Grpcs;

impl Grpcs {
    /// Serves each call with this function.
    async fn serving(
        serve: impl Fn(Request<()>, Vec<u8>, server::SendResponse<Bytes>) + Send + Sync + 'static,
    ) -> Backend {
        let serve = Arc::new(serve);
        Backend::new(move |stream| serve_calls(stream, Arc::clone(&serve))).await
    }

    async fn over_tls(acceptor: TlsAcceptor) -> Backend {
        let serve = Arc::new(|_: Request<()>, _: Vec<u8>, mut respond: server::SendResponse<Bytes>| {
            let mut stream = respond.send_response(ok(), false).unwrap();
            finish(&mut stream, SERVING, trailers(&[("grpc-status", "0")]));
        });
        Backend::new(move |stream| {
            let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_calls(stream, serve).await;
                }
            }
        })
        .await
    }

    async fn answering(head: Response<()>, body: &'static [u8], trailers: HeaderMap) -> Backend {
        Self::serving(move |_, _, mut respond| {
            let mut stream = respond.send_response(head.clone(), false).unwrap();
            finish(&mut stream, body, trailers.clone());
        })
        .await
    }

    async fn answering_with_headers(head: Response<()>) -> Backend {
        Self::serving(move |_, _, mut respond| drop(respond.send_response(head.clone(), true).unwrap())).await
    }
}

async fn serve_calls<S, F>(stream: S, serve: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<()>, Vec<u8>, server::SendResponse<Bytes>),
{
    let Ok(mut connection) = server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let mut received = Vec::new();
        // The request of a check comes with its body, which the connection must be driven for.
        loop {
            tokio::select! {
                biased;
                piece = body.data() => match piece {
                    Some(piece) => received.extend(piece.unwrap()),
                    None => break,
                },
                _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return,
            }
        }
        serve(Request::from_parts(head, ()), received, respond);
    }
}

fn ok() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn finish(stream: &mut SendStream<Bytes>, body: &'static [u8], trailers: HeaderMap) {
    if !body.is_empty() {
        stream.send_data(body.into(), false).unwrap();
    }
    stream.send_trailers(trailers).unwrap();
}

/// Sends its settings, then `first`, then `rest` as fast as it is read.
async fn raw(first: Vec<u8>, rest: Vec<u8>) -> Backend {
    let (first, rest) = (Arc::new(first), Arc::new(rest));
    Backend::new(move |mut stream| {
        let (first, rest) = (Arc::clone(&first), Arc::clone(&rest));
        async move {
            let settings = frame(4, 0, 0, b"");
            // The request opens the stream to which the frames belong.
            let mut received = Vec::new();
            let request = frame(0, 1, 1, &message::request(""));
            while !received.windows(request.len()).any(|window| window == request) {
                if stream.read_buf(&mut received).await.is_ok_and(|count| count == 0) {
                    return;
                }
            }
            let _ = stream.write_all(&[settings, first.to_vec()].concat()).await;
            if rest.is_empty() {
                return drain(&mut stream).await;
            }
            let (mut reads, mut writes) = stream.split();
            let writing = async { while writes.write_all(&rest.repeat(64)).await.is_ok() {} };
            let reading = async { while reads.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
            tokio::join!(writing, reading);
        }
    })
    .await
}

/// Type, flags, stream and contents (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, contents: &[u8]) -> Vec<u8> {
    let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), contents].concat()
}
