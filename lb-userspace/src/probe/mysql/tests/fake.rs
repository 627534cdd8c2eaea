//! A server that logs in, answers the queries of the check, and says what it has seen.

use super::*;

/// What a server does.
#[derive(Clone)]
pub struct Fake {
    /// How a login is checked. `None`: not at all.
    pub login: Option<LoginAs>,
    pub tls: Option<TlsAcceptor>,
    /// The server closes each connection after this many queries.
    pub queries: usize,
    /// The server does not answer the queries of a connection after this many.
    pub answers: usize,
    /// The answer about its state, if it is not the usual one.
    pub state: Option<Vec<u8>>,
    /// The rows about its replication: two threads, the lag, and the number of the primary.
    pub replica: &'static [&'static [Option<&'static str>]],
    /// The payload instead of them.
    pub refusal: Option<Vec<u8>>,
}

/// How a server checks the login of `xlb` with the password `secret`.
#[derive(Clone, Copy)]
pub struct LoginAs {
    /// The plugin in the greeting.
    pub suggested: &'static str,
    /// That of the user. `None`: `client_ed25519`.
    pub plugin: Option<Plugin>,
    /// Has the user logged in before? For `caching_sha2_password`.
    pub remembers: bool,
}

/// A running server.
pub struct Server {
    pub backend: Backend,
    pub seen: UnboundedReceiver<Seen>,
}

/// What a server has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A login of this user.
    Login(String),
    /// A login that the server has refused.
    Refused(String),
    /// The client has taken leave.
    Quit,
}

impl Default for Fake {
    fn default() -> Self {
        Self { login: None, tls: None, queries: usize::MAX, answers: usize::MAX, state: None, replica: &[], refusal: None }
    }
}

impl Default for LoginAs {
    fn default() -> Self {
        Self { suggested: NATIVE, plugin: Some(Plugin::Native), remembers: true }
    }
}

impl Fake {
    pub async fn start(self) -> Server {
        let (sender, seen) = unbounded_channel();
        let backend = Backend::new(move |stream| {
            let (fake, seen) = (self.clone(), sender.clone());
            async move {
                // A client that goes away in the middle is a good test, too.
                let _ = fake.serve(stream, &seen).await;
            }
        })
        .await;
        Server { backend, seen }
    }

    async fn serve(&self, stream: TcpStream, seen: &UnboundedSender<Seen>) -> Option<()> {
        let tls = if self.tls.is_some() { capability::TLS } else { 0 };
        let suggested = self.login.unwrap_or_default().suggested;
        let mut peer = Peer { stream, sequence: 0 };
        peer.send(&greeting(MARIADB, USUAL | tls, suggested)).await?;
        let request = peer.receive().await?;
        match &self.tls {
            // The request for TLS is the beginning of a login.
            Some(acceptor) if request.len() == 32 => {
                let stream = acceptor.accept(peer.stream).await.ok()?;
                let mut peer = Peer { stream, sequence: peer.sequence };
                let request = peer.receive().await?;
                self.converse(peer, &request, seen).await
            }
            Some(_) | None => self.converse(peer, &request, seen).await,
        }
    }

    async fn converse<S>(&self, mut peer: Peer<S>, request: &[u8], seen: &UnboundedSender<Seen>) -> Option<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut parts = request[32..].splitn(2, |byte| *byte == 0);
        let user = String::from_utf8(parts.next()?.to_vec()).ok()?;
        let (length, rest) = parts.next()?.split_first()?;
        let (proof, plugin) = rest.split_at((*length).into());
        let is_welcome = match self.login {
            // Of a user that does not exist, MariaDB asks what it asks some other user.
            Some(login) if user.is_empty() => {
                LoginAs { plugin: None, ..login }.check(&mut peer, proof, plugin).await?
            }
            Some(login) => login.check(&mut peer, proof, plugin).await?,
            None => true,
        };
        if !is_welcome {
            let _ = seen.send(Seen::Refused(user));
            return peer.send(&refusal(1045, "#28000Access denied")).await;
        }
        let _ = seen.send(Seen::Login(user));
        peer.send(OK).await?;
        for number in 0..self.queries {
            peer.sequence = 0;
            let command = peer.receive().await?;
            match command.split_first()? {
                (&QUERY, _) if number >= self.answers => {}
                (&QUERY, query) => self.answer(&mut peer, query).await?,
                (&QUIT, b"") => {
                    let _ = seen.send(Seen::Quit);
                    return Some(());
                }
                _ => return None,
            }
        }
        Some(())
    }

    async fn answer<S: AsyncWrite + Unpin>(&self, peer: &mut Peer<S>, query: &[u8]) -> Option<()> {
        let threads = ["Slave_IO_Running", "Slave_SQL_Running", "Seconds_Behind_Master", "Master_Server_Id"];
        let answer = match (query, &self.state, &self.refusal) {
            (b"SET SESSION wait_timeout = 7200", ..) => vec![OK.to_vec()],
            (b"SHOW ALL SLAVES STATUS", _, Some(refusal)) => vec![refusal.clone()],
            (b"SHOW ALL SLAVES STATUS", _, None) => payloads(&threads, self.replica),
            (query, Some(state), _) if query.starts_with(b"SELECT") => {
                return peer.stream.write_all(state).await.ok();
            }
            (query, None, _) if query.starts_with(b"SELECT") => {
                payloads(&["read_only", "server_id", "gtid"], &[&[Some("0"), Some("7"), Some("0-7-9")]])
            }
            _ => return None,
        };
        for payload in answer {
            peer.send(&payload).await?;
        }
        Some(())
    }
}

impl LoginAs {
    /// Is it the password `secret`? `None`: the client has gone.
    async fn check<S>(&self, peer: &mut Peer<S>, proof: &[u8], plugin: &[u8]) -> Option<bool>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.plugin.map_or("client_ed25519", |it| it.name());
        let nonce: [u8; 20] = std::array::from_fn(|at| at as u8 + 1);
        let (mut nonce, mut proof) = (nonce, proof.to_vec());
        if plugin.strip_suffix(&[0]) != Some(name.as_bytes()) {
            nonce.reverse();
            peer.send(&[&[0xfe], name.as_bytes(), &[0], &nonce, &[0]].concat()).await?;
            proof = peer.receive().await?;
        }
        let Some(plugin) = self.plugin else {
            assert_eq!(proof.len(), 64, "a signature");
            return Some(false);
        };
        match plugin {
            Plugin::CachingSha2 if !self.remembers => {
                peer.send(&[1, 4]).await?;
                Some(peer.receive().await? == b"secret\0")
            }
            Plugin::Native | Plugin::CachingSha2 if proof != plugin.prove(Some(b"secret"), &nonce) => Some(false),
            Plugin::Native => Some(true),
            Plugin::CachingSha2 => {
                peer.send(&[1, 3]).await?;
                Some(true)
            }
        }
    }
}

impl Server {
    pub async fn seen(&mut self) -> Seen {
        tokio::time::timeout(AMPLE, self.seen.recv()).await.unwrap().unwrap()
    }
}

/// The server's side of a connection.
pub struct Peer<S> {
    pub stream: S,
    pub sequence: u8,
}

impl<S: AsyncWrite + Unpin> Peer<S> {
    async fn send(&mut self, payload: &[u8]) -> Option<()> {
        self.stream.write_all(&packet(self.sequence, payload)).await.ok()?;
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.flush().await.ok()
    }
}

impl<S: AsyncRead + Unpin> Peer<S> {
    /// `None`: the client has gone, or its packet is out of order.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.ok()?;
        let [low, middle, high, sequence] = header;
        let mut payload = vec![0; u32::from_le_bytes([low, middle, high, 0]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let is_in_order = sequence == self.sequence;
        self.sequence = sequence.wrapping_add(1);
        is_in_order.then_some(payload)
    }
}

/// A server with a certificate of its own.
pub fn acceptor() -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["db.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A server that says this and closes.
pub async fn saying(first: Vec<u8>) -> Backend {
    Backend::new(move |mut stream| {
        let first = first.clone();
        async move {
            let _ = stream.write_all(&first).await;
            let _ = stream.shutdown().await;
            drain(&mut stream).await;
        }
    })
    .await
}

/// The packets of an answer to a command.
pub fn in_sequence(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut packets = Packets::default();
    packets.first(b"");
    payloads.iter().flat_map(|payload| packets.next(payload)).collect()
}
