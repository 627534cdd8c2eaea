//! Nodes with certificates over loopback.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    tls::fixture::Authority,
    wire::{Frame, VERSION},
    *,
};

const HASH_KEY: u64 = 7;

#[tokio::test]
async fn two_nodes_subscribe_to_each_other_and_exchange_frames() {
    let authority = Authority::new("ca");
    let (mut one, mut two) = pair(&authority, &authority);

    let (hello, to_two) = one.until(subscribed).await;
    assert_eq!((hello.node.as_str(), hello.epoch, hello.version), ("lb-2", 22, VERSION));
    assert!(hello.unix_ms > 1_700_000_000_000);
    let hello = two.until(connected).await;
    assert_eq!((hello.node.as_str(), hello.epoch, hello.hash_key), ("lb-1", 11, HASH_KEY));

    for sequence in 1..=3 {
        to_two.send(Arc::new(Frame { sequence, services_end: true, ..Frame::default() })).await.unwrap();
    }
    one.until(|input| matches!(input, Input::Acknowledged { sequence: 3, .. }).then_some(())).await;
    two.until(|input| matches!(input, Input::Received { frame, .. } if frame.sequence == 3).then_some(()))
        .await;
    let received = two.log.iter().filter_map(|input| {
        let Input::Received { frame, .. } = input else { return None };
        Some(frame.sequence)
    });
    assert_eq!(received.collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_node_that_returns_is_connected_again() {
    let authority = Authority::new("ca");
    let (mut one, mut two) = pair(&authority, &authority);
    one.until(subscribed).await;
    one.until(connected).await;
    let address = two.address;

    two.tasks.shutdown().await;

    one.until(|input| matches!(input, Input::Unsubscribed { .. }).then_some(())).await;
    let lost = |input: &Input| matches!(input, Input::Disconnected { .. }).then_some(());
    one.until(lost).await;

    let group = authority.group("lb-2", &["lb-2"], &[("lb-1", one.address)]);
    let mut two = Node::start(&group, bind(address), 33);
    one.until(|input| connected(input).filter(|hello| hello.epoch == 33)).await;
    one.until(|input| subscribed(input).filter(|(hello, _)| hello.epoch == 33)).await;
    assert_eq!(two.until(connected).await.epoch, 11);
}

#[tokio::test]
async fn a_node_of_another_ca_gets_nothing() {
    let (authority, other) = (Authority::new("ca"), Authority::new("another"));
    let (mut one, mut two) = pair(&authority, &other);

    for node in [&mut one, &mut two] {
        let why = node.until(failure).await;

        let words = [
            "the certificate is not from the CA in `ca`",
            "it refuses the certificate of this node: UnknownCA",
        ];
        assert!(words.contains(&why.as_str()), "{why}");
        assert!(!node.log.iter().any(|input| connected(input).is_some() || subscribed(input).is_some()));
    }
}

#[tokio::test]
async fn a_node_that_is_no_peer_gets_nothing() {
    let authority = Authority::new("ca");
    let one = lone(&authority);

    // It has a certificate of the group, and knows lb-1.
    let group = authority.group("lb-3", &["lb-3"], &[("lb-1", one.address)]);
    let mut stranger = Node::start(&group, bind(loopback()), 33);

    assert_eq!(stranger.until(failure).await, "it closed the connection");
    assert!(one.refusals.total() > 0);
}

#[tokio::test]
async fn a_node_that_says_another_name_than_its_certificate_gets_nothing() {
    let authority = Authority::new("ca");
    let one = lone(&authority);
    let mut stream = handshake(&authority, &one).await;

    session::say_hello(&mut stream, &hello("lb-3", 22)).await.unwrap();

    assert_eq!(session::hear_hello(&mut stream).await.unwrap_err(), "it closed the connection");
    assert_eq!(one.refusals.total(), 1);
}

#[tokio::test]
async fn a_connection_replaces_an_older_one_of_the_same_peer() {
    let authority = Authority::new("ca");
    let mut one = lone(&authority);
    let mut older = handshake(&authority, &one).await;
    session::say_hello(&mut older, &hello("lb-2", 22)).await.unwrap();
    session::hear_hello(&mut older).await.unwrap();

    let mut newer = handshake(&authority, &one).await;
    session::say_hello(&mut newer, &hello("lb-2", 33)).await.unwrap();

    one.until(|input| subscribed(input).filter(|(hello, _)| hello.epoch == 33)).await;
    let told = one.log.iter().filter_map(|input| match input {
        Input::Subscribed { hello, connection, .. } => Some((*connection, hello.epoch.to_string())),
        Input::Unsubscribed { connection, why, .. } => Some((*connection, why.clone())),
        Input::Acknowledged { .. }
        | Input::Connected { .. }
        | Input::Received { .. }
        | Input::Disconnected { .. } => None,
    });
    let told: Vec<_> = told.collect();
    let [(first, _), (_, why), (second, _)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(told, [(*first, "22".to_owned()), (*first, why.clone()), (*second, "33".to_owned())]);
    assert_eq!((why.as_str(), second > first), ("it has connected again", true));
    assert!(wire::read(&mut older).await.is_err());
}

#[tokio::test]
async fn a_peer_that_connects_again_and_again_is_not_served_more_often_than_a_node_connects() {
    let authority = Authority::new("ca");
    let mut one = lone(&authority);
    let begun = Instant::now();

    for epoch in 1..=20 {
        let mut stream = handshake(&authority, &one).await;
        session::say_hello(&mut stream, &hello("lb-2", epoch)).await.unwrap();
        // It ends when it is refused, too.
        let _hello = session::hear_hello(&mut stream).await;
    }
    let most = 1 + begun.elapsed().as_millis() / dial::PAUSE.as_millis();

    let mut served = 0;
    while let Ok(input) = one.inputs.try_recv() {
        served += u128::from(subscribed(&input).is_some());
    }
    assert!((1..=most).contains(&served), "{served} of 20, not {most}");
}

#[tokio::test]
async fn garbage_disturbs_no_peer() {
    let authority = Authority::new("ca");
    let mut one = lone(&authority);

    let mut no_tls = TcpStream::connect(one.address).await.unwrap();
    no_tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _alert = no_tls.read_to_end(&mut Vec::new()).await;
    let mut in_tls = handshake(&authority, &one).await;
    in_tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    in_tls.flush().await.unwrap();
    assert!(wire::read(&mut in_tls).await.is_err());

    let mut peer = handshake(&authority, &one).await;
    session::say_hello(&mut peer, &hello("lb-2", 22)).await.unwrap();
    assert_eq!(one.until(subscribed).await.0.epoch, 22);
    assert_eq!(one.refusals.total(), 2);
}

#[tokio::test]
async fn connections_that_say_nothing_are_limited() {
    let authority = Authority::new("ca");
    let one = lone(&authority);

    let mut silent = Vec::new();
    // One for the peer, and 16 more.
    for _ in 0..17 {
        silent.push(TcpStream::connect(one.address).await.unwrap());
    }
    let mut one_too_many = TcpStream::connect(one.address).await.unwrap();

    assert_eq!(one_too_many.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(one.refusals.total(), 1);
    for stream in &silent {
        assert!(stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
}

/// A node whose sessions run.
struct Node {
    address: SocketAddr,
    inputs: mpsc::Receiver<Input>,
    /// All that the sessions have told. A subscription lasts while its outbox is kept.
    log: Vec<Input>,
    refusals: Refusals,
    tasks: JoinSet<()>,
    _hello: watch::Sender<Hello>,
}

impl Node {
    fn start(group: &Group, listener: Pending, epoch: u64) -> Self {
        let address = listener.address().unwrap();
        let (own, watched) = watch::channel(hello(&group.node, epoch));
        let (sender, inputs) = mpsc::channel(port::INPUTS);
        let mut tasks = JoinSet::new();
        let refusals = start(group, listener, &watched, &sender, &CancellationToken::new(), &mut tasks);
        Self { address, inputs, log: Vec::new(), refusals, tasks, _hello: own }
    }

    /// The first input that is wanted, of all that were told.
    async fn until<T>(&mut self, pick: impl Fn(&Input) -> Option<T>) -> T {
        if let Some(found) = self.log.iter().find_map(&pick) {
            return found;
        }
        loop {
            let input = self.inputs.recv().await.unwrap();
            let picked = pick(&input);
            self.log.push(input);
            if let Some(found) = picked {
                return found;
            }
        }
    }
}

fn subscribed(input: &Input) -> Option<(Hello, mpsc::Sender<Arc<Frame>>)> {
    let Input::Subscribed { peer: PeerNumber(0), hello, outbox, .. } = input else { return None };
    Some((hello.clone(), outbox.clone()))
}

fn connected(input: &Input) -> Option<Hello> {
    let Input::Connected { peer: PeerNumber(0), hello, .. } = input else { return None };
    Some(hello.clone())
}

fn failure(input: &Input) -> Option<String> {
    let Input::Disconnected { peer: PeerNumber(0), why, .. } = input else { return None };
    Some(why.clone())
}

/// `lb-1` and `lb-2`, which know each other.
fn pair(of_one: &Authority, of_two: &Authority) -> (Node, Node) {
    let (first, second) = (bind(loopback()), bind(loopback()));
    let (one, two) = (first.address().unwrap(), second.address().unwrap());
    let one = (of_one.group("lb-1", &["lb-1"], &[("lb-2", two)]), one);
    let two = of_two.group("lb-2", &["lb-2"], &[("lb-1", one.1)]);
    (Node::start(&one.0, first, 11), Node::start(&two, second, 22))
}

/// `lb-1`, whose peer `lb-2` does not listen.
fn lone(authority: &Authority) -> Node {
    let nowhere = bind(loopback()).address().unwrap();
    Node::start(&authority.group("lb-1", &["lb-1"], &[("lb-2", nowhere)]), bind(loopback()), 11)
}

/// A connection to `lb-1` with the certificate of `lb-2`, before the hellos.
async fn handshake(authority: &Authority, one: &Node) -> TlsStream<TcpStream> {
    let group = authority.group("lb-2", &["lb-2"], &[("lb-1", one.address)]);
    let stream = TcpStream::connect(one.address).await.unwrap();
    Credentials::new(&group).connect(stream, "lb-1").await.unwrap()
}

fn hello(node: &str, epoch: u64) -> Hello {
    Hello { node: node.to_owned(), epoch, hash_key: HASH_KEY, ..Hello::default() }
}

fn bind(address: SocketAddr) -> Pending {
    Pending::bind(address, listen::Part::Group, Some(SEND_BUFFER_BYTES)).unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
