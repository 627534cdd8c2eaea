//! A TCP reset in answer to a segment of no connection.

use crate::{
    family::{Family, Tuple},
    packet::{
        answer::{AnswerFamily, Envelope},
        checksum::Sum,
        frame::Frame,
        headers::{Ethernet, Tcp},
        parse::{self, Layout},
        tcp::{ACK, FIN, RST, SYN, Segment},
    },
};

const TCP_HEADER: u16 = size_of::<Tcp>() as u16;

/// The numbers and flags of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Reset {
    /// The reset that the sender of `segment`, with this many bytes of data, accepts (RFC 9293, 3.10.7.1). `None`: a reset is
    /// never answered.
    #[inline(always)]
    pub const fn of(segment: Segment, data: u32) -> Option<Self> {
        let Segment { flags, sequence, acknowledgement } = segment;
        if flags & RST != 0 {
            return None;
        }
        if flags & ACK != 0 {
            return Some(Self { sequence: acknowledgement, acknowledgement: 0, flags: RST });
        }
        let (syn, fin) = ((flags & SYN != 0) as u32, (flags & FIN != 0) as u32);
        let acknowledgement = sequence.wrapping_add(data).wrapping_add(syn + fin);
        Some(Self { sequence: 0, acknowledgement, flags: RST | ACK })
    }

    /// The reset for the segment in a frame. `None`: none, or the frame is not what it was when `layout` was read.
    #[inline(always)]
    pub fn for_frame<F: Family>(frame: &mut impl Frame, layout: &Layout) -> Option<Self> {
        let mut cursor = frame.cursor();
        cursor.take::<Ethernet>().ok()?;
        cursor.take::<F::Header>().ok()?;
        cursor.skip(layout.options as usize);
        let tcp = cursor.take::<Tcp>().ok()?;
        let headers = size_of::<F::Header>() as u32 + layout.options + u32::from(tcp.offset >> 4) * 4;
        Self::of(tcp.as_segment(), layout.length.saturating_sub(headers))
    }

    /// Bytes of the frame that carries it.
    #[inline(always)]
    pub const fn frame_bytes<F: Family>() -> u32 {
        (size_of::<Ethernet>() + size_of::<F::Header>() + size_of::<Tcp>()) as u32
    }

    /// Turns the frame of a segment with this tuple into the reset. `None`: impossible, and the frame is spoiled. It is never
    /// longer than the segment's frame, which has options and data in addition.
    #[inline(always)]
    pub fn write<F: AnswerFamily>(
        self,
        frame: &mut impl Frame,
        layout: &Layout,
        refused: &Tuple<F>,
    ) -> Option<()> {
        if !frame.cut(layout.frame.checked_sub(Self::frame_bytes::<F>())?) {
            return None;
        }
        let Tuple { source, destination, ports, .. } = refused.reversed();
        let envelope = Envelope { source, destination, protocol: parse::TCP, payload: TCP_HEADER };
        let (sequence, acknowledgement) = (self.sequence.to_be_bytes(), self.acknowledgement.to_be_bytes());
        let offset = (TCP_HEADER as u8 / 4) << 4;
        let sum = F::pseudo_header(&envelope).and(Sum::EMPTY.double(ports.raw().to_ne_bytes()));
        let sum = sum.double(sequence).double(acknowledgement).word([offset, self.flags]);

        let mut cursor = frame.cursor();
        let ethernet = cursor.take::<Ethernet>().ok()?;
        let ip = cursor.take::<F::Header>().ok()?;
        let tcp = cursor.take::<Tcp>().ok()?;
        ethernet.set_addresses(ethernet.source(), ethernet.destination());
        F::write(ip, &envelope);
        (tcp.source, tcp.destination) = (ports.source().to_bytes(), ports.destination().to_bytes());
        (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement);
        (tcp.offset, tcp.flags, tcp.window) = (offset, self.flags, [0; 2]);
        (tcp.checksum, tcp.urgent) = (sum.checksum(), [0; 2]);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9293, 3.10.7.1: the state CLOSED.
    #[test]
    fn a_reset_has_the_numbers_that_its_receiver_accepts() {
        let segment = |flags| Segment { flags, sequence: u32::MAX, acknowledgement: 7000 };
        let with_ack = Some(Reset { sequence: 7000, acknowledgement: 0, flags: RST });
        let without = |acknowledgement| Some(Reset { sequence: 0, acknowledgement, flags: RST | ACK });
        for (flags, data, reset) in [
            (ACK, 0, with_ack),
            (ACK | FIN, 10, with_ack),
            (SYN | ACK, 0, with_ack),
            (SYN, 0, without(0)),
            (SYN, 10, without(10)),
            (FIN, 1, without(1)),
            (SYN | FIN, 0, without(1)),
            (0, 3, without(2)),
            (RST, 0, None),
            (RST | ACK, 0, None),
            (RST | SYN, 0, None),
        ] {
            assert_eq!(Reset::of(segment(flags), data), reset, "{flags:#x}, {data} bytes");
        }
    }
}
