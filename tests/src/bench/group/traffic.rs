//! Flows that pass the attached program of a node at a steady rate. No client and no server needs a CPU.

use std::{
    net::{SocketAddr, SocketAddrV4},
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{ProgramFd, loaded_programs};
use lb_common::net::{Be16, Ports, Protocol, V4};
use lb_ebpf::family::Tuple;
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::super::{
    frame::{Segment, request},
    wrapper::{Program, Wrapper},
};
use crate::lab::Namespace;

/// Steps of a second. A run of the wrapper waits until no CPU uses the former program (`synchronize_rcu`), so they are few and
/// long.
const STEPS: u32 = 5;
/// Tuples in a run of the wrapper.
const BATCH: u32 = 8192;

/// The flows, in the order in which they begin.
pub struct Traffic {
    wrapper: Wrapper<V4>,
    backend: SocketAddrV4,
    /// The numbers of those that are open.
    open: Range<u32>,
}

impl Traffic {
    /// Through the program that is attached to `eth0` of this host, where the calling thread must be. All flows are of this backend,
    /// in nat mode.
    pub fn new(host: &Namespace, backend: SocketAddr) -> Result<Self> {
        let SocketAddr::V4(backend) = backend else { bail!("{backend} is not IPv4") };
        let mut wrapper = Wrapper::new(BATCH, if_nametoindex("eth0")?)?;
        wrapper.test_fd(&attached(host)?)?;
        Ok(Self { wrapper, backend, open: 0..0 })
    }

    /// How many are open.
    pub fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// Opens `rate` flows a second for this time, and closes each after `lifetime`. An error if it takes longer.
    pub fn pass(&mut self, rate: u32, time: Duration, lifetime: Duration) -> Result<()> {
        let most = lifetime.as_secs() as u32 * rate;
        let steps = time.as_secs() as u32 * STEPS;
        let begun = Instant::now();
        steady(0..steps, || {
            self.begin(rate / STEPS)?;
            self.end((self.open.len() as u32).saturating_sub(most))?;
            Ok(true)
        })?;
        let took = begun.elapsed();
        ensure!(took < time + time / 10, "{rate} flows/s for {time:?} took {took:?}");
        Ok(())
    }

    /// Opens flows until this number is open.
    pub fn open_until(&mut self, open: u32, rate: u32) -> Result<()> {
        steady(0..u32::MAX, || {
            self.begin((rate / STEPS).min(open.saturating_sub(self.open.len() as u32)))?;
            Ok((self.open.len() as u32) < open)
        })
    }

    /// Opens `rate` flows a second while something else is done.
    pub fn open_while<T: Send>(&mut self, rate: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let working = scope.spawn(|| {
                let done = work();
                is_done.store(true, Ordering::Relaxed);
                done
            });
            let opened = steady(0..u32::MAX, || {
                self.begin(rate / STEPS)?;
                Ok(!is_done.load(Ordering::Relaxed))
            });
            let done = working.join().map_err(|_| anyhow::anyhow!("the other thread panicked"))?;
            opened.and(done)
        })
    }

    /// The handshakes of this number of flows.
    fn begin(&mut self, count: u32) -> Result<()> {
        let flows = self.open.end..self.open.end + count;
        self.open.end = flows.end;
        self.send(flows.clone(), Segment::Syn, From::Client)?;
        self.send(flows.clone(), Segment::SynAck, From::Backend)?;
        self.send(flows, Segment::Ack, From::Client)
    }

    /// Closes the oldest ones, by the FINs of both sides.
    fn end(&mut self, count: u32) -> Result<()> {
        let flows = self.open.start..self.open.start + count;
        self.open.start = flows.end;
        self.send(flows.clone(), Segment::Fin, From::Client)?;
        self.send(flows, Segment::Fin, From::Backend)
    }

    fn send(&mut self, mut flows: Range<u32>, segment: Segment, from: From) -> Result<()> {
        while !flows.is_empty() {
            let batch = flows.start..flows.end.min(flows.start + BATCH);
            flows.start = batch.end;
            let tuples: Vec<_> = batch.map(|flow| self.tuple(flow, from)).collect();
            self.wrapper.write(0, &tuples, segment)?;
            self.wrapper.run_any(Program::Lb, 0..tuples.len(), tuples.len() as u32)?;
        }
        Ok(())
    }

    fn tuple(&self, flow: u32, from: From) -> Tuple<V4> {
        let request: Tuple<V4> = request(flow, Protocol::Tcp);
        match from {
            From::Client => request,
            // In nat mode, the backend sees the client's address and port.
            From::Backend => Tuple {
                source: V4::from_bytes(self.backend.ip().octets()),
                destination: request.source,
                ports: Ports::new(Be16::new(self.backend.port()), request.ports.source()),
                protocol: request.protocol,
            },
        }
    }
}

#[derive(Clone, Copy)]
enum From {
    Client,
    Backend,
}

/// Does the steps, [`STEPS`] of them in a second. A step that is late is followed by the next one at once. Until `step` says no.
fn steady(steps: Range<u32>, mut step: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    for number in steps {
        if !step()? {
            break;
        }
        let due = begun + Duration::from_secs(1) * (number + 1) / STEPS;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// The program that is attached to `eth0`.
fn attached(host: &Namespace) -> Result<ProgramFd> {
    let shown: Value =
        serde_json::from_str(&host.run(&["ip", "-json", "-details", "link", "show", "dev", "eth0"])?)?;
    let id = shown[0]["xdp"]["prog"]["id"].as_u64().context("no program is attached to eth0")?;
    for program in loaded_programs() {
        let program = program?;
        if u64::from(program.id()) == id {
            return Ok(program.fd()?);
        }
    }
    bail!("there is no program {id}")
}
