//! The host's routes, looked up by `bpf_fib_lookup`.

use aya_ebpf::{bindings::xdp_md, helpers};
use lb_common::{
    hop::{Hop, InterfaceIndex},
    net::{Address, Mac, V4, V6},
    reason::Reason,
};

use super::maps;
use crate::storage::Route;

/// `struct bpf_fib_lookup`, with words in place of the kernel's unions. It is in a per-CPU map, not on the stack: LLVM
/// writes words in pairs, and the verifier rejects unaligned pairs on the stack.
#[repr(C)]
pub struct Query {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    length: u16,
    interface: u32,
    flow: u32,
    source: [u32; 4],
    destination: [u32; 4],
    vlan: u32,
    own_mac: [u16; 3],
    next_mac: [u16; 3],
}

const _: () = assert!(size_of::<Query>() == 64);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SUCCESS: i64 = 0;
const NO_NEIGHBOUR: i64 = 7;

/// Looks up a route, with the packet's own interface as ingress.
#[inline(always)]
fn lookup(ctx: *mut xdp_md, family: u8, source: [u32; 4], destination: [u32; 4]) -> Result<Route, Reason> {
    let query = maps::QUERY.get_ptr_mut(0).ok_or(Reason::Internal)?;
    // SAFETY: this CPU's own element; nothing else holds a reference to it during this call.
    let query = unsafe { &mut *query };
    query.family = family;
    query.protocol = 0;
    query.ports = [0; 2];
    query.length = 0;
    query.flow = 0;
    query.source = source;
    query.destination = destination;
    query.vlan = 0;
    // SAFETY: the context of this run.
    query.interface = unsafe { (*ctx).ingress_ifindex };
    // SAFETY: a live context, and a query of the kernel's size and layout.
    let found = unsafe {
        helpers::bpf_fib_lookup(ctx.cast(), (&raw mut *query).cast(), size_of::<Query>() as i32, 0)
    };
    if found != SUCCESS && found != NO_NEIGHBOUR {
        return Err(Reason::NoClientRoute);
    }
    let egress = maps::INTERFACES.get(query.interface).ok_or(Reason::NoClientRoute)?;
    if egress.attached == 0 {
        return Err(Reason::NoClientRoute);
    }
    let hop = Hop {
        destination: Mac(query.next_mac),
        source: egress.mac,
        interface: InterfaceIndex(query.interface),
        mtu: egress.mtu,
    };
    if found == SUCCESS {
        Ok(Route::Resolved(hop))
    } else {
        Ok(Route::Unresolved { hop, next_hop: next_hop(family, query) })
    }
}

/// The next hop: the kernel writes it to the query's destination.
#[inline(always)]
fn next_hop(family: u8, query: &Query) -> Address {
    let [a, b, c, d] = query.destination;
    // An IPv4 route may have an IPv6 gateway (RFC 5549).
    if family == AF_INET && query.family == AF_INET {
        Address::v4(V4(a))
    } else {
        Address::v6(V6(u64::from(a) | u64::from(b) << 32, u64::from(c) | u64::from(d) << 32))
    }
}

/// A family's route lookup.
pub trait Routed: Sized {
    /// The route from `source` to `destination`.
    fn route(ctx: *mut xdp_md, source: Self, destination: Self) -> Result<Route, Reason>;
}

impl Routed for V4 {
    #[inline(always)]
    fn route(ctx: *mut xdp_md, source: V4, destination: V4) -> Result<Route, Reason> {
        lookup(ctx, AF_INET, [source.0, 0, 0, 0], [destination.0, 0, 0, 0])
    }
}

impl Routed for V6 {
    #[inline(always)]
    fn route(ctx: *mut xdp_md, source: V6, destination: V6) -> Result<Route, Reason> {
        let words = |a: V6| [a.0 as u32, (a.0 >> 32) as u32, a.1 as u32, (a.1 >> 32) as u32];
        lookup(ctx, AF_INET6, words(source), words(destination))
    }
}
