//! Establishes flows by SYN, SYN-ACK and ACK through the program.

use anyhow::{Result, ensure};
use lb_common::{
    flow::{Bucket, Control},
    net::Protocol,
    reason::Reason,
};
use lb_ebpf::family::{RecordOf, Tuple};

use super::{
    balancer::Balancer,
    frame::{Numbered, Segment, flow_of, request},
    wrapper::{Program, Wrapper},
};

/// Flows are established in batches, so that few are half-open at a time, as in real traffic.
const PARTS: usize = 32;

/// The flows that the table accepted.
pub struct Flows<F: Numbered> {
    /// Tuples of requests.
    pub requests: Vec<Tuple<F>>,
    /// Tuples of replies, in the same order.
    pub replies: Vec<Tuple<F>>,
    /// How many were refused because their buckets were full.
    pub refused: u64,
    /// How many flows there were when the first one was refused.
    pub first_refused: Option<u32>,
}

/// Establishes `count` flows in an empty table.
pub fn establish<F: Numbered>(
    lb: &mut Balancer<F>,
    wrapper: &mut Wrapper<F>,
    count: u32,
    protocol: Protocol,
) -> Result<Flows<F>> {
    let [open, answer, prove] = match protocol {
        Protocol::Tcp => [Segment::Syn, Segment::SynAck, Segment::Ack],
        Protocol::Udp => [Segment::Datagram; 3],
    };
    lb.clear();
    wrapper.test(lb.object.program("lb")?)?;
    let before = lb.refused(Reason::TableFull)?;
    let all: Vec<Tuple<F>> = (0..count).map(|flow| request(flow, protocol)).collect();
    let mut replies: Vec<Option<Tuple<F>>> = vec![None; all.len()];

    let mut first_refused = None;
    for (part, requests) in all.chunks(all.len().div_ceil(PARTS)).enumerate() {
        let first = part * all.len().div_ceil(PARTS);
        send(wrapper, requests, open)?;
        let is_half_open = |control: Control| control.state().is_half_open();
        for (flow, reply) in in_table::<F>(&lb.records, is_half_open) {
            replies[flow as usize] = Some(reply);
        }
        let missing = replies[first..first + requests.len()].iter().position(Option::is_none);
        first_refused = first_refused.or(missing.map(|missing| (first + missing) as u32));
        let answers: Vec<_> = replies[first..first + requests.len()].iter().flatten().copied().collect();
        send(wrapper, &answers, answer)?;
        send(wrapper, requests, prove)?;
    }

    let mut flows = Flows { requests: Vec::new(), replies: Vec::new(), refused: 0, first_refused };
    for (flow, reply) in in_table::<F>(&lb.records, |control| control.state().is_established()) {
        flows.requests.push(all[flow as usize]);
        flows.replies.push(reply);
    }
    // A datagram that was refused is sent again as proof, and refused again.
    let times = match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    };
    flows.refused = (lb.refused(Reason::TableFull)? - before) / times;
    ensure!(
        flows.requests.len() as u64 * 100 >= u64::from(count) * 99,
        "{} of {count} flows were established",
        flows.requests.len()
    );
    Ok(flows)
}

/// The tuples of the replies of all half-open flows.
pub fn half_open_replies<F: Numbered>(lb: &Balancer<F>) -> Vec<Tuple<F>> {
    in_table::<F>(&lb.records, |control| control.state().is_half_open()).map(|(_, reply)| reply).collect()
}

fn send<F: Numbered>(wrapper: &mut Wrapper<F>, tuples: &[Tuple<F>], segment: Segment) -> Result<()> {
    wrapper.write(0, tuples, segment)?;
    wrapper.run_any(Program::Lb, 0..tuples.len(), u32::try_from(tuples.len())?).map(drop)
}

/// The flows in the table with this state, and the tuples of their replies.
fn in_table<F: Numbered>(
    buckets: &[Bucket<RecordOf<F>>],
    is: impl Fn(Control) -> bool,
) -> impl Iterator<Item = (u32, Tuple<F>)> {
    let records = buckets.iter().flat_map(|bucket| &bucket.way);
    records.filter(move |record| is(Control(record.control.load()))).map(|record| {
        let protocol = record.owner.get().protocol().into();
        let request = Tuple::<F> {
            source: record.client.get(),
            destination: record.listen.get(),
            ports: record.request_ports.get(),
            protocol,
        };
        let reply = Tuple::<F> {
            source: record.backend.get(),
            destination: record.source.get(),
            ports: record.reply_ports.get(),
            protocol,
        };
        (flow_of(&request), reply)
    })
}
