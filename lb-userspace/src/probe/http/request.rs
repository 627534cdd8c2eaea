//! A request of a probe, and what its answer must be.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use toml::{
    Spanned,
    de::{DeString, DeValue},
};

use super::{
    super::Fault,
    body::{BODY_MAX_BYTES, Body},
    expect::Expect,
    head::{self, HEAD_MAX_BYTES, HEADERS_MAX, Head, Malformed},
};
use crate::{
    document::{
        Key, Keys,
        mistakes::At,
        parts::{self, Wrong},
        table::kind,
        value,
    },
    named::{Named as _, named},
    text::quote,
};

/// Maximum length of the path.
const MAX_REQUEST_TARGET: usize = 1024;
/// Maximum length of a host name (RFC 1035, 2.3.4) with its port.
const MAX_HOST: usize = 255 + ":65535".len();
const MAX_HEADERS: usize = 32;
const MAX_HEADER: usize = 1024;
/// Enough to see whether this is HTTP.
const BEGINNING: usize = 16;
/// What a probe sends by itself.
const OWN_HEADERS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "accept-encoding"];

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Starts with `/`.
    pub path: String,
    /// The `Host` header. `None`: the probed address.
    pub host: Option<String>,
    /// Names and values of further headers.
    pub headers: Vec<(String, String)>,
    pub expect: Expect,
}

/// The method of a request. None has a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Options,
    Post,
}

named!(Method { Get = "GET", Head = "HEAD", Options = "OPTIONS", Post = "POST", });

pub const METHOD: Key<Method> = Key::new("method", |it| value::choice(it, "method", &[]));
pub const PATH: Key<String> = Key::new("path", request_target);
pub const HOST: Key<String> = Key::new("host", host);
pub const HEADERS: Key<Vec<(String, String)>> = Key::of_parts("headers", headers);
pub const EXPECT: Key<Expect> = Key::of_parts("expect", Expect::read);

impl Request {
    /// A GET of this path.
    pub fn get(path: &str, host: Option<&str>) -> Self {
        Self {
            method: Method::Get,
            path: path.to_owned(),
            host: host.map(str::to_owned),
            headers: Vec::new(),
            expect: Expect::default(),
        }
    }

    pub fn read(keys: &Keys<'_>) -> Self {
        let request = Self {
            method: keys.or(&METHOD, Method::default()),
            path: keys.or(&PATH, "/".to_owned()),
            host: keys.value(&HOST),
            headers: keys.or(&HEADERS, Vec::new()),
            expect: keys.or(&EXPECT, Expect::default()),
        };
        if request.method == Method::Head && request.expect.text.is_some() {
            keys.refuse(&EXPECT, "the answer to HEAD has no body: use another `method`, or no `body:`");
        }
        request
    }

    /// Sends the request and reads the answer. Returns what is shown of it when it is certain; the rest of the body may
    /// still come.
    pub async fn exchange<S>(&self, stream: &mut S, address: SocketAddr, port: u16) -> Result<String, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // A server may answer and reset the connection before it has read the request. The answer counts.
        let sent = async {
            stream.write_all(self.text(address, port).as_bytes()).await?;
            stream.flush().await
        }
        .await;
        let mut received = Vec::new();
        let head = match read_head(stream, &mut received).await? {
            Some(head) => head,
            None if received.is_empty() => {
                sent?;
                return Err(Fault::Failed("closed without an answer".to_owned()));
            }
            None => return Err(Fault::Failed("closed before the end of the headers".to_owned())),
        };
        let answer = self.expect.judge_status(head.status)?;
        if let Some(text) = &self.expect.text {
            has_text(stream, &head, &received[head.end..], text).await?;
        }
        Ok(answer)
    }

    /// `path`, `host` and `headers` were checked with the configuration: none of them contains a line end.
    fn text(&self, address: SocketAddr, port: u16) -> String {
        let (method, path) = (self.method.name(), &self.path);
        let host = self.host.clone().unwrap_or_else(|| authority(address, port));
        let version = env!("CARGO_PKG_VERSION");
        let has_agent = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
        let agent = if has_agent { String::new() } else { format!("User-Agent: xlb/{version}\r\n") };
        let length = if self.method == Method::Post { "Content-Length: 0\r\n" } else { "" };
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{agent}{headers}{length}Accept-Encoding: identity\r\n\
             Connection: close\r\n\r\n"
        )
    }
}

/// `None`: closed before the end of the headers.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    received: &mut Vec<u8>,
) -> Result<Option<Head>, Fault> {
    let mut limited = stream.take(HEAD_MAX_BYTES as u64);
    loop {
        let before = received.len();
        let count = limited.read_buf(received).await?;
        // A piece without a line end adds nothing to parse, unless it is the beginning, or the end.
        let adds_nothing = before > BEGINNING && count > 0 && !received[before..].contains(&b'\n');
        if adds_nothing && received.len() < HEAD_MAX_BYTES {
            continue;
        }
        match head::parse(received)? {
            Some(head) => return Ok(Some(head)),
            None if count > 0 => {}
            None if received.len() == HEAD_MAX_BYTES => return Err(Malformed::TooLarge.into()),
            None => return Ok(None),
        }
    }
}

/// Is this text in the beginning of the body?
async fn has_text<S: AsyncRead + Unpin>(
    stream: &mut S,
    head: &Head,
    received: &[u8],
    text: &str,
) -> Result<(), Fault> {
    if let Some(encoding) = &head.encoding {
        return Err(Fault::Failed(format!("HTTP {}, but its body is compressed: {}", head.status, quote(encoding))));
    }
    let broken = |_| Fault::Failed(format!("HTTP {}, with a broken chunk", head.status));
    let (mut body, mut looked_at) = (Body::new(head.framing), 0_usize);
    let mut pushed = body.push(received);
    let mut buffer = vec![0; 4096];
    loop {
        let from = looked_at.saturating_sub(text.len());
        if contains(&body.text()[from..], text.as_bytes()) {
            return Ok(());
        }
        // What follows the text does not matter, whether or not it comes in the same piece.
        pushed.map_err(broken)?;
        looked_at = body.text().len();
        let count = if body.is_complete() { 0 } else { stream.read(&mut buffer).await? };
        if count == 0 {
            let limit = if looked_at == BODY_MAX_BYTES { " in its first 64 KiB" } else { "" };
            return Err(Fault::Failed(format!("HTTP {}, without {}{limit}", head.status, quote(text))));
        }
        pushed = body.push(&buffer[..count]);
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The port is omitted if it is the default of the scheme (RFC 9110, 4.2.3).
fn authority(address: SocketAddr, default: u16) -> String {
    match address {
        SocketAddr::V4(v4) if v4.port() == default => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == default => format!("[{}]", v6.ip()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.to_string(),
    }
}

/// A request target in origin form (RFC 9112, 3.2.1), without characters that would break the request line.
fn request_target(value: &DeValue<'_>) -> Result<String, String> {
    let path = value::text(value)?;
    if !path.starts_with('/') {
        return Err(format!("{} is not a path: it must begin with `/`", quote(path)));
    }
    // RFC 3986, 3.3 and 3.4: visible ASCII; a fragment (`#`) is never sent.
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || "#\"<>\\^`{|}".contains(*c)) {
        let (shown, code) = (bad.escape_default(), u32::from(bad));
        return Err(format!("a path must not contain `{shown}` (U+{code:04X}): percent-encode it as %XX"));
    }
    if path.len() > MAX_REQUEST_TARGET {
        return Err(format!("a path of {} bytes is too long: at most {MAX_REQUEST_TARGET}", path.len()));
    }
    Ok(path.to_owned())
}

/// A value of the `Host` header (RFC 9110, 7.2): a name or an address, optionally with a port.
fn host(value: &DeValue<'_>) -> Result<String, String> {
    let host = value::text(value)?;
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._~%:[]".contains(c);
    if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(is_good) {
        return Err(format!("{} is not a host: expected one like `www.example.org`", quote(host)));
    }
    Ok(host.to_owned())
}

/// `{ X-Probe = "xlb" }`: names and values (RFC 9110, 5.1 and 5.5) that a probe does not send by itself.
fn headers(value: &Spanned<DeValue<'_>>) -> Result<Vec<(String, String)>, Wrong> {
    let refuse = |message: String| Err(vec![parts::at(value, message)]);
    let example = "expected a table like { X-Probe = \"xlb\" }";
    let Some(table) = value.get_ref().as_table() else {
        return refuse(format!("{example}, found {}", kind(value.get_ref())));
    };
    if table.len() > MAX_HEADERS {
        return refuse(format!("{} headers are too many: at most {MAX_HEADERS}", table.len()));
    }
    parts::all(table.iter().map(|(name, value)| header(name, value)))
}

fn header(name: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Result<(String, String), At<String>> {
    header_name(name.get_ref()).map_err(|message| parts::at(name, message))?;
    let name = name.get_ref();
    let text = parts::read(value, |value| value::text(value).map(str::to_owned))?;
    if name.len() + text.len() > MAX_HEADER || text.chars().any(|c| c.is_control() && c != '\t') {
        let message = format!("the header {} must be one line of at most {MAX_HEADER} bytes", quote(name));
        return Err(parts::at(value, message));
    }
    Ok((name.clone().into_owned(), text))
}

fn header_name(name: &str) -> Result<(), String> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return Err(format!("{} is not the name of a header", quote(name)));
    }
    if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        let instead = if name.eq_ignore_ascii_case("host") { ": use the key `host`" } else { "" };
        return Err(format!("the header {} is set by the check itself{instead}", quote(name)));
    }
    Ok(())
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Failed(match malformed {
            Malformed::NotHttp => "not HTTP".to_owned(),
            Malformed::TooLarge => {
                format!("headers longer than {} KiB or {HEADERS_MAX} lines", HEAD_MAX_BYTES / 1024)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{join, sink};

    use super::*;

    #[tokio::test]
    async fn the_text_is_found_wherever_the_pieces_end_and_whatever_follows() {
        let expect = Expect { text: Some("ready".to_owned()), ..Expect::default() };
        let request = Request { expect, ..Request::get("/", None) };
        let address = SocketAddr::from(([192, 0, 2, 1], 80));
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let good = format!("{head}3\r\nrea\r\n2\r\ndy\r\nno number\r\n");
        let broken = format!("{head}3\r\nrea\r\nno number\r\n2\r\ndy\r\n");
        for (response, answer) in [
            (good, Ok("HTTP 200".to_owned())),
            (broken, Err(Fault::Failed("HTTP 200, with a broken chunk".to_owned()))),
        ] {
            for cut in 0..response.len() {
                let (one, two) = response.as_bytes().split_at(cut);

                let exchanged = request.exchange(&mut join(one.chain(two), sink()), address, 80).await;

                assert_eq!(exchanged, answer, "{response:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_path_cannot_end_the_request_line() {
        assert!(request_target(&value("'/healthz?full=1&x=%20'")).is_ok());
        for wrong in ["''", "'healthz'", "'/a b'", "\"/a\\r\\nX: y\"", "'/ä'", "'/#top'", "\"/\\u007f\""] {
            assert!(request_target(&value(wrong)).is_err(), "{wrong}");
        }
        assert!(request_target(&value(&format!("'/{}'", "a".repeat(MAX_REQUEST_TARGET)))).is_err());
    }

    #[test]
    fn a_header_cannot_end_its_line_or_replace_those_of_the_check() {
        assert_eq!(headers(&spanned("{ X-Probe = 'a b' }")).unwrap(), [("X-Probe".into(), "a b".into())]);
        for wrong in [
            "{ 'X Y' = 'a' }",
            "{ X = \"a\\r\\nY: b\" }",
            "{ Host = 'a' }",
            "{ content-length = '5' }",
            "{ X = 5 }",
            "'X: a'",
        ] {
            assert!(headers(&spanned(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_cannot_end_its_header() {
        for good in ["www.example.org", "10.0.0.1:8080", "[fd00::1]:80"] {
            assert!(host(&value(&format!("'{good}'"))).is_ok());
        }
        for wrong in ["''", "'a b'", "\"a\\r\\nX: y\"", "'a/b'"] {
            assert!(host(&value(wrong)).is_err(), "{wrong}");
        }
    }

    fn spanned(text: &str) -> Spanned<DeValue<'_>> {
        DeValue::parse(text).unwrap()
    }

    fn value(text: &str) -> DeValue<'_> {
        spanned(text).into_inner()
    }
}
