//! Two CPUs at once: how much more they do than one.
//!
//! Each CPU has flows of its own. What both write is in the table and the pool that they share: the count of half-open
//! flows, the round-robin counter, and cache lines with records of both. The same work on two balancers, which
//! share nothing, shows how much of a loss is the machine's own (two threads of one core, or one memory bus).

use std::{sync::Barrier, thread};

use anyhow::{Context as _, Result, ensure};
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
    report::{Goal, Table},
    wrapper::{Program, Wrapper, shuffle, stay_on},
};
use crate::lab::{self, Lab, Topology, wait::join};

/// The capacity of the table, in flows: the default.
const ROOM: u32 = 262_144;
/// Flows of both CPUs together: a few, which stay in the cache, and many.
const KNOWN: [u32; 2] = [1000, 131_072];
/// New flows of both CPUs together, in each round.
const NEW: u32 = 131_072;
/// The throughput that both CPUs with one table should reach, as a multiple of that of one CPU.
const GOAL_KNOWN: Goal = Goal::AtLeast(1.9);
/// New flows write words that both CPUs share.
const GOAL_NEW: Goal = Goal::AtLeast(1.7);
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

    /// Packets that any balancer has forwarded.
    fn forwarded(&self) -> Result<u64> {
        self.balancers.iter().map(Balancer::forwarded).sum()
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
        self.table.goal("times", GOAL_NEW);
        KNOWN.iter().try_for_each(|&count| self.known_flows(&mut sides, count))
    }

    /// Requests of flows that are established in the first table.
    fn known_flows<F: Numbered>(&mut self, sides: &mut Sides<F>, count: u32) -> Result<()> {
        let Sides { wrappers: [wrapper, _], balancers: [lb, _] } = sides;
        let mut requests = establish(lb, wrapper, count, Protocol::Tcp)?.requests;
        shuffle(&mut requests, 3);
        sides.share(&requests, Segment::Ack)?;
        let name = format!("TCP IPv{}, {count} known flows", F::DIGIT);
        self.compare(sides, &name, requests.len() / 2, RUNS, |_| {})?;
        self.table.goal("times", GOAL_KNOWN);
        Ok(())
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
        let work = Work { cpus: self.cpus, tuples, runs };
        let mut measured = Measured::default();
        let before = sides.forwarded()?;
        for _ in 0..self.rounds {
            measured.floors_alone.push(work.in_turn(sides, Program::Floor, &prepare)?);
            measured.alone.push(work.in_turn(sides, Program::Lb, &prepare)?);
            measured.floors.push(work.at_once(sides, Program::Floor, &prepare)?);
            measured.both.push(work.at_once(sides, Program::Lb, &prepare)?);
        }
        // Dropping is faster than forwarding.
        let (forwarded, sent) = (sides.forwarded()? - before, 4 * self.rounds as u64 * u64::from(runs));
        ensure!(forwarded == sent, "{name}: {forwarded} of {sent} packets were forwarded");
        let alone = measured.alone();
        let (both, times) = measured.at_once().context("no round")?;
        self.table.row(name, [alone[0], alone[1], both[0], both[1], times].map(Some));
        Ok(())
    }
}

/// What each CPU is to do.
struct Work {
    cpus: [usize; 2],
    tuples: usize,
    runs: u32,
}

impl Work {
    /// One CPU after the other.
    fn in_turn<F: Numbered>(
        &self,
        sides: &mut Sides<F>,
        program: Program,
        prepare: impl Fn(&mut Sides<F>),
    ) -> Result<[f64; 2]> {
        let mut alone = |number: usize| {
            prepare(sides);
            let wrapper = &mut sides.wrappers[number];
            thread::scope(|scope| join(scope.spawn(|| self.run(number, wrapper, program, || {}))))
        };
        Ok([alone(0)?, alone(1)?])
    }

    fn at_once<F: Numbered>(
        &self,
        sides: &mut Sides<F>,
        program: Program,
        prepare: impl Fn(&mut Sides<F>),
    ) -> Result<[f64; 2]> {
        prepare(sides);
        let start = &Barrier::new(2);
        let [one, other] = thread::scope(|scope| {
            let [one, other] = &mut sides.wrappers;
            let threads = [(0, one), (1, other)].map(|(number, wrapper)| {
                scope.spawn(move || {
                    self.run(number, wrapper, program, || {
                        start.wait();
                    })
                })
            });
            threads.map(join)
        });
        Ok([one?, other?])
    }

    /// Nanoseconds per packet on the CPU of this number.
    fn run<F: Numbered>(
        &self,
        number: usize,
        wrapper: &mut Wrapper<F>,
        program: Program,
        wait: impl FnOnce(),
    ) -> Result<f64> {
        let stays = stay_on(self.cpus[number]);
        wait();
        stays?;
        Ok(wrapper.run_any(program, 0..self.tuples, self.runs)?.0)
    }
}

/// What was measured, in nanoseconds by CPU, with one entry for each round.
#[derive(Default)]
struct Measured {
    /// One CPU after the other, without a balancer.
    floors_alone: Vec<[f64; 2]>,
    alone: Vec<[f64; 2]>,
    /// Both at once, without a balancer.
    floors: Vec<[f64; 2]>,
    both: Vec<[f64; 2]>,
}

impl Measured {
    /// The shortest of all rounds, net.
    fn alone(&self) -> [f64; 2] {
        net(shortest(&self.alone), shortest(&self.floors_alone))
    }

    /// The round with the highest combined throughput, net of the baseline, and that throughput as a multiple of one
    /// CPU's. Both figures are from the same round: if one CPU is preempted, the other runs alone and would look too
    /// fast. The baseline is the shortest of all rounds: one that was long because a CPU was preempted would hide the
    /// cost of the balancer.
    fn at_once(&self) -> Option<([f64; 2], f64)> {
        let (alone, floor) = (self.alone(), shortest(&self.floors));
        let times = |both: &[f64; 2]| alone[0] / both[0] + alone[1] / both[1];
        let all = self.both.iter().map(|both| net(*both, floor)).map(|both| (both, times(&both)));
        all.max_by(|(_, one), (_, other)| one.total_cmp(other))
    }
}

fn shortest(rounds: &[[f64; 2]]) -> [f64; 2] {
    rounds.iter().fold([f64::INFINITY; 2], |least, ns| [least[0].min(ns[0]), least[1].min(ns[1])])
}

fn net(ns: [f64; 2], floor: [f64; 2]) -> [f64; 2] {
    [ns[0] - floor[0], ns[1] - floor[1]]
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
        let measured = Measured {
            floors_alone: vec![[10.0, 30.0], [20.0, 10.0]],
            alone: vec![[110.0, 60.0], [130.0, 50.0]],
            floors: vec![[15.0, 300.0], [200.0, 25.0]],
            both: vec![[115.0, 425.0], [140.0, 75.0]],
        };

        let (both, times) = measured.at_once().unwrap();

        assert_eq!(measured.alone(), [100.0, 40.0]);
        assert_eq!(both, [125.0, 50.0]);
        assert!((times - 1.6).abs() < 1e-9, "{times}");
    }
}
