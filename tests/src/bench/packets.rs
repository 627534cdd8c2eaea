//! Nanoseconds per packet, net of the wrapper, beside "parse and one hit in an LRU hash".

use anyhow::{Context as _, Result, ensure};
use lb_common::net::{Be16, Ports, Protocol, V4, V6};
use lb_ebpf::family::Tuple;

use super::{
    balancer::{self, Balancer, Links},
    flows::{Flows, establish},
    frame::{Block, Numbered, SERVICE_PORT, Segment, request},
    object::Object,
    report::{Table, median},
    wrapper::{Program, Wrapper, shuffle, stay_on_one_cpu},
};
use crate::lab::{self, Lab, Topology};

/// Flows that are measured, and the capacity of the table: the default, or more if needed.
const SIZES: [(u32, u32); 4] =
    [(1, DEFAULT_FLOWS), (1000, DEFAULT_FLOWS), (131_072, 131_072), (1_048_576, 1_048_576)];
const DEFAULT_FLOWS: u32 = 262_144;
/// New flows that are timed in each case, at least. A round of a thousand takes a millisecond, so one interruption would
/// distort the median of a few.
const NEW_FLOWS: usize = 16_000;
/// The index of `eth0`: `lo` is 1.
const ETH0: u32 = 2;

/// How long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Measurements of each case, interleaved with those of the others. New flows: at least.
    pub rounds: usize,
    /// Runs of each measurement, at least.
    pub runs: u32,
    /// How many of the [`SIZES`].
    pub sizes: usize,
}

impl Effort {
    /// All sizes.
    pub const FULL: Self = Self { rounds: 5, runs: 2_000_000, sizes: SIZES.len() };
    /// Fewer and shorter rounds, without the million flows.
    pub const QUICK: Self = Self { rounds: 3, runs: 300_000, sizes: 3 };
}

/// Measures everything.
pub fn measure(effort: Effort) -> Result<Vec<Table>> {
    let lab = Lab::build(&Topology::new("bench", lab::Shape::TwoNics).backends(1))?;
    lab.xlb.ip(balancer::ROUTES)?;

    lab.xlb.inside(|| {
        stay_on_one_cpu()?;
        let mut results = Results::new(effort);
        for &(flows, room) in &SIZES[..effort.sizes] {
            results.family::<V4>(flows, room, &[Protocol::Tcp, Protocol::Udp])?;
            results.family::<V6>(flows, room, &[Protocol::Tcp, Protocol::Udp])?;
        }
        let mut tables = results.tables();
        tables.push(programs()?);
        Ok(tables)
    })
}

/// The cost of one case at one number of flows.
struct Figure {
    case: String,
    flows: u32,
    ns: f64,
    /// The cost of one LRU hit, in the same rounds.
    lru: Option<f64>,
}

struct Results {
    effort: Effort,
    figures: Vec<Figure>,
    occupancy: Table,
}

impl Results {
    fn new(effort: Effort) -> Self {
        let title = "flows refused because their buckets were full, at capacity";
        let columns = ["flows", "refused", "percent", "first"];
        Self { effort, figures: Vec::new(), occupancy: Table::new(title, &columns, 3) }
    }

    fn family<F: Numbered>(&mut self, count: u32, room: u32, protocols: &[Protocol]) -> Result<()> {
        let mut lb = Balancer::<F>::new(room, Links { front: ETH0, back: ETH0 })?;
        let mut wrapper = Wrapper::<F>::new(count, ETH0)?;
        let name = |protocol| format!("{protocol:?}{}", F::DIGIT).to_lowercase();
        for &protocol in protocols {
            eprintln!("bench: {} at {count} flows", name(protocol));
            self.new_flows(&mut lb, &mut wrapper, count, protocol, &name(protocol))?;
            let flows = establish(&mut lb, &mut wrapper, count, protocol)?;
            if count == room {
                let percent = flows.refused as f64 * 100.0 / f64::from(count);
                let values = [f64::from(count), flows.refused as f64, percent].map(Some);
                let first = flows.first_refused.map(f64::from);
                self.occupancy.row(name(protocol), values.into_iter().chain([first]));
            }
            self.established(&mut lb, &mut wrapper, flows, protocol, &name(protocol))?;
            if protocol == Protocol::Tcp {
                self.no_flow(&mut wrapper, count, &name(protocol))?;
            }
            if count == 1 {
                self.miss(&mut wrapper, protocol, &name(protocol))?;
            }
        }
        Ok(())
    }

    fn established<F: Numbered>(
        &mut self,
        lb: &mut Balancer<F>,
        wrapper: &mut Wrapper<F>,
        flows: Flows<F>,
        protocol: Protocol,
        name: &str,
    ) -> Result<()> {
        let segment = match protocol {
            Protocol::Tcp => Segment::Ack,
            Protocol::Udp => Segment::Datagram,
        };
        let Flows { mut requests, mut replies, .. } = flows;
        let count = requests.len();
        let (all_requests, all_replies) = (0..count, count..2 * count);
        // Both directions are mixed: otherwise all tuples of the direction that is inserted first would be at the ends
        // of the hash chains. Neither table is filled in the order in which it is measured.
        let mut both = [requests.as_slice(), replies.as_slice()].concat();
        shuffle(&mut both, 1);
        wrapper.write(0, &both, segment)?;
        wrapper.run(Program::Remember, 0..2 * count, 2 * count as u32)?;
        shuffle(&mut requests, 3);
        shuffle(&mut replies, 4);
        wrapper.write(0, &requests, segment)?;
        wrapper.write(count, &replies, segment)?;

        let runs = self.effort.runs.max(2 * count as u32);
        let before = lb.forwarded()?;
        let [mut floors, mut request, mut reply, mut lru_request, mut lru_reply] = [const { Vec::new() }; 5];
        for _ in 0..self.effort.rounds {
            let floor = wrapper.run(Program::Floor, all_requests.clone(), runs)?;
            floors.push(floor);
            lru_request.push(wrapper.run(Program::Lru, all_requests.clone(), runs)? - floor);
            request.push(wrapper.run(Program::Lb, all_requests.clone(), runs)? - floor);
            lru_reply.push(wrapper.run(Program::Lru, all_replies.clone(), runs)? - floor);
            reply.push(wrapper.run(Program::Lb, all_replies.clone(), runs)? - floor);
        }
        let forwarded = lb.forwarded()? - before;
        let expected = 2 * self.effort.rounds as u64 * u64::from(runs);
        ensure!(forwarded == expected, "{name}: {forwarded} of {expected} packets were forwarded");

        let flows = count as u32;
        self.add(format!("{name} floor, which is subtracted"), flows, &floors, None);
        self.add(format!("{name} request"), flows, &request, Some(&lru_request));
        self.add(format!("{name} reply"), flows, &reply, Some(&lru_reply));
        Ok(())
    }

    /// Each flow once, into an empty table.
    fn new_flows<F: Numbered>(
        &mut self,
        lb: &mut Balancer<F>,
        wrapper: &mut Wrapper<F>,
        count: u32,
        protocol: Protocol,
        name: &str,
    ) -> Result<()> {
        if count == 1 {
            return Ok(());
        }
        let segment = match protocol {
            Protocol::Tcp => Segment::Syn,
            Protocol::Udp => Segment::Datagram,
        };
        wrapper.test(lb.object.program("lb")?)?;
        let mut tuples: Vec<Tuple<F>> = (0..count).map(|flow| request(flow, protocol)).collect();
        shuffle(&mut tuples, 5);
        wrapper.write(0, &tuples, segment)?;
        let rounds = self.effort.rounds.max(NEW_FLOWS / tuples.len());
        let mut taken = Vec::new();
        for _ in 0..rounds {
            lb.clear();
            let floor = wrapper.run(Program::Floor, 0..tuples.len(), count)?;
            taken.push(wrapper.run_any(Program::Lb, 0..tuples.len(), count)?.0 - floor);
        }
        self.add(format!("{name} new flow"), count, &taken, None);
        Ok(())
    }

    /// ACKs to the service without a flow.
    fn no_flow<F: Numbered>(&mut self, wrapper: &mut Wrapper<F>, count: u32, name: &str) -> Result<()> {
        let mut tuples: Vec<Tuple<F>> = (count..2 * count).map(|flow| request(flow, Protocol::Tcp)).collect();
        shuffle(&mut tuples, 6);
        wrapper.write(0, &tuples, Segment::Ack)?;
        let (all, runs) = (0..tuples.len(), self.effort.runs.max(count));
        let mut taken = Vec::new();
        for _ in 0..self.effort.rounds {
            let floor = wrapper.run(Program::Floor, all.clone(), runs)?;
            taken.push(wrapper.run_any(Program::Lb, all.clone(), runs)?.0 - floor);
        }
        self.add(format!("{name} no flow"), count, &taken, None);
        Ok(())
    }

    /// A packet that is not for xlb.
    fn miss<F: Numbered>(&mut self, wrapper: &mut Wrapper<F>, protocol: Protocol, name: &str) -> Result<()> {
        let unrelated = Tuple::<F> {
            source: F::address(Block::Client, 1),
            destination: F::address(Block::Stranger, 0),
            ports: Ports::new(Be16::new(40_000), Be16::new(SERVICE_PORT)),
            protocol: protocol.number().into(),
        };
        let segment = match protocol {
            Protocol::Tcp => Segment::Ack,
            Protocol::Udp => Segment::Datagram,
        };
        wrapper.write(0, &[unrelated], segment)?;
        let mut taken = Vec::new();
        for _ in 0..self.effort.rounds {
            let floor = wrapper.run(Program::Floor, 0..1, self.effort.runs)?;
            taken.push(wrapper.run_any(Program::Lb, 0..1, self.effort.runs)?.0 - floor);
        }
        self.add(format!("{name} not for a service"), 1, &taken, None);
        Ok(())
    }

    fn add(&mut self, case: String, flows: u32, ns: &[f64], lru: Option<&[f64]>) {
        // Some of a million flows are refused; the column is still that of the million.
        let near = |&&(size, _): &&(u32, u32)| flows <= size && flows * 100 >= size * 99;
        let flows = SIZES.iter().find(near).map_or(flows, |&(size, _)| size);
        self.figures.push(Figure { case, flows, ns: median(ns), lru: lru.map(median) });
    }

    fn tables(self) -> Vec<Table> {
        let columns: Vec<String> =
            SIZES[..self.effort.sizes].iter().map(|(flows, _)| flows.to_string()).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let title = "nanoseconds per packet, net of the wrapper, by number of flows";
        let mut ns = Table::new(title, &columns, 0);
        let mut ratio = Table::new("the same, as a multiple of parsing and one LRU hit", &columns, 2);

        let mut cases: Vec<&String> = Vec::new();
        for figure in &self.figures {
            if !cases.contains(&&figure.case) {
                cases.push(&figure.case);
            }
        }
        for case in cases {
            let at = |size: u32| self.figures.iter().find(|it| it.case == *case && it.flows == size);
            let row = |value: &dyn Fn(&Figure) -> Option<f64>| {
                SIZES[..self.effort.sizes]
                    .iter()
                    .map(|&(size, _)| at(size).and_then(value))
                    .collect::<Vec<_>>()
            };
            ns.row(case.clone(), row(&|figure| Some(figure.ns)));
            if self.figures.iter().any(|it| it.case == *case && it.lru.is_some()) {
                ns.row(format!("  LRU hit of {case}"), row(&|figure| figure.lru));
                ratio.row(case.clone(), row(&|figure| figure.lru.map(|lru| figure.ns / lru)));
            }
        }
        vec![ns, ratio, self.occupancy]
    }
}

/// What the verifier visited.
fn programs() -> Result<Table> {
    let mut table = Table::new("verifier", &["visited", "xlated", "jited"], 0);
    let lb = Balancer::<V4>::new(DEFAULT_FLOWS, Links { front: ETH0, back: ETH0 })?;
    let bench = Object::load("bench")?;
    for (object, program) in [(&lb.object, "lb"), (&bench, "lru4"), (&bench, "lru6"), (&bench, "floor")] {
        let info = object.program(program)?.info().context("read the program's info from the kernel")?;
        let visited = info.verified_instruction_count().map(f64::from);
        let sizes = [info.size_translated(), Some(info.size_jitted())];
        table.row(program, [visited].into_iter().chain(sizes.map(|size| size.map(f64::from))));
    }
    Ok(table)
}
