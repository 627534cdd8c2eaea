//! Records that a peer must not send.

use std::net::{IpAddr, SocketAddr};

use lb_userspace::group::wire::{Flow, Frame, Round};
use tests::lab::{
    Family, Pair,
    address::{self, backend},
    web,
};

use super::scene::{ECHO, WEB};

/// How a flow has ended, by number.
pub const CLOSED: u32 = 0;
pub const REMOVED: u32 = 1;
pub const RESET_BY_CLIENT: u32 = 2;
/// The last packet was seen before those of all live connections.
pub const OLD_MS: u32 = 60_000;
/// Flows that fit into a frame in both families.
const IN_FRAME: usize = 500;
const TCP: u32 = 6;

/// Neither a backend nor a source nor a client.
const NOTHING: Pair = Pair::new([10, 0, 0, 99], [0xfd00, 0, 0, 0, 0, 0, 0, 0x99]);
const NO_CLIENT: Pair = Pair::new([198, 18, 0, 1], [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1]);

/// A round that does not end, with this number of flows, a quarter each of an unknown service, backend and source, and
/// without a client.
pub fn unknown(count: u64) -> impl Iterator<Item = Frame> {
    let flow = |number: u64| {
        let [.., a, b, c] = number.to_be_bytes();
        let mut flow = Flow {
            protocol: TCP,
            client: vec![198, 18, b, c],
            listen: bytes(address::SERVICE.of(Family::V4)),
            backend: bytes(backend(1).of(Family::V4)),
            source: bytes(address::SOURCE.of(Family::V4)),
            client_port: 1_024 + u32::from(a),
            listen_port: ECHO.into(),
            backend_port: ECHO.into(),
            source_port: 1_024 + (number % 60_000) as u32,
            ..Flow::default()
        };
        match number % 4 {
            0 => flow.listen_port = 1,
            1 => flow.backend = bytes(NOTHING.of(Family::V4)),
            2 => flow.source = bytes(NOTHING.of(Family::V4)),
            _ => flow.client.clear(),
        }
        flow
    };
    let chunk = IN_FRAME as u64;
    let frames = (0..count / chunk).map(move |number| {
        let flows = (number * chunk..(number + 1) * chunk).map(flow).collect();
        Frame { flows, ..Frame::default() }
    });
    [round(Round::Begin)].into_iter().chain(frames)
}

/// What is not true of a live flow: of another service, with another one's backend, from another source.
pub fn of_others(flow: &Flow) -> [Flow; 3] {
    [
        Flow { listen_port: WEB.into(), ..flow.clone() },
        Flow { backend_port: web::PORT.into(), ..flow.clone() },
        Flow { source: bytes(NOTHING.of(family(flow))), ..flow.clone() },
    ]
}

/// An older flow of the same client, and one of another client with the same backend and source.
pub fn rivals(flow: &Flow) -> [Flow; 2] {
    [
        Flow { idle_ms: OLD_MS, ..moved(flow) },
        Flow { client: bytes(NO_CLIENT.of(family(flow))), idle_ms: 0, ..flow.clone() },
    ]
}

/// The same client with another backend, just now.
pub fn moved(flow: &Flow) -> Flow {
    let is_first = flow.backend == bytes(backend(1).of(family(flow)));
    let other = backend(if is_first { 2 } else { 1 });
    Flow { backend: bytes(other.of(family(flow))), idle_ms: 0, ..flow.clone() }
}

/// Frames with these flows.
pub fn frames(flows: &[Flow]) -> Vec<Frame> {
    flows.chunks(IN_FRAME).map(|flows| Frame { flows: flows.to_vec(), ..Frame::default() }).collect()
}

/// A frame that begins or ends a round.
pub fn round(round: Round) -> Frame {
    Frame { round: Some(round as i32), ..Frame::default() }
}

/// Its client.
pub fn client(flow: &Flow) -> Option<SocketAddr> {
    let address = match family(flow) {
        Family::V4 => <[u8; 4]>::try_from(&*flow.client).ok()?.into(),
        Family::V6 => <[u8; 16]>::try_from(&*flow.client).ok()?.into(),
    };
    Some(SocketAddr::new(address, u16::try_from(flow.client_port).ok()?))
}

/// IPv4 or IPv6.
pub fn family(flow: &Flow) -> Family {
    if flow.listen.len() == 4 { Family::V4 } else { Family::V6 }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
