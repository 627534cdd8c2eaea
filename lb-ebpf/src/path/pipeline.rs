//! A packet's way through the program.

use lb_common::{net::Be16, reason::Reason, service::Filter};

use crate::{
    family::Family,
    packet::frame::Frame,
    packet::headers::Ethernet,
    packet::parse::{self, IpPacket, Packet, Visitor},
    packet::rewrite,
    path::icmp,
    path::reply,
    path::request,
    tables::{FlowTables, Tables, may_be},
};

/// What becomes of a packet. Every packet gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Out of the interface that it came in by.
    Transmit,
    /// Out of the interface with this index.
    Redirect(u32),
    /// Not forwarded: the reason says whether it is passed or dropped.
    Refused(Reason),
}

/// Decides on a packet, and rewrites it if it is forwarded.
#[inline(always)]
pub fn run(frame: &mut impl Frame, tables: &impl Tables) -> Verdict {
    let ingress = frame.ingress();
    match forward(frame, tables) {
        Ok(egress) if egress == ingress => Verdict::Transmit,
        Ok(egress) => Verdict::Redirect(egress),
        Err(reason) => Verdict::Refused(reason),
    }
}

#[inline(always)]
fn forward(frame: &mut impl Frame, tables: &impl Tables) -> Result<u32, Reason> {
    let balance = Balance { length: frame.length(), tables };
    let mut cursor = frame.cursor();
    let ethernet = cursor.take::<Ethernet>()?;
    let ethertype = Be16::from_bytes(ethernet.ethertype);
    if ethertype == Ethernet::IPV4 {
        parse::ipv4(ethernet, cursor, tables, balance)
    } else if ethertype == Ethernet::IPV6 {
        parse::ipv6(ethernet, cursor, tables, balance)
    } else {
        Err(Reason::NotIp)
    }
}

struct Balance<'a, T> {
    length: u64,
    tables: &'a T,
}

impl<F, T> Visitor<F> for Balance<'_, T>
where
    F: Family,
    T: Tables + FlowTables<F>,
{
    /// Either direction: the filter tells which one a packet may be.
    #[inline(always)]
    fn packet(self, packet: Packet<'_, F>) -> Result<u32, Reason> {
        let Self { length, tables } = self;
        let facts = packet.facts(length);
        let tuple = &facts.tuple;
        let settings = tables.settings().ok_or(Reason::NotService)?;
        if may_be(tables, F::fold(tuple.destination), tuple.ports.destination(), Filter::SERVICE)
            && let Some(request) = request::forward(tables, settings, &facts)?
        {
            let sent = rewrite::apply(packet, &request.rewrite);
            match sent {
                Ok(_) => tables.count_forwarded(request.backend.counters, length),
                Err(_) => tables.count_refused(request.backend.service_counters, length),
            }
            return sent;
        }
        if may_be(tables, F::fold(tuple.source), tuple.ports.source(), Filter::BACKEND)
            && let Some(reply) = reply::forward(tables, settings, tuple, facts.segment)?
        {
            let egress = rewrite::apply(packet, &reply.rewrite)?;
            tables.count_returned(reply.backend.counters, length);
            return Ok(egress);
        }
        Err(Reason::NotService)
    }

    #[inline(always)]
    fn icmp(self, packet: IpPacket<'_, F>) -> Result<u32, Reason> {
        icmp::translate(packet, self.tables, self.length)
    }
}
