//! The addresses of this host's interfaces, and which interface another address would be on.

use std::net::IpAddr;

use ipnet::IpNet;

/// An address of an interface, with the length of its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The name of the interface.
    pub interface: String,
    /// The address, and how much of it is the network's.
    pub net: IpNet,
}

/// The interface whose network an address is in: the smallest one that contains it, and more than the address alone.
pub fn interface_of(address: IpAddr, networks: &[InterfaceAddress]) -> Option<&str> {
    let near = networks
        .iter()
        .filter(|it| it.net.contains(&address) && it.net.prefix_len() < it.net.max_prefix_len());
    near.max_by_key(|it| it.net.prefix_len()).map(|it| it.interface.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_on_the_interface_whose_network_is_the_smallest_that_contains_it() {
        let network = |interface: &str, net: &str| InterfaceAddress {
            interface: interface.into(),
            net: net.parse().unwrap(),
        };
        let networks =
            [network("eth0", "10.0.0.5/8"), network("eth1", "10.1.0.5/16"), network("lo", "10.1.2.3/32")];
        for (address, expected) in
            [("10.1.2.3", Some("eth1")), ("10.2.0.1", Some("eth0")), ("192.0.2.1", None), ("fd00::1", None)]
        {
            assert_eq!(interface_of(address.parse().unwrap(), &networks), expected, "{address}");
        }
    }
}
