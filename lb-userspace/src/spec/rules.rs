//! Rules that apply to the file and to changes by commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Service, Spec};
use crate::text::quote;

/// Comparable to HAProxy's 256 and ipvsadm's 65535; allows shares in steps of 0.1 %.
pub const MAX_WEIGHT: u32 = 1000;
/// The weight of a backend if none is given.
pub const DEFAULT_WEIGHT: u32 = 100;
/// Maximum length of a service's or backend's name: that of a DNS label (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 63;

/// IPv4 or IPv6. Listen addresses, backends and sources of a flow are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Names are used in commands (`SERVICE/BACKEND`), labels and URLs.
pub fn name(name: &str) -> Result<(), String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_good) {
        let shown = quote(name);
        return Err(format!(
            "{shown} is not a valid name: use 1 to {MAX_NAME} letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(())
}

pub fn weight(weight: u32) -> Result<(), String> {
    if weight > MAX_WEIGHT {
        return Err(format!("`{weight}` is out of range: 0 to {MAX_WEIGHT}"));
    }
    Ok(())
}

/// A unicast address whose packets can reach an XDP program.
pub fn unicast(address: IpAddr) -> Result<(), String> {
    let reason = match address {
        IpAddr::V4(v4) if v4.is_unspecified() => "is the unspecified address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "is the broadcast address",
        // RFC 1122, 3.2.1.3 (g): never outside a host.
        IpAddr::V4(v4) if v4.is_loopback() => "is a loopback address: its packets never leave the host",
        IpAddr::V4(v4) if v4.is_multicast() => "is a multicast address",
        // RFC 791, 3.2 and RFC 1112, 4: "this network" and class E.
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => "is a reserved address",
        IpAddr::V4(_) => return Ok(()),
        IpAddr::V6(v6) if v6.is_unspecified() => "is the unspecified address",
        IpAddr::V6(v6) if v6.is_loopback() => "is a loopback address: its packets never leave the host",
        IpAddr::V6(v6) if v6.is_multicast() => "is a multicast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4-mapped IPv6 address: write it as IPv4",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "is a link-local address, which is valid only on one link"
        }
        IpAddr::V6(_) => return Ok(()),
    };
    Err(format!("`{address}` {reason}"))
}

/// A [`unicast`] address without a zone ID, with a port.
pub fn endpoint(endpoint: SocketAddr) -> Result<(), String> {
    if endpoint.port() == 0 {
        return Err(format!("`{endpoint}` has no port: expected 1 to 65535"));
    }
    match endpoint {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            Err(format!("`{v6}` has a zone ID, which is not supported"))
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => unicast(endpoint.ip()),
    }
}

/// Addresses of the load balancer, each with its role. No backend can have one, because the program's packets leave
/// the host.
#[derive(Default)]
pub struct OwnAddresses(BTreeMap<IpAddr, String>);

impl OwnAddresses {
    pub fn of(spec: &Spec) -> Self {
        let mut own = Self::default();
        for service in &spec.services {
            own.extend(&service.name, service.listen.iter().map(SocketAddr::ip), service.all_sources());
        }
        own
    }

    /// Adds the addresses of one service.
    pub fn extend(
        &mut self,
        service: &str,
        listen: impl Iterator<Item = IpAddr>,
        sources: impl Iterator<Item = IpAddr>,
    ) {
        for address in listen {
            self.0.entry(address).or_insert_with(|| format!("a listen address of service `{service}`"));
        }
        for address in sources {
            self.0.entry(address).or_insert_with(|| format!("a source address of service `{service}`"));
        }
    }

    /// The addresses of the host's interfaces.
    pub fn of_host(addresses: &BTreeSet<IpAddr>) -> Self {
        let mut own = Self::default();
        own.extend_host(addresses);
        own
    }

    /// Adds the addresses of the host's interfaces.
    pub fn extend_host(&mut self, addresses: &BTreeSet<IpAddr>) {
        const WHAT: &str =
            "an address of this host, and a backend on the load balancer itself is not supported";
        for address in addresses {
            self.0.entry(*address).or_insert_with(|| WHAT.to_owned());
        }
    }

    /// Rejects a backend on the load balancer itself.
    pub fn refuse(&self, backend: SocketAddr) -> Result<(), Refusal> {
        match self.0.get(&backend.ip()) {
            Some(what) => Err(Refusal::Own { address: backend.ip(), what: what.clone() }),
            None => Ok(()),
        }
    }
}

/// Why a service cannot have a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("`{address}` cannot be a backend: it is {what}")]
    Own { address: IpAddr, what: String },
    #[error("there is no service `{0}`")]
    NoService(String),
    #[error("service `{service}` does not listen on {family}: this backend would never be used")]
    NotListening { service: String, family: Family },
    #[error("`{address}` is already the address of {service}/{backend}")]
    Taken { address: SocketAddr, service: String, backend: String },
    #[error("there are already {0} backends in all services together: raise `backends` in [limits]")]
    Full(u32),
}

/// Can the service have a backend at this address? `holder` is the name of its backend that already has the address.
/// (The caller checks the name.)
pub fn fit(service: &Service, address: SocketAddr, holder: Option<&str>) -> Result<(), Refusal> {
    let family = Family::of(address.ip());
    let name = || service.name.clone();
    if !service.listens_on(family) {
        return Err(Refusal::NotListening { service: name(), family });
    }
    if let Some(holder) = holder {
        return Err(Refusal::Taken { address, service: name(), backend: holder.to_owned() });
    }
    Ok(())
}

/// Is there room for another backend, over all services?
pub fn fit_in_all(spec: &Spec) -> Result<(), Refusal> {
    let backends: usize = spec.services.iter().map(|service| service.backends.len()).sum();
    let most = spec.limits.backends;
    if backends < most as usize { Ok(()) } else { Err(Refusal::Full(most)) }
}

impl Service {
    /// Does it listen on an address of the family?
    pub fn listens_on(&self, family: Family) -> bool {
        self.listen.iter().any(|listen| Family::of(listen.ip()) == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_packet_can_have_are_refused_with_the_reason() {
        let cases = [
            ("0.0.0.0", "the unspecified address"),
            ("0.1.2.3", "reserved"),
            ("127.0.0.1", "loopback"),
            ("127.255.0.1", "loopback"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "the unspecified address"),
            ("::1", "loopback"),
            ("ff02::1", "multicast"),
            ("fe80::1", "link-local"),
            ("::ffff:10.0.0.1", "IPv4"),
        ];

        for (address, reason) in cases {
            let message = unicast(address.parse().unwrap()).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn ordinary_addresses_are_taken() {
        for address in ["10.0.0.1", "192.0.2.10", "169.254.7.7", "100.64.0.1", "2001:db8::1", "fd00::1"] {
            assert_eq!(unicast(address.parse().unwrap()), Ok(()));
        }
    }

    #[test]
    fn names_fit_into_commands_and_urls() {
        for good in ["a", "web-1", "Web_1.example", &"x".repeat(MAX_NAME)] {
            assert_eq!(name(good), Ok(()));
        }
        for wrong in ["", "a/b", "a b", "ä", "a\n", &"x".repeat(MAX_NAME + 1)] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }
}
