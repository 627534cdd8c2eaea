//! What a group needs of the controller: the services, and answers to packets of no flow only when no peer can know the flow.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::{counters::ServiceNumber, quiet::Quiet};

use super::{Controller, Host, Trust, identity};
use crate::{
    datapath::Datapath,
    group::{
        computation::Computation,
        digest,
        view::{ServiceView, View},
        wire::ServiceDigest,
    },
    spec::{Service, Spec, rules::Family},
    view::Presence,
};

/// How long a node that gets listen addresses drops packets of no flow without an answer: a peer that was late, or that is still
/// active, may know the flow. A client that gets no answer sends again.
pub const QUIET: Duration = Duration::from_secs(5);
/// The time between two views. Health can change many services in a short time, and a view takes a while with thousands of them.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);

/// What the exchange was told last.
#[derive(Debug, Default)]
pub struct Membership {
    /// The listen addresses on this host, and when they last changed (not if they have not since the start). `None`: they
    /// were not read yet.
    listens: Option<(BTreeSet<IpAddr>, Option<Instant>)>,
    /// How often the maps had been changed.
    map_updates: Option<u64>,
    view_at: Option<Instant>,
    /// A view is outdated.
    is_outdated: bool,
    /// Of the services of this spec.
    digests: Option<(Arc<Spec>, Vec<ServiceDigest>)>,
}

impl Membership {
    /// When there is something to do without another reason.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let changed = self.listens.as_ref().and_then(|(_, changed)| *changed);
        let quiet = changed.map(|at| at + QUIET).filter(|end| *end > now);
        let view = self.view_at.filter(|_| self.is_outdated).map(|at| at + VIEW_INTERVAL);
        quiet.into_iter().chain(view).min()
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Decides how [quiet](Quiet) this node is. Before the maps are brought up to date.
    pub(super) fn keep_quiet(&mut self, now: Instant) {
        let Some(status) = self.host.group() else { return };
        let listens = self.state.spec().services.iter().flat_map(|service| &service.listen);
        let here: BTreeSet<IpAddr> =
            listens.map(SocketAddr::ip).filter(|it| self.state.addresses().contains(it)).collect();
        let known = self.membership.listens.take();
        let changed = match known {
            None => None,
            Some((before, changed)) if before == here => changed,
            Some(_) => {
                self.membership.is_outdated = true;
                Some(now)
            }
        };
        let is_recent = changed.is_some_and(|at| now < at + QUIET);
        self.membership.listens = Some((here, changed));
        let is_standby = self.state.node_presence() == Presence::Standby;
        let quiet = if status.is_learning || is_standby || is_recent || status.awaits_flows() {
            Quiet::Always
        } else if status.misses_a_peer() {
            Quiet::AtFirst
        } else {
            Quiet::No
        };
        self.state.set_quiet(quiet);
    }

    /// Tells the exchange of the services, if they have changed. After the maps were brought up to date.
    pub(super) fn publish_view(&mut self, now: Instant) {
        if self.host.group().is_none() {
            return;
        }
        let it = &mut self.membership;
        let spec = self.state.shared_spec();
        let is_of = |(of, _): &(Arc<Spec>, _)| Arc::ptr_eq(of, &spec);
        it.is_outdated |= it.map_updates != Some(self.map_updates);
        it.is_outdated |= !it.digests.as_ref().is_some_and(is_of);
        it.map_updates = Some(self.map_updates);
        if !it.is_outdated || it.view_at.is_some_and(|at| now < at + VIEW_INTERVAL) {
            return;
        }
        (it.is_outdated, it.view_at) = (false, Some(now));
        let view = self.group_view();
        self.host.share(view);
    }

    fn group_view(&mut self) -> View {
        let spec = self.state.shared_spec();
        let mut services = Vec::new();
        for service in &spec.services {
            let number = identity::number(&self.have, service);
            let view = Arc::new(self.service_view(service, number));
            services.extend(service.listen.iter().map(|listen| {
                let computation = number.and_then(|number| self.computation(number, Family::of(listen.ip())));
                let view = match computation {
                    None => Arc::clone(&view),
                    computation => Arc::new(ServiceView { computation, ..ServiceView::clone(&view) }),
                };
                ((*listen, service.protocol), view)
            }));
        }
        let is_known = self.membership.digests.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, &spec));
        if !is_known {
            self.membership.digests = Some((Arc::clone(&spec), digests(&spec)));
        }
        let digests = self.membership.digests.as_ref().map(|(_, digests)| digests.clone());
        View::new(services, digests.unwrap_or_default(), &spec.hash.key)
    }

    /// What the program computes from, for the flows of a service and family.
    fn computation(&self, service: ServiceNumber, family: Family) -> Option<Computation> {
        // Then the maps may be those of another file.
        if matches!(self.trust, Trust::Failed { .. }) {
            return None;
        }
        let pool = self.have.pools.get(&self.have.computed_pool(service, family)?)?;
        let slots = self.have.slots.get(&pool.slots().offset)?.clone();
        Some(Computation { slots, picker: pool.picker()?, key: self.have.hash_key })
    }

    fn service_view(&self, service: &Service, number: Option<ServiceNumber>) -> ServiceView {
        let backends = number.map(|number| self.have.backends_by_address(number)).unwrap_or_default();
        ServiceView {
            name: service.name.clone(),
            mode: service.mode,
            sources: service.all_sources().collect(),
            backends: backends.into_iter().map(|(address, backend)| (address, backend.id)).collect(),
            is_active: self.state.presence(service) != Presence::Standby,
            computation: None,
        }
    }
}

fn digests(spec: &Spec) -> Vec<ServiceDigest> {
    let of = |service: &Service| ServiceDigest {
        name: service.name.clone(),
        digest: digest::digest(service),
        ..ServiceDigest::default()
    };
    let mut digests: Vec<_> = spec.services.iter().map(|service| of(service)).collect();
    digests.sort_by(|a, b| a.name.cmp(&b.name));
    digests
}
