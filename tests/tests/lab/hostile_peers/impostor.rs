//! A host in the place of a peer: it has the peer's address, and the certificate that it is given.

use std::{
    net::SocketAddr,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lb_userspace::{
    group::{
        tls::Credentials,
        wire::{self, Flow, Frame, Hello, Round, VERSION},
    },
    spec,
};
use tests::lab::{Namespace, Server, config::Group, echo::listen, visit::connect};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpListener, TcpStream},
    runtime,
    time::{sleep, timeout},
};

/// A node connects several times in a second, and ends a silent connection after 3 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one byte to the next.
const DRIP: Duration = Duration::from_millis(100);
/// How often it looks whether it is done. It says something each time.
const LOOK: Duration = Duration::from_millis(50);

/// See the [module](self).
pub struct Impostor {
    /// Its host.
    pub namespace: Namespace,
    /// Where the peer would listen.
    pub address: SocketAddr,
    /// Where the node listens.
    pub node: SocketAddr,
}

/// How it treats a connection.
#[derive(Clone, Debug)]
pub struct Manner {
    /// With which certificate. `None`: it does not use TLS.
    pub papers: Option<spec::Group>,
    /// Which node it says that it is. `None`: nothing.
    pub hello: Option<&'static str>,
    /// What comes after that.
    pub then: Then,
}

/// Bytes that it sends.
#[derive(Clone, Debug)]
pub enum Then {
    /// These, and nothing until the node ends the connection.
    Bytes(Vec<u8>),
    /// These, and then it closes the connection.
    Cut(Vec<u8>),
    /// These again and again, one at a time, slowly.
    Dripping(&'static [u8]),
}

/// The certificate and key in `group`, and the CA of the node.
pub fn papers(group: &Group, ca: &Path) -> spec::Group {
    spec::Group {
        node: group.node.clone(),
        listen: group.listen,
        cert: group.cert.clone(),
        key: group.key.clone(),
        ca: ca.to_owned(),
        peers: Vec::new(),
    }
}

impl Impostor {
    /// Waits for the connections of the node, and treats each of them like this, until the server is dropped.
    /// Tells when each came.
    pub fn wait(&self, manner: Manner) -> Result<(Server, Receiver<Instant>)> {
        let (address, (came, connections)) = (self.address, channel());
        let serve = move |listener: TcpListener| async move {
            loop {
                let (stream, _) = listener.accept().await?;
                came.send(Instant::now())?;
                let manner = manner.clone();
                // How it ends is known by what the node says.
                tokio::spawn(async move { manner.accept(stream).await.err() });
            }
        };
        Ok((Server::start(&self.namespace, move || listen(address), serve)?, connections))
    }

    /// Connects once like this. Returns after how long the node has ended the connection.
    pub fn connect(&self, manner: &Manner) -> Result<Duration> {
        self.namespace.block_on(async || {
            let stream = self.dial().await?;
            let start = Instant::now();
            let ended = timeout(PATIENCE, manner.connect(stream)).await;
            // How the TLS connection ended is not the subject.
            let _ = ended.with_context(|| format!("{manner:?}: the connection does not end"))?;
            Ok(start.elapsed())
        })
    }

    /// What the node tells a peer: all of its flows.
    pub fn flows(&self, papers: &spec::Group) -> Result<Vec<Flow>> {
        self.namespace.block_on(async || {
            let stream = self.dial().await?;
            let connected = Credentials::new(papers).connect(stream, "lb-1").await;
            let mut stream = connected.map_err(|why| anyhow!(why))?;
            say(&mut stream, &hello(&papers.node)).await?;
            let mut flows = Vec::new();
            loop {
                let frame = timeout(PATIENCE, wire::read(&mut stream)).await??;
                flows.extend(frame.flows);
                if frame.round == Some(Round::End as i32) {
                    return Ok(flows);
                }
                say(&mut stream, &Frame { acknowledged: frame.sequence, ..Frame::default() }).await?;
            }
        })
    }

    /// Sends these to the node, when it connects, and goes on until it is done.
    pub fn tell(
        &self,
        papers: &spec::Group,
        frames: impl IntoIterator<Item = Frame, IntoIter: Send> + Send,
        is_done: impl FnMut() -> Result<bool> + Send,
    ) -> Result<()> {
        self.namespace.block_on(async || {
            let listener = listen(self.address)?;
            let (stream, _) =
                timeout(PATIENCE, listener.accept()).await.context("the node does not connect")??;
            let acceptor = Credentials::new(papers).acceptor().map_err(|why| anyhow!(why))?;
            let mut stream = acceptor.accept(stream).await?;
            say(&mut stream, &hello(&papers.node)).await?;
            let (reader, writer) = split(stream);
            tokio::select! {
                ended = hear(reader) => bail!("the node ended the connection: {ended:?}"),
                told = tell(writer, frames.into_iter(), is_done) => told,
            }
        })
    }

    async fn dial(&self) -> Result<TcpStream> {
        connect(SocketAddr::new(self.address.ip(), 0), self.node).await
    }
}

impl Manner {
    async fn accept(&self, stream: TcpStream) -> Result<()> {
        let Some(papers) = &self.papers else { return self.then.say(stream).await };
        let acceptor = Credentials::new(papers).acceptor().map_err(|why| anyhow!(why))?;
        self.speak(acceptor.accept(stream).await?).await
    }

    async fn connect(&self, stream: TcpStream) -> Result<()> {
        let Some(papers) = &self.papers else { return self.then.say(stream).await };
        let connected = Credentials::new(papers).connect(stream, "lb-1").await;
        self.speak(connected.map_err(|why| anyhow!(why))?).await
    }

    async fn speak(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
        if let Some(node) = self.hello {
            say(&mut stream, &hello(node)).await?;
        }
        self.then.say(stream).await
    }
}

impl Then {
    /// Returns when the node has ended the connection.
    async fn say(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
        match self {
            Self::Bytes(bytes) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
            Self::Cut(bytes) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
                return Ok(stream.shutdown().await?);
            }
            Self::Dripping(bytes) => {
                for byte in bytes.iter().cycle() {
                    stream.write_u8(*byte).await?;
                    stream.flush().await?;
                    sleep(DRIP).await;
                }
            }
        }
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

/// The first frame of a node with this name.
fn hello(node: &str) -> Frame {
    let hello = Hello { version: VERSION, node: node.to_owned(), epoch: 7, ..Hello::default() };
    Frame { hello: Some(hello), ..Frame::default() }
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<()> {
    wire::write(stream, frame).await?;
    Ok(stream.flush().await?)
}

/// Reads acknowledgements until the node ends the connection.
async fn hear(mut reader: impl AsyncRead + Unpin) -> wire::BadFrame {
    loop {
        if let Err(error) = wire::read(&mut reader).await {
            return error;
        }
    }
}

async fn tell(
    mut writer: impl AsyncWrite + Unpin,
    frames: impl Iterator<Item = Frame>,
    mut is_done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut sequence = 0;
    for frame in frames {
        sequence += 1;
        wire::write(&mut writer, &Frame { sequence, ..frame }).await?;
    }
    let begun = Instant::now();
    loop {
        say(&mut writer, &Frame { sequence, ..Frame::default() }).await?;
        if is_done()? {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "the node does not do what is awaited");
        sleep(LOOK).await;
    }
}

/// A frame with its length.
pub fn framed(frame: &Frame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    runtime::Builder::new_current_thread().build()?.block_on(wire::write(&mut bytes, frame))?;
    Ok(bytes)
}
