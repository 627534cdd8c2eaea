//! Requests and replies: both modes, both families, TCP and UDP, two NICs and one.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_common::service::Mode;
use tests::lab::{Config, Family, Lab, Shape, Topology, address};
use tokio::{net::UdpSocket, time};

use crate::datagrams;

const MODES: [Mode; 2] = [Mode::FullNat, Mode::Nat];

#[test]
fn curl_is_served_over_both_families_in_both_modes() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("curl", Shape::TwoNics).mode(mode).backends(1))?;
        let _web = lab.web_servers()?;
        let xlb = lab.start(&Config::web(&lab, mode))?;
        xlb.wait_until_all_are_up()?;

        for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
            let page = lab.client.run(&["curl", "-sS", "-m", "5", url])?;

            assert_eq!(page, "web-1\n", "{mode:?} {url}");
        }
    }
    Ok(())
}

#[test]
fn thirty_thousand_connections_of_two_clients_are_shared_equally() -> Result<()> {
    let lab = Lab::build(&Topology::new("shares", Shape::TwoNics).clients(2))?;
    let _web = lab.web_servers()?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;

    for family in Family::ALL {
        let tally = lab.visit(family, 80, 30_000)?;

        assert!(tally.is_even(3), "{family:?}: {tally}");
    }
    Ok(())
}

#[test]
fn every_checksum_that_arrives_is_right() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("sums", Shape::TwoNics).mode(mode))?;
        let (_web, _udp) = (lab.web_servers()?, lab.udp_echoes(datagrams::BACKEND)?);
        let xlb = lab.start(&Config::web(&lab, mode).service(datagrams::service(&lab, mode)))?;
        xlb.wait_until_all_are_up()?;
        let capture = lab.capture()?;

        for family in Family::ALL {
            let tally = lab.visit(family, 80, 999)?;
            assert!(tally.is_even(3), "{mode:?} {family:?}: {tally}");
            exchange(&lab, family, 33)?;
        }

        let checksums = capture.finish()?;
        assert!(checksums.verified > 20_000, "{mode:?}: {} frames", checksums.verified);
        assert!(checksums.wrong.is_empty(), "{mode:?}: {:#?}", checksums.wrong);
        assert_eq!(checksums.silent, [""; 0], "{mode:?}");
    }
    Ok(())
}

#[test]
fn backends_see_the_client_in_nat_mode_and_a_source_of_xlb_in_full_nat_mode() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("seen", Shape::TwoNics).mode(mode).backends(1).clients(1))?;
        let web = lab.web_servers()?;
        let xlb = lab.start(&Config::web(&lab, mode))?;
        xlb.wait_until_all_are_up()?;

        for family in Family::ALL {
            lab.visit(family, 80, 1)?;
        }

        let seen: Vec<IpAddr> = web[0]
            .requests()?
            .iter()
            .map(|line| line.split(' ').next().unwrap_or_default().parse())
            .collect::<Result<_, _>>()?;
        let expected = match mode {
            Mode::FullNat => address::SOURCE,
            Mode::Nat => lab.clients[0],
        };
        assert_eq!(seen, Family::ALL.map(|family| expected.of(family)), "{mode:?}");
    }
    Ok(())
}

#[test]
fn datagrams_are_answered_and_shared_equally_in_both_modes() -> Result<()> {
    for mode in MODES {
        let lab = Lab::build(&Topology::new("udp", Shape::TwoNics).mode(mode))?;
        let _udp = lab.udp_echoes(datagrams::BACKEND)?;
        let xlb = lab.start(&Config::new(&lab).service(datagrams::service(&lab, mode)))?;
        xlb.wait_until_all_are_up()?;

        for family in Family::ALL {
            let shares = exchange(&lab, family, 300)?;

            assert_eq!(shares.len(), 3, "{mode:?} {family:?}: {shares:?}");
            assert!(shares.values().all(|&share| share == 100), "{mode:?} {family:?}: {shares:?}");
        }
    }
    Ok(())
}

#[test]
fn one_interface_is_enough() -> Result<()> {
    let lab = Lab::build(&Topology::new("one", Shape::OneNic))?;
    let (_web, _udp) = (lab.web_servers()?, lab.udp_echoes(datagrams::BACKEND)?);
    let xlb =
        lab.start(&Config::web(&lab, Mode::FullNat).service(datagrams::service(&lab, Mode::FullNat)))?;
    xlb.wait_until_all_are_up()?;
    let capture = lab.capture()?;

    for family in Family::ALL {
        let tally = lab.visit(family, 80, 3_000)?;
        assert!(tally.is_even(3), "{family:?}: {tally}");
        exchange(&lab, family, 30)?;
    }

    let checksums = capture.finish()?;
    assert!(checksums.verified > 20_000, "{} frames", checksums.verified);
    assert!(checksums.wrong.is_empty(), "{:#?}", checksums.wrong);
    assert_eq!(checksums.silent, [""; 0]);
    assert!(xlb.metrics()?.sum("xlb_xdp_packets_total", &[("action", "tx")]) > 10_000.0);
    Ok(())
}

/// Exchanges datagrams of several sizes on this many sockets, from all client addresses in turn. Each socket must
/// stay with its backend; returns how many sockets each backend got.
fn exchange(lab: &Lab, family: Family, sockets: usize) -> Result<BTreeMap<String, usize>> {
    const SIZES: [usize; 4] = [0, 1, 100, 1400];
    // Each socket has a port of its own: a reused one would belong to the earlier flow.
    const FIRST_PORT: u16 = 20_000;
    let from = lab.client_addresses(family);
    lab.client.block_on(async || {
        let mut shares = BTreeMap::new();
        for (port, &source) in (FIRST_PORT..).zip(from.iter().cycle().take(sockets)) {
            let socket = UdpSocket::bind((source, port)).await?;
            socket.connect(address::SERVICE.port(family, datagrams::DNS)).await?;
            let mut names = Vec::new();
            for size in SIZES {
                names.push(ask(&socket, &vec![b'x'; size]).await?);
            }
            names.dedup();
            assert_eq!(names.len(), 1, "one socket, several backends: {names:?}");
            *shares.entry(names.remove(0)).or_default() += 1;
        }
        Ok(shares)
    })
}

async fn ask(socket: &UdpSocket, question: &[u8]) -> Result<String> {
    let mut answer = [0; 2048];
    socket.send(question).await?;
    let len =
        time::timeout(Duration::from_secs(5), socket.recv(&mut answer)).await.context("no answer")??;
    let answer = String::from_utf8_lossy(&answer[..len]);
    let (name, echo) = answer.split_once(": ").context("an answer without a name")?;
    assert_eq!(echo.as_bytes(), question);
    Ok(name.to_owned())
}
