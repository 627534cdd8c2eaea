//! Two CPUs at once: how much more they do than one.
//!
//! Each CPU has flows of its own. What both write is in the table and the pool that they share: the count of half-open
//! flows, the round-robin counter, and cache lines in which their records meet. The same work on two balancers, which
//! share nothing, shows how much of a loss is the machine's own (two threads of one core, or one memory bus).

use std::{sync::Barrier, thread};

use anyhow::{Context as _, Result};
use lb_common::net::{Protocol, V4, V6};
use lb_ebpf::family::Tuple;
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

use super::{
    balancer::{self, Balancer, Links},
    flows::establish,
    frame::{Numbered, Segment, request},
    report::Table,
    wrapper::{Program, Wrapper, shuffle, stay_on},
};
use crate::lab::{self, Lab, Topology, wait::join};

/// Flows that the table promises to hold: the default.
const ROOM: u32 = 262_144;
/// Flows of both CPUs together: a few, which stay in the cache, and many.
const KNOWN: [u32; 2] = [1000, 131_072];
/// New flows of both CPUs together, in each round.
const NEW: u32 = 131_072;
/// Runs of each measurement of known flows.
const RUNS: u32 = 1_000_000;
/// The index of `eth0`: `lo` is 1.
const ETH0: u32 = 2;

/// Measures known and new flows, `rounds` times each: other load on the machine makes single rounds useless.
pub fn measure(rounds: usize) -> Result<Vec<Table>> {
    let lab = Lab::build(&Topology::new("cpus", lab::Shape::TwoNics).backends(1))?;
    lab.xlb.ip(balancer::ROUTES)?;

    lab.xlb.inside(|| {
        let title = "two CPUs at once, as a multiple of one; net nanoseconds per packet, best of all rounds";
        let columns = ["one CPU", "the other", "at once: one", "the other", "times"];
        let mut bench = Bench { rounds, cpus: two_cpus()?, table: Table::new(title, &columns, 2) };
        bench.family::<V4>()?;
        bench.family::<V6>()?;
        Ok(vec![bench.table])
    })
}

struct Bench {
    rounds: usize,
    cpus: [usize; 2],
    table: Table,
}

/// For each CPU: a wrapper, and a balancer that it may test.
struct Sides<F: Numbered> {
    wrappers: [Wrapper<F>; 2],
    balancers: [Balancer<F>; 2],
}

impl<F: Numbered> Sides<F> {
    fn new() -> Result<Self> {
        let wrapper = || Wrapper::new(NEW, ETH0);
        let balancer = || Balancer::new(ROOM, Links { front: ETH0, back: ETH0 });
        Ok(Self { wrappers: [wrapper()?, wrapper()?], balancers: [balancer()?, balancer()?] })
    }

    /// Lets each CPU test the balancer of this number.
    fn test(&mut self, numbers: [usize; 2]) -> Result<()> {
        let Self { wrappers, balancers } = self;
        let mut pairs = wrappers.iter_mut().zip(numbers);
        pairs.try_for_each(|(wrapper, number)| wrapper.test(balancers[number].object.program("lb")?))
    }

    /// Assigns half of the flows to each CPU.
    fn share(&mut self, all: &[Tuple<F>], segment: Segment) -> Result<()> {
        let halves = all.chunks_exact(all.len() / 2);
        self.wrappers.iter_mut().zip(halves).try_for_each(|(wrapper, half)| wrapper.write(0, half, segment))
    }

    fn clear(&mut self) {
        self.balancers.iter_mut().for_each(Balancer::clear);
    }
}

impl Bench {
    fn family<F: Numbered>(&mut self) -> Result<()> {
        eprintln!("bench: two CPUs, IPv{}", F::DIGIT);
        let mut sides = Sides::<F>::new()?;
        sides.test([0, 1])?;
        self.new_flows(&mut sides, "two tables")?;
        sides.test([0, 0])?;
        self.new_flows(&mut sides, "one table")?;
        KNOWN.iter().try_for_each(|&count| self.known_flows(&mut sides, count))
    }

    /// Requests of flows that are established in the first table.
    fn known_flows<F: Numbered>(&mut self, sides: &mut Sides<F>, count: u32) -> Result<()> {
        let Sides { wrappers: [wrapper, _], balancers: [lb, _] } = sides;
        let mut requests = establish(lb, wrapper, count, Protocol::Tcp)?.requests;
        shuffle(&mut requests, 3);
        sides.share(&requests, Segment::Ack)?;
        let name = format!("TCP IPv{}, {count} known flows", F::DIGIT);
        self.compare(sides, &name, requests.len() / 2, RUNS, |_| {})
    }

    /// SYNs, each of another flow, into tables that are empty before each measurement.
    fn new_flows<F: Numbered>(&mut self, sides: &mut Sides<F>, tables: &str) -> Result<()> {
        let mut requests: Vec<Tuple<F>> = (0..NEW).map(|flow| request(flow, Protocol::Tcp)).collect();
        shuffle(&mut requests, 5);
        sides.share(&requests, Segment::Syn)?;
        let name = format!("TCP IPv{}, new flows, {tables}", F::DIGIT);
        self.compare(sides, &name, requests.len() / 2, NEW / 2, Sides::clear)
    }

    fn compare<F: Numbered>(
        &mut self,
        sides: &mut Sides<F>,
        name: &str,
        tuples: usize,
        runs: u32,
        prepare: impl Fn(&mut Sides<F>),
    ) -> Result<()> {
        let run = |wrapper: &mut Wrapper<F>, program| Ok(wrapper.run_any(program, 0..tuples, runs)?.0);
        let mut best = Best::default();
        for _ in 0..self.rounds {
            let mut alone = |number: usize| {
                prepare(sides);
                let (wrapper, cpu) = (&mut sides.wrappers[number], self.cpus[number]);
                on_cpu(cpu, || Ok(run(wrapper, Program::Lb)? - run(wrapper, Program::Floor)?))
            };
            best.alone([alone(0)?, alone(1)?]);
            let floors = at_once(&mut sides.wrappers, self.cpus, |wrapper| run(wrapper, Program::Floor))?;
            prepare(sides);
            let both = at_once(&mut sides.wrappers, self.cpus, |wrapper| run(wrapper, Program::Lb))?;
            best.rounds.push([both[0] - floors[0], both[1] - floors[1]]);
        }
        let (both, times) = best.at_once().context("no round")?;
        let values = [best.alone[0], best.alone[1], both[0], both[1], times];
        self.table.row(name, values.map(Some));
        Ok(())
    }
}

/// What was measured, in nanoseconds by CPU.
struct Best {
    /// The shortest.
    alone: [f64; 2],
    /// Of both at once, by round.
    rounds: Vec<[f64; 2]>,
}

impl Default for Best {
    fn default() -> Self {
        Self { alone: [f64::INFINITY; 2], rounds: Vec::new() }
    }
}

impl Best {
    fn alone(&mut self, ns: [f64; 2]) {
        self.alone = [self.alone[0].min(ns[0]), self.alone[1].min(ns[1])];
    }

    /// The round in which both together did most, and how many times what one of them does. A CPU that is taken away in
    /// a round leaves the other one alone: so both count, and in the same round.
    fn at_once(&self) -> Option<([f64; 2], f64)> {
        let times = |both: &[f64; 2]| self.alone[0] / both[0] + self.alone[1] / both[1];
        let all = self.rounds.iter().map(|both| (*both, times(both)));
        all.max_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}

fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| join(scope.spawn(|| stay_on(cpu).and_then(|()| work()))))
}

fn at_once<F: Numbered>(
    wrappers: &mut [Wrapper<F>; 2],
    cpus: [usize; 2],
    work: impl Fn(&mut Wrapper<F>) -> Result<f64> + Sync,
) -> Result<[f64; 2]> {
    let (work, start) = (&work, &Barrier::new(2));
    let [one, other] = thread::scope(|scope| {
        let [one, other] = wrappers;
        let threads = [(one, cpus[0]), (other, cpus[1])].map(|(wrapper, cpu)| {
            scope.spawn(move || {
                let stays = stay_on(cpu);
                start.wait();
                stays.and_then(|()| work(wrapper))
            })
        });
        threads.map(join)
    });
    Ok([one?, other?])
}

/// The first two CPUs that this thread may use.
fn two_cpus() -> Result<[usize; 2]> {
    let may = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| may.is_set(cpu).unwrap_or(false));
    let first = cpus.next().context("this thread may use no CPU")?;
    Ok([first, cpus.next().context("this bench needs two CPUs")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_count_in_the_round_in_which_they_did_most_together() {
        let mut best = Best::default();
        best.alone([100.0, 50.0]);
        best.alone([120.0, 40.0]);
        best.rounds = vec![[100.0, 400.0], [125.0, 50.0]];

        let (both, times) = best.at_once().unwrap();

        assert_eq!(both, [125.0, 50.0]);
        assert!((times - 1.6).abs() < 1e-9, "{times}");
    }
}
