//! A call of `Check` over HTTP/2.
//!
//! No task is spawned: the caller drives the connection, too, so that nothing is left of it when a probe ends.

use std::{
    io,
    pin::pin,
};

use h2::{
    Reason, RecvStream,
    client::{Builder, Connection, SendRequest},
};
use hyper::{
    body::Bytes,
    http::{HeaderMap, Method, Request, StatusCode, Uri, header::CONTENT_TYPE, response::Parts},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::{Answer, Fault},
    message::{self, MAX_RESPONSE, ServingStatus, Wrong},
    status,
};
use crate::{named::Named as _, text::{printable, quote}};

const PATH: &str = "/grpc.health.v1.Health/Check";
const GRPC: &str = "application/grpc";
/// Maximum size of the headers of a response, and of its trailers.
const MAX_HEADERS: u32 = 16 * 1024;

/// What to ask.
pub struct Call<'c> {
    pub scheme: &'static str,
    pub authority: String,
    pub service: &'c str,
}

/// A client, and its connection.
pub struct Client<S: AsyncRead + AsyncWrite + Unpin> {
    requests: SendRequest<Bytes>,
    connection: Connection<S, Bytes>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn new(stream: S) -> Result<Self, Fault> {
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEADERS);
        let (requests, connection) = builder.handshake(stream).await.map_err(fault)?;
        Ok(Self { requests, connection })
    }

    pub async fn call(&mut self, call: &Call<'_>) -> Result<Answer, Fault> {
        let mut exchange = pin!(exchange(self.requests.clone(), call));
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // What was received before the end is still in the streams. Otherwise they tell why it ended.
            _ = &mut self.connection => exchange.await,
        }
    }

    /// Sends GOAWAY and closes this side.
    pub async fn close(self) {
        drop(self.requests);
        // An error says nothing about the backend any more: the result is known.
        let _ = self.connection.await;
    }
}

async fn exchange(requests: SendRequest<Bytes>, call: &Call<'_>) -> Result<Answer, Fault> {
    let request = request(call).map_err(|error| Fault::local(format!("cannot make the request: {error}")))?;
    let mut requests = requests.ready().await.map_err(fault)?;
    let (response, mut body) = requests.send_request(request, false).map_err(fault)?;
    body.send_data(message::request(call.service).into(), true).map_err(fault)?;
    let (head, body) = response.await.map_err(fault)?.into_parts();
    is_grpc(&head)?;
    // A response without a message may have its trailers as headers.
    if is_complete(&head.headers)? {
        return Err(Wrong::Missing.into());
    }
    let (received, trailers) = read(body).await?;
    if !is_complete(&trailers)? {
        return Err(Fault::Failed("an answer without grpc-status".to_owned()));
    }
    match message::response(&received)? {
        ServingStatus::Serving => Ok(ServingStatus::Serving.name().to_owned().into()),
        other @ (ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown) => {
            Err(Fault::Failed(other.name().to_owned()))
        }
    }
}

fn request(call: &Call<'_>) -> Result<Request<()>, hyper::http::Error> {
    let uri = Uri::builder().scheme(call.scheme).authority(call.authority.as_str()).path_and_query(PATH);
    Request::builder()
        .method(Method::POST)
        .uri(uri.build()?)
        .header(CONTENT_TYPE, GRPC)
        .header("te", "trailers")
        .header("grpc-accept-encoding", "identity")
        .header("user-agent", concat!("xlb/", env!("CARGO_PKG_VERSION")))
        .body(())
}

fn is_grpc(head: &Parts) -> Result<(), Fault> {
    if head.status != StatusCode::OK {
        return Err(Fault::Failed(format!("HTTP {}", head.status.as_u16())));
    }
    let Some(kind) = head.headers.get(CONTENT_TYPE) else {
        return Err(Fault::Failed("not gRPC: no content type".to_owned()));
    };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    // `application/grpc+proto`, and parameters.
    let rest = kind.strip_prefix(GRPC);
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';'])) {
        Ok(())
    } else {
        Err(Fault::Failed(format!("not gRPC: content type {}", quote(&kind))))
    }
}

/// Is there the status of the call? It must be OK.
fn is_complete(headers: &HeaderMap) -> Result<bool, Fault> {
    let Some(code) = headers.get("grpc-status") else { return Ok(false) };
    let message = headers.get("grpc-message").map(|value| value.as_bytes()).unwrap_or_default();
    status::judge(code.as_bytes(), message).map_err(Fault::Failed)?;
    Ok(true)
}

/// The body and the trailers.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), Fault> {
    let mut received = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(fault)?;
        if received.len() + piece.len() > MAX_RESPONSE {
            return Err(Wrong::TooLarge.into());
        }
        received.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(fault)?;
    }
    Ok((received, body.trailers().await.map_err(fault)?.unwrap_or_default()))
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        Self::Failed(wrong.to_string())
    }
}

fn fault(error: h2::Error) -> Fault {
    if let Some(error) = error.get_io() {
        return of_stream(error);
    }
    let Some(reason) = error.reason() else { return Fault::Failed(format!("HTTP/2 error: {error}")) };
    let name = format!("{reason:?}");
    Fault::Failed(match reason {
        _ if error.is_remote() && error.is_go_away() => format!("the server closed the HTTP/2 connection: {name}"),
        _ if error.is_remote() => format!("the server reset the call: {name}"),
        // The first bytes of most other protocols are a huge length here.
        Reason::FRAME_SIZE_ERROR => "not HTTP/2".to_owned(),
        // The library resets a call whose headers are beyond the limit as one whose headers are malformed.
        Reason::PROTOCOL_ERROR if error.is_reset() => bad_headers(),
        Reason::ENHANCE_YOUR_CALM | Reason::COMPRESSION_ERROR => bad_headers(),
        _ => format!("HTTP/2 error: {name}"),
    })
}

fn bad_headers() -> String {
    format!("headers that are malformed or longer than {} KiB", MAX_HEADERS / 1024)
}

/// The library keeps the kind of an error, and not its number.
fn of_stream(error: &io::Error) -> Fault {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate has many rare errors")]
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            Fault::Failed("closed without an answer".to_owned())
        }
        io::ErrorKind::ConnectionReset => Fault::Failed("connection reset by peer".to_owned()),
        io::ErrorKind::TimedOut => Fault::Silent,
        _ => Fault::Failed(printable(&error.to_string())),
    }
}
