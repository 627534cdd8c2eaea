//! What it costs a flow that other nodes learn of it.
//!
//! Two copies of the program run in turn: one reports flows, as in a group, and one does not. The ring buffer is emptied
//! between rounds, as the daemon does every 2 ms.

use anyhow::{Result, ensure};
use lb_common::{
    net::{Protocol, V4, V6},
    pool::{Picker, SlotRange},
};
use lb_ebpf::family::Tuple;

use super::{
    balancer::{self, BACKENDS, Balancer, Links},
    flows::half_open_replies,
    frame::{Numbered, Segment, request},
    report::{Goal, Table, median},
    wrapper::{Program, Wrapper, shuffle, stay_on_one_cpu},
};
use crate::lab::{self, Lab, Topology};

/// The capacity of the table, in flows: the default.
const ROOM: u32 = 262_144;
/// Flows in each round. Their events fit into the ring buffer.
const FLOWS: u32 = 20_000;
/// The most that a report may add to the packet that proves a flow, in nanoseconds.
const GOAL: Goal = Goal::AtMost(60.0);
/// The index of `eth0`: `lo` is 1.
const ETH0: u32 = 2;

/// Measures both programs in turn, `rounds` times.
pub fn measure(rounds: usize) -> Result<Vec<Table>> {
    let lab = Lab::build(&Topology::new("sharing", lab::Shape::TwoNics).backends(1))?;
    lab.xlb.ip(balancer::ROUTES)?;
    lab.xlb.inside(|| {
        stay_on_one_cpu()?;
        let title = "packets of a new TCP flow, alone and in a group, in ns";
        let mut table = Table::new(title, &["alone", "in a group", "more"], 1);
        of_family::<V4>(rounds, &mut table)?;
        of_family::<V6>(rounds, &mut table)?;
        Ok(vec![table])
    })
}

fn of_family<F: Numbered>(rounds: usize, table: &mut Table) -> Result<()> {
    eprintln!("bench: sharing, IPv{}", F::DIGIT);
    let links = Links { front: ETH0, back: ETH0 };
    let mut programs = [Balancer::<F>::new(ROOM, links)?, Balancer::new_in_group(ROOM, links)?];
    let mut taken = [[const { Vec::new() }; 3], [const { Vec::new() }; 3]];
    for _ in 0..rounds {
        for (number, (lb, taken)) in programs.iter_mut().zip(&mut taken).enumerate() {
            for (ns, all) in handshakes(lb)?.into_iter().zip(taken) {
                all.push(ns);
            }
            let (reported, expected) = (lb.read_reports()?, number * FLOWS as usize);
            // Some flows find their buckets full.
            ensure!(
                reported <= expected && reported * 100 >= expected * 98,
                "{reported} of {expected} were reported"
            );
        }
    }
    for (packet, name) in ["SYN", "SYN-ACK", "ACK that proves it"].into_iter().enumerate() {
        let [alone, in_group] = [0, 1].map(|program: usize| median(&taken[program][packet]));
        let more = in_group - alone;
        table.row(format!("IPv{}, {name}", F::DIGIT), [alone, in_group, more].map(Some));
        table.goal("more", GOAL);
    }
    Ok(())
}

/// The time of each packet of a handshake, of flows in an empty table.
fn handshakes<F: Numbered>(lb: &mut Balancer<F>) -> Result<[f64; 3]> {
    let mut requests: Vec<Tuple<F>> = (0..FLOWS).map(|flow| request(flow, Protocol::Tcp)).collect();
    shuffle(&mut requests, 5);
    let mut wrapper = Wrapper::new(FLOWS, ETH0)?;
    wrapper.test(lb.object.program("lb")?)?;
    lb.clear();
    lb.choose(Picker::Turn, SlotRange { length: BACKENDS, ..SlotRange::default() })?;
    let open = send(&mut wrapper, &requests, Segment::Syn)?;
    let replies = half_open_replies(lb);
    let answer = send(&mut wrapper, &replies, Segment::SynAck)?;
    let prove = send(&mut wrapper, &requests, Segment::Ack)?;
    Ok([open, answer, prove])
}

/// The nanoseconds of one packet, without the wrapper.
fn send<F: Numbered>(wrapper: &mut Wrapper<F>, tuples: &[Tuple<F>], segment: Segment) -> Result<f64> {
    let (all, runs) = (0..tuples.len(), u32::try_from(tuples.len())?);
    wrapper.write(0, tuples, segment)?;
    let floor = wrapper.run(Program::Floor, all.clone(), runs)?;
    Ok(wrapper.run_any(Program::Lb, all, runs)?.0 - floor)
}
