//! Services: from the endpoint that a client connects to, to the backends.

use crate::{
    counters::ServiceNumber,
    net::{Address, Be16},
    pool::PoolNumber,
};

/// An endpoint that clients connect to. Key of the `SERVICES` map.
///
/// Port 0 marks a listen or source address, for fragments and malformed packets, whose port is unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The service's address.
    pub address: Address,
    /// Its port, or 0.
    pub port: Be16,
    /// The IP protocol number.
    pub protocol: u8,
    zero: u8,
    rest: u32,
}

// A map compares keys byte by byte: padding would make equal keys differ.
const _: () = assert!(size_of::<ServiceKey>() == 16 + 2 + 1 + 1 + 4);

crate::fields!(ServiceKey { address, port, protocol, zero, rest });

impl ServiceKey {
    /// The key of one address, port and protocol.
    #[inline(always)]
    pub const fn new(address: Address, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, zero: 0, rest: 0 }
    }
}

/// Value of the `SERVICES` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The pool from which its new flows get their backends: one per service and family. [`Service::NO_POOL`] under
    /// port 0.
    pub pool: PoolNumber,
    /// Number of the service's counters.
    pub counters: ServiceNumber,
    /// The number of a [`Reject`].
    pub reject: u32,
    /// See [`Service::computed_pool`].
    pub computed: u32,
}

crate::fields!(Service { pool, counters, reject, computed });

impl Service {
    /// The address has services, but this key is not one of them.
    pub const NO_POOL: PoolNumber = PoolNumber(u32::MAX);

    /// The pool in which the backend of a flow follows from its tuple alone, whatever the state of the backends: that of a
    /// TCP segment whose flow another node may know. `None`: such segments are refused.
    #[inline(always)]
    pub const fn computed_pool(self) -> Option<PoolNumber> {
        if self.computed == 0 { None } else { Some(PoolNumber(self.computed - 1)) }
    }

    /// The value of [`Service::computed`].
    pub const fn computed_from(pool: Option<PoolNumber>) -> u32 {
        match pool {
            Some(PoolNumber(number)) => number + 1,
            None => 0,
        }
    }
}

/// How packets are rewritten.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Source and destination are rewritten: backends need no configuration.
    FullNat = 0,
    /// The destination is rewritten: backends see the client, and must route replies through xlb.
    Nat = 1,
}

impl Mode {
    /// The mode with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::FullNat),
            1 => Some(Self::Nat),
            _ => None,
        }
    }
}

/// What happens to packets that a service refuses because no flow matches or no backend is available.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reject {
    /// They are dropped: the client waits.
    Drop = 0,
    /// They are answered with a TCP reset or ICMP port unreachable, so that the client knows at once.
    #[default]
    Reset = 1,
}

impl Reject {
    /// What the program does for this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        if number == Self::Reset as u32 { Self::Reset } else { Self::Drop }
    }
}

/// The prefilter: rules out most packets that belong to no service or backend, by reading at most two bytes.
///
/// The byte at [`Filter::place`] of a packet's destination shows whether it may be a request, that of its source
/// whether it may be a reply. There are false positives (endpoints share bytes), but no false negatives.
///
/// With the maximum number of backends, about one byte in four has a backend's bit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The bits of each place: see the constants.
    pub byte: [u8; Self::SIZE],
}

crate::fields!(Filter { byte });

impl Filter {
    /// The section of the object that the map is made from.
    pub const SECTION: &str = ".bss.FILTER";
    /// The number of bytes, a power of two.
    pub const SIZE: usize = 256 * 1024;
    /// Bit: a service listens on the endpoint.
    pub const SERVICE: u8 = 1;
    /// Bit: a backend replies from the endpoint.
    pub const BACKEND: u8 = 2;
    /// Bit: a backend of a service with a [computed pool](Service::computed_pool) replies from the endpoint.
    pub const ORIGIN: u8 = 4;

    /// The place of an endpoint, by the [folded](Filter::fold) address.
    #[inline(always)]
    pub const fn place(folded: u32, port: Be16) -> usize {
        const SHIFT: u32 = u32::BITS - Filter::SIZE.ilog2();
        // Knuth's multiplicative hash: the top bits of the product.
        ((folded ^ (port.raw() as u32) << 8).wrapping_mul(0x9e37_79b1) >> SHIFT) as usize
    }

    /// An address as one word. IPv4 folds to itself, IPv4-mapped or not.
    #[inline(always)]
    pub const fn fold(address: Address) -> u32 {
        let bytes = address.as_v6();
        if bytes.0 == 0 && Address::v4(address.as_v4()).as_v6().1 == bytes.1 {
            return address.as_v4().0;
        }
        Self::fold_v6(bytes.0, bytes.1)
    }

    /// An IPv6 address as one word.
    #[inline(always)]
    pub const fn fold_v6(high: u64, low: u64) -> u32 {
        let word = high ^ low;
        (word ^ word >> 32) as u32
    }
}
