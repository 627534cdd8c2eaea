//! What a new TCP flow costs with each scheduler and after a refusal, and what it costs to answer a packet instead.

use anyhow::{Result, ensure};
use lb_common::{
    net::{Protocol, V4, V6},
    pool::{Picker, SlotRange},
    reason::Reason,
    service::Reject,
};
use lb_ebpf::family::Tuple;

use super::{
    balancer::{self, BACKENDS, Balancer, Links},
    flows::half_open_replies,
    frame::{Numbered, Segment, request},
    report::{Goal, Table, median},
    wrapper::{Program, Wrapper, XDP_DROP, XDP_TX, shuffle, stay_on_one_cpu},
};
use crate::lab::{self, Lab, Topology};

/// The capacity of the table, in flows: the default.
const ROOM: u32 = 262_144;
/// New flows in each round, into an empty table.
const COUNTS: [u32; 2] = [1000, 131_072];
/// A new flow of any scheduler, as a multiple of one of `round-robin`.
const GOAL: Goal = Goal::AtMost(1.15);
/// Not for `least-connections` with more backends than this: it looks at each of them.
const LEAST_OF: usize = 8;
/// Packets that are answered in each round: within the limit of a second.
const ANSWERED: u32 = 500;
/// The index of `eth0`: `lo` is 1.
const ETH0: u32 = 2;
/// The end of the name of a schedule whose flows were refused by another backend before.
const REFUSED: &str = ", after a refusal";
/// The slots of a table that hashes, as the daemon builds it.
const TABLE: u32 = 65_537;

/// Measures all cases in turn, `rounds` times; of few flows, more often.
pub fn measure(rounds: usize) -> Result<Vec<Table>> {
    let lab = Lab::build(&Topology::new("newflows", lab::Shape::TwoNics).backends(1))?;
    lab.xlb.ip(balancer::ROUTES)?;

    lab.xlb.inside(|| {
        stay_on_one_cpu()?;
        let mut tables = Vec::new();
        for count in COUNTS {
            let title =
                format!("new TCP flows, {count} in an empty table; times: as a multiple of round-robin");
            let mut table = Table::new(title, &["ns", "times"], 2);
            let rounds = rounds.max(16_000 / count as usize);
            Bench::<V4>::new(count)?.schedulers(rounds, &mut table)?;
            Bench::<V6>::new(count)?.schedulers(rounds, &mut table)?;
            tables.push(table);
        }
        let title = "SYNs without a backend, one per test run; times: as a multiple of a drop";
        let mut table = Table::new(title, &["ns", "times"], 2);
        Bench::<V4>::new(ANSWERED)?.answers(rounds, &mut table)?;
        Bench::<V6>::new(ANSWERED)?.answers(rounds, &mut table)?;
        tables.push(table);
        Ok(tables)
    })
}

/// A schedule, and whether each flow was refused before.
struct Schedule {
    name: String,
    backends: usize,
    picker: Picker,
    slots: SlotRange,
    is_retried: bool,
}

struct Bench<F: Numbered> {
    lb: Balancer<F>,
    wrapper: Wrapper<F>,
    requests: Vec<Tuple<F>>,
}

impl<F: Numbered> Bench<F> {
    fn new(count: u32) -> Result<Self> {
        let mut requests: Vec<_> = (0..count).map(|flow| request(flow, Protocol::Tcp)).collect();
        shuffle(&mut requests, 5);
        let lb = Balancer::new(ROOM, Links { front: ETH0, back: ETH0 })?;
        let mut wrapper = Wrapper::new(count, ETH0)?;
        wrapper.test(lb.object.program("lb")?)?;
        Ok(Self { lb, wrapper, requests })
    }

    fn schedulers(mut self, rounds: usize, table: &mut Table) -> Result<()> {
        eprintln!("bench: {} new flows, IPv{}", self.requests.len(), F::DIGIT);
        let schedules = self.schedules()?;
        let mut taken = vec![Vec::new(); schedules.len()];
        for _ in 0..rounds {
            for (schedule, taken) in schedules.iter().zip(&mut taken) {
                taken.push(self.new_flows(schedule)?);
            }
        }
        // With few backends, more reply tuples are in use already, so the reference has as many.
        let mut reference = f64::NAN;
        let mut of = 0;
        for (schedule, taken) in schedules.iter().zip(&taken) {
            let ns = median(taken);
            if schedule.backends != of {
                (reference, of) = (ns, schedule.backends);
            }
            let name = format!("IPv{}, {} backends, {}", F::DIGIT, of, schedule.name);
            table.row(name, [ns, ns / reference].map(Some));
            let looks_at_many = schedule.picker == Picker::LeastOfAll && schedule.backends > LEAST_OF;
            if !schedule.is_retried && !looks_at_many {
                table.goal("times", GOAL);
            }
        }
        Ok(())
    }

    /// Of each number of backends, `round-robin` comes first.
    fn schedules(&mut self) -> Result<Vec<Schedule>> {
        use Picker::{FlowHash, LeastOfAll, LeastOfTwo, SourceHash, Turn};
        let all: Vec<u32> = (1..=BACKENDS).collect();
        let mut hashed: Vec<u32> = all.iter().copied().cycle().take(TABLE as usize).collect();
        shuffle(&mut hashed, 7);
        let mut weighted: Vec<u32> = all.iter().flat_map(|&id| vec![id; 1 + id as usize % 3]).collect();
        shuffle(&mut weighted, 8);
        let mut schedules = Vec::new();
        let mut add = |name: &str, picker, backends: usize, ids: &[u32]| {
            let (slots, is_retried) = (self.lb.lay_out(ids)?, name.ends_with(REFUSED));
            schedules.push(Schedule { name: name.to_owned(), backends, picker, slots, is_retried });
            anyhow::Ok(())
        };
        for count in [3, 8, 16, 32] {
            add("round-robin", Turn, count, &all[..count])?;
            add("least-connections", LeastOfAll, count, &all[..count])?;
        }
        add("round-robin", Turn, 64, &all)?;
        add("weighted-round-robin", Turn, 64, &weighted)?;
        add("least-connections", LeastOfAll, 64, &all)?;
        add("random-two", LeastOfTwo, 64, &all)?;
        add("source-hash", SourceHash, 64, &hashed)?;
        add("maglev", FlowHash, 64, &hashed)?;
        add(&format!("round-robin{REFUSED}"), Turn, 64, &all)?;
        Ok(schedules)
    }

    /// Each flow once, into an empty table.
    fn new_flows(&mut self, schedule: &Schedule) -> Result<f64> {
        let Self { lb, wrapper, requests } = self;
        let (all, runs) = (0..requests.len(), u32::try_from(requests.len())?);
        lb.clear();
        lb.choose(schedule.picker, schedule.slots)?;
        if schedule.is_retried {
            wrapper.write(0, requests, Segment::Syn)?;
            wrapper.run_any(Program::Lb, all.clone(), runs)?;
            let replies = half_open_replies(lb);
            wrapper.write(0, &replies, Segment::Refusal)?;
            let before = lb.refused(Reason::Retried)?;
            wrapper.run_any(Program::Lb, 0..replies.len(), u32::try_from(replies.len())?)?;
            let refused = lb.refused(Reason::Retried)? - before;
            ensure!(refused * 100 > u64::from(runs) * 98, "{refused} of {runs} flows were refused");
        }
        wrapper.write(0, requests, Segment::Syn)?;
        let floor = wrapper.run(Program::Floor, all.clone(), runs)?;
        let before = lb.forwarded()?;
        let taken = wrapper.run_any(Program::Lb, all, runs)?.0 - floor;
        let forwarded = lb.forwarded()? - before;
        // At a hundred thousand flows, some find their buckets full.
        ensure!(forwarded * 100 > u64::from(runs) * 98, "{forwarded} of {runs} packets were forwarded");
        Ok(taken)
    }

    /// A packet that has become its own answer cannot be sent again, so each has a test run of its own.
    fn answers(mut self, rounds: usize, table: &mut Table) -> Result<()> {
        eprintln!("bench: answers, IPv{}", F::DIGIT);
        self.wrapper.write(0, &self.requests, Segment::Syn)?;
        self.lb.choose(Picker::Turn, SlotRange::default())?;
        let cases = [
            ("dropped", Reject::Drop, XDP_DROP),
            ("limit of answers reached", Reject::Reset, XDP_DROP),
            ("answered with a reset", Reject::Reset, XDP_TX),
        ];
        let mut taken = cases.map(|_| Vec::new());
        for _ in 0..rounds {
            for ((_, reject, expected), taken) in cases.iter().zip(&mut taken) {
                self.lb.reject(*reject)?;
                if *expected == XDP_TX {
                    self.lb.allow_answers()?;
                }
                let (mut floors, mut times) = (Vec::new(), Vec::new());
                for flow in 0..ANSWERED as usize {
                    floors.push(self.wrapper.run(Program::Floor, flow..flow + 1, 1)?);
                    let (ns, verdict) = self.wrapper.run_any(Program::Lb, flow..flow + 1, 1)?;
                    ensure!(verdict == *expected, "the verdict is {verdict} instead of {expected}");
                    times.push(ns);
                }
                taken.push(median(&times) - median(&floors));
            }
        }
        let drop = median(&taken[0]);
        for ((name, ..), taken) in cases.iter().zip(&taken) {
            table.row(format!("IPv{}, {name}", F::DIGIT), [median(taken), median(taken) / drop].map(Some));
        }
        Ok(())
    }
}
