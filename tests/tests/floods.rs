//! Floods fill no table that somebody needs.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address,
    config::{Limits, Service},
    echo,
    flood::{self, Flood, Kind},
    visit::Tally,
};

const WEB: u16 = 80;
const ECHO: u16 = 7;
const ECHO_BACKEND: u16 = 7777;

/// Connections that live through the floods.
const ESTABLISHED: [(Family, usize); 2] = [(Family::V4, 8000), (Family::V6, 2000)];
/// Forged sources of a flood, of each family.
const KEYS: u32 = 120_000;
/// Fresh connections at a time, while a flood runs.
const FRESH: usize = 200;
/// Of a hundred fresh connections.
const SERVED_PERCENT: usize = 95;
/// For all bytes to come back: longer than TCP's first retransmissions.
const ECHO_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn ten_thousand_connections_survive_a_flood_of_syn() -> Result<()> {
    survive(Kind::Syn)
}

#[test]
fn ten_thousand_connections_survive_a_flood_of_syn_and_forged_acks() -> Result<()> {
    survive(Kind::SynAndForgedAck)
}

fn survive(kind: Kind) -> Result<()> {
    let lab = Lab::build(&Topology::new("floods", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    for (backend, family) in lab.backends.iter().flat_map(|it| Family::ALL.map(|family| (it, family))) {
        // In processes of their own: with both ends of each, this one would have too many files open.
        let lab = Path::new(env!("CARGO_BIN_EXE_lab"));
        echo::process(lab, Protocol::Tcp, backend, backend.address.port(family, ECHO_BACKEND))?;
    }
    let mut config = Config::web(&lab, Mode::FullNat);
    config.limits = Limits { flows: 16_384, flows_ipv6: 4096, half_open_flows: 2048 };
    let echo = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO_BACKEND);
    let xlb = lab.start(&config.service(echo))?;
    xlb.wait_until_all_are_up()?;
    flood::route_back(&lab)?;

    let mut established = Vec::new();
    for (family, count) in ESTABLISHED {
        established.extend(open(&lab, family, count)?);
    }
    let early = lost(&established, b'1');
    assert!(early.is_empty(), "before: {} lost, {:?}\n{}", early.len(), early.first(), figures(&xlb)?);

    for family in Family::ALL {
        let flood = Flood::start(&lab, kind, address::SERVICE.port(family, WEB), KEYS)?;
        let mut fresh = Tally::default();
        while flood.is_running() {
            fresh += lab.visit(family, WEB, FRESH)?;
        }
        let (sent, figures) = (flood.finish()?, figures(&xlb)?);
        println!("{kind:?} {family:?} {sent:?}\n{fresh}\n{figures}");

        let all = fresh.answers.values().sum::<usize>() + fresh.failed();
        assert!((all - fresh.failed()) * 100 >= all * SERVED_PERCENT, "{fresh}\n{figures}");
    }
    let lost = lost(&established, b'2');
    assert!(lost.is_empty(), "{} lost, first: {:?}\n{}", lost.len(), lost.first(), figures(&xlb)?);
    Ok(())
}

fn open(lab: &Lab, family: Family, count: usize) -> Result<Vec<TcpStream>> {
    let to = address::SERVICE.port(family, ECHO);
    let connect = |number| {
        TcpStream::connect_timeout(&to, ECHO_LIMIT).with_context(|| format!("connection {number} to {to}"))
    };
    lab.client.inside(|| (0..count).map(connect).collect())
}

/// Sends a byte on every connection; why each failed whose byte does not come back.
fn lost(connections: &[TcpStream], byte: u8) -> Vec<String> {
    let sent: Vec<_> = connections.iter().map(|mut connection| connection.write_all(&[byte])).collect();
    let deadline = Instant::now() + ECHO_LIMIT;
    let receive = |mut connection: &TcpStream| -> Result<()> {
        let mut echo = [0];
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        connection.set_read_timeout(Some(left))?;
        connection.read_exact(&mut echo).context("read the echo")?;
        anyhow::ensure!(echo == [byte], "sent {byte}, read {echo:?}");
        Ok(())
    };
    let fates = connections.iter().zip(sent);
    fates
        .filter_map(|(connection, sent)| sent.context("send").and_then(|()| receive(connection)).err())
        .map(|error| format!("{error:#}"))
        .collect()
}

/// What xlb says of its tables and of what it dropped.
fn figures(xlb: &Daemon) -> Result<String> {
    let metrics = xlb.metrics()?;
    let mut text = String::new();
    for name in ["xlb_flows", "xlb_flows_max", "xlb_dropped_packets_total"] {
        for line in metrics.lines(name).filter(|line| !line.ends_with(" 0")) {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}
