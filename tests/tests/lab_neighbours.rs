//! The Ethernet around xlb changes: addresses move, links flap.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Live, Shape, Topology, Visit, address,
    config::{Check, Service},
    eventually, visit,
};

const WEB: u16 = 80;
const ECHO: u16 = 7;
const CONNECTIONS: usize = 30;
/// For a neighbour that was just met to become one that the kernel does not vouch for.
const STALE: Duration = Duration::from_secs(15);
/// A stale neighbour is asked again every 15 s (`neighbours::asking`); the kernel waits up to 5 s, then gives it up in 3.
const FOUND_AGAIN: Duration = Duration::from_secs(30);

#[test]
fn connections_follow_a_backend_to_its_new_mac() -> Result<()> {
    let (lab, _xlb, live, _echoes) = stage("mac")?;
    let backend = &lab.backends[1].namespace;

    // Says so on its own, as a host does that takes over an address.
    backend.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    backend.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1")?;
    backend.ip("link set eth0 address 02:00:00:00:00:99")?;

    survive(live)
}

/// Nobody hears of it: what is sent to the old address is lost, until the neighbour is asked again and does not answer.
#[test]
fn a_backend_that_moves_without_a_word_is_found_again() -> Result<()> {
    let lab = Lab::build(&Topology::new("silentmac", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    // As if much time had passed: the kernel vouches for what it learned for half a minute or so, and asks nobody then.
    for family in ["ipv4", "ipv6"] {
        lab.xlb.sysctl(&format!("net.{family}.neigh.eth1.base_reachable_time_ms"), "3000")?;
        lab.xlb.sysctl(&format!("net.{family}.neigh.eth1.delay_first_probe_time"), "1")?;
    }
    let mut config = Config::web(&lab, Mode::FullNat);
    // A check would be traffic of the kernel's own, by which it would notice.
    config.services[0].health.check = Check::None;
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let moved = &lab.backends[1];
    for family in Family::ALL {
        eventually(STALE, "all serve", || all_serve(&lab, family))?;
        eventually(STALE, "the kernel does not vouch", || is_stale(&lab, moved.address.of(family)))?;
    }

    moved.namespace.ip("link set eth0 address 02:00:00:00:00:97")?;

    for family in Family::ALL {
        assert!(!all_serve(&lab, family)?, "{family:?}: somebody told");
    }
    let start = Instant::now();
    for family in Family::ALL {
        let left = FOUND_AGAIN.saturating_sub(start.elapsed());
        let waited = eventually(left, "all serve again", || all_serve(&lab, family))?;
        println!("{family:?}: all serve again after {waited:?}");
    }
    Ok(())
}

#[test]
fn connections_follow_a_client_to_its_new_mac() -> Result<()> {
    let (lab, _xlb, live, _echoes) = stage("clientmac")?;

    lab.client.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    lab.client.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1")?;
    lab.client.ip("link set eth0 address 02:00:00:00:00:98")?;

    survive(live)
}

#[test]
fn connections_survive_a_new_mac_of_an_interface_of_xlb() -> Result<()> {
    for interface in ["eth0", "eth1"] {
        let (lab, _xlb, live, _echoes) = stage("ownmac")?;

        lab.xlb.sysctl(&format!("net.ipv4.conf.{interface}.arp_notify"), "1")?;
        lab.xlb.sysctl(&format!("net.ipv6.conf.{interface}.ndisc_notify"), "1")?;
        lab.xlb.ip(&format!("link set {interface} address 02:00:00:00:00:96"))?;

        survive(live)?;
    }
    Ok(())
}

#[test]
fn connections_survive_an_interface_that_goes_down_and_up() -> Result<()> {
    for interface in ["eth0", "eth1"] {
        let (lab, _xlb, live, _echoes) = stage("flap")?;

        lab.xlb.ip(&format!("link set {interface} down\nlink set {interface} up\n"))?;

        survive(live)?;
    }
    Ok(())
}

/// Three visits, one to each: is nobody lost?
fn all_serve(lab: &Lab, family: Family) -> Result<bool> {
    const LIMIT: Duration = Duration::from_millis(500);
    let backends = lab.backends.len();
    let visits = Visit::new(&lab.client_addresses(family), address::SERVICE.port(family, WEB), backends);
    Ok(visit(&lab.client, &Visit { limit: LIMIT, ..visits })?.is_even(backends))
}

/// Does the kernel of xlb no longer vouch for a neighbour?
fn is_stale(lab: &Lab, neighbour: IpAddr) -> Result<bool> {
    Ok(lab.xlb.run(&["ip", "neighbour", "show", "to", &neighbour.to_string()])?.contains("STALE"))
}

/// Live connections of both families through a running xlb.
fn stage(tag: &'static str) -> Result<(Lab, Daemon, Vec<Live>, Vec<tests::lab::Server>)> {
    let lab = Lab::build(&Topology::new(tag, Shape::TwoNics))?;
    let echoes = lab.tcp_echoes(ECHO)?;
    let service = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO);
    let xlb = lab.start(&Config::new(&lab).service(service))?;
    xlb.wait_until_all_are_up()?;
    let live = Family::ALL.into_iter().map(|family| lab.live(family, ECHO, CONNECTIONS));
    let live = live.collect::<Result<_>>()?;
    Ok((lab, xlb, live, echoes))
}

fn survive(live: Vec<Live>) -> Result<()> {
    for connections in live {
        connections.wait_for_bytes(3)?;
        let report = connections.finish()?;
        assert!(report.broken.is_empty(), "{report}");
    }
    Ok(())
}
