//! The flow tables, walked and swept while packets go by.
//!
//! A record is believed as the program believes it: its control word is looked at before and after. Walks are made in
//! stretches, so that nothing waits for a whole table.

use std::{collections::BTreeSet, net::SocketAddr, ops::Range, time::Duration};

use lb_common::{
    cell::{Word, fence},
    clock::{TICK_SHIFT, age, is_over, since},
    flow::{Bucket, Control, Hint, HintLine, Owner, State, WAYS},
    net::{Be16, Protocol, V4, V6},
    settings::Settings,
};
use lb_ebpf::{
    family::{Family, RecordOf, Tuple},
    table::hash::reduce,
};

use super::{Flow, mapping::Mapping};

/// Buckets of a stretch: 2 to 4 MiB of records, which take a few milliseconds.
const STRETCH: u32 = 4096;

/// Both families' tables.
pub struct Flows {
    pub v4: Table<V4>,
    pub v6: Table<V6>,
    /// IPv4, IPv6.
    pub half_open: Mapping<Word>,
}

/// One family's table.
pub struct Table<F: Family> {
    pub buckets: Mapping<Bucket<RecordOf<F>>>,
    pub lines: Mapping<HintLine>,
}

impl Flows {
    /// Visits the flows of the stretch that begins at `from` that have not expired. Those whose backend has left are
    /// among them: who sweeps must learn of them. Returns where the next stretch begins.
    pub fn walk(&self, from: u32, now: u32, visit: &mut dyn FnMut(&Flow)) -> Option<u32> {
        let (stretch, next) = self.stretch(from);
        match stretch {
            Stretch::V4(buckets) => self.v4.walk(buckets, now, visit),
            Stretch::V6(buckets) => self.v6.walk(buckets, now, visit),
        }
        next
    }

    /// Frees the records and hints of retired backends in one stretch. Returns where the next one begins.
    pub fn sweep(&self, from: u32, retired: &BTreeSet<u32>, settings: &Settings) -> Option<u32> {
        let (stretch, next) = self.stretch(from);
        match stretch {
            Stretch::V4(buckets) => self.v4.sweep(buckets, retired, settings, self.half_open.first()),
            Stretch::V6(buckets) => self.v6.sweep(buckets, retired, settings, self.half_open.get(1)),
        }
        next
    }

    /// Stretches are counted through IPv4's buckets and then IPv6's, and lie in one of them.
    fn stretch(&self, from: u32) -> (Stretch, Option<u32>) {
        let v4 = self.v4.buckets.len() as u32;
        let all = v4 + self.v6.buckets.len() as u32;
        let begin = from.min(all);
        let end = begin.saturating_add(STRETCH).min(if begin < v4 { v4 } else { all });
        let stretch = if begin < v4 { Stretch::V4(begin..end) } else { Stretch::V6(begin - v4..end - v4) };
        (stretch, (end < all).then_some(end))
    }
}

/// Buckets of one family.
enum Stretch {
    V4(Range<u32>),
    V6(Range<u32>),
}

impl<F: Family> Table<F> {
    fn records(&self, buckets: Range<u32>) -> impl Iterator<Item = (u32, &RecordOf<F>)> {
        let stretch = self.buckets.get(buckets.start as usize..buckets.end as usize).unwrap_or_default();
        let first = buckets.start * WAYS as u32;
        stretch.iter().flat_map(|bucket| &bucket.way).zip(first..).map(|(record, number)| (number, record))
    }

    fn walk(&self, buckets: Range<u32>, now: u32, visit: &mut dyn FnMut(&Flow)) {
        for (_, record) in self.records(buckets) {
            let Some(seen) = Seen::<F>::of(record) else { continue };
            let age = age(now, seen.last_seen);
            let Some(protocol) = Protocol::from_number(seen.owner.protocol()) else { continue };
            if is_over(age, seen.control.state().timeout(protocol.number())) {
                continue;
            }
            visit(&Flow {
                protocol,
                client: endpoint::<F>(seen.request.source, seen.request.ports.source()),
                listen: endpoint::<F>(seen.request.destination, seen.request.ports.destination()),
                backend: endpoint::<F>(seen.reply.source, seen.reply.ports.source()),
                source: endpoint::<F>(seen.reply.destination, seen.reply.ports.destination()),
                backend_id: seen.owner.backend(),
                state: seen.control.state(),
                idle: Duration::from_nanos(u64::from(since(age)) << TICK_SHIFT),
            });
        }
    }

    fn sweep(
        &self,
        buckets: Range<u32>,
        retired: &BTreeSet<u32>,
        settings: &Settings,
        half_open: Option<&Word>,
    ) {
        for (number, record) in self.records(buckets) {
            let Some(seen) = Seen::<F>::of(record) else { continue };
            if retired.contains(&seen.owner.backend()) {
                // The hint first: once the record is empty, its next owner may claim the same reply tuple.
                self.forget(&seen, number, settings);
                empty(record, seen.control, half_open);
            }
        }
    }

    /// Takes back the hint that leads replies to the record of this number.
    fn forget(&self, seen: &Seen<F>, number: u32, settings: &Settings) {
        let hash = F::hash(&settings.keys, &seen.reply);
        let line = reduce(hash as u32, F::shape(settings).lines);
        let hint = Hint::new((hash >> 32) as u32, seen.control.generation(), number);
        for word in self.lines.get(line as usize).iter().flat_map(|line| &line.hint) {
            // Who changes the word in between writes a hint of his own, which is as good.
            word.replace(hint.0, Hint::NONE.0);
        }
    }
}

/// Empties the record while it has the owner that was seen, whatever state a packet moves it to meanwhile.
fn empty<A: Copy, S>(record: &lb_common::flow::Record<A, S>, seen: Control, half_open: Option<&Word>) {
    let mut control = seen;
    while seen.is_still(control) {
        let free = Control::new(control.generation(), State::EMPTY, 0);
        if record.control.replace(control.0, free.0) {
            if control.state().is_half_open()
                && let Some(count) = half_open
            {
                count.fetch_add(u64::MAX); // minus one
            }
            return;
        }
        control = Control(record.control.load());
    }
}

/// A record as one owner wrote it.
struct Seen<F: Family> {
    control: Control,
    request: Tuple<F>,
    reply: Tuple<F>,
    owner: Owner,
    last_seen: u32,
}

impl<F: Family> Seen<F> {
    fn of(record: &RecordOf<F>) -> Option<Self> {
        let control = Control(record.control.load());
        if !control.state().is_live() {
            return None;
        }
        fence();
        let owner = record.owner.get();
        let protocol = u32::from(owner.protocol());
        let seen = Self {
            control,
            request: Tuple {
                source: record.client.get(),
                destination: record.listen.get(),
                ports: record.request_ports.get(),
                protocol,
            },
            reply: Tuple {
                source: record.backend.get(),
                destination: record.source.get(),
                ports: record.reply_ports.get(),
                protocol,
            },
            owner,
            last_seen: record.last_seen.load(),
        };
        fence();
        control.is_still(Control(record.control.load())).then_some(seen)
    }
}

fn endpoint<F: Family>(address: F::Address, port: Be16) -> SocketAddr {
    SocketAddr::new(F::to_key(address).to_ip(), port.get())
}

#[cfg(test)]
mod tests;
