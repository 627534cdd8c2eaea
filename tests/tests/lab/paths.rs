//! Clients with equal ports are kept apart, and path MTU errors reach the right side.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Family, Lab, Namespace, Shape, Topology, address, config::Service, link, visit::connect,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const MODES: [Mode; 2] = [Mode::FullNat, Mode::Nat];
const ECHO: u16 = 7;
const CLIENT_PORT: u16 = 50_000;
const NARROW: u16 = 1400;

#[test]
fn two_clients_may_use_the_same_port() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("port", Shape::TwoNics).mode(mode).backends(1))?;
        let _echoes = lab.tcp_echoes(ECHO)?;
        let service = Service::over(&lab, "echo", Protocol::Tcp, mode, ECHO, ECHO);
        let xlb = lab.start(&Config::new(&lab).service(service))?;
        xlb.wait_until_all_are_up()?;

        for family in Family::ALL {
            let to = address::SERVICE.port(family, ECHO);
            let from = lab.client_addresses(family);
            let ways = from.iter().map(|&client| (SocketAddr::new(client, CLIENT_PORT), to));
            talk_at_the_same_time(&lab.client, ways.collect())?;
        }
    }
    Ok(())
}

#[test]
fn one_client_port_may_be_used_towards_two_listen_addresses_in_nat_mode() -> Result<()> {
    let lab = Lab::build(&Topology::new("listen", Shape::TwoNics).mode(Mode::Nat))?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut service = Service::over(&lab, "echo", Protocol::Tcp, Mode::Nat, ECHO, ECHO);
    service.listen.extend(Family::ALL.map(|family| address::SERVICE_2.port(family, ECHO)));
    let xlb = lab.start(&Config::new(&lab).service(service))?;
    xlb.wait_until_all_are_up()?;

    for family in Family::ALL {
        let from = lab.clients[0].port(family, CLIENT_PORT);
        let to = [address::SERVICE, address::SERVICE_2].map(|service| service.port(family, ECHO));
        talk_at_the_same_time(&lab.client, to.map(|to| (from, to)).to_vec())?;
    }
    Ok(())
}

#[test]
fn backends_that_only_the_source_address_has_a_route_to_are_up_and_serve() -> Result<()> {
    let lab = Lab::build(&Topology::new("rule", Shape::Routers))?;
    let _web = lab.web_servers()?;
    link::route_by_source(&lab.xlb, address::CORE_INSIDE, address::CORE, address::SOURCE)?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;

    xlb.wait_until_all_are_up()?;
    for family in Family::ALL {
        let tally = lab.visit(family, 80, 30)?;
        assert!(tally.is_even(3), "{family:?}: {tally}");
    }
    Ok(())
}

#[test]
fn a_backend_learns_that_the_path_to_the_client_is_narrow() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("down", Shape::Routers).mode(mode).backends(1).clients(1))?;
        let _web = lab.web_servers()?;
        fs::write(lab.directory().join("files/page"), vec![b'x'; 1_000_000])?;
        let xlb = lab.start(&Config::web(&lab, mode))?;
        xlb.wait_until_all_are_up()?;
        let edge = lab.edge.as_ref().context("there is no edge router")?;
        link::narrow((edge, "eth0"), lab.clients[0], NARROW)?;

        for (family, host) in [(Family::V4, "192.0.2.10"), (Family::V6, "[2001:db8::10]")] {
            let url = format!("http://{host}/files/page");
            let page = lab.client.run(&["curl", "-sS", "-m", "10", &url])?;

            assert_eq!(page.len(), 1_000_000, "{mode:?} {family:?}");
            let peer = match mode {
                Mode::FullNat => address::SOURCE,
                Mode::Nat => lab.clients[0],
            };
            assert_narrow(&lab.backends[0].namespace, &peer.of(family).to_string())?;
        }
    }
    Ok(())
}

#[test]
fn a_client_learns_that_the_path_to_the_backend_is_narrow() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("up", Shape::Routers).mode(mode).backends(1))?;
        let _web = lab.web_servers()?;
        let file = lab.directory().join("files/page");
        fs::write(&file, vec![b'x'; 1_000_000])?;
        let xlb = lab.start(&Config::web(&lab, mode))?;
        xlb.wait_until_all_are_up()?;
        link::narrow((&lab.switch, "br0"), lab.backends[0].address, NARROW)?;

        for (family, host) in [(Family::V4, "192.0.2.10"), (Family::V6, "[2001:db8::10]")] {
            let url = format!("http://{host}/uploads/page");
            let path = file.display().to_string();
            lab.client.run(&["curl", "-sSf", "-m", "10", "-T", &path, &url])?;

            let uploaded = fs::read(lab.directory().join("uploads/page"))?;
            assert_eq!(uploaded.len(), 1_000_000, "{mode:?} {family:?}");
            assert_narrow(&lab.client, &address::SERVICE.of(family).to_string())?;
        }
    }
    Ok(())
}

/// Opens all connections, then exchanges data on each: an answer on the wrong one would show.
fn talk_at_the_same_time(client: &Namespace, ways: Vec<(SocketAddr, SocketAddr)>) -> Result<()> {
    client.block_on(async || {
        let mut streams: Vec<TcpStream> = Vec::new();
        for &(from, to) in &ways {
            streams.push(connect(from, to).await?);
        }
        for (number, stream) in (0..).zip(&mut streams) {
            stream.write_all(&[number; 100]).await?;
        }
        for (number, stream) in (0..).zip(&mut streams) {
            let mut echo = [0; 100];
            stream.read_exact(&mut echo).await?;
            assert_eq!(echo, [number; 100], "from {:?} to {:?}", stream.local_addr(), stream.peer_addr());
        }
        Ok(())
    })
}

/// The host has a reduced path MTU to `peer`.
fn assert_narrow(host: &Namespace, peer: &str) -> Result<()> {
    let route = host.run(&["ip", "route", "get", peer])?;
    ensure!(route.contains(&format!("mtu {NARROW}")), "the route to {peer} in {host}: {route}");
    Ok(())
}
