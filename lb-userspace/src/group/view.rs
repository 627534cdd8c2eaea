//! What this node knows of services: which flows of other nodes it can take.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{backend::BackendId, net::Protocol, service::Mode};

use super::{skip::Skip, wire::ServiceDigest};
use crate::datapath::{Placement, SharedFlow};

/// The services in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The keys of `services`, in order.
    pub listens: Vec<(SocketAddr, Protocol)>,
    /// By listen address.
    pub services: HashMap<(SocketAddr, Protocol), Arc<ServiceView>>,
    /// The definitions of all services, in the order of their names.
    pub digests: Vec<ServiceDigest>,
    /// A digest of the key of the schedulers that hash.
    pub hash_key: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// How packets are rewritten.
    pub mode: Mode,
    /// full-nat: what backends may see as the client, also from peers.
    pub sources: Vec<IpAddr>,
    /// The ids of those that may have flows.
    pub backends: HashMap<SocketAddr, BackendId>,
    /// This node has a listen address of the service.
    pub is_active: bool,
}

impl View {
    /// Does this node serve clients at this address?
    pub fn is_active(&self, listen: (SocketAddr, Protocol)) -> bool {
        self.services.get(&listen).is_some_and(|service| service.is_active)
    }

    /// Does a service listen there that this node does not serve?
    pub fn lacks(&self, listen: (SocketAddr, Protocol)) -> bool {
        self.services.get(&listen).is_some_and(|service| !service.is_active)
    }

    /// The service that a flow belongs to.
    pub fn service_of(&self, flow: &SharedFlow) -> Option<&ServiceView> {
        self.services.get(&(flow.listen, flow.protocol)).map(AsRef::as_ref)
    }

    /// Where a flow fits in here. Nothing of what the other node says is taken for granted: with other addresses,
    /// packets of one service would reach the servers of another.
    pub fn place(&self, flow: &SharedFlow) -> Result<Placement, Skip> {
        let service = self.service_of(flow).ok_or(Skip::UnknownService)?;
        let fits = match service.mode {
            Mode::FullNat => service.sources.contains(&flow.source.ip()),
            Mode::Nat => flow.source == flow.client,
        };
        if !fits {
            return Err(Skip::OtherSource);
        }
        let backend = service.backends.get(&flow.backend).ok_or(Skip::UnknownBackend)?;
        Ok(Placement { backend: *backend, mode: service.mode, seen_before: None })
    }

    /// The services whose definitions differ on another node.
    pub fn differences(&self, there: &[ServiceDigest]) -> Vec<String> {
        let here: BTreeMap<_, _> = self.digests.iter().map(|it| (&it.name, it.digest)).collect();
        let there: BTreeMap<_, _> = there.iter().map(|it| (&it.name, it.digest)).collect();
        let of_here = here.iter().filter_map(|(name, digest)| match there.get(name) {
            Some(same) if same == digest => None,
            Some(_) => Some((*name).clone()),
            None => Some(format!("{name} (only here)")),
        });
        let of_there = there.keys().filter(|name| !here.contains_key(*name));
        of_here.chain(of_there.map(|name| format!("{name} (only there)"))).collect()
    }
}
