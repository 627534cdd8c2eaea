//! A UDP service, and clients that count answers: TCP would hide a packet that is lost, because it sends it again.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Daemon, Family, Lab, address,
    config::{Limits, Service},
    wait::join,
};

/// The service's port.
pub const DNS: u16 = 53;
/// The backends' port.
pub const BACKEND: u16 = 5353;
/// The interval between datagrams.
const PACE: Duration = Duration::from_millis(1);
/// For the first answer: the client's neighbour entry may not exist yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this time an answer counts as lost.
const LOST: Duration = Duration::from_secs(5);
/// Client ports of flows of two datagrams. Each is used once: a process that is being started may hold a socket
/// for a moment after it was closed here.
const PORTS: std::ops::Range<u16> = 21_000..61_000;
/// So large that flows of all these ports fill no two buckets. In tables for 65,536 flows, one flow in some runs had both of
/// its buckets full, and was refused.
pub const LIMITS: Limits = Limits::of_flows(262_144, 262_144, 16_384);
/// A test with fewer datagrams of a client shows nothing.
const LEAST: usize = 1000;

/// Datagrams of one client.
#[derive(Debug, Default)]
pub struct Exchange {
    pub asked: usize,
    pub answered: usize,
}

/// The service `dns`.
pub fn service(lab: &Lab, mode: Mode) -> Service {
    Service::over(lab, "dns", Protocol::Udp, mode, DNS, BACKEND)
}

/// Checks that xlb has dropped no packet, and that all datagrams were answered.
pub fn none_is_lost(xlb: &Daemon, exchanges: &[Exchange]) -> Result<()> {
    let metrics = xlb.metrics()?;
    let dropped: Vec<_> =
        metrics.lines("xlb_dropped_packets_total").filter(|line| !line.ends_with(" 0")).collect();
    ensure!(dropped.is_empty(), "{dropped:#?}\n{exchanges:#?}");
    ensure!(exchanges.iter().all(|it| it.answered == it.asked), "datagrams are lost: {exchanges:#?}");
    ensure!(exchanges.iter().all(|it| it.asked > LEAST), "too few were sent: {exchanges:#?}");
    Ok(())
}

/// Does something while clients of both families send requests, on one flow each and on many.
pub fn during(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<Vec<Exchange>> {
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = Family::ALL.map(|family| {
            [on_new_flows, on_one_flow].map(|exchange| scope.spawn(move || exchange(lab, family, is_over)))
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let exchanges = clients.map(|both| both.map(join));
        done.and_then(|()| exchanges.into_iter().flatten().collect())
    })
}

/// Sends requests on one flow at a steady rate.
fn on_one_flow(lab: &Lab, family: Family, is_over: &AtomicBool) -> Result<Exchange> {
    let (socket, mut answer) = (lab.client.inside(|| known_to_all(lab, family, PORTS.end))?, [0; 64]);
    let mut exchange = Exchange::default();
    socket.set_read_timeout(Some(PACE))?;
    while !is_over.load(Ordering::Relaxed) {
        socket.send(b"question")?;
        exchange.asked += 1;
        thread::sleep(PACE);
        exchange.answered += usize::from(socket.recv(&mut answer).is_ok());
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    while exchange.answered < exchange.asked && socket.recv(&mut answer).is_ok() {
        exchange.answered += 1;
    }
    Ok(exchange)
}

/// Sends two requests on each of many flows, one after the other: only the first datagram of a flow takes the slow
/// path.
fn on_new_flows(lab: &Lab, family: Family, is_over: &AtomicBool) -> Result<Exchange> {
    lab.client.inside(|| {
        known_to_all(lab, family, PORTS.start - 1)?;
        let (mut exchange, mut answer) = (Exchange::default(), [0; 64]);
        for port in PORTS.cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
            let socket = connected(lab, family, port)?;
            socket.set_read_timeout(Some(LOST))?;
            for question in [b"first", b"later"] {
                socket.send(question)?;
                exchange.asked += 1;
                exchange.answered += usize::from(socket.recv(&mut answer).is_ok());
            }
            thread::sleep(PACE);
        }
        Ok(exchange)
    })
}

/// A socket that was answered: all hosts on the way know their neighbours.
fn known_to_all(lab: &Lab, family: Family, port: u16) -> Result<UdpSocket> {
    let (socket, mut answer) = (connected(lab, family, port)?, [0; 64]);
    socket.set_read_timeout(Some(PATIENCE))?;
    let is_answered = (0..5).any(|_| socket.send(b"hello").is_ok() && socket.recv(&mut answer).is_ok());
    ensure!(is_answered, "{family:?}: no answer");
    Ok(socket)
}

fn connected(lab: &Lab, family: Family, port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((lab.clients[0].of(family), port))?;
    socket.connect(address::SERVICE.port(family, DNS))?;
    Ok(socket)
}
