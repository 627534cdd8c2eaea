//! Connections outlive the daemon, its reloads and the program's replacement.

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{Config, Daemon, Family, Lab, Live, Shape, Topology, config::Service};

/// In each mode and family.
const CONNECTIONS: usize = 250;
const FULL_NAT: u16 = 7;
const NAT: u16 = 8;
const ECHO: u16 = 7777;

const KILLS: usize = 10;
const RELOADS: usize = 100;

#[test]
fn a_thousand_connections_survive_kills_reloads_and_a_replaced_program() -> Result<()> {
    let lab = Lab::build(&Topology::new("survival", Shape::TwoNics).mode(Mode::Nat))?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let config = Config::new(&lab)
        .service(Service::over(&lab, "full-nat", Protocol::Tcp, Mode::FullNat, FULL_NAT, ECHO))
        .service(Service::over(&lab, "nat", Protocol::Tcp, Mode::Nat, NAT, ECHO));
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let live = open(&lab)?;

    for _ in 0..KILLS {
        xlb.kill()?;
        wait_for_a_byte_on_each(&live)?;
        xlb.start_again()?;
    }
    reload_again_and_again(&lab, &xlb, &config)?;
    let before = program(&lab)?;
    xlb.stop()?;
    xlb.start_again()?;
    assert_ne!(program(&lab)?, before, "a daemon that starts replaces the program");
    wait_for_a_byte_on_each(&live)?;

    for connections in live {
        let report = connections.finish()?;
        assert!(report.broken.is_empty(), "{report}");
    }
    Ok(())
}

fn open(lab: &Lab) -> Result<Vec<Live>> {
    let all = [FULL_NAT, NAT].into_iter().flat_map(|port| Family::ALL.map(|family| (family, port)));
    all.map(|(family, port)| lab.live(family, port, CONNECTIONS)).collect()
}

fn wait_for_a_byte_on_each(live: &[Live]) -> Result<()> {
    live.iter().try_for_each(|connections| connections.wait_for_bytes(CONNECTIONS as u64))
}

/// Reloads, each time with another set of services and backends: those of the connections stay.
fn reload_again_and_again(lab: &Lab, xlb: &Daemon, config: &Config) -> Result<()> {
    let more = config.clone().service(Service::over(lab, "more", Protocol::Tcp, Mode::FullNat, 9, ECHO));
    for round in 0..RELOADS {
        xlb.write(if round % 2 == 0 { &more } else { config })?;
        xlb.run(&["reload"])?;
    }
    Ok(())
}

/// The program that is attached, as the kernel numbers it.
fn program(lab: &Lab) -> Result<Option<u64>> {
    let links = lab.xlb.run(&["ip", "-json", "-details", "link", "show", "eth0"])?;
    let links: serde_json::Value = serde_json::from_str(&links)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}
