//! The addresses of all hosts: the same in every lab, and in the documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// A host's address in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What [`Family::V4`] selects.
    pub v4: Ipv4Addr,
    /// What [`Family::V6`] selects.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Two addresses of one host.
    pub const fn new(v4: [u8; 4], v6: [u16; 8]) -> Self {
        let [a, b, c, d] = v4;
        let [e, f, g, h, i, j, k, l] = v6;
        Self { v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(e, f, g, h, i, j, k, l) }
    }

    /// The address of that family.
    pub const fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// A port at the address of that family.
    pub const fn port(self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.of(family), port)
    }
}

/// The address that clients connect to.
pub const SERVICE: Pair = Pair::new([192, 0, 2, 10], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10]);
/// A second address that clients connect to.
pub const SERVICE_2: Pair = Pair::new([192, 0, 2, 20], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20]);
/// xlb on the side of the clients.
pub const FRONT: Pair = Pair::new([192, 0, 2, 1], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x1]);
/// xlb on the side of the backends: full-nat's source, nat's gateway.
pub const SOURCE: Pair = Pair::new([10, 0, 0, 1], [0xfd00, 0, 0, 0, 0, 0, 0, 0x1]);
/// The router between clients and xlb, on the side of xlb.
pub const EDGE: Pair = Pair::new([192, 0, 2, 254], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe]);
/// The same router, on the side of the clients.
pub const EDGE_OUTSIDE: Pair = Pair::new([198, 51, 100, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x1]);
/// The router between xlb and backends, on the side of xlb.
pub const CORE: Pair = Pair::new([10, 0, 0, 254], [0xfd00, 0, 0, 0, 0, 0, 0, 0xfe]);
/// The same router, on the side of the backends.
pub const CORE_INSIDE: Pair = Pair::new([10, 1, 0, 1], [0xfd01, 0, 0, 0, 0, 0, 0, 0x1]);

/// Balancer number `n` of a pair, counted from 1, on the side of the clients: an address of its own.
pub const fn outside(n: u8) -> Pair {
    Pair::new([192, 0, 2, 1 + n], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + n as u16])
}

/// The same balancer on the side of the backends.
pub const fn inside(n: u8) -> Pair {
    Pair::new([10, 0, 0, 1 + n], [0xfd00, 0, 0, 0, 0, 0, 0, 1 + n as u16])
}

/// The source of balancer number `n` of a cluster.
pub const fn own_source(n: u8) -> Pair {
    Pair::new([10, 0, 0, 100 + n], [0xfd00, 0, 0, 0, 0, 0, 0, 0x100 + n as u16])
}

/// Client number `n`, counted from 1, on the link of xlb.
pub const fn client(n: u8) -> Pair {
    Pair::new([192, 0, 2, 100 + n], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100 + n as u16])
}

/// Client number `n` behind the edge router.
pub const fn far_client(n: u8) -> Pair {
    Pair::new([198, 51, 100, 100 + n], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100 + n as u16])
}

/// Backend number `n`, counted from 1, on the link of xlb.
pub const fn backend(n: u8) -> Pair {
    Pair::new([10, 0, 0, 10 + n], [0xfd00, 0, 0, 0, 0, 0, 0, 0x10 + n as u16])
}

/// Backend number `n` behind the core router.
pub const fn far_backend(n: u8) -> Pair {
    Pair::new([10, 1, 0, 10 + n], [0xfd01, 0, 0, 0, 0, 0, 0, 0x10 + n as u16])
}
