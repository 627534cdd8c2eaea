//! An API client that shows the raw bytes.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
};

use crate::fake::Daemon;

/// Sends one request to the daemon's socket.
pub async fn exchange(daemon: &Daemon, request: &str) -> HttpReply {
    HttpReply::of(UnixStream::connect(daemon.socket()).await.unwrap(), request).await
}

pub struct HttpReply {
    pub code: u16,
    pub body: String,
    headers: Vec<(String, String)>,
}

impl HttpReply {
    pub async fn of(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Self {
        // A server that has rejected the head may close before it reads the body.
        let _refused_early = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _reset = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let code = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { code, body: body.to_owned(), headers }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        if self.body.is_empty() { serde_json::Value::Null } else { serde_json::from_str(&self.body).unwrap() }
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: xlb\r\n\r\n")
}

pub fn post(path: &str, body: &str) -> String {
    http("POST", path, body)
}

pub fn patch(path: &str, body: &str) -> String {
    http("PATCH", path, body)
}

pub fn http(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: xlb\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
