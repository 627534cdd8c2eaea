//! The file as written: all keys and their possible values.
//!
//! Mistakes in a single value are found here; those that need several values, in `validate`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use lb_common::{
    limits::{MAX_BACKENDS, MAX_FLOWS, MAX_SERVICES, MAX_SLOTS, MIN_SLOTS},
    net::Protocol,
    service::{Mode, Reject},
};
use toml::de::{DeTable, DeValue};

use super::{AttachMode, Scheduler, ShareFlows, availability, cluster, exec, group, health, role, rules};
use crate::document::{
    Layers,
    mistakes::{At, Report, Span},
    table::{Given, List, Table},
    value,
};

/// The supported version of the format.
const VERSION: u32 = 1;

/// Known values that this version does not support.
const LATER_MODES: [&str; 3] = ["dsr", "ipip", "gue"];

/// The whole file.
pub struct File<'d> {
    /// `None`: the value has the wrong type.
    pub interfaces: Option<Vec<Interface>>,
    pub socket: Given<PathBuf>,
    /// `none` is `None`.
    pub metrics: Given<Option<SocketAddr>>,
    pub limits: Limits,
    pub key_file: Given<PathBuf>,
    pub announce: Option<At<String>>,
    pub exec: exec::Written,
    pub group: Option<group::Written>,
    pub cluster: Option<cluster::Written>,
    pub services: Option<Vec<Service<'d>>>,
}

/// `[[interface]]`
pub struct Interface {
    pub name: Option<At<String>>,
    pub mode: Given<AttachMode>,
}

/// `[limits]`
pub struct Limits {
    pub flows: Given<u32>,
    pub flows_ipv6: Given<u32>,
    pub half_open_flows: Given<u32>,
    pub services: Given<u32>,
    pub backends: Given<u32>,
    pub slots: Given<u32>,
}

/// `[[service]]`
pub struct Service<'d> {
    pub header: Span,
    pub name: Option<At<String>>,
    pub listen: List<SocketAddr>,
    pub protocol: Given<Protocol>,
    pub mode: Given<Mode>,
    pub source: List<IpAddr>,
    pub scheduler: Given<Scheduler>,
    pub availability: availability::Written,
    pub role: role::Written,
    pub reject: Given<Reject>,
    pub share_flows: Given<ShareFlows>,
    pub health: Layers<'d>,
    pub backends: Option<Vec<Backend>>,
}

/// `[[service.backend]]`
pub struct Backend {
    pub name: Option<At<String>>,
    pub address: Option<At<SocketAddr>>,
    pub weight: Given<u32>,
    pub backup: Given<bool>,
    pub max_flows: Given<u32>,
}

impl<'d> File<'d> {
    pub fn read(mut root: Table<'d>) -> Self {
        root.required("version", version);
        let health = defaults(root.table("defaults", "[defaults]"));
        let file = Self {
            interfaces: root
                .tables("interface", "[[interface]]")
                .map(|all| all.into_iter().map(interface).collect()),
            socket: optional_in(root.table("api", "[api]"), "socket", value::socket_path),
            metrics: optional_in(root.table("metrics", "[metrics]"), "listen", metrics_listen),
            limits: Limits::read(root.table("limits", "[limits]")),
            key_file: optional_in(root.table("hash", "[hash]"), "key_file", value::file_path),
            announce: root.table("announce", "[announce]").and_then(announce),
            exec: exec::Written::read(root.table("exec", "[exec]")),
            group: root.table("group", "[group]").map(group::Written::read),
            cluster: root.table("cluster", "[cluster]").map(cluster::Written::read),
            services: services(&mut root, health),
        };
        root.close();
        file
    }
}

impl Limits {
    const ABSENT: Self = Self {
        flows: Given::Absent,
        flows_ipv6: Given::Absent,
        half_open_flows: Given::Absent,
        services: Given::Absent,
        backends: Given::Absent,
        slots: Given::Absent,
    };

    fn read(table: Option<Table<'_>>) -> Self {
        let Some(mut table) = table else {
            return Self::ABSENT;
        };
        let flows = |value: &DeValue<'_>| value::integer(value, 1..=MAX_FLOWS);
        let limits = Self {
            flows: table.optional("flows", flows),
            flows_ipv6: table.optional("flows_ipv6", flows),
            half_open_flows: table.optional("half_open_flows", flows),
            services: table.optional("services", |value| value::integer(value, 1..=MAX_SERVICES)),
            backends: table.optional("backends", |value| value::integer(value, 1..=MAX_BACKENDS)),
            slots: table.optional("slots", |value| value::integer(value, MIN_SLOTS..=MAX_SLOTS)),
        };
        table.close();
        limits
    }
}

impl<'d> Service<'d> {
    fn read(mut table: Table<'d>, defaults: Option<&'d DeTable<'d>>) -> Self {
        let service = Self {
            header: table.span(),
            name: table.required("name", name),
            listen: table.list("listen", listen),
            protocol: table.optional("protocol", |value| value::choice(value, "protocol", &[])),
            mode: table.optional("mode", |value| value::choice(value, "mode", &LATER_MODES)),
            source: table.list("source", source),
            scheduler: table.optional("scheduler", |value| value::choice(value, "scheduler", &[])),
            availability: availability::Written::read(&mut table),
            role: role::Written::read(&mut table),
            reject: table.optional("reject", |value| value::choice(value, "reject", &[])),
            share_flows: table.optional("share_flows", |value| value::choice(value, "share_flows", &[])),
            health: Layers {
                own: table.table("health", "[service.health]").map(health::read),
                inherited: defaults,
            },
            backends: table
                .tables("backend", "[[service.backend]]")
                .map(|all| all.into_iter().map(Backend::read).collect()),
        };
        table.close();
        service
    }
}

impl Service<'_> {
    /// The name in messages.
    pub fn name(&self) -> &str {
        self.name.as_ref().map_or("?", |name| &name.value)
    }

    /// The first address of a family.
    pub fn listen_of(&self, family: rules::Family) -> Option<&At<SocketAddr>> {
        self.listen.items.iter().find(|listen| rules::Family::of(listen.value.ip()) == family)
    }
}

impl Backend {
    fn read(mut table: Table<'_>) -> Self {
        let backend = Self {
            name: table.required("name", name),
            address: table.required("address", listen),
            weight: table.optional("weight", |value| value::integer(value, 0..=rules::MAX_WEIGHT)),
            backup: table.optional("backup", value::boolean),
            max_flows: table.optional("max_flows", |value| value::integer(value, 0..=u32::MAX)),
        };
        table.close();
        backend
    }
}

fn services<'d>(root: &mut Table<'d>, defaults: Option<&'d DeTable<'d>>) -> Option<Vec<Service<'d>>> {
    let tables = root.tables("service", "[[service]]")?;
    Some(tables.into_iter().map(|table| Service::read(table, defaults)).collect())
}

fn interface(mut table: Table<'_>) -> Interface {
    let interface = Interface {
        name: table.required("name", value::interface_name),
        mode: table.optional("mode", |value| value::choice(value, "mode", &[])),
    };
    table.close();
    interface
}

fn defaults<'d>(table: Option<Table<'d>>) -> Option<&'d DeTable<'d>> {
    let mut table = table?;
    let health = table.table("health", "[defaults.health]").map(health::read);
    table.close();
    health
}

/// The device.
fn announce(mut table: Table<'_>) -> Option<At<String>> {
    let device = table.required("device", value::interface_name);
    table.close();
    device
}

/// A table with a single key.
fn optional_in<T>(
    table: Option<Table<'_>>,
    key: &'static str,
    read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
) -> Given<T> {
    let Some(mut table) = table else { return Given::Absent };
    let given = table.optional(key, |value| read(value));
    table.close();
    given
}

fn version(value: &DeValue<'_>) -> Result<(), String> {
    match value::integer(value, 0..=u32::MAX)? {
        VERSION => Ok(()),
        other => {
            Err(format!("unknown format version {other}: this xlb reads version {VERSION} of the format"))
        }
    }
}

fn name(value: &DeValue<'_>) -> Result<String, String> {
    let name = value::text(value)?;
    rules::name(name)?;
    Ok(name.to_owned())
}

/// An address and port that services and backends can have.
fn listen(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let endpoint = value::endpoint(value)?;
    rules::endpoint(endpoint)?;
    Ok(endpoint)
}

/// An address that packets to backends are sent from.
pub fn source(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let address = value::address(value)?;
    rules::unicast(address)?;
    Ok(address)
}

/// A listen address of xlb itself, which may be loopback or unspecified; or `none`.
fn metrics_listen(value: &DeValue<'_>) -> Result<Option<SocketAddr>, String> {
    match value::text(value)? {
        "none" => Ok(None),
        written => match written.strip_prefix(':').map(str::parse::<u16>) {
            // Other programs take this as every address.
            Some(Ok(port @ 1..)) => {
                Err(format!("`{written}` has no address: write `0.0.0.0:{port}` or `[::]:{port}`"))
            }
            Some(Ok(0) | Err(_)) | None => value::endpoint(value).map(Some),
        },
    }
}

/// Reads what TOML could parse of the text.
pub fn read<'d>(document: &'d toml::Spanned<DeTable<'d>>, report: &'d Report<'d>) -> File<'d> {
    File::read(Table::root(document, report))
}

/// The same for a text that has nothing but services and what they inherit.
pub fn read_services<'d>(
    document: &'d toml::Spanned<DeTable<'d>>,
    report: &'d Report<'d>,
) -> Option<Vec<Service<'d>>> {
    let mut root = Table::root(document, report);
    root.required("version", version);
    let health = defaults(root.table("defaults", "[defaults]"));
    let services = services(&mut root, health);
    root.close();
    services
}
