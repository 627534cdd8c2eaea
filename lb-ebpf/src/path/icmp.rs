//! ICMP errors about flows, translated in both directions.
//!
//! ```text
//! about a request, from a router near the backend        about a reply, from a router near the client
//!   quotes  source ─▶ backend                              quotes  listen ─▶ client
//!   becomes client ─▶ listen, sent to the client           becomes backend ─▶ source, sent to the backend
//! ```
//!
//! Without this, path MTU discovery ends at the balancer (RFC 7690). The translated error has the source address that
//! the receiver's connection knows; with nat, which hides no address, it keeps the router's. All other ICMP is passed
//! to the host.

use lb_common::{
    backend::Backend,
    counters::BackendNumber,
    hop::{Hop, InterfaceIndex},
    net::{Be16, Ports, Protocol},
    reason::Reason,
    service::Filter,
};

use crate::{
    family::{Family, RecordOf, Tuple},
    packet::checksum::Difference,
    packet::frame::{Cursor, Frame},
    packet::headers::{Ethernet, Icmp, Quoted, QuotedTcp},
    packet::icmp::IcmpFamily,
    path::pipeline::Verdict,
    path::refresh,
    steps::Steps,
    storage::{Maps, may_match},
    table::record::{self, Found, States},
    table::reply_index::{self, Owner},
};

/// Is this an error, which may concern a flow?
#[inline(always)]
pub fn is_error<F: IcmpFamily>(cursor: &mut Cursor<'_>) -> bool {
    cursor.take::<Icmp>().is_ok_and(|icmp| F::is_error(icmp.kind))
}

/// Translates an error about a flow, and forwards it.
#[inline(always)]
pub fn run<F: IcmpFamily>(frame: &mut impl Frame, tables: &impl Steps<F>) -> Verdict {
    Verdict::leaving(frame.ingress(), translate(frame, tables))
}

#[inline(always)]
fn translate<F: IcmpFamily>(
    frame: &mut impl Frame,
    tables: &impl Steps<F>,
) -> Result<InterfaceIndex, Reason> {
    let length = frame.length();
    let mut cursor = frame.cursor();
    let ethernet = cursor.take::<Ethernet>()?;
    let ip = cursor.take::<F::Header>()?;
    let outer = F::parse(ip);
    cursor.skip(outer.options());
    let icmp = cursor.take::<Icmp>().map_err(not_ours)?;
    let inner = cursor.take::<F::Header>().map_err(not_ours)?;
    let quote = F::parse(inner);
    let protocol = Protocol::from_number(quote.protocol).ok_or(Reason::NotService)?;
    if !quote.is_header || !quote.is_first_fragment() {
        return Err(Reason::NotService);
    }
    cursor.skip(quote.options());
    let quoted = cursor.take::<Quoted>().map_err(not_ours)?;

    let (source, destination) = (quote.source, quote.destination);
    let ports = Ports::new(Be16::from_bytes(quoted.source), Be16::from_bytes(quoted.destination));
    let about = Tuple::<F> { source, destination, ports, protocol: u32::from(protocol.number()) };
    let route = find_route(tables, &about)?;
    if outer.hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    if outer.length > route.hop.mtu {
        return Err(Reason::TooBig);
    }
    if F::mtu_below_minimum(icmp) {
        return Err(Reason::MtuTooSmall);
    }

    let change = requote::<F>(inner, quoted, cursor, protocol, &about, &route.quote);
    let (from, to) = (outer.source, outer.destination);
    let (new_from, new_to) =
        (if route.keeps_source { from } else { route.quote.destination }, route.quote.source);
    let addresses = F::change(F::change(Difference::NONE, from, new_from), to, new_to);
    icmp.checksum = change.and(F::pseudo_header(addresses)).update(icmp.checksum);
    F::rewrite(ip, new_from, new_to, addresses.folded());
    ethernet.set_addresses(route.hop.destination, route.hop.source);
    if route.is_to_client {
        tables.count_returned(route.counters, length);
    } else {
        tables.count_forwarded(route.counters, length);
    }
    Ok(route.hop.interface)
}

#[inline(always)]
fn not_ours(_: Reason) -> Reason {
    Reason::NotService
}

/// The translation of an error.
struct ErrorRoute<F: Family> {
    /// The quoted packet before xlb rewrote it. Its source receives the error.
    quote: Tuple<F>,
    hop: Hop,
    counters: BackendNumber,
    /// nat: the router's address stays.
    keeps_source: bool,
    is_to_client: bool,
}

/// The flow of a quoted packet that xlb sent: a reply to a client, or a request to a backend.
#[inline(always)]
fn find_route<F: Family>(tables: &impl Steps<F>, about: &Tuple<F>) -> Result<ErrorRoute<F>, Reason> {
    let is_of_reply = may_match(tables, F::fold(about.source), about.ports.source(), Filter::SERVICE);
    let is_of_request =
        may_match(tables, F::fold(about.destination), about.ports.destination(), Filter::BACKEND);
    if !is_of_reply && !is_of_request {
        return Err(Reason::NotService);
    }
    let settings = tables.settings();
    let turned = about.reversed();
    let hash = F::hash(&settings.keys, &turned);
    if is_of_reply {
        let flow = tables.scratch().ok_or(Reason::Internal)?;
        flow.tuple.set(turned);
        flow.hash.set(hash);
        if let Some(index) = record::anywhere(tables, States::LIVE, None)?
            && let Some(found) = record::again(tables, index, &turned)?
            && let Some((quote, keeps_source, backend)) = read(tables, &found, record::reply_of)?
        {
            if backend.hop.interface == InterfaceIndex::NONE {
                return Err(Reason::NoBackendNeighbour);
            }
            let (hop, counters) = (backend.hop, backend.counters);
            return Ok(ErrorRoute { quote, hop, counters, keeps_source, is_to_client: false });
        }
    }
    if is_of_request
        && let Owner::Flow(found) = reply_index::reply(tables, &turned, hash, F::shape(settings))?
        && let Some((quote, keeps_source, backend)) = read(tables, &found, record::request_of)?
    {
        let hop = refresh::next_hop(tables, found.index, found.control, &quote.reversed())?;
        let counters = backend.counters;
        return Ok(ErrorRoute { quote, hop, counters, keeps_source, is_to_client: true });
    }
    Err(Reason::NotService)
}

/// One side of a flow: the tuple that it sends, whether the error keeps the router's address (nat), and the flow's
/// backend.
type Side<'a, F> = (Tuple<F>, bool, &'a Backend);

/// Looks up one side of a flow. `None`: the flow has ended.
#[inline(always)]
fn read<'a, F: Family>(
    maps: &'a impl Maps,
    found: &Found<'_, F>,
    sends: impl FnOnce(&RecordOf<F>) -> Tuple<F>,
) -> Result<Option<Side<'a, F>>, Reason> {
    let copied = found.read(|it| (sends(it), it.source.get() == it.client.get(), it.owner.get().backend()));
    let Some((quote, keeps_source, id)) = copied else { return Ok(None) };
    let backend = maps.backend(id).ok_or(Reason::Internal)?;
    Ok((backend.id == id).then_some((quote, keeps_source, backend)))
}

/// Rewrites the tuple of a quoted packet and updates the checksums that are quoted: IPv4's and UDP's always, TCP's if the
/// error is long enough. Returns the difference to a checksum over the quote.
#[inline(always)]
fn requote<F: IcmpFamily>(
    inner: &mut F::Header,
    quoted: &mut Quoted,
    mut cursor: Cursor<'_>,
    protocol: Protocol,
    old: &Tuple<F>,
    new: &Tuple<F>,
) -> Difference {
    let addresses =
        F::change(F::change(Difference::NONE, old.source, new.source), old.destination, new.destination);
    let l4 = addresses.double(old.ports.raw(), new.ports.raw()).folded();
    let mut all =
        F::requote(inner, new.source, new.destination, addresses).double(old.ports.raw(), new.ports.raw());
    quoted.source = new.ports.source().to_bytes();
    quoted.destination = new.ports.destination().to_bytes();
    if protocol == Protocol::Udp {
        let before = quoted.checksum;
        quoted.checksum = l4.update_udp(before);
        all = all.word(u16::from_ne_bytes(before), u16::from_ne_bytes(quoted.checksum));
    } else if let Ok(rest) = cursor.take::<QuotedTcp>() {
        let before = rest.checksum;
        rest.checksum = l4.update(before);
        all = all.word(u16::from_ne_bytes(before), u16::from_ne_bytes(rest.checksum));
    }
    all
}
