//! The key `share_flows` of a `[[service]]`: which flows the other nodes of a group are told of.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{net::Protocol, service::Mode};

use super::{
    Scheduler,
    file::Service,
    rules::{Family, Refusal},
};
use crate::{document::mistakes::Report, named::named, shared::Shared};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShareFlows {
    /// All flows.
    #[default]
    All,
    /// Those whose backend is not the one that another node computes from their addresses and ports.
    Exceptions,
}

named!(ShareFlows { All = "all", Exceptions = "exceptions", });

/// What another node computes must follow from a packet of either side.
pub fn validate(services: &[Service<'_>], has_group: bool, report: &Report<'_>) {
    let mut holders: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for service in services {
        let Some(written) = service.share_flows.good().filter(|it| it.value == ShareFlows::Exceptions) else {
            continue;
        };
        for need in needs(service, has_group) {
            report.add(written.span, format!("share_flows `exceptions` {need}"));
        }
        for address in service.backends.iter().flatten().filter_map(|backend| backend.address.as_ref()) {
            match holders.get(&address.value) {
                Some(holder) if *holder != service.name() => report.add(
                    address.span,
                    format!(
                        "service `{holder}` has this backend, too: with share_flows `exceptions`, its replies \
                         must belong to one service"
                    ),
                ),
                Some(_) => {}
                None => drop(holders.insert(address.value, service.name())),
            }
        }
    }
}

/// May the service at this place get a backend with this address, for all that other services have?
pub fn fit(services: &[Shared<super::Service>], place: usize, address: SocketAddr) -> Result<(), Refusal> {
    let computes = |service: &super::Service| service.share_flows == ShareFlows::Exceptions;
    if !computes(&services[place]) {
        return Ok(());
    }
    let others = services.iter().enumerate().filter(|(at, it)| *at != place && computes(it));
    let mut backends = others.flat_map(|(_, service)| service.backends.iter().map(move |it| (service, it)));
    match backends.find(|(_, backend)| backend.address == address) {
        Some((service, backend)) => {
            let (service, backend) = (service.name.clone(), backend.name.clone());
            Err(Refusal::Taken { address, service, backend })
        }
        None => Ok(()),
    }
}

/// What the service lacks.
fn needs(service: &Service<'_>, has_group: bool) -> Vec<&'static str> {
    let is_computed = service.scheduler.or_if_absent(Scheduler::default()).is_none_or(Scheduler::hashes);
    let is_tcp = service.protocol.or_if_absent(Protocol::Tcp) != Some(Protocol::Udp);
    let is_nat = service.mode.or_if_absent(Mode::FullNat) != Some(Mode::FullNat);
    let is_once =
        |family| service.listen.items.iter().filter(|it| Family::of(it.value.ip()) == family).count() <= 1;
    [
        (has_group, "needs a [group]: there is no other node to tell"),
        (
            is_computed,
            "needs scheduler `maglev` or `source-hash`: with others, nodes choose different backends",
        ),
        (is_nat, "needs mode `nat`: with full-nat, the source port is the choice of one node"),
        (is_tcp, "needs protocol `tcp`: in a datagram, nothing shows whether it is the first of its flow"),
        (
            Family::ALL.into_iter().all(is_once),
            "allows one listen address of each family: it must follow from a reply",
        ),
        (!service.role.decides(), "does not go with `role`: only one server may have flows"),
    ]
    .into_iter()
    .filter_map(|(is_met, need)| (!is_met).then_some(need))
    .collect()
}
