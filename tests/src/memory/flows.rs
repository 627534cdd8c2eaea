//! One family's flow table in memory.

use std::array;

use lb_common::{
    cell::{HalfWord, Shared, Word},
    flow::{Bucket, Record, RecordIndex, ReplyLine, Shape},
    net::Ports,
    pool::Pool,
};
use lb_ebpf::{
    family::{Family, RecordOf, Tuple},
    packet::parse::Layout,
    table::scratch::Scratch,
};

use crate::engine::{Flow, Memory};

/// Records, reply index, and the scratch of each CPU.
pub struct Flows<F: Family> {
    /// The buckets of records; the shape sets how many.
    pub buckets: Vec<Bucket<RecordOf<F>>>,
    /// The lines of the reply index; the shape sets how many.
    pub lines: Vec<ReplyLine>,
    /// The scratch of each CPU.
    pub scratch: [Scratch<F>; 2],
    /// The shared count of half-open records, without the differences that CPUs keep.
    pub half_open: Word,
    /// Each CPU's difference, which is not yet added to the shared count.
    pub half_open_cpu: [Word; 2],
}

impl<F: Family<Address: Default, Spare: Default>> Flows<F> {
    /// An empty table.
    pub fn new(shape: Shape) -> Self {
        Self {
            buckets: (0..shape.buckets)
                .map(|_| Bucket { way: array::from_fn(|_| empty_record::<F>()) })
                .collect(),
            lines: (0..shape.lines).map(|_| ReplyLine { entry: array::from_fn(|_| Word::new(0)) }).collect(),
            scratch: array::from_fn(|_| blank()),
            half_open: Word::new(0),
            half_open_cpu: array::from_fn(|_| Word::new(0)),
        }
    }

    /// How many records are half-open.
    pub fn half_open(&self) -> u64 {
        self.half_open_cpu.iter().fold(self.half_open.load(), |sum, own| sum.wrapping_add(own.load()))
    }

    /// Adds the records and the reply index, in the order of the table.
    pub fn copy_into(&self, memory: &mut Memory, family: usize) {
        let records = self.buckets.iter().flat_map(|bucket| &bucket.way);
        let to_ip = |address| F::to_key(address).to_ip();
        memory.flows.extend(
            (0..).zip(records).filter_map(|(index, record)| Flow::of(RecordIndex(index), record, to_ip)),
        );
        for (index, line) in (0..).zip(&self.lines) {
            for (number, entry) in line.entry.iter().enumerate() {
                if entry.load() != 0 {
                    memory.reply_index.push((family, index, number, entry.load()));
                }
            }
        }
    }
}

fn empty_record<F: Family<Address: Default, Spare: Default>>() -> RecordOf<F> {
    Record {
        control: Word::new(0),
        client: Shared::new(F::Address::default()),
        listen: Shared::new(F::Address::default()),
        request_ports: Shared::new(Ports::default()),
        owner: Shared::new(Default::default()),
        reply_ports: Shared::new(Ports::default()),
        last_seen: HalfWord::new(0),
        proof: Word::new(0),
        backend: Shared::new(F::Address::default()),
        source: Shared::new(F::Address::default()),
        client_hop: Word::new(0),
        deltas: Shared::new(Default::default()),
        hop_stamp: Shared::new(Default::default()),
        spare: F::Spare::default(),
    }
}

fn blank<F: Family<Address: Default>>() -> Scratch<F> {
    let tuple = || {
        let address = F::Address::default();
        Shared::new(Tuple { source: address, destination: address, ports: Ports::default(), protocol: 0 })
    };
    Scratch {
        tuple: tuple(),
        hash: Shared::new(0),
        is_syn: Shared::new(0),
        sequence: Shared::new(0),
        going_on: Shared::new(0),
        computed: Shared::new(0),
        refused_by: Shared::new(Default::default()),
        retries: Shared::new(0),
        has_record: Shared::new(0),
        layout: Shared::new(Layout { hops: 0, options: 0, length: 0, frame: 0 }),
        now: Shared::new(Default::default()),
        pool: Shared::new(Default::default()),
        schedule: Shared::new(Pool::NONE),
        likely: Shared::new(Default::default()),
        service_counters: Shared::new(Default::default()),
        reject: Shared::new(0),
        reason: Shared::new(0),
        closing: Shared::new(Default::default()),
        client_hop: Shared::new(Default::default()),
        hop_generation: Shared::new(0),
        record: Shared::new(Default::default()),
        control: Shared::new(0),
        last_search: Shared::new(Default::default()),
        next_bucket: Shared::new(Default::default()),
        backend: Shared::new(Default::default()),
        rewritten: tuple(),
        deltas: Shared::new(Default::default()),
    }
}
