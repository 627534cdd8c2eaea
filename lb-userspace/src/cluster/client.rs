//! A client of etcd: one connection that is kept, and the next member if one does not answer in time.

use std::{io, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    tls::Credentials,
    wire::{self, Failure, LeaseAnswer, Streamed, TxnAnswer},
};
use crate::{
    duration,
    spec::{Cluster, Endpoint},
    text::shorten,
};

/// For one member: from the connection to the end of the answer. A member without a majority does not answer at all.
pub const TRY: Duration = Duration::from_secs(1);
/// If the leader dies, there is another one after a second or two (`--election-timeout`).
const ELECTION: Duration = Duration::from_secs(5);
/// Before all members are asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// Both keys in base64, and the records of many nodes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub struct Client {
    cluster: Cluster,
    /// The endpoint to try first: the one that answered last.
    place: usize,
    link: Option<Link>,
    credentials: Credentials,
}

#[derive(Debug)]
struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// Ends the connection.
    _connection: AbortOnDropHandle<()>,
}

/// No member has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The last member, and why not.
    pub why: String,
    /// A member may have carried the request out.
    pub may_be_done: bool,
    /// etcd works, and has refused the request.
    pub is_refused: bool,
}

impl Unanswered {
    /// An answer that makes no sense.
    pub const fn unclear(why: String) -> Self {
        Self { why, may_be_done: true, is_refused: false }
    }
}

/// One member did not answer.
enum Fault {
    /// The request was not sent, or not understood.
    Unsent(String),
    /// etcd has refused it. So would the other members.
    Refused(String),
    /// It was sent.
    Lost(String),
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, place: 0, link: None, credentials: Credentials::default() }
    }

    /// The member that answered last.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.cluster.endpoints.get(self.place)
    }

    /// Carries out a transaction. Reads in it are answered by a majority.
    pub async fn txn(&mut self, txn: &Value) -> Result<TxnAnswer, Unanswered> {
        self.ask("/v3/kv/txn", txn, Duration::ZERO).await
    }

    /// The same; if there is no majority, it waits for an election.
    pub async fn patient_txn(&mut self, txn: &Value) -> Result<TxnAnswer, Unanswered> {
        self.ask("/v3/kv/txn", txn, ELECTION).await
    }

    /// A lease that ends after some seconds without [renewal](Self::renew).
    pub async fn grant(&mut self, ttl: Duration) -> Result<LeaseAnswer, Unanswered> {
        self.ask("/v3/lease/grant", &json!({ "TTL": ttl.as_secs().to_string() }), Duration::ZERO).await
    }

    /// A lease that has ended has no time left.
    pub async fn renew(&mut self, lease: u64) -> Result<LeaseAnswer, Unanswered> {
        let id = json!({ "ID": lease.to_string() });
        let answer: Streamed = self.ask("/v3/lease/keepalive", &id, Duration::ZERO).await?;
        Ok(answer.result)
    }

    /// Asks one member after the other, for at least this long. A single one is asked twice, because a connection that was
    /// kept may have broken.
    async fn ask<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<T, Unanswered> {
        let body = Bytes::from(body.to_string());
        let begin = Instant::now();
        let mut may_be_done = false;
        loop {
            let mut failed = match self.ask_each(path, &body).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            may_be_done |= failed.may_be_done;
            if failed.is_refused || begin.elapsed() >= patience {
                failed.may_be_done = may_be_done;
                return Err(failed);
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_each<T: DeserializeOwned>(&mut self, path: &str, body: &Bytes) -> Result<T, Unanswered> {
        let count = self.cluster.endpoints.len();
        let mut failed = Unanswered { why: "no endpoint".to_owned(), may_be_done: false, is_refused: false };
        for _ in 0..count.max(2) {
            let fault = match self.try_one(path, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let (why, is_lost, is_refused) = match fault {
                Fault::Unsent(why) => (why, false, false),
                Fault::Refused(why) => (format!("etcd refused it: {why}"), false, true),
                Fault::Lost(why) => (why, true, false),
            };
            let member = self.endpoint().map(ToString::to_string).unwrap_or_default();
            let may_be_done = failed.may_be_done | is_lost;
            failed = Unanswered { why: format!("{member}: {why}"), may_be_done, is_refused };
            if is_refused {
                return Err(failed);
            }
            self.link = None;
            self.place = (self.place + 1) % count.max(1);
        }
        Err(failed)
    }

    async fn try_one<T: DeserializeOwned>(&mut self, path: &str, body: Bytes) -> Result<T, Fault> {
        let endpoint = self.endpoint().cloned().ok_or_else(|| Fault::Unsent("no endpoint".to_owned()))?;
        let end = Instant::now() + TRY;
        let late = || format!("no answer within {}", duration::show(TRY));
        let link = match self.link.take() {
            Some(link) => link,
            None => timeout_at(end, self.connect(&endpoint))
                .await
                .unwrap_or_else(|_elapsed| Err(late()))
                .map_err(Fault::Unsent)?,
        };
        timeout_at(end, self.send(link, &endpoint, path, body))
            .await
            .unwrap_or_else(|_elapsed| Err(Fault::Lost(late())))
    }

    async fn send<T: DeserializeOwned>(
        &mut self,
        mut link: Link,
        endpoint: &Endpoint,
        path: &str,
        body: Bytes,
    ) -> Result<T, Fault> {
        let request = Request::post(path)
            .header(header::HOST, endpoint.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Fault::Unsent(error.to_string()))?;
        let lost = |error: &(dyn std::error::Error + 'static)| Fault::Lost(cause(error));
        let response = link.sender.send_request(request).await.map_err(|error| lost(&error))?;
        let status = response.status();
        let body = read(response.into_body()).await.map_err(Fault::Lost)?;
        if status.is_success() {
            self.link = Some(link);
            return wire::parse(&body).map_err(Fault::Lost);
        }
        if !status.is_client_error() {
            return Err(Fault::Lost(said(status, &body).unwrap_or_else(|other| other)));
        }
        match said(status, &body) {
            Ok(why) => {
                self.link = Some(link);
                Err(Fault::Refused(why))
            }
            Err(why) => Err(Fault::Unsent(why)),
        }
    }

    async fn connect(&mut self, endpoint: &Endpoint) -> Result<Link, String> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let stream = stream.map_err(|error| plain(&error))?;
        // Small requests would wait for acknowledgements.
        stream.set_nodelay(true).map_err(|error| plain(&error))?;
        if !endpoint.is_encrypted {
            return handshake(stream).await;
        }
        handshake(self.credentials.connect(&self.cluster, &endpoint.host, stream).await?).await
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Link, String> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| cause(&error))?;
    // Its error is that of the request.
    let task = tokio::spawn(async { drop(connection.await) });
    Ok(Link { sender, _connection: AbortOnDropHandle::new(task) })
}

async fn read(body: Incoming) -> Result<Bytes, String> {
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

/// What a member says of a failure, or what something else says.
fn said(status: StatusCode, body: &[u8]) -> Result<String, String> {
    match wire::parse::<Failure>(body) {
        Ok(Failure { error }) if !error.is_empty() => Ok(shorten(&error)),
        Ok(_) | Err(_) => Err(format!("HTTP {status}: {}", shorten(String::from_utf8_lossy(body).trim()))),
    }
}

/// The innermost error says why.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<io::Error>() {
        Some(error) => plain(error),
        None => error.to_string(),
    }
}

/// "connection refused" instead of "Connection refused (os error 111)".
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
    };

    use super::{super::Revision, *};

    /// Does nothing and is answered by anything.
    const NOTHING: Value = Value::Null;

    #[tokio::test]
    async fn the_next_member_is_asked_if_one_is_dead_and_then_first() {
        let dead = member(None).await;
        let alive =
            member(Some("200 OK\r\ncontent-length: 33\r\n\r\n{\"header\":{\"revision\":\"7\"},\"a\":1}"))
                .await;
        let silent = member(None).await;
        let mut client = client(&[dead, silent, alive]);

        for _ in 0..2 {
            let answer = client.txn(&NOTHING).await.unwrap();

            assert_eq!(answer.revision(), Revision(7));
            assert_eq!(client.endpoint().map(|it| it.port), Some(alive));
        }
    }

    #[tokio::test]
    async fn a_request_that_is_refused_is_not_done_and_one_without_an_answer_may_be() {
        let refusal = r#"{"error":"etcdserver: request is too large","code":3}"#;
        let refuses =
            member(Some(&format!("400 Bad Request\r\ncontent-length: {}\r\n\r\n{refusal}", refusal.len())))
                .await;

        let begin = Instant::now();
        let refused = client(&[refuses]).patient_txn(&NOTHING).await.unwrap_err();
        assert!(begin.elapsed() < ELECTION, "it is not tried again");
        let why = format!("http://127.0.0.1:{refuses}: etcd refused it: etcdserver: request is too large");
        assert_eq!(refused, Unanswered { why, may_be_done: false, is_refused: true });

        let hangs_up = member(None).await;
        let lost = client(&[hangs_up]).txn(&NOTHING).await.unwrap_err();
        assert!(lost.may_be_done, "{lost:?}");
    }

    /// The backlog is full, so no connection is made.
    #[tokio::test]
    async fn a_request_that_was_not_sent_in_time_is_not_done() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let _fills_the_backlog = TcpStream::connect(address).await.unwrap();

        let silent = client(&[address.port()]).txn(&NOTHING).await.unwrap_err();

        assert!(silent.why.contains("no answer within 1s") && !silent.may_be_done, "{silent:?}");
    }

    #[tokio::test]
    async fn what_is_not_etcd_is_said() {
        let web = member(Some("404 Not Found\r\ncontent-length: 9\r\n\r\nno\u{7}such\r\n")).await;

        let failed = client(&[web]).txn(&NOTHING).await.unwrap_err();

        assert!(failed.why.ends_with("HTTP 404 Not Found: no\u{fffd}such"), "{failed:?}");
    }

    /// A server that answers each request with this, or hangs up. Returns its port.
    async fn member(answer: Option<&str>) -> u16 {
        let answer = answer.map(|it| format!("HTTP/1.1 {it}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let Some(answer) = &answer else { return };
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        port
    }

    fn client(ports: &[u16]) -> Client {
        let endpoint =
            |port: &u16| Endpoint { is_encrypted: false, host: "127.0.0.1".to_owned(), port: *port };
        Client::new(Cluster {
            node: "lb-1".to_owned(),
            endpoints: ports.iter().map(endpoint).collect(),
            prefix: "/xlb".to_owned(),
            ca: None,
            identity: None,
        })
    }
}
