use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::net::Protocol;
use proptest::prelude::*;

use super::*;
use crate::datapath::SharedFlow;

proptest! {
    #[test]
    fn a_flow_arrives_as_it_was_sent(flow in any_flow()) {
        let frame = Frame { flows: vec![Flow::from(&flow)], ..Frame::default() };

        let received = Frame::parse(&frame.encode_to_vec()).unwrap();

        prop_assert_eq!(&received, &frame);
        prop_assert_eq!(SharedFlow::try_from(&received.flows[0]), Ok(flow));
    }
}

#[test]
fn a_frame_has_these_bytes() {
    let frame = Frame {
        hello: Some(Hello {
            version: 1,
            node: "lb-1".to_owned(),
            epoch: 2,
            unix_ms: 300,
            hash_key: 4,
            source_ports: Some(SourcePorts { low_first: 1, low_count: 2, high_first: 3, high_count: 4 }),
        }),
        flows: vec![sent()],
        ended: vec![Flow { protocol: 17, ..Flow::default() }],
        round: Some(Round::End.into()),
        sequence: 5,
        acknowledged: 6,
        services: vec![ServiceDigest { name: "web".to_owned(), digest: 7, computation: 8 }],
        services_end: true,
    };
    let golden = [
        // hello: version, node, epoch, unix_ms, hash_key, source_ports
        "0a27 0801 1204 6c622d31 19 0200000000000000 20ac02 29 0400000000000000 3208 0801 1002 1803 2004",
        // flow: protocol, client, listen, backend, source, ports, answer, idle_ms
        "122e 0806 1204c0000201 1a040a00000a 22040a00000b 2a040a000001 30d20938 50 40a01f 48a09c01 55 78563412 58e807",
        // ended, round, sequence, acknowledged, services, services_end
        "1a02 0811 2002 2805 3006 3a17 0a03 776562 11 0700000000000000 19 0800000000000000 4001",
    ];

    let shown: String = frame.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();

    assert_eq!(shown, golden.concat().replace(' ', ""));
}

#[test]
fn a_field_of_a_later_version_is_skipped() {
    let frame = Frame { sequence: 5, flows: vec![sent()], ..Frame::default() };
    let mut bytes = frame.encode_to_vec();
    // Field 100, a string; field 101, a number; and another value of an enumeration.
    bytes.extend([0xa2, 0x06, 3, b'n', b'e', b'w']);
    bytes.extend([0xa8, 0x06, 7]);

    assert_eq!(Frame::parse(&bytes).unwrap(), frame);

    bytes.extend([0x20, 9]);
    assert_eq!(Frame::parse(&bytes).unwrap().round(), Round::None);
}

#[test]
fn a_flow_that_cannot_be_right_says_why() {
    type Change = fn(&mut Flow);
    let cases: [(Change, &str); 9] = [
        (|it| it.protocol = 1, "protocol 1"),
        (|it| it.protocol = 256 + 6, "protocol 262"),
        (|it| it.client = vec![1; 5], "an address of 5 bytes"),
        (|it| it.source.clear(), "an address of 0 bytes"),
        (|it| it.backend = vec![1; 16], "addresses of both families"),
        (|it| it.client_port = 0, "port 0"),
        (|it| it.listen_port = 65_536, "port 65536"),
        (|it| it.backend_port = u32::MAX, "port 4294967295"),
        (|it| it.source_port = 0, "port 0"),
    ];
    for (change, why) in cases {
        let mut flow = sent();
        change(&mut flow);

        assert_eq!(SharedFlow::try_from(&flow).unwrap_err().to_string(), why);
    }
    assert!(SharedFlow::try_from(&sent()).is_ok());
}

#[test]
fn a_full_frame_fits() {
    let longest = Flow {
        protocol: 17,
        client: vec![255; 16],
        listen: vec![255; 16],
        backend: vec![255; 16],
        source: vec![255; 16],
        client_port: 65_535,
        listen_port: 65_535,
        backend_port: 65_535,
        source_port: 65_535,
        answer: Some(u32::MAX),
        idle_ms: u32::MAX,
        ending: u32::MAX,
    };
    let hello = Hello {
        version: u32::MAX,
        node: "x".repeat(253),
        epoch: u64::MAX,
        unix_ms: u64::MAX,
        hash_key: u64::MAX,
        source_ports: Some(SourcePorts {
            low_first: u32::MAX,
            low_count: u32::MAX,
            high_first: u32::MAX,
            high_count: u32::MAX,
        }),
    };
    let service = ServiceDigest { name: "x".repeat(63), digest: u64::MAX, computation: u64::MAX };
    let full = Frame {
        hello: Some(hello),
        flows: vec![longest; FRAME_ITEMS],
        ended: Vec::new(),
        round: Some(Round::Begin.into()),
        sequence: u64::MAX,
        acknowledged: u64::MAX,
        services: Vec::new(),
        services_end: true,
    };

    assert!(full.framed().is_ok());
    assert!(Frame { flows: Vec::new(), services: vec![service; FRAME_ITEMS], ..full }.framed().is_ok());
}

#[tokio::test]
async fn frames_are_read_one_after_another() {
    let frames = [
        Frame { sequence: 1, ..Frame::default() },
        Frame::default(),
        Frame { sequence: 3, ..Frame::default() },
    ];
    let mut bytes = Vec::new();
    for frame in &frames {
        write(&mut bytes, frame).await.unwrap();
    }

    let mut stream = &bytes[..];

    for frame in frames {
        assert_eq!(read(&mut stream).await.unwrap(), frame);
    }
    assert!(
        matches!(read(&mut stream).await, Err(BadFrame::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
    );
}

#[tokio::test]
async fn a_bad_frame_is_an_error_that_says_what_is_wrong() {
    let no_version = Frame { hello: Some(Hello::default()), ..Frame::default() };
    let empty_flows = [0x12, 0].repeat(FRAME_MAX_ITEMS + 1);
    for (bytes, expected) in [
        (framed(&vec![0; FRAME_MAX_BYTES + 1]), "a frame of 65537 bytes, which is more than 65536"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "a frame of 1195725856 bytes, which is more than 65536"),
        (framed(&[0xff; 9]), "a frame that cannot be decoded: "),
        (framed(&no_version.encode_to_vec()), "a hello without a version"),
        (framed(&empty_flows), "a frame with more than 2048 flows and services"),
    ] {
        let error = read(&mut &bytes[..]).await.unwrap_err().to_string();

        assert!(error.starts_with(expected), "{error}");
    }
    let long = Frame { flows: vec![sent(); 2 * FRAME_ITEMS], ..Frame::default() };
    assert!(matches!(write(&mut Vec::new(), &long).await, Ok(())));
    let longer = Frame { flows: vec![sent(); 4 * FRAME_ITEMS], ..Frame::default() };
    assert!(matches!(write(&mut Vec::new(), &longer).await, Err(BadFrame::TooLong(_))));
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn sent() -> Flow {
    Flow {
        protocol: 6,
        client: vec![192, 0, 2, 1],
        listen: vec![10, 0, 0, 10],
        backend: vec![10, 0, 0, 11],
        source: vec![10, 0, 0, 1],
        client_port: 1234,
        listen_port: 80,
        backend_port: 4000,
        source_port: 20_000,
        answer: Some(0x1234_5678),
        idle_ms: 1000,
        ending: 0,
    }
}

fn any_flow() -> impl Strategy<Value = SharedFlow> {
    let addresses = prop_oneof![
        any::<[[u8; 4]; 4]>().prop_map(|all| all.map(IpAddr::from)),
        any::<[[u8; 16]; 4]>().prop_map(|all| all.map(IpAddr::from)),
    ];
    let ports = [1..=u16::MAX, 1..=u16::MAX, 1..=u16::MAX, 1..=u16::MAX];
    (any::<bool>(), addresses, ports, any::<Option<u32>>(), any::<u32>()).prop_map(
        |(is_tcp, addresses, ports, answer, idle_ms)| {
            let at = |place: usize| SocketAddr::new(addresses[place], ports[place]);
            SharedFlow {
                protocol: if is_tcp { Protocol::Tcp } else { Protocol::Udp },
                client: at(0),
                listen: at(1),
                backend: at(2),
                source: at(3),
                answer,
                idle: Duration::from_millis(idle_ms.into()),
            }
        },
    )
}
