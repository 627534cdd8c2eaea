//! Does an interface answer ARP requests for addresses of another one?
//!
//! Linux does so by default. If the addresses of services are on `lo` of several nodes, each of them answers for them.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{Facts, Finding, Judgement, sysctl};
use crate::{interface_address::InterfaceAddress, interface_settings::InterfaceSettings};

/// Answer only for addresses of the interface that was asked.
const OWN_ADDRESSES: u8 = 1;
/// Ask only in the name of an address of the interface that asks.
const BEST_ADDRESS: u8 = 2;

pub fn quiet(facts: &Facts) -> Judgement {
    let reasons = reasons(facts);
    if reasons.is_empty() {
        let message = "no service address is on another device than the interfaces, which share no network";
        return Judgement::Passed(message.to_owned());
    }
    let findings =
        facts.settings.iter().filter_map(|it| answers_for_others(it, reasons.get(it.interface.as_str())?));
    Judgement::of(findings.collect(), "each interface answers and asks for its own addresses alone")
}

fn answers_for_others(settings: &InterfaceSettings, reason: &str) -> Option<Finding> {
    let InterfaceSettings { interface, arp_ignore, arp_announce, rp_filter: _ } = settings;
    let ignore = (*arp_ignore < OWN_ADDRESSES).then_some(("arp_ignore", arp_ignore, OWN_ADDRESSES));
    let announce = (*arp_announce != BEST_ADDRESS).then_some(("arp_announce", arp_announce, BEST_ADDRESS));
    let wrong: Vec<_> = ignore.into_iter().chain(announce).collect();
    if wrong.is_empty() {
        return None;
    }
    let values: Vec<String> = wrong.iter().map(|(name, value, _)| format!("{name} is {value}")).collect();
    let right: Vec<_> = wrong.iter().map(|(name, _, right)| (*name, *right)).collect();
    let message = format!("{} on {interface}, but {reason}", values.join(" and "));
    Some(Finding::warning(message, sysctl(interface, &right)))
}

/// Why an interface must answer for its own addresses alone.
fn reasons(facts: &Facts) -> BTreeMap<&str, String> {
    let names = || facts.spec.interfaces.iter().map(|it| it.name.as_str());
    let mut reasons = BTreeMap::new();
    for (place, one) in names().enumerate() {
        for other in names().skip(place + 1) {
            if let Some(net) = shared_network(one, other, &facts.networks) {
                let reason = format!("{one} and {other} are both in {net}: each would answer for the other");
                reasons.insert(one, reason.clone());
                reasons.insert(other, reason);
            }
        }
    }
    if let Some(device) = device_of_addresses(facts) {
        let reason = format!(
            "service addresses are on {device}, or will be: every node in this network would answer for them"
        );
        reasons.extend(names().map(|name| (name, reason.clone())));
    }
    reasons
}

/// Another device than the interfaces, where IPv4 addresses of services are, or will be.
fn device_of_addresses(facts: &Facts) -> Option<&str> {
    let is_interface = |name: &str| facts.spec.interfaces.iter().any(|it| it.name == name);
    let services = facts.spec.addresses();
    let announced = facts.spec.announce.as_ref().map(|it| it.device.as_str());
    let announced = announced.filter(|_| services.iter().any(IpAddr::is_ipv4));
    let present = facts.networks.iter().filter(|it| {
        let address = it.net.addr();
        address.is_ipv4() && services.contains(&address)
    });
    let mut devices = announced.into_iter().chain(present.map(|it| it.interface.as_str()));
    devices.find(|device| !is_interface(device))
}

/// The IPv4 network that both interfaces are in.
fn shared_network(one: &str, other: &str, networks: &[InterfaceAddress]) -> Option<IpNet> {
    let of = |name: &str| -> Vec<IpNet> {
        let its = networks.iter().filter(|it| it.interface == name && it.net.addr().is_ipv4());
        its.map(|it| it.net.trunc()).filter(|net| net.prefix_len() < net.max_prefix_len()).collect()
    };
    let others = of(other);
    of(one)
        .into_iter()
        .find_map(|net| others.iter().find(|it| it.contains(&net) || net.contains(*it)).copied())
}
