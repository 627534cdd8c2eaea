//! Pools with their slots, members and sources: what new flows are scheduled from.
//!
//! All of it is mapped, so a change takes a few stores. No packet reads what is being written, except a pool's word,
//! which is a single store, and its members, of which each is.

use std::{collections::BTreeMap, iter, net::IpAddr};

use anyhow::{Context, ensure};
use lb_common::{
    backend::BackendId,
    cell::{Word, fence},
    limits::{MAX_MEMBERS, MAX_SOURCES},
    net::{Address, V6},
    pool::{Members, Pool, PoolNumber, SlotIndex, SlotLine, SlotRange, SourceSet, SourceSetNumber},
};

use crate::{datapath::mapping::Mapping, shared::Shared};

/// The words of a [`SourceSet`].
const WORDS: usize = size_of::<SourceSet>() / size_of::<Word>();

/// `POOLS`, `SLOTS`, `MEMBERS` and `SOURCES`. Only the controller writes to them.
pub struct Schedules {
    pub pools: Mapping<Word>,
    pub slots: Mapping<SlotLine>,
    pub members: Mapping<Members>,
    pub sources: Mapping<[Word; WORDS]>,
}

impl Schedules {
    /// Activates a pool with one store.
    pub fn put_pool(&self, number: PoolNumber, pool: Pool) -> anyhow::Result<()> {
        let word = self.pools.get(number.0 as usize).with_context(|| format!("there is no pool {number}"))?;
        fence();
        word.store(pool.0);
        Ok(())
    }

    pub fn put_slots(&self, offset: SlotIndex, ids: &[BackendId]) -> anyhow::Result<()> {
        (offset.0..).zip(ids).try_for_each(|(slot, id)| self.put_slot(SlotIndex(slot), *id))
    }

    /// Frees slots.
    pub fn delete_slots(&self, slots: SlotRange) -> anyhow::Result<()> {
        (slots.offset.0..slots.end().0).try_for_each(|slot| self.put_slot(SlotIndex(slot), BackendId::NONE))
    }

    fn put_slot(&self, slot: SlotIndex, id: BackendId) -> anyhow::Result<()> {
        let line = self.slots.get(SlotLine::line(slot) as usize);
        let line = line.with_context(|| format!("there is no slot {slot}"))?;
        line.id[SlotLine::place(slot)].store(id.0);
        Ok(())
    }

    /// Replaces the members of a pool. A daemon that is killed meanwhile leaves a mixture. The next one sees that it is not what
    /// it wants, and writes it again.
    pub fn put_members(&self, number: PoolNumber, ids: &[BackendId]) -> anyhow::Result<()> {
        let members = self.members.get(number.0 as usize);
        let members = members.with_context(|| format!("there is no pool {number}"))?;
        ensure!(ids.len() <= MAX_MEMBERS, "a pool has at most {MAX_MEMBERS} members");
        let ids_and_zeros = ids.iter().chain(iter::repeat(&BackendId::NONE));
        members.id.iter().zip(ids_and_zeros).for_each(|(place, id)| place.store(id.0));
        members.count.store(ids.len() as u32);
        Ok(())
    }

    /// Writes a set. Without sources it is free.
    pub fn put_sources(&self, number: SourceSetNumber, sources: &[IpAddr]) -> anyhow::Result<()> {
        let count = sources.len();
        ensure!(count <= MAX_SOURCES, "{count} sources, and there is room for {MAX_SOURCES}");
        let cell = self.sources.get(number.0 as usize).filter(|_| number != SourceSetNumber::NONE);
        let cell = cell.with_context(|| format!("there is no set {number} of sources"))?;
        let mut set = SourceSet::default();
        for (place, source) in set.address.iter_mut().zip(sources.iter().cycle()) {
            *place = (*source).into();
        }
        let words = set.address.iter().map(|address| address.as_v6()).flat_map(|V6(high, low)| [high, low]);
        cell.iter().zip(words).for_each(|(cell, word)| cell.store(word));
        Ok(())
    }

    pub fn pools(&self) -> BTreeMap<PoolNumber, Pool> {
        let words = (0..).map(PoolNumber).zip(self.pools.iter().map(|word| Pool(word.load())));
        words.filter(|(_, pool)| *pool != Pool::NONE).collect()
    }

    pub fn members(&self) -> BTreeMap<PoolNumber, Vec<BackendId>> {
        let ids = |members: &Members| {
            let ids = members.id.iter().take(members.count.load() as usize);
            ids.map(|id| BackendId(id.load())).collect()
        };
        let members = (0..).map(PoolNumber).zip(self.members.iter().map(ids));
        members.filter(|(_, ids): &(_, Vec<_>)| !ids.is_empty()).collect()
    }

    /// The active ranges, and the runs of other used slots between them.
    pub fn slots(&self, pools: &BTreeMap<PoolNumber, Pool>) -> BTreeMap<SlotIndex, Shared<Vec<BackendId>>> {
        let in_force = pools.values().map(|pool| pool.slots()).filter(|slots| slots.length != 0);
        let in_force: BTreeMap<_, _> = in_force.map(|it| (it.offset.0, it.end().0)).collect();
        let mut ranges = BTreeMap::new();
        let mut gap = 0;
        for (offset, end) in in_force {
            self.runs(gap, offset, &mut ranges);
            ranges.insert(SlotIndex(offset), self.ids(offset, end).collect());
            gap = end;
        }
        self.runs(gap, self.count(), &mut ranges);
        ranges.into_iter().map(|(at, ids)| (at, ids.into())).collect()
    }

    /// Adds the runs of used slots.
    fn runs(&self, first: u32, end: u32, ranges: &mut BTreeMap<SlotIndex, Vec<BackendId>>) {
        let mut run = None;
        for (slot, id) in (first..).zip(self.ids(first, end)) {
            if id == BackendId::NONE {
                run = None;
            } else {
                let start = *run.get_or_insert(SlotIndex(slot));
                ranges.entry(start).or_default().push(id);
            }
        }
    }

    /// The ids in these slots, as far as they exist.
    fn ids(&self, first: u32, end: u32) -> impl Iterator<Item = BackendId> {
        let lines = self.slots.iter().skip(SlotLine::line(SlotIndex(first)) as usize);
        let slots = lines.flat_map(|line| &line.id).skip(SlotLine::place(SlotIndex(first)));
        slots.take(end.saturating_sub(first) as usize).map(|id| BackendId(id.load()))
    }

    fn count(&self) -> u32 {
        (self.slots.iter().len() * SlotLine::SLOTS) as u32
    }

    pub fn sources(&self) -> BTreeMap<SourceSetNumber, Vec<IpAddr>> {
        let sets = (0..).map(SourceSetNumber).zip(self.sources.iter());
        let sets = sets.map(|(number, cell)| (number, sources(cell)));
        sets.filter(|(_, sources)| !sources.is_empty()).collect()
    }
}

/// The sources of a set, which are repeated until the array is full. No source is in a set twice, so the set ends where
/// the first one comes again.
///
/// A set that is not repeated to its end was half written when a daemon was killed. All of it is returned: it equals no
/// wanted set, so it is written again.
fn sources(cell: &[Word; WORDS]) -> Vec<IpAddr> {
    let addresses = cell.as_chunks::<2>().0.iter();
    let addresses: Vec<_> = addresses.map(|[high, low]| Address::v6(V6(high.load(), low.load()))).collect();
    if addresses.iter().all(|address| *address == Address::default()) {
        return Vec::new();
    }
    let others = addresses.iter().skip(1).take_while(|address| **address != addresses[0]);
    let count = 1 + others.count();
    let is_whole = addresses.iter().zip(addresses[..count].iter().cycle()).all(|(one, other)| one == other);
    let set = if is_whole { &addresses[..count] } else { &addresses[..] };
    set.iter().map(|address| address.to_ip()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_that_was_half_written_is_no_set_of_fewer_sources() {
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|it| Address::from(it.parse::<IpAddr>().unwrap()));
        let cell = |addresses: &[Address]| {
            let words = addresses.iter().map(|it| it.as_v6()).flat_map(|V6(high, low)| [high, low]);
            let cell = [const { Word::new(0) }; WORDS];
            cell.iter().zip(words).for_each(|(cell, word)| cell.store(word));
            cell
        };
        let whole = [a, b].repeat(MAX_SOURCES / 2);

        assert_eq!(sources(&cell(&whole)), [a, b].map(Address::to_ip));
        assert_eq!(sources(&cell(&[])), [] as [IpAddr; 0]);
        for written in 1..MAX_SOURCES {
            assert_eq!(sources(&cell(&whole[..written])).len(), MAX_SOURCES, "{written} of them");
        }
        let mut over_another = whole.clone();
        over_another[..3].fill(b);
        assert_eq!(sources(&cell(&over_another)).len(), MAX_SOURCES);
    }
}
