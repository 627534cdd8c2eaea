//! Settings of an interface that decide whether the right node gets packets.

/// `net.ipv4.conf.INTERFACE`: of each setting, the larger value of the interface and of `all` is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// The name of the interface.
    pub interface: String,
    /// 0: it answers ARP requests for all addresses of this host, on any interface.
    pub arp_ignore: u8,
    /// 2: its own ARP requests never have an address of another interface.
    pub arp_announce: u8,
    /// 1: a packet is dropped if the route to its source leads to another interface.
    pub rp_filter: u8,
}
