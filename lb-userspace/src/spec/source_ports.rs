//! How many flows the source ports of full-nat services allow.

use std::{fmt, ops::Deref};

use lb_common::{service::Mode, settings::PortPool};

use super::{Service, Spec, rules::Family};
use crate::text::counted;

/// Maximum number of concurrent flows by source ports, for full-nat services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// Ports per source and backend.
    pub ports: u32,
    /// Only full-nat services, once for each family that they listen in.
    pub services: Vec<ServicePorts>,
}

/// A service in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePorts {
    /// As in the file.
    pub service: String,
    /// Sources and backends of the other family do not count.
    pub family: Family,
    /// Local addresses that backends see.
    pub sources: u32,
    /// Includes backups and those with weight 0, which may have flows.
    pub backends: u32,
}

impl SourcePorts {
    /// `pool`: the ports outside the host's ephemeral range. The nodes of a group divide them.
    pub fn of(spec: &Spec, pool: PortPool) -> Self {
        let pool = spec.group.as_ref().map_or(pool, |group| {
            let (node, nodes) = group.share();
            pool.share(node as u32, nodes as u32)
        });
        let full_nat = spec.services.iter().map(Deref::deref).filter(|service| service.mode == Mode::FullNat);
        let rows = full_nat.flat_map(|service| Family::ALL.map(|family| (service, family)));
        let row = |(service, family): (&Service, Family)| ServicePorts {
            service: service.name.clone(),
            family,
            sources: service.sources.iter().filter(|it| Family::of(**it) == family).count() as u32,
            backends: service.backends.iter().filter(|it| Family::of(it.address.ip()) == family).count()
                as u32,
        };
        let listening = rows.filter(|(service, family)| service.listens_on(*family));
        Self { ports: pool.size(), services: listening.map(row).collect() }
    }
}

impl ServicePorts {
    /// Each flow uses one port of one source towards one backend.
    pub fn flows(&self, ports: u32) -> u64 {
        u64::from(ports) * u64::from(self.sources) * u64::from(self.backends)
    }
}

impl fmt::Display for SourcePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source ports: {} per source and backend", grouped(self.ports.into()))?;
        let widest = self.services.iter().map(|it| it.service.len()).max().unwrap_or(0);
        self.services.iter().try_for_each(|it| {
            let flows = grouped(it.flows(self.ports));
            let (sources, backends) =
                (counted(it.sources.into(), "source"), counted(it.backends.into(), "backend"));
            let ServicePorts { service, family, .. } = it;
            write!(f, "\n  {service:<widest$}  {family}  {sources} x {backends}: at most {flows} flows")
        })
    }
}

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_are_counted_by_service_and_family() {
        let text = "
            version = 1
            [[interface]]
            name = 'eth0'
            [[service]]
            name = 'web'
            listen = ['192.0.2.10:80', '[2001:db8::10]:80']
            source = ['10.0.0.1', '10.0.0.2', 'fd00::1']
            backend = [{ name = 'a', address = '10.0.0.11:80' }, { name = 'b', address = '[fd00::11]:80' },
                       { name = 'c', address = '10.0.0.13:80' }]
            [[service]]
            name = 'natted'
            mode = 'nat'
            listen = ['192.0.2.11:80']
            backend = [{ name = 'a', address = '10.0.0.11:80' }]";
        let spec = crate::spec::parse("test.toml", text).unwrap();

        let ports = SourcePorts::of(&spec, PortPool::around(32_768, 60_999));

        let expected = "\
source ports: 36,280 per source and backend
  web  IPv4  2 sources x 2 backends: at most 145,120 flows
  web  IPv6  1 source x 1 backend: at most 36,280 flows";
        assert_eq!(ports.to_string(), expected);
    }

    #[test]
    fn digits_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];

        assert!(cases.iter().all(|(number, shown)| grouped(*number) == *shown));
    }
}
