//! What this node knows of services: which flows of other nodes it can take.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{backend::BackendId, net::Protocol, service::Mode};

use super::{computation::Computation, digest, skip::Skip, wire::ServiceDigest};
use crate::{
    datapath::{Placement, SharedFlow},
    hash_key::HashKey,
};

/// Where a service listens.
pub type Listen = (SocketAddr, Protocol);

/// The services in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The keys of `services`, in order.
    pub listens: Vec<Listen>,
    /// By listen address.
    pub services: HashMap<Listen, Arc<ServiceView>>,
    /// The definitions of all services, in the order of their names.
    pub digests: Vec<ServiceDigest>,
    /// A digest of the key of the schedulers that hash.
    pub hash_key: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// As in the file.
    pub name: String,
    /// How packets are rewritten.
    pub mode: Mode,
    /// full-nat: what backends may see as the client, also from peers.
    pub sources: Vec<IpAddr>,
    /// The ids of those that may have flows.
    pub backends: HashMap<SocketAddr, BackendId>,
    /// This node has a listen address of the service.
    pub is_active: bool,
    /// The backends that its flows have on each node with the same file. `None`: flows are not computed.
    pub computation: Option<Computation>,
}

impl View {
    /// `digests`: in the order of their names, without computations. A computation with another key than `key` is not announced
    /// to peers, so nothing is left out for it.
    pub fn new(
        services: Vec<(Listen, Arc<ServiceView>)>,
        mut digests: Vec<ServiceDigest>,
        key: &HashKey,
    ) -> Self {
        let hash_key = digest::of_key(key);
        for (_, service) in &services {
            let is_computed = service.computation.as_ref().is_some_and(|computation| computation.key == *key);
            let place = digests.binary_search_by(|it| it.name.cmp(&service.name));
            if let (true, Ok(place)) = (is_computed, place) {
                digests[place].computation = digest::of_computation(digests[place].digest, hash_key);
            }
        }
        Self {
            listens: services.iter().map(|(listen, _)| *listen).collect(),
            services: services.into_iter().collect(),
            digests,
            hash_key,
        }
    }

    /// Does this node compute backends of any service?
    pub fn computes(&self) -> bool {
        self.digests.iter().any(|it| it.computation != 0)
    }

    /// Where services listen whose backends another node computes as this one does. `there`: its services.
    pub fn computed_alike(&self, there: &[ServiceDigest]) -> HashSet<Listen> {
        let there: BTreeSet<_> = there.iter().map(|it| (&it.name, it.computation)).collect();
        let alike = self.digests.iter().filter(|it| it.computation != 0);
        let alike: BTreeSet<_> =
            alike.filter(|it| there.contains(&(&it.name, it.computation))).map(|it| &it.name).collect();
        let is_alike = |listen: &Listen| self.services.get(listen).is_some_and(|it| alike.contains(&it.name));
        self.listens.iter().copied().filter(is_alike).collect()
    }

    /// Does a flow have the backend that is computed for it?
    pub fn is_as_computed(&self, flow: &SharedFlow) -> bool {
        let Some(service) = self.service_of(flow) else { return false };
        let computed = service.computation.as_ref().and_then(|computation| computation.backend_of(flow));
        computed.is_some() && service.backends.get(&flow.backend).copied() == computed
    }

    /// Is it a flow of a service whose backends are computed, and has another one?
    pub fn is_exception(&self, flow: &SharedFlow) -> bool {
        let computes = self.service_of(flow).is_some_and(|service| service.computation.is_some());
        computes && !self.is_as_computed(flow)
    }

    /// Does this node serve clients at this address?
    pub fn is_active(&self, listen: Listen) -> bool {
        self.services.get(&listen).is_some_and(|service| service.is_active)
    }

    /// Does a service listen there that this node does not serve?
    pub fn lacks(&self, listen: Listen) -> bool {
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
