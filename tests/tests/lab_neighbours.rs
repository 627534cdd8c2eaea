//! The Ethernet around xlb changes: addresses move, links flap.

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{Config, Daemon, Family, Lab, Live, Shape, Topology, config::Service};

const ECHO: u16 = 7;
const CONNECTIONS: usize = 30;

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

#[test]
fn connections_follow_a_client_to_its_new_mac() -> Result<()> {
    let (lab, _xlb, live, _echoes) = stage("clientmac")?;

    lab.client.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    lab.client.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1")?;
    lab.client.ip("link set eth0 address 02:00:00:00:00:98")?;

    survive(live)
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
