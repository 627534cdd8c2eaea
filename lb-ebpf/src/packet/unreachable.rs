//! An ICMP error "port unreachable" in answer to a datagram.
//!
//! ```text
//! before                Ethernet │ IP ▸ UDP │ data
//! after     Ethernet ▸ IP ▸ ICMP │ IP ▸ UDP │
//!           added in front       │ quoted   │ cut
//! ```

use lb_common::cell::fence;
use network_types::udp::UdpHdr;

use crate::{
    family::{Family, Tuple},
    packet::{
        answer::{AnswerFamily, Envelope},
        checksum::Sum,
        frame::Frame,
        headers::{Double, Ethernet, Icmp},
        parse::Layout,
    },
};

/// The most doubles that are quoted: an IP header with 40 bytes, and a UDP header.
const MAX_DOUBLES: u32 = (60 + size_of::<UdpHdr>() as u32) / 4;

/// The quote of an error: IP header and UDP header (RFC 792). Routers may quote more (RFC 1812, 4.3.2.3), but an answer must
/// not be much larger than the datagram.
#[derive(Clone, Copy, Debug)]
pub struct Unreachable {
    bytes: u32,
    sum: Sum,
}

impl Unreachable {
    /// Sums what the error for the datagram in a frame quotes. `None`: the frame is not what it was when `layout` was read.
    #[inline(always)]
    pub fn for_frame<F: Family>(frame: &mut impl Frame, layout: &Layout) -> Option<Self> {
        let bytes = size_of::<F::Header>() as u32 + (layout.options & 0x3c) + size_of::<UdpHdr>() as u32;
        let mut cursor = frame.cursor();
        cursor.take::<Ethernet>().ok()?;
        let (mut sum, mut doubles) = (Sum::EMPTY, 0);
        while doubles < MAX_DOUBLES && doubles < bytes / 4 {
            sum = sum.double(cursor.take::<Double>().ok()?.0);
            // Keeps LLVM from one comparison for all rounds, which proves nothing to the verifier.
            fence();
            doubles += 1;
        }
        Some(Self { bytes, sum })
    }

    /// Bytes that are added in front of the quote, without the Ethernet header that is there.
    #[inline(always)]
    const fn added<F: Family>() -> u32 {
        (size_of::<F::Header>() + size_of::<Icmp>()) as u32
    }

    /// Bytes of the frame that carries the error.
    #[inline(always)]
    pub const fn frame_bytes<F: Family>(self) -> u32 {
        size_of::<Ethernet>() as u32 + Self::added::<F>() + self.bytes
    }

    /// Turns the frame of a datagram with this tuple into the error. `None`: impossible, and the frame is spoiled.
    #[inline(always)]
    pub fn write<F: AnswerFamily>(
        self,
        frame: &mut impl Frame,
        layout: &Layout,
        refused: &Tuple<F>,
    ) -> Option<()> {
        let (to, from) = {
            let ethernet = frame.cursor().take::<Ethernet>().ok()?;
            (ethernet.source(), ethernet.destination())
        };
        let cut = layout.frame.checked_sub(size_of::<Ethernet>() as u32 + self.bytes)?;
        if !frame.cut(cut) || !frame.grow(Self::added::<F>()) {
            return None;
        }
        let Tuple { source, destination, .. } = refused.reversed();
        let payload = size_of::<Icmp>() as u16 + self.bytes as u16;
        let envelope = Envelope { source, destination, protocol: F::ICMP, payload };
        let [kind, code] = F::PORT_UNREACHABLE;
        let sum = F::icmp_pseudo_header(&envelope).and(self.sum).word([kind, code]);

        let mut cursor = frame.cursor();
        let ethernet = cursor.take::<Ethernet>().ok()?;
        let ip = cursor.take::<F::Header>().ok()?;
        let icmp = cursor.take::<Icmp>().ok()?;
        ethernet.set_addresses(to, from);
        ethernet.ethertype = F::ETHERTYPE.to_bytes();
        F::write(ip, &envelope);
        (icmp.kind, icmp.code, icmp.rest) = (kind, code, [0; 4]);
        icmp.checksum = sum.checksum();
        Some(())
    }
}
