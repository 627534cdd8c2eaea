//! Frames of numbered flows, complete and valid, in the format of the wrapper.

use lb_common::net::{Be16, Ports, Protocol, V4, V6};
use lb_ebpf::{
    family::{Family, Tuple},
    packet::headers::Ethernet,
    packet::tcp::{ACK, FIN, RST, SYN},
};

use super::balancer::{THEM, US};
use crate::packet::checksum;

use tests_ebpf::bench::{FRAME_WORDS, Tuple4, Tuple6};

/// Bytes of every frame.
pub const BYTES: usize = FRAME_WORDS * 8;
/// The port that clients connect to.
pub const SERVICE_PORT: u16 = 80;

const ETHERNET: usize = 14;

/// The kind of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// From a client: opens a flow.
    Syn,
    /// From a backend.
    SynAck,
    /// From a backend that refuses a client.
    Refusal,
    /// The first one of a flow, from the client, proves it; later ones are from either side.
    Ack,
    /// From either side: it has nothing more to send.
    Fin,
    /// A UDP datagram, from either side.
    Datagram,
}

impl Segment {
    /// TCP or UDP.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Syn | Self::SynAck | Self::Refusal | Self::Ack | Self::Fin => Protocol::Tcp,
            Self::Datagram => Protocol::Udp,
        }
    }

    const fn flags(self) -> u8 {
        match self {
            Self::Syn => SYN,
            Self::SynAck => SYN | ACK,
            Self::Refusal => RST | ACK,
            Self::Fin => FIN | ACK,
            Self::Ack | Self::Datagram => ACK,
        }
    }
}

/// A family whose flows are numbered.
pub trait Numbered: Family + PartialEq + Send + 'static {
    /// The digit in the names of maps and programs.
    const DIGIT: u32;
    /// What one flow puts into the wrapper's frame.
    type Entry: Send + Copy;

    /// The address of `number` in a block of addresses.
    fn address(block: Block, number: u32) -> Self::Address;
    /// The number of an address of clients.
    fn number(client: Self::Address) -> u32;
    /// The frame of a tuple.
    fn frame(tuple: &Tuple<Self>, segment: Segment) -> [u8; BYTES];
    /// What distinguishes this frame from those of other flows.
    fn entry(tuple: &Tuple<Self>, segment: Segment) -> Self::Entry;
}

/// The kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Its number is a flow's low 16 bits.
    Client,
    /// A listen address.
    Service,
    /// A source address of full-nat.
    Source,
    /// A backend, numbered from 0.
    Backend,
    /// An unused address. `bench ab` compiles `packets.rs` with the `frame.rs` of 0.1.0, too, which has this name.
    Stranger,
}

/// Clients: a flow's number is its client's address, and above 65,535 its port.
const CLIENT_BITS: u32 = 16;
const FIRST_PORT: u16 = 1024;

/// The tuple of a flow's requests.
pub fn request<F: Numbered>(flow: u32, protocol: Protocol) -> Tuple<F> {
    Tuple {
        source: F::address(Block::Client, flow & ((1 << CLIENT_BITS) - 1)),
        destination: F::address(Block::Service, 0),
        ports: Ports::new(Be16::new(FIRST_PORT + (flow >> CLIENT_BITS) as u16), Be16::new(SERVICE_PORT)),
        protocol: protocol.number().into(),
    }
}

/// The flow that a request's tuple is of.
pub fn flow_of<F: Numbered>(request: &Tuple<F>) -> u32 {
    let port = u32::from(request.ports.source().get() - FIRST_PORT);
    F::number(request.source) | port << CLIENT_BITS
}

impl Numbered for V4 {
    const DIGIT: u32 = 4;
    type Entry = Tuple4;

    fn address(block: Block, number: u32) -> V4 {
        let [_, _, a, b] = number.to_be_bytes();
        V4::from_bytes(match block {
            Block::Client => [100, 64, a, b],
            Block::Service => [192, 0, 2, 10],
            Block::Source => [10, 0, 1, b],
            Block::Backend => [10, 0, 0, 11 + b],
            Block::Stranger => [203, 0, 113, b],
        })
    }

    fn number(client: V4) -> u32 {
        let [_, _, a, b] = client.to_bytes();
        u32::from_be_bytes([0, 0, a, b])
    }

    fn frame(tuple: &Tuple<V4>, segment: Segment) -> [u8; BYTES] {
        let mut frame = [0; BYTES];
        let (ethernet, ip) = frame.split_at_mut(ETHERNET);
        write_ethernet(ethernet, Ethernet::IPV4);
        let length = ip.len() as u16;
        let (header, l4) = ip.split_at_mut(20);
        header[0] = 0x45;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[8..10].copy_from_slice(&[64, segment.protocol().number()]);
        header[12..16].copy_from_slice(&tuple.source.to_bytes());
        header[16..20].copy_from_slice(&tuple.destination.to_bytes());
        let sum = checksum(&[header]);
        header[10..12].copy_from_slice(&sum);
        write(l4, tuple.ports, segment, &header[12..20]);
        frame
    }

    fn entry(tuple: &Tuple<V4>, segment: Segment) -> Tuple4 {
        let frame = Self::frame(tuple, segment);
        Tuple4 {
            addresses: [tuple.source.0, tuple.destination.0],
            ports: tuple.ports.raw(),
            ip_checksum: u16::from_ne_bytes([frame[24], frame[25]]),
            checksum: checksum_in(&frame[34..], segment),
        }
    }
}

impl Numbered for V6 {
    const DIGIT: u32 = 6;
    type Entry = Tuple6;

    fn address(block: Block, number: u32) -> V6 {
        let [_, _, a, b] = number.to_be_bytes();
        V6::from_bytes(match block {
            Block::Client => [0x20, 0x01, 0x0d, 0xb8, 0, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, a, b],
            Block::Service => [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
            Block::Source => [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b],
            Block::Backend => [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11 + b],
            Block::Stranger => [0x20, 0x01, 0x0d, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, b],
        })
    }

    fn number(client: V6) -> u32 {
        let [.., a, b] = client.to_bytes();
        u32::from_be_bytes([0, 0, a, b])
    }

    fn frame(tuple: &Tuple<V6>, segment: Segment) -> [u8; BYTES] {
        let mut frame = [0; BYTES];
        let (ethernet, ip) = frame.split_at_mut(ETHERNET);
        write_ethernet(ethernet, Ethernet::IPV6);
        let (header, l4) = ip.split_at_mut(40);
        header[0] = 0x60;
        header[4..6].copy_from_slice(&(l4.len() as u16).to_be_bytes());
        header[6..8].copy_from_slice(&[segment.protocol().number(), 64]);
        header[8..24].copy_from_slice(&tuple.source.to_bytes());
        header[24..40].copy_from_slice(&tuple.destination.to_bytes());
        write(l4, tuple.ports, segment, &header[8..40]);
        frame
    }

    fn entry(tuple: &Tuple<V6>, segment: Segment) -> Tuple6 {
        let frame = Self::frame(tuple, segment);
        Tuple6 {
            addresses: [tuple.source.0, tuple.source.1, tuple.destination.0, tuple.destination.1],
            ports: tuple.ports.raw(),
            checksum: checksum_in(&frame[54..], segment),
            zero: 0,
        }
    }
}

/// Writes an Ethernet header with our address as the destination.
fn write_ethernet(header: &mut [u8], ethertype: Be16) {
    header[..6].copy_from_slice(&US.to_bytes());
    header[6..12].copy_from_slice(&THEM.to_bytes());
    header[12..].copy_from_slice(&ethertype.to_bytes());
}

const UDP_CHECKSUM: usize = 6;
const TCP_CHECKSUM: usize = 16;

const fn checksum_at(segment: Segment) -> usize {
    match segment.protocol() {
        Protocol::Tcp => TCP_CHECKSUM,
        Protocol::Udp => UDP_CHECKSUM,
    }
}

fn checksum_in(l4: &[u8], segment: Segment) -> u16 {
    let at = checksum_at(segment);
    u16::from_ne_bytes([l4[at], l4[at + 1]])
}

/// The backend counts from here; clients acknowledge it.
const SEQUENCE: u32 = 1000;

/// Writes a TCP or UDP header in front of zeros. `addresses` are those of the pseudo-header.
fn write(l4: &mut [u8], ports: Ports, segment: Segment, addresses: &[u8]) {
    let length = l4.len() as u16;
    l4[..4].copy_from_slice(&ports.raw().to_ne_bytes());
    match segment.protocol() {
        Protocol::Tcp => {
            l4[4..8].copy_from_slice(&SEQUENCE.to_be_bytes());
            l4[8..12].copy_from_slice(&(SEQUENCE + 1).to_be_bytes());
            l4[12..16].copy_from_slice(&[0x50, segment.flags(), 0xff, 0xff]);
        }
        Protocol::Udp => l4[4..6].copy_from_slice(&length.to_be_bytes()),
    }
    let pseudo = [0, segment.protocol().number()];
    let sum = match checksum(&[addresses, &pseudo, &length.to_be_bytes(), l4]) {
        [0, 0] => [0xff; 2],
        sum => sum,
    };
    let at = checksum_at(segment);
    l4[at..at + 2].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_known_by_its_requests() {
        for flow in [0, 1, 65_535, 65_536, 1_000_000] {
            assert_eq!(flow_of(&request::<V4>(flow, Protocol::Tcp)), flow);
            assert_eq!(flow_of(&request::<V6>(flow, Protocol::Udp)), flow);
        }
    }

    #[test]
    fn checksums_of_frames_are_right() {
        for segment in [Segment::Syn, Segment::SynAck, Segment::Refusal, Segment::Ack, Segment::Datagram] {
            let tuple = request::<V4>(4711, segment.protocol());
            let frame = V4::frame(&tuple, segment);
            let pseudo = [0, segment.protocol().number(), 0, (BYTES - 34) as u8];

            assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
            assert_eq!(checksum(&[&frame[26..34], &pseudo, &frame[34..]]), [0, 0]);
        }
    }
}
