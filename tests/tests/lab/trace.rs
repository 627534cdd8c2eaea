//! Traces of single packets in the log.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::programs::ProgramInfo;
use lb_common::{limits::TRACES_PER_SECOND, service::Mode};
use tests::lab::{Config, Daemon, Family, Lab, Shape, Topology, address, eventually};

use crate::datagrams;

/// More than fits into a frame, so it is fragmented.
const LONG: usize = 3000;
/// Traces are off unless this enables them.
const TRACING: &str = "info,lb_ebpf=debug";

#[test]
fn new_flows_and_dropped_packets_are_traced_as_long_as_the_log_shows_them() -> Result<()> {
    let lab = Lab::build(&Topology::new("trace", Shape::TwoNics).mode(Mode::Nat).backends(1).clients(1))?;
    let _udp = lab.udp_echoes(datagrams::BACKEND)?;
    let mut xlb = lab.start(&Config::new(&lab).service(datagrams::service(&lab, Mode::Nat)))?;
    xlb.wait_until_all_are_up()?;

    visit(&lab, 50_000)?;
    let (silent, size_without) = (traces(&lab)?, program_bytes(&lab)?);
    restart(&mut xlb, TRACING)?;
    visit(&lab, 50_001)?;
    for line in [
        "DEBUG lb_ebpf] new flow udp 192.0.2.101:50001 > 192.0.2.10:53, as 192.0.2.101:50001 > 10.0.0.11:5353",
        "DEBUG lb_ebpf] new flow udp [2001:db8::101]:50001 > [2001:db8::10]:53, \
         as [2001:db8::101]:50001 > [fd00::11]:5353",
        "DEBUG lb_ebpf] dropped  fragment             udp 192.0.2.101:50001 > 192.0.2.10:53, interface ",
        "DEBUG lb_ebpf] dropped  fragment             protocol 44 2001:db8::101 > 2001:db8::10, interface ",
    ] {
        let is_there = || Ok(traces(&lab)?.iter().any(|trace| trace.contains(line)));
        eventually(Duration::from_secs(5), line, is_there)?;
    }
    let size_with = program_bytes(&lab)?;
    restart(&mut xlb, "info")?;
    let before = traces(&lab)?;
    visit(&lab, 50_002)?;

    assert_eq!(silent, [""; 0]);
    assert!(before.iter().all(|line| !line.contains("passed")), "{before:#?}");
    assert_eq!(traces(&lab)?, before);
    assert!(size_without < size_with, "the verifier left traces in: {size_without} and {size_with} bytes");
    assert_eq!(program_bytes(&lab)?, size_without);
    Ok(())
}

#[test]
fn packets_that_pass_to_the_host_are_traced_at_the_most_verbose_level() -> Result<()> {
    let lab = Lab::build(&Topology::new("passed", Shape::TwoNics).backends(1).clients(1))?;
    let mut xlb = lab.start(&Config::new(&lab).service(datagrams::service(&lab, Mode::FullNat)))?;
    restart(&mut xlb, "info,lb_ebpf=trace")?;

    let (from, to) =
        (lab.clients[0].port(Family::V6, 50_000), address::FRONT.port(Family::V6, datagrams::DNS));
    lab.client.inside(|| Ok(UdpSocket::bind(from)?.send_to(b"question", to)?))?;

    let line = "TRACE lb_ebpf] passed   not_service          udp [2001:db8::101]:50000 > [2001:db8::1]:53, interface ";
    let is_there = || Ok(traces(&lab)?.iter().any(|trace| trace.contains(line)));
    eventually(Duration::from_secs(5), line, is_there)?;
    Ok(())
}

#[test]
fn traces_of_a_flood_of_refused_packets_are_rate_limited() -> Result<()> {
    const DATAGRAMS: usize = 10_000;
    let lab = Lab::build(&Topology::new("traces", Shape::TwoNics).backends(1).clients(1))?;
    let _udp = lab.udp_echoes(datagrams::BACKEND)?;
    let mut xlb = lab.start(&Config::new(&lab).service(datagrams::service(&lab, Mode::FullNat)))?;
    restart(&mut xlb, TRACING)?;
    visit(&lab, 50_000)?;
    let (from, to) =
        (lab.clients[0].port(Family::V4, 50_001), address::SERVICE.port(Family::V4, datagrams::DNS));

    let start = Instant::now();
    lab.client.inside(|| {
        let socket = UdpSocket::bind(from)?;
        (0..DATAGRAMS).try_for_each(|_| Ok(socket.send_to(&[b'x'; LONG], to).map(drop)?))
    })?;
    xlb.stop()?;

    // A burst at the boundary of two seconds may have the lines of both.
    let seconds = start.elapsed().as_secs() as usize + 2;
    let most = seconds * TRACES_PER_SECOND as usize * thread::available_parallelism()?.get();
    let lines = traces(&lab)?.len();
    assert!((100..=most).contains(&lines), "{lines} lines of {DATAGRAMS} datagrams, and not up to {most}");
    Ok(())
}

/// Restarts the daemon with another log filter, on the same pins.
fn restart(xlb: &mut Daemon, filter: &str) -> Result<()> {
    xlb.stop()?;
    xlb.start_again_with_log(filter)?;
    xlb.wait_until_all_are_up()
}

/// Makes a flow from this port, in both families, and has a packet of it refused.
fn visit(lab: &Lab, port: u16) -> Result<()> {
    for family in Family::ALL {
        let (from, to) = (lab.clients[0].port(family, port), address::SERVICE.port(family, datagrams::DNS));
        lab.client.inside(|| exchange(from, to))?;
    }
    Ok(())
}

fn exchange(from: SocketAddr, to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    eventually(Duration::from_secs(5), "the service answers", || {
        socket.send(b"question")?;
        Ok(socket.recv(&mut [0; 64]).is_ok())
    })?;
    socket.send(&[b'x'; LONG])?;
    // The program has traced the fragments before it answers this.
    eventually(Duration::from_secs(5), "the service answers again", || {
        socket.send(b"question")?;
        Ok(socket.recv(&mut [0; 64]).is_ok())
    })?;
    Ok(())
}

/// The size of the pinned program, after the verifier has removed what cannot be reached.
fn program_bytes(lab: &Lab) -> Result<u32> {
    ProgramInfo::from_pin(lab.pins().join("lb"))?
        .size_translated()
        .context("the kernel does not report the size of a program")
}

/// The lines that the program has in the daemon's log.
fn traces(lab: &Lab) -> Result<Vec<String>> {
    let log = lab.log()?;
    Ok(log.lines().filter(|line| line.contains(" lb_ebpf]")).map(str::to_owned).collect())
}
