//! A configuration file for the lab's daemon.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use lb_common::{limits::Room, net::Protocol, service::Mode};

use super::{Family, Lab, address, web};

/// The contents of `xlb.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interfaces that xlb is attached to.
    pub interfaces: Vec<String>,
    /// The limits of all services together.
    pub limits: Limits,
    /// The key of schedulers that hash. `None`: the default, in the state directory.
    pub key_file: Option<PathBuf>,
    /// `[exec]`: whether checks may run programs.
    pub allows_programs: bool,
    /// `[announce]`: the device. `None`: nothing is announced.
    pub announce: Option<&'static str>,
    /// `[group]`: the other nodes.
    pub group: Option<Group>,
    /// `[cluster]`: where the services are stored.
    pub cluster: Option<Cluster>,
    /// The services, in the order of the file.
    pub services: Vec<Service>,
}

/// `[cluster]`
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The node's name.
    pub node: String,
    /// URLs of etcd.
    pub endpoints: Vec<String>,
    /// The file of its CA.
    pub ca: PathBuf,
    /// The file of the node's certificate.
    pub cert: PathBuf,
    /// The file of the node's key.
    pub key: PathBuf,
}

/// `[group]`
#[derive(Clone, Debug)]
pub struct Group {
    /// The node's name.
    pub node: String,
    /// Where peers connect to.
    pub listen: SocketAddr,
    /// The file of its certificate.
    pub cert: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The file of the CA.
    pub ca: PathBuf,
    /// The other nodes.
    pub peers: Vec<Peer>,
}

/// `[[group.peer]]`
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Sources of services that it sends from, and this node does not.
    pub sources: Vec<IpAddr>,
}

/// `[limits]`; small, so that a lab is quick to start.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// IPv4 flows to hold.
    pub flows: u32,
    /// IPv6 flows to hold.
    pub flows_ipv6: u32,
    /// Maximum number of half-open flows per family.
    pub half_open_flows: u32,
    /// Services and backends to hold. `None`: the default.
    pub room: Option<Room>,
}

impl Limits {
    /// Limits for this many flows, and the default number of services and backends.
    pub const fn of_flows(flows: u32, flows_ipv6: u32, half_open_flows: u32) -> Self {
        Self { flows, flows_ipv6, half_open_flows, room: None }
    }
}

/// `[[service]]`
#[derive(Clone, Debug)]
pub struct Service {
    /// The name that `xlb` uses.
    pub name: String,
    /// The endpoints where it listens, at least one.
    pub listen: Vec<SocketAddr>,
    /// The protocol of all endpoints.
    pub protocol: Protocol,
    /// The mode.
    pub mode: Mode,
    /// With full-nat, what is written as `source`. `None`: xlb's back addresses.
    pub sources: Option<Vec<IpAddr>>,
    /// How backends are chosen. `None`: the default.
    pub scheduler: Option<&'static str>,
    /// Other keys, a line each, as they are written.
    pub keys: Vec<&'static str>,
    /// The health checks of all its backends.
    pub health: Health,
    /// Its backends, of both families if it listens in both.
    pub backends: Vec<Backend>,
}

/// `[service.health]`
#[derive(Clone, Debug)]
pub struct Health {
    /// Without a check, the rest is not written.
    pub check: Check,
    /// The time from one check to the next; written in whole milliseconds.
    pub interval: Duration,
    /// The time limit of a whole check; written in whole milliseconds.
    pub timeout: Duration,
    /// Good results in a row that make a backend up.
    pub rise: u32,
    /// Bad results in a row that make it down.
    pub fall: u32,
}

/// The type of a check.
#[derive(Clone, Debug)]
pub enum Check {
    /// No check: backends count as up.
    None,
    /// Connects.
    Tcp,
    /// Sends a request, and accepts 2xx and 3xx.
    Http {
        /// Begins with `/`.
        path: &'static str,
    },
    /// Another type, with its keys, as they are written.
    Written(String),
}

/// `[[service.backend]]`
#[derive(Clone, Debug)]
pub struct Backend {
    /// As [`Service::over`] has it: `web-1`, and `web-1-v6` in IPv6.
    pub name: String,
    /// The endpoint that serves and is checked.
    pub address: SocketAddr,
    /// Its share of new flows, relative to the others.
    pub weight: u32,
    /// Used only if no regular backend of its family can take new flows.
    pub backup: bool,
    /// Its maximum number of flows. 0: no limit.
    pub max_flows: u32,
}

impl Config {
    /// No service yet.
    pub fn new(lab: &Lab) -> Self {
        Self {
            interfaces: lab.interfaces.iter().map(|&name| name.to_owned()).collect(),
            limits: Limits::of_flows(65_536, 65_536, 16_384),
            key_file: None,
            allows_programs: false,
            announce: None,
            group: None,
            cluster: None,
            services: Vec::new(),
        }
    }

    /// The service `web`: port 80 of [`address::SERVICE`], balanced over the web servers of all backends.
    pub fn web(lab: &Lab, mode: Mode) -> Self {
        Self::new(lab).service(Service::over(lab, "web", Protocol::Tcp, mode, 80, web::PORT))
    }

    /// The configuration with other limits.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same with checks that may run programs.
    #[must_use]
    pub fn allow_programs(self) -> Self {
        Self { allows_programs: true, ..self }
    }

    /// The same with `[announce]`.
    #[must_use]
    pub fn announce(self, device: &'static str) -> Self {
        Self { announce: Some(device), ..self }
    }

    /// The configuration with one more service.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }
}

impl Service {
    /// A service at `port` of [`address::SERVICE`] over `backend_port` of all backends, in both families, checked by tcp
    /// (or not at all, if it is UDP).
    pub fn over(lab: &Lab, name: &str, protocol: Protocol, mode: Mode, port: u16, backend_port: u16) -> Self {
        let backends = Family::ALL.into_iter().flat_map(|family| {
            lab.backends.iter().map(move |backend| Backend {
                name: match family {
                    Family::V4 => backend.name.clone(),
                    Family::V6 => format!("{}-v6", backend.name),
                },
                address: backend.address.port(family, backend_port),
                weight: 100,
                backup: false,
                max_flows: 0,
            })
        });
        Self {
            name: name.to_owned(),
            listen: Family::ALL.map(|family| address::SERVICE.port(family, port)).to_vec(),
            protocol,
            mode,
            scheduler: None,
            sources: None,
            keys: Vec::new(),
            health: Health {
                check: match protocol {
                    Protocol::Tcp => Check::Tcp,
                    Protocol::Udp => Check::None,
                },
                interval: Duration::from_millis(200),
                timeout: Duration::from_millis(200),
                rise: 2,
                fall: 3,
            },
            backends: backends.collect(),
        }
    }

    /// The same for one family.
    #[must_use]
    pub fn only(mut self, family: Family) -> Self {
        let is_of_family = |address: &SocketAddr| address.is_ipv4() == (family == Family::V4);
        self.listen.retain(is_of_family);
        self.backends.retain(|backend| is_of_family(&backend.address));
        self
    }

    fn sources(&self) -> Vec<IpAddr> {
        match (self.mode, &self.sources) {
            (Mode::FullNat, Some(sources)) => sources.clone(),
            (Mode::FullNat, None) => Family::ALL
                .into_iter()
                .filter(|family| self.listen.iter().any(|listen| listen.is_ipv4() == (*family == Family::V4)))
                .map(|family| address::SOURCE.of(family))
                .collect(),
            (Mode::Nat, _) => Vec::new(),
        }
    }
}

impl Health {
    /// After this time, no flow goes to a backend that refuses.
    pub fn notices_refusal_within(&self) -> Duration {
        self.interval * self.fall + Duration::from_millis(100)
    }

    /// After this time, no flow goes to a backend that is silent.
    pub fn notices_silence_within(&self) -> Duration {
        self.notices_refusal_within() + self.timeout
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version = 1")?;
        for interface in &self.interfaces {
            writeln!(f, "\n[[interface]]\nname = \"{interface}\"")?;
        }
        let Limits { flows, flows_ipv6, half_open_flows, room } = self.limits;
        writeln!(
            f,
            "\n[limits]\nflows = {flows}\nflows_ipv6 = {flows_ipv6}\nhalf_open_flows = {half_open_flows}"
        )?;
        if let Some(Room { services, backends, slots }) = room {
            writeln!(f, "services = {services}\nbackends = {backends}\nslots = {slots}")?;
        }
        if let Some(file) = &self.key_file {
            writeln!(f, "\n[hash]\nkey_file = \"{}\"", file.display())?;
        }
        if self.allows_programs {
            writeln!(f, "\n[exec]\nallow = true")?;
        }
        if let Some(device) = self.announce {
            writeln!(f, "\n[announce]\ndevice = \"{device}\"")?;
        }
        self.group.iter().try_for_each(|group| group.fmt(f))?;
        self.cluster.iter().try_for_each(|cluster| cluster.fmt(f))?;
        self.services.iter().try_for_each(|service| service.fmt(f))
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[cluster]\nnode = \"{}\"\nendpoints = {}", self.node, quoted(&self.endpoints))?;
        [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)]
            .into_iter()
            .try_for_each(|(key, file)| writeln!(f, "{key} = \"{}\"", file.display()))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[group]\nnode = \"{}\"\nlisten = \"{}\"", self.node, self.listen)?;
        for (key, file) in [("cert", &self.cert), ("key", &self.key), ("ca", &self.ca)] {
            writeln!(f, "{key} = \"{}\"", file.display())?;
        }
        self.peers.iter().try_for_each(|Peer { node, address, sources }| {
            writeln!(f, "\n[[group.peer]]\nnode = \"{node}\"\naddress = \"{address}\"")?;
            if sources.is_empty() { Ok(()) } else { writeln!(f, "source = {}", quoted(sources)) }
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, mode) = (protocol_name(self.protocol), mode_name(self.mode));
        writeln!(f, "\n[[service]]\nname = \"{}\"\nlisten = {}", self.name, quoted(&self.listen))?;
        writeln!(f, "protocol = \"{protocol}\"\nmode = \"{mode}\"")?;
        if let Some(scheduler) = self.scheduler {
            writeln!(f, "scheduler = \"{scheduler}\"")?;
        }
        let sources = self.sources();
        if !sources.is_empty() {
            writeln!(f, "source = {}", quoted(&sources))?;
        }
        self.keys.iter().try_for_each(|key| writeln!(f, "{key}"))?;
        self.health.fmt(f)?;
        for Backend { name, address, weight, backup, max_flows } in &self.backends {
            writeln!(f, "\n[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"")?;
            writeln!(f, "weight = {weight}")?;
            if *backup {
                writeln!(f, "backup = true")?;
            }
            if *max_flows != 0 {
                writeln!(f, "max_flows = {max_flows}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[service.health]")?;
        match &self.check {
            Check::None => return writeln!(f, "type = \"none\""),
            Check::Tcp => writeln!(f, "type = \"tcp\"")?,
            Check::Http { path } => writeln!(f, "type = \"http\"\npath = \"{path}\"")?,
            Check::Written(keys) => writeln!(f, "{keys}")?,
        }
        let Self { interval, timeout, rise, fall, .. } = self;
        writeln!(
            f,
            "interval = \"{}ms\"\ntimeout = \"{}ms\"\nrise = {rise}\nfall = {fall}",
            interval.as_millis(),
            timeout.as_millis()
        )
    }
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::FullNat => "full-nat",
        Mode::Nat => "nat",
    }
}

fn quoted(items: &[impl fmt::Display]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}
