//! Changes of the Ethernet around xlb: addresses move, links flap.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use lb_common::{hop::Interface, net::Protocol, service::Mode};
use lb_userspace::datapath::shapes::pin_name;
use tests::lab::{
    Config, Daemon, Family, Lab, Live, Shape, Topology, Visit, address,
    config::{Check, Service},
    eventually, visit,
    visit::SYN_AGAIN,
    wait::SOON,
};
use tokio::{net::UdpSocket, time::timeout};

const WEB: u16 = 80;
const ECHO: u16 = 7;
const DNS: u16 = 53;
const CONNECTIONS: usize = 30;
/// The time until a fresh neighbour entry becomes stale.
const STALE: Duration = Duration::from_secs(15);
/// The kernel is asked to probe a stale neighbour every 15 s (`REFRESH` in lb-userspace/src/neighbours/limiter.rs); the
/// kernel waits up to 5 s, then gives up after 3 s.
const FOUND_AGAIN: Duration = Duration::from_secs(30);
/// Limit for the time until the program has the new MAC of an interface: usually milliseconds, 0.8 s on busy CPUs.
const MAC_KNOWN_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn connections_follow_a_backend_to_its_new_mac() -> Result<()> {
    let (lab, _xlb, live, _echoes) = stage("mac")?;
    let backend = &lab.backends[1].namespace;

    // Sends a gratuitous ARP, like a host that takes over an address.
    backend.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    backend.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1")?;
    backend.ip("link set eth0 address 02:00:00:00:00:99")?;

    survive(live)
}

/// The move is not announced: packets to the old MAC are lost until a probe of the neighbour fails.
#[test]
fn a_backend_that_moves_without_an_announcement_is_found_again() -> Result<()> {
    let lab = Lab::build(&Topology::new("silentmac", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    // As if much time had passed: for about half a minute, an entry is reachable and the kernel sends no probe.
    for family in ["ipv4", "ipv6"] {
        lab.xlb.sysctl(&format!("net.{family}.neigh.eth1.base_reachable_time_ms"), "3000")?;
        lab.xlb.sysctl(&format!("net.{family}.neigh.eth1.delay_first_probe_time"), "1")?;
    }
    let mut config = Config::web(&lab, Mode::FullNat);
    // A health check is traffic of the kernel itself, which would make it detect the move.
    config.services[0].health.check = Check::None;
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let moved = &lab.backends[1];
    for family in Family::ALL {
        eventually(STALE, "all serve", || all_serve(&lab, family))?;
        eventually(STALE, "the neighbour entry is stale", || is_stale(&lab, moved.address.of(family)))?;
    }

    moved.namespace.ip("link set eth0 address 02:00:00:00:00:97")?;

    for family in Family::ALL {
        assert!(!all_serve(&lab, family)?, "{family:?}: some still serve");
    }
    let start = Instant::now();
    for family in Family::ALL {
        let left = FOUND_AGAIN.saturating_sub(start.elapsed());
        let waited = eventually(left, "all serve again", || all_serve(&lab, family))?;
        println!("{family:?}: all serve again after {waited:?}");
    }
    Ok(())
}

/// The client resolves xlb's MAC once, from its first address: the host does not see the others before they connect.
#[test]
fn a_client_without_neighbour_entry_is_served_at_once() -> Result<()> {
    let lab = Lab::build(&Topology::new("unmet", Shape::TwoNics).backends(1).clients(4))?;
    let (_web, _udp) = (lab.web_servers()?, lab.udp_echoes(DNS)?);
    let dns = Service::over(&lab, "dns", Protocol::Udp, Mode::FullNat, DNS, DNS);
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat).service(dns))?;
    xlb.wait_until_all_are_up()?;
    let [known, connects, sends, late] = [0, 1, 2, 3].map(|number| lab.clients[number]);
    for family in Family::ALL {
        let tally =
            visit(&lab.client, &Visit::new(&[known.of(family)], address::SERVICE.port(family, WEB), 1))?;
        assert!(tally.is_even(1), "{family:?}: {tally}");
    }

    for family in Family::ALL {
        is_served_at_once(&lab, connects.of(family))?;
        is_answered_at_once(&lab, sends.of(family))?;
    }

    assert!(xlb.metrics()?.sum("xlb_dropped_packets_total", &[]) == 0.0);
    for family in Family::ALL {
        let is_known = || Ok(!neighbour(&lab, connects.of(family))?.is_empty());
        eventually(Duration::from_secs(2), "the host has a neighbour entry for the client", is_known)?;
    }
    xlb.stop()?;
    for family in Family::ALL {
        is_served_at_once(&lab, late.of(family))?;
    }
    Ok(())
}

/// A lost SYN is sent again after a second (RFC 6298, 2.1).
const AT_ONCE: Duration = Duration::from_millis(500);

fn is_served_at_once(lab: &Lab, client: IpAddr) -> Result<()> {
    assert_eq!(neighbour(lab, client)?, "");
    let family = if client.is_ipv4() { Family::V4 } else { Family::V6 };
    let once = Visit::new(&[client], address::SERVICE.port(family, WEB), 1);
    let tally = visit(&lab.client, &Visit { limit: AT_ONCE, ..once })?;
    assert!(tally.is_even(1), "{client}: {tally}");
    Ok(())
}

fn is_answered_at_once(lab: &Lab, client: IpAddr) -> Result<()> {
    assert_eq!(neighbour(lab, client)?, "");
    let family = if client.is_ipv4() { Family::V4 } else { Family::V6 };
    lab.client.block_on(async || {
        let socket = UdpSocket::bind((client, 0)).await?;
        socket.connect(address::SERVICE.port(family, DNS)).await?;
        socket.send(b"question").await?;
        let mut answer = [0; 64];
        let answered = timeout(AT_ONCE, socket.recv(&mut answer)).await;
        answered.with_context(|| format!("{client}: the first datagram was not answered"))??;
        Ok(())
    })
}

/// The client's neighbour entry on xlb's host.
fn neighbour(lab: &Lab, client: IpAddr) -> Result<String> {
    lab.xlb.run(&["ip", "neighbour", "show", "to", &client.to_string()])
}

#[test]
fn connections_follow_a_client_to_its_new_mac() -> Result<()> {
    let (lab, _xlb, live, _echoes) = stage("clientmac")?;

    lab.client.sysctl("net.ipv4.conf.eth0.arp_notify", "1")?;
    lab.client.sysctl("net.ipv6.conf.eth0.ndisc_notify", "1")?;
    lab.client.ip("link set eth0 address 02:00:00:00:00:98")?;

    survive(live)
}

/// The interface is down meanwhile: otherwise the host would reset connections until xlb has read the new MAC.
#[test]
fn connections_survive_a_new_mac_of_an_interface_of_xlb() -> Result<()> {
    const NEW: [u8; 6] = [2, 0, 0, 0, 0, 0x96];
    for interface in ["eth0", "eth1"] {
        let (lab, _xlb, live, _echoes) = stage("ownmac")?;
        lab.xlb.sysctl(&format!("net.ipv4.conf.{interface}.arp_notify"), "1")?;
        lab.xlb.sysctl(&format!("net.ipv6.conf.{interface}.ndisc_notify"), "1")?;

        let change = format!("link set {interface} address 02:00:00:00:00:96\n");
        lab.xlb.ip(&format!("link set {interface} down\n{change}"))?;
        eventually(Duration::from_secs(5), "the program has the new MAC", || {
            Ok(mac_in_the_program(&lab, interface)? == NEW)
        })?;
        lab.xlb.ip(&format!("link set {interface} up"))?;
        eventually(Duration::from_secs(5), "the interface has a carrier", || {
            Ok(show(&lab, interface)?.contains(" state UP "))
        })?;
        // Announced again: packets sent before both ends had a carrier are lost.
        lab.xlb.ip(&change)?;

        survive(live)?;
    }
    Ok(())
}

/// Until the daemon has read the new MAC, the host resets each connection of which a frame arrives for it. That takes a few
/// milliseconds, and a connection that exchanges a byte a second rarely has a frame then. Idle ones have none.
#[test]
fn connections_survive_a_new_mac_of_an_interface_that_is_up_unless_they_send_at_that_moment() -> Result<()> {
    const NEW: [u8; 6] = [2, 0, 0, 0, 0, 0x95];
    for interface in ["eth0", "eth1"] {
        let (lab, _xlb, busy, _echoes) = stage("upmac")?;
        lab.xlb.sysctl(&format!("net.ipv4.conf.{interface}.arp_notify"), "1")?;
        lab.xlb.sysctl(&format!("net.ipv6.conf.{interface}.ndisc_notify"), "1")?;
        let mut idle = Vec::new();
        for family in Family::ALL {
            idle.extend(connect(&lab, family, CONNECTIONS)?);
        }

        lab.xlb.ip(&format!("link set {interface} address 02:00:00:00:00:95"))?;
        let known = eventually(SOON, "the program has the new MAC", || {
            Ok(mac_in_the_program(&lab, interface)? == NEW)
        })?;
        assert!(known < MAC_KNOWN_WITHIN, "the program had the MAC after {known:?}");
        for family in Family::ALL {
            let served =
                eventually(SOON, "a new connection is served", || Ok(connect(&lab, family, 1).is_ok()))?;
            println!(
                "{interface}: the program had the MAC after {known:?}, served {family:?} after {served:?}"
            );
        }

        for connection in &mut idle {
            echo(connection).context("on an idle connection")?;
        }
        for connections in busy {
            connections.wait_for_bytes_on(CONNECTIONS / 2, 3)?;
            let report = connections.finish()?;
            println!("{interface}: {report}");
            assert!(report.broken.len() <= CONNECTIONS / 2, "{report}");
            assert!(report.broken.iter().all(|why| why.contains("Connection reset")), "{:?}", report.broken);
        }
    }
    Ok(())
}

/// Opens connections that have echoed a byte.
fn connect(lab: &Lab, family: Family, count: usize) -> Result<Vec<TcpStream>> {
    let to = address::SERVICE.port(family, ECHO);
    let open = || {
        let mut connection = TcpStream::connect_timeout(&to, SYN_AGAIN)?;
        echo(&mut connection)?;
        Ok(connection)
    };
    lab.client.inside(|| (0..count).map(|_| open()).collect())
}

fn echo(connection: &mut TcpStream) -> Result<()> {
    connection.set_read_timeout(Some(SOON))?;
    connection.write_all(b"a").context("send a byte")?;
    let mut byte = [0];
    connection.read_exact(&mut byte).context("read its echo")
}

/// An interface of xlb's host, in one line.
fn show(lab: &Lab, interface: &str) -> Result<String> {
    lab.xlb.run(&["ip", "-oneline", "link", "show", "dev", interface])
}

/// The MAC whose frames the program balances.
fn mac_in_the_program(lab: &Lab, interface: &str) -> Result<[u8; 6]> {
    let shown = show(lab, interface)?;
    let (index, _) = shown.split_once(':').context("ip shows no index")?;
    let pinned = MapData::from_pin(lab.pins().join(pin_name("INTERFACES")))?;
    let interfaces = Array::<_, Interface>::try_from(Map::Array(pinned))?;
    Ok(interfaces.get(&index.trim().parse()?, 0)?.mac.to_bytes())
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

/// Makes three visits, one to each backend: are all served?
fn all_serve(lab: &Lab, family: Family) -> Result<bool> {
    const LIMIT: Duration = Duration::from_millis(500);
    let backends = lab.backends.len();
    let visits = Visit::new(&lab.client_addresses(family), address::SERVICE.port(family, WEB), backends);
    Ok(visit(&lab.client, &Visit { limit: LIMIT, ..visits })?.is_even(backends))
}

/// Is the neighbour entry on xlb's host stale?
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
        connections.finish_unbroken()?;
    }
    Ok(())
}
