//! `[group]`: the nodes that share their flows, so that each continues the connections of the others.
//!
//! A node's name is the name in its certificate. Case does not matter in it, as in DNS: names are kept in lower case.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use tokio_rustls::rustls::pki_types::DnsName;
use toml::de::DeValue;

use super::file::{self, Service};
use crate::{
    document::{
        mistakes::{At, Report, Span},
        table::{Given, List, Table},
        value,
    },
    text::quote,
};

/// Maximum number of peers. Each node has a connection to and from each of them, and a share of the source ports.
pub const MAX_PEERS: usize = 15;

/// This node and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name of this node.
    pub node: String,
    /// Where the others connect to.
    pub listen: SocketAddr,
    /// The file of this node's certificate chain.
    pub cert: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
    /// The file of the CA that signs the certificates of all nodes.
    pub ca: PathBuf,
    /// 1 to 15, in the order of the file.
    pub peers: Vec<Peer>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name, which its certificate has.
    pub node: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Group {
    /// The place of this node among all nodes in the order of their names, and their number. It is the same on all nodes
    /// if their files name the same nodes.
    pub fn share(&self) -> (usize, usize) {
        let before = self.peers.iter().filter(|peer| peer.node < self.node).count();
        (before, self.peers.len() + 1)
    }
}

/// The keys as written.
pub struct Written {
    header: Span,
    node: Given<String>,
    listen: Option<At<SocketAddr>>,
    cert: Option<At<PathBuf>>,
    key: Option<At<PathBuf>>,
    ca: Option<At<PathBuf>>,
    peers: Option<Vec<WrittenPeer>>,
}

/// `[[group.peer]]`
struct WrittenPeer {
    header: Span,
    node: Option<At<String>>,
    address: Option<At<SocketAddr>>,
    source: List<IpAddr>,
}

impl Written {
    pub fn read(mut table: Table<'_>) -> Self {
        let written = Self {
            header: table.span(),
            node: table.optional("node", node),
            listen: table.required("listen", value::endpoint),
            cert: table.required("cert", value::file_path),
            key: table.required("key", value::secret_path),
            ca: table.required("ca", value::file_path),
            peers: table
                .tables("peer", "[[group.peer]]")
                .map(|all| all.into_iter().map(WrittenPeer::read).collect()),
        };
        table.close();
        written
    }

    /// Sources of services from which peers send to backends, and this node does not.
    pub fn sources(&self) -> BTreeSet<IpAddr> {
        let peers = self.peers.iter().flatten();
        peers.flat_map(|peer| peer.source.items.iter().map(|it| it.value)).collect()
    }

    /// Names and addresses are those of different nodes. `host`: the name of this host.
    pub fn validate(self, host: &str, services: &[Service<'_>], report: &Report<'_>) -> Option<Group> {
        let own = match self.node {
            Given::Absent => {
                let node = report.take(self.header, node_of_host(host));
                node.map(|value| At { value, span: self.header })
            }
            Given::Wrong => None,
            Given::Good(it) => Some(it),
        };
        count(self.peers.as_deref(), self.header, report);
        let peers = self.peers.unwrap_or_default();
        let names = own.iter().chain(peers.iter().filter_map(|it| it.node.as_ref()));
        different(names, "name", report);
        let addresses = || self.listen.iter().chain(peers.iter().filter_map(|it| it.address.as_ref()));
        different(addresses(), "address", report);
        different(peers.iter().flat_map(|it| &it.source.items), "source", report);
        for address in addresses() {
            report.take(address.span, refuse_of_service(address.value, services));
        }
        let peer = |it: WrittenPeer| Some(Peer { node: it.node?.value, address: it.address?.value });
        Some(Group {
            node: own?.value,
            listen: self.listen?.value,
            cert: self.cert?.value,
            key: self.key?.value,
            ca: self.ca?.value,
            peers: peers.into_iter().filter_map(peer).collect(),
        })
    }
}

impl WrittenPeer {
    fn read(mut table: Table<'_>) -> Self {
        let peer = Self {
            header: table.span(),
            node: table.required("node", node),
            address: table.required("address", address),
            source: table.list("source", file::source),
        };
        table.close();
        peer
    }
}

fn count(peers: Option<&[WrittenPeer]>, header: Span, report: &Report<'_>) {
    let Some(peers) = peers else { return };
    if peers.is_empty() {
        report.add(header, "[group] has no [[group.peer]]: each other node is one");
    }
    if let Some(one_too_many) = peers.get(MAX_PEERS) {
        report.add(one_too_many.header, format!("a group has at most {} nodes", MAX_PEERS + 1));
    }
}

/// Reports what two nodes have in common.
fn different<'w, T: Ord + Display + 'w>(
    all: impl Iterator<Item = &'w At<T>>,
    what: &str,
    report: &Report<'_>,
) {
    let mut seen: BTreeMap<&T, Span> = BTreeMap::new();
    for At { value, span } in all {
        if let Some(first) = seen.get(value) {
            let line = report.line(*first);
            report.add(*span, format!("`{value}` is already the {what} of the node on line {line}"));
        } else {
            seen.insert(value, *span);
        }
    }
}

/// A listen address of a service belongs to whichever node is active, and cannot be that of one node.
fn refuse_of_service(address: SocketAddr, services: &[Service<'_>]) -> Result<(), String> {
    let has = |service: &&Service<'_>| service.listen.items.iter().any(|it| it.value.ip() == address.ip());
    match services.iter().find(has) {
        Some(service) => Err(format!(
            "`{}` is a listen address of service `{}`, which moves to another node: use an address that only this \
             node has",
            address.ip(),
            service.name()
        )),
        None => Ok(()),
    }
}

/// A name that a certificate can have.
pub fn node(value: &DeValue<'_>) -> Result<String, String> {
    let name = value::text(value)?;
    node_name(name).ok_or_else(|| {
        format!(
            "{} is not the name of a node: expected a host name like `lb-1`, as in its certificate",
            quote(name)
        )
    })
}

pub fn node_of_host(name: &str) -> Result<String, String> {
    let error = || format!("this host's name, {}, cannot be the name of a node: set `node`", quote(name));
    node_name(name).ok_or_else(error)
}

fn node_name(name: &str) -> Option<String> {
    let is_name = DnsName::try_from(name).is_ok() && !name.ends_with('.');
    is_name.then(|| name.to_ascii_lowercase())
}

/// Where a peer listens.
fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address = value::endpoint(value)?;
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(format!("`{address}` is not the address of one node"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_agree_on_their_places() {
        let names = ["lb-10", "lb-2", "lb-1"];

        let shares = names.map(|own| {
            let peers = names.into_iter().filter(|it| *it != own).collect();
            group(own, peers).share()
        });

        assert_eq!(shares, [(1, 3), (2, 3), (0, 3)]);
    }

    #[test]
    fn a_name_is_one_that_a_certificate_can_have() {
        for (name, kept) in [
            ("lb-1", Some("lb-1")),
            ("LB-1.Example.org", Some("lb-1.example.org")),
            ("lb_1", Some("lb_1")),
            ("", None),
            ("lb 1", None),
            ("lb-1.", None),
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("*.example.org", None),
        ] {
            assert_eq!(node_name(name).as_deref(), kept, "{name}");
        }
        let error = node_of_host("(none)").unwrap_err();
        assert_eq!(error, "this host's name, `(none)`, cannot be the name of a node: set `node`");
    }

    fn group(node: &str, peers: Vec<&str>) -> Group {
        let address = SocketAddr::from(([192, 0, 2, 1], 4790));
        let peer = |node: &str| Peer { node: node.to_owned(), address };
        Group {
            node: node.to_owned(),
            listen: address,
            cert: PathBuf::from("/cert"),
            key: PathBuf::from("/key"),
            ca: PathBuf::from("/ca"),
            peers: peers.into_iter().map(peer).collect(),
        }
    }
}
