//! Connections outlive the daemon, its reloads and the program's replacement.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use lb_userspace::datapath::shapes::pin_name;
use tests::lab::{
    Config, Daemon, Family, Lab, Live, Shape, Topology, config::Service, eventually, wait::join,
};

use crate::datagrams;

/// Connections in each mode and family.
pub const CONNECTIONS: usize = 250;
pub const FULL_NAT: u16 = 7;
pub const NAT: u16 = 8;
pub const ECHO: u16 = 7777;

const KILLS: usize = 10;
const RELOADS: usize = 100;
/// Reloads between two bytes of each connection. An odd number, so that the bytes are sent alternately under both
/// files.
const RELOADS_PER_BYTE: usize = 9;
/// Bytes with a daemon, and without one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pins are checked every second.
const RESTORED: Duration = Duration::from_secs(5);

#[test]
fn a_thousand_connections_survive_kills_reloads_and_a_replaced_program() -> Result<()> {
    let (lab, config) = two_modes("survival")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let live = open(&lab)?;

    for _ in 0..KILLS {
        xlb.kill()?;
        wait_for_a_byte_on_each(&live)?;
        xlb.start_again()?;
    }
    let files = open_files(&xlb)?;
    reload_again_and_again(&lab, &xlb, &config, &live)?;
    assert_eq!(open_files(&xlb)?, files, "a reload leaves nothing open");
    let before = lab.xlb.programs()?;
    xlb.stop()?;
    xlb.start_again()?;
    assert_ne!(lab.xlb.programs()?, before, "a daemon that starts replaces the program");
    wait_for_a_byte_on_each(&live)?;

    live.into_iter().try_for_each(|connections| connections.finish_unbroken().map(drop))
}

#[test]
fn connections_survive_the_removal_of_pins_and_the_death_of_the_daemon_that_restored_them() -> Result<()> {
    let lab = Lab::build(&Topology::new("pins", Shape::TwoNics))?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let service = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, FULL_NAT, ECHO);
    let mut xlb = lab.start(&Config::new(&lab).service(service))?;
    xlb.wait_until_all_are_up()?;
    let live = [lab.live(Family::V4, FULL_NAT, CONNECTIONS)?];
    let (root, all, before) = (lab.pins(), lab.pin_names()?, lab.xlb.programs()?);
    let link = all.iter().find(|name| name.starts_with("link_")).context("no link is pinned")?;

    let [flows, backends] = ["FLOWS4", "BACKENDS"].map(|map| root.join(pin_name(map)));
    for removed in [root.clone(), flows, backends, root.join(link)] {
        lab.xlb.run(&["rm", "-r", &removed.display().to_string()])?;

        wait_for_a_byte_on_each(&live)?;
        lab.live(Family::V6, FULL_NAT, 10)?.finish_unbroken()?;
        eventually(RESTORED, "all pins are there again", || Ok(lab.pin_names()? == all))?;
    }
    assert_eq!(lab.xlb.programs()?, before, "the program never left the interface");
    let log = lab.log()?;
    assert_eq!(log.matches("restored missing pins").count(), 4, "{log}");
    xlb.kill()?;
    wait_for_a_byte_on_each(&live)?;
    xlb.start_again()?;

    live.into_iter().try_for_each(|connections| connections.finish_unbroken().map(drop))
}

#[test]
fn connections_survive_other_names_by_reload_and_while_the_daemon_is_stopped() -> Result<()> {
    let (lab, config) = two_modes("renamed")?;
    let _echoes = lab.tcp_echoes(ECHO)?;
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let live = open(&lab)?;

    let mut other = config.clone();
    other.services[0].name = "other".to_owned();
    other.services[1].backends[0].name = "web-9".to_owned();
    let mut swapped = config.clone();
    let [first, second] = &mut swapped.services[..] else { unreachable!("two services") };
    std::mem::swap(&mut first.name, &mut second.name);
    for service in &mut swapped.services {
        let [first, second, ..] = &mut service.backends[..] else { unreachable!("three backends") };
        std::mem::swap(&mut first.name, &mut second.name);
    }
    for renamed in [&other, &swapped, &config] {
        xlb.write(renamed)?;
        xlb.run(&["reload"])?;
        wait_for_a_byte_on_each(&live)?;
    }
    for renamed in [&other, &swapped] {
        xlb.stop()?;
        xlb.write(renamed)?;
        xlb.start_again()?;
        wait_for_a_byte_on_each(&live)?;
    }

    live.into_iter().try_for_each(|connections| connections.finish_unbroken().map(drop))
}

/// TCP would hide a lost packet, because it sends it again.
#[test]
fn no_datagram_is_lost_while_the_daemon_is_killed_and_another_takes_over() -> Result<()> {
    for mode in [Mode::FullNat, Mode::Nat] {
        let lab = Lab::build(&Topology::new("takeover", Shape::TwoNics).mode(mode))?;
        let _echoes = lab.udp_echoes(datagrams::BACKEND)?;
        let mut xlb =
            lab.start(&Config::new(&lab).limits(datagrams::LIMITS).service(datagrams::service(&lab, mode)))?;
        xlb.wait_until_all_are_up()?;

        let exchanges = datagrams::during(&lab, || {
            (0..3).try_for_each(|_| {
                xlb.kill()?;
                thread::sleep(PATIENCE);
                xlb.start_again()?;
                thread::sleep(PATIENCE);
                Ok(())
            })
        })?;

        datagrams::none_is_lost(&xlb, &exchanges).with_context(|| format!("{mode:?}"))?;
    }
    Ok(())
}

/// Three backends, with a configuration of a service with full-nat and one with nat.
pub fn two_modes(tag: &'static str) -> Result<(Lab, Config)> {
    let lab = Lab::build(&Topology::new(tag, Shape::TwoNics).mode(Mode::Nat))?;
    let config = Config::new(&lab)
        .service(Service::over(&lab, "full-nat", Protocol::Tcp, Mode::FullNat, FULL_NAT, ECHO))
        .service(Service::over(&lab, "nat", Protocol::Tcp, Mode::Nat, NAT, ECHO));
    Ok((lab, config))
}

pub fn open(lab: &Lab) -> Result<Vec<Live>> {
    let all = [FULL_NAT, NAT].into_iter().flat_map(|port| Family::ALL.map(|family| (family, port)));
    all.map(|(family, port)| lab.live(family, port, CONNECTIONS)).collect()
}

pub fn wait_for_a_byte_on_each(live: &[Live]) -> Result<()> {
    thread::scope(|scope| {
        let waiting: Vec<_> = live.iter().map(|it| scope.spawn(|| it.wait_for_bytes(1))).collect();
        waiting.into_iter().try_for_each(join)
    })
}

/// Reloads, each time with another set of services and backends: those of the connections stay.
fn reload_again_and_again(lab: &Lab, xlb: &Daemon, config: &Config, live: &[Live]) -> Result<()> {
    let more = config.clone().service(Service::over(lab, "more", Protocol::Tcp, Mode::FullNat, 9, ECHO));
    for round in 1..=RELOADS {
        xlb.write(if round % 2 == 1 { &more } else { config })?;
        xlb.run(&["reload"])?;
        if round % RELOADS_PER_BYTE == 0 {
            wait_for_a_byte_on_each(live)?;
        }
    }
    Ok(())
}

/// Files that the daemon has open while idle: the minimum of many samples.
fn open_files(xlb: &Daemon) -> Result<Option<usize>> {
    const LOOKS: usize = 50;
    const PAUSE: Duration = Duration::from_millis(10);
    let directory = format!("/proc/{}/fd", xlb.pid()?);
    let mut counts = Vec::with_capacity(LOOKS);
    for _ in 0..LOOKS {
        counts.push(fs::read_dir(&directory)?.count());
        thread::sleep(PAUSE);
    }
    Ok(counts.into_iter().min())
}
