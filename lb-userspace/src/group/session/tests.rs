//! Both ends over a stream in memory, with a paused clock.

use tokio::{
    io::{DuplexStream, duplex},
    task::JoinHandle,
    time::Instant,
};

use super::*;

const PEER: PeerNumber = PeerNumber(3);

#[tokio::test(start_paused = true)]
async fn frames_arrive_in_order_and_each_is_acknowledged() {
    let (near, far) = duplex(1024);
    let (mut publisher, outbox, _hello) = publishing(near);
    let mut subscriber = subscribing(far);

    for sequence in 1..=200 {
        outbox.send(Arc::new(numbered(sequence))).await.unwrap();
    }

    for expected in 1..=200 {
        assert!(
            matches!(subscriber.next().await, Input::Received { frame, .. } if frame == numbered(expected))
        );
        let acknowledged = publisher.next().await;
        assert!(
            matches!(acknowledged, Input::Acknowledged { peer: PEER, connection: 5, sequence } if sequence == expected)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_flows_lives_on() {
    let (near, far) = duplex(1024);
    let (publisher, outbox, _hello) = publishing(near);
    let mut subscriber = subscribing(far);

    let start = Instant::now();
    while start.elapsed() < 100 * SILENCE {
        assert!(
            matches!(subscriber.next().await, Input::Received { frame, .. } if frame == Frame::default())
        );
    }
    outbox.send(Arc::new(numbered(1))).await.unwrap();

    assert!(matches!(subscriber.next().await, Input::Received { frame, .. } if frame == numbered(1)));
    assert!(!publisher.ended.is_finished() && !subscriber.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_publisher_is_never_silent_and_repeats_its_last_sequence_number() {
    let (near, mut far) = duplex(1024);
    let (_publisher, outbox, _hello) = publishing(near);
    let start = Instant::now();

    let mut heard = Vec::new();
    heard.push(wire::read(&mut far).await.unwrap());
    outbox.send(Arc::new(numbered(7))).await.unwrap();
    heard.push(wire::read(&mut far).await.unwrap());
    heard.push(wire::read(&mut far).await.unwrap());

    assert_eq!(heard, [Frame::default(), numbered(7), Frame { sequence: 7, ..Frame::default() }]);
    assert_eq!(start.elapsed(), 2 * HEARTBEAT);
}

#[tokio::test(start_paused = true)]
async fn silence_of_the_other_side_ends_the_connection() {
    let start = Instant::now();
    let (near, _silent) = duplex(1024);
    let (publisher, _outbox, _hello) = publishing(near);
    assert_eq!((publisher.ended.await.unwrap(), start.elapsed()), ("silent for 3s".to_owned(), SILENCE));

    let start = Instant::now();
    let (near, _silent) = duplex(1024);
    let subscriber = subscribing(near);
    assert_eq!((subscriber.ended.await.unwrap(), start.elapsed()), ("silent for 3s".to_owned(), SILENCE));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_acknowledges_and_reads_nothing_ends_the_connection() {
    let (near, mut far) = duplex(64);
    let (publisher, outbox, _hello) = publishing(near);
    let acknowledging = tokio::spawn(async move {
        loop {
            wire::write(&mut far, &Frame { acknowledged: 1, ..Frame::default() }).await.unwrap();
            sleep(HEARTBEAT).await;
        }
    });

    let long =
        Frame { ended: vec![wire::Flow { client: vec![0; 1000], ..Default::default() }], ..numbered(1) };
    outbox.send(Arc::new(long)).await.unwrap();

    assert_eq!(publisher.ended.await.unwrap(), "it takes nothing for 3s");
    acknowledging.abort();
}

#[tokio::test(start_paused = true)]
async fn what_the_exchange_does_not_take_is_not_acknowledged() {
    let (near, mut far) = duplex(1024);
    let mut subscriber = subscribing(near);
    let room = subscriber.inputs.max_capacity() as u64;

    for sequence in 1..=room + 1 {
        wire::write(&mut far, &numbered(sequence)).await.unwrap();
    }

    for sequence in 1..=room {
        assert_eq!(wire::read(&mut far).await.unwrap().acknowledged, sequence);
    }
    assert!(timeout(HEARTBEAT, wire::read(&mut far)).await.is_err());
    subscriber.next().await;
    assert_eq!(wire::read(&mut far).await.unwrap().acknowledged, room + 1);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_none_ends_the_connection_of_either_side() {
    let too_long = 65_537_u32.to_be_bytes().to_vec();
    let no_frame = [&4_u32.to_be_bytes()[..], &[0xff; 4]].concat();
    for (bytes, expected) in [
        (too_long, "it sent a frame of 65537 bytes, which is more than 65536"),
        (no_frame, "it sent a frame that cannot be decoded: "),
        (Vec::new(), "it closed the connection"),
    ] {
        for publishes in [true, false] {
            let (near, mut far) = duplex(1024);
            let (end, _outbox) = if publishes {
                let (end, outbox, hello) = publishing(near);
                (end, Some((outbox, hello)))
            } else {
                (subscribing(near), None)
            };

            far.write_all(&bytes).await.unwrap();
            drop(far);

            let why = end.ended.await.unwrap();
            assert!(why.starts_with(expected), "{why}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_changes_is_sent_and_must_be_that_of_the_peer() {
    let (near, far) = duplex(1024);
    let (publisher, _outbox, hello) = publishing(near);
    let mut subscriber = subscribing(far);

    hello.send_modify(|hello| hello.epoch = 9);
    let Input::Received { frame, .. } = subscriber.next().await else { panic!("not received") };
    let heard = frame.hello.unwrap();
    assert_eq!((heard.node.as_str(), heard.epoch, heard.version), ("lb-2", 9, VERSION));

    hello.send_modify(|hello| hello.node = "lb-3\u{1b}".to_owned());
    let why = subscriber.ended.await.unwrap();
    assert_eq!(why, "it says that it is `lb-3\u{fffd}`, not lb-2");
    assert_eq!(publisher.ended.await.unwrap(), "it closed the connection");
}

#[tokio::test(start_paused = true)]
async fn the_exchange_ends_a_connection_by_dropping_the_outbox() {
    let (near, _far) = duplex(1024);
    let (publisher, outbox, _hello) = publishing(near);

    drop(outbox);

    assert_eq!(publisher.ended.await.unwrap(), "this node has ended it");
}

struct End {
    ended: JoinHandle<String>,
    inputs: mpsc::Receiver<Input>,
}

impl End {
    async fn next(&mut self) -> Input {
        self.inputs.recv().await.unwrap()
    }
}

fn publishing(stream: DuplexStream) -> (End, mpsc::Sender<Arc<Frame>>, watch::Sender<Hello>) {
    let (session, inputs) = session();
    let (outbox, frames) = mpsc::channel(OUTBOX);
    let (hello, watched) = watch::channel(Hello { node: "lb-2".to_owned(), ..Hello::default() });
    let ended = tokio::spawn(async move { publish(stream, &session, frames, watched).await });
    (End { ended, inputs }, outbox, hello)
}

fn subscribing(stream: DuplexStream) -> End {
    let (session, inputs) = session();
    let ended = tokio::spawn(async move { subscribe(stream, &session).await });
    End { ended, inputs }
}

fn session() -> (Session, mpsc::Receiver<Input>) {
    let (inputs, receiver) = mpsc::channel(4);
    (Session { peer: PEER, node: "lb-2".to_owned(), connection: 5, inputs }, receiver)
}

fn numbered(sequence: u64) -> Frame {
    Frame { sequence, services_end: true, ..Frame::default() }
}
