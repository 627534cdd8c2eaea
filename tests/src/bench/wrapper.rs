//! Runs programs on the frames of many flows in turn, and measures one run.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use aya::{
    EbpfLoader, TestRun as _, TestRunOptions,
    maps::ProgramArray,
    programs::{ProgramFd, Xdp},
};
use lb_ebpf::family::Tuple;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use tests_ebpf::bench::{FRAME_WORDS, Order};

use super::{
    frame::{BYTES, Numbered, Segment},
    object::{Mapped, Object},
};

/// A program that the wrapper jumps to: its number in `PROGRAMS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Sends the packet back.
    Floor,
    /// Parses, and finds the tuple in an LRU hash.
    Lru,
    /// Puts the tuple into that hash.
    Remember,
    /// The balancer.
    Lb,
}

/// What XDP programs return.
pub const XDP_DROP: u32 = 1;
/// The same.
pub const XDP_TX: u32 = 3;

/// Elements of the LRU hash for each flow: a NAT has two, and no hash may be full.
const LRU_PER_FLOW: u32 = 4;

/// The wrapper, with room for the tuples of both directions.
pub struct Wrapper<F: Numbered> {
    object: Object,
    tuples: Mapped<F::Entry>,
    frame: [u64; FRAME_WORDS],
    is_udp: bool,
    context: [u32; 6],
    program: String,
}

impl<F: Numbered> Wrapper<F> {
    /// Has room for the tuples of `flows` flows; packets seem to arrive at `ingress`.
    pub fn new(flows: u32, ingress: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let (tuples, lru) = (format!("TUPLES{}", F::DIGIT), format!("LRU{}", F::DIGIT));
        loader.map_max_entries(&tuples, 2 * flows).map_max_entries(&lru, LRU_PER_FLOW * flows.max(1024));
        let mut object = Object::load_with("bench", loader)?;
        for (program, name) in [
            (Program::Floor, "floor".to_owned()),
            (Program::Lru, format!("lru{}", F::DIGIT)),
            (Program::Remember, format!("remember{}", F::DIGIT)),
        ] {
            let fd = object.program(&name)?.fd()?.try_clone()?;
            insert(&mut object, program, &fd)?;
        }
        Ok(Self {
            tuples: object.mapped(&tuples)?,
            object,
            frame: [0; FRAME_WORDS],
            is_udp: false,
            // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            context: [0, BYTES as u32, 0, ingress, 0, 0],
            program: format!("wrap{}", F::DIGIT),
        })
    }

    /// Puts the balancer under test.
    pub fn test(&mut self, lb: &Xdp) -> Result<()> {
        self.test_fd(lb.fd()?)
    }

    /// The same by a program's file descriptor.
    pub fn test_fd(&mut self, lb: &ProgramFd) -> Result<()> {
        insert(&mut self.object, Program::Lb, lb)
    }

    /// Writes tuples, from number `first` on, and sets the kind of all frames.
    pub fn write(&mut self, first: usize, tuples: &[Tuple<F>], segment: Segment) -> Result<()> {
        for (number, tuple) in (first..).zip(tuples) {
            self.tuples.set(number, F::entry(tuple, segment));
        }
        let any = tuples.first().context("there is no tuple to send")?;
        self.shape(any, segment);
        Ok(())
    }

    /// Sets the kind of all frames. The checksums stay those of the kind that the tuples were written for: nothing here
    /// verifies them.
    pub fn shape(&mut self, any: &Tuple<F>, segment: Segment) {
        let frame = F::frame(any, segment);
        self.frame =
            std::array::from_fn(|i| u64::from_ne_bytes(std::array::from_fn(|byte| frame[8 * i + byte])));
        self.is_udp = segment == Segment::Datagram;
    }

    /// Runs `program` on the frames of these tuples in turn; the nanoseconds of one run, wrapper included.
    pub fn run(&mut self, program: Program, tuples: Range<usize>, runs: u32) -> Result<f64> {
        let (ns, verdict) = self.run_any(program, tuples, runs)?;
        ensure!(verdict == XDP_TX, "{program:?} returned {verdict} and not XDP_TX");
        Ok(ns)
    }

    /// The same with any verdict on the last frame.
    pub fn run_any(&mut self, program: Program, tuples: Range<usize>, runs: u32) -> Result<(f64, u32)> {
        self.order(program, tuples)?;
        let (packet, context) = (self.packet(), self.context());
        let mut options =
            TestRunOptions { data_in: Some(&packet), repeat: runs, ..TestRunOptions::default() };
        options.ctx_in = Some(&context);
        let result = self.object.program(&self.program)?.test_run(options).context("run the wrapper")?;
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }

    /// Sets what the wrapper does.
    pub fn order(&mut self, program: Program, tuples: Range<usize>) -> Result<()> {
        let order = Order {
            program: program as u32,
            first: u32::try_from(tuples.start)?,
            count: u32::try_from(tuples.len())?,
            next: 0,
            is_udp: self.is_udp.into(),
            zero: 0,
            frame: self.frame,
        };
        self.object.set("ORDER", 0, order)
    }

    /// The wrapper that sends the same frames without a jump.
    pub fn generator(&self) -> Result<&Xdp> {
        self.object.program("generate")
    }

    /// An initial frame.
    pub fn packet(&self) -> Vec<u8> {
        self.frame.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// The context of every frame.
    pub fn context(&self) -> Vec<u8> {
        self.context.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

fn insert(object: &mut Object, program: Program, fd: &ProgramFd) -> Result<()> {
    let mut programs = ProgramArray::try_from(object.map_mut("PROGRAMS")?)?;
    programs.set(program as u32, fd, 0).with_context(|| format!("set the wrapper's target to {program:?}"))
}

/// Keeps the calling thread on the last CPU that it may use.
pub fn stay_on_one_cpu() -> Result<()> {
    let may = sched_getaffinity(Pid::from_raw(0))?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| may.is_set(cpu).unwrap_or(false));
    stay_on(last.context("this thread may use no CPU")?)
}

/// Keeps the calling thread on this CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &only)?)
}

/// Puts tuples into a random order, the same one in every run of the bench.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_keeps_everything_and_nothing_in_its_place() {
        let mut items: Vec<_> = (0..1000).collect();

        shuffle(&mut items, 1);

        assert!(items.iter().enumerate().filter(|&(place, &item)| place == item).count() < 20);
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
