//! The operations that lead from one snapshot to another.

use std::collections::BTreeMap;

use lb_common::pool::SlotRange;

use crate::datapath::{Op, Snapshot};

/// The operations that turn `have` into `want`, in an order that is safe after each one: what is referred to is written
/// before what refers to it, and deleted after it. What the maps contain is decided by `compile`.
/// The members of a pool come before the pool: those that it gains are in the maps already, and those that it loses are in no
/// list when the pool's word has changed.
///
/// A node becomes quiet before, and answers after everything else.
///
/// `next_backend_id` is written before the first new id, so that an id is never used twice.
pub fn diff(have: &Snapshot, want: &Snapshot) -> Vec<Op> {
    let next_id = have.next_backend_id != want.next_backend_id;
    let key = have.hash_key != want.hash_key;
    let generation = have.hop_generation != want.hop_generation;
    let quiet = (have.quiet != want.quiet).then_some(Op::SetQuiet(want.quiet));
    let (first, last) = if have.quiet < want.quiet { (quiet, None) } else { (None, quiet) };

    let mut plan: Vec<Op> = first.into_iter().collect();
    plan.extend(next_id.then_some(Op::SetNextBackendId(want.next_backend_id)));
    plan.extend(changed(&have.interfaces, &want.interfaces).map(|(at, it)| Op::PutInterface(*at, *it)));
    plan.extend(
        changed(&have.service_names, &want.service_names).map(|(at, it)| Op::PutServiceName(*at, it.clone())),
    );
    plan.extend(
        changed(&have.backend_names, &want.backend_names).map(|(at, it)| Op::PutBackendName(*at, it.clone())),
    );
    plan.extend(changed(&have.backends, &want.backends).map(|(_, it)| Op::PutBackend(*it)));
    plan.extend(changed(&have.slots, &want.slots).map(|(at, it)| Op::PutSlots(*at, it.clone())));
    plan.extend(changed(&have.members, &want.members).map(|(at, it)| Op::PutMembers(*at, it.clone())));
    plan.extend(gone(&have.members, &want.members).map(|at| Op::DeleteMembers(*at)));
    plan.extend(changed(&have.sources, &want.sources).map(|(at, it)| Op::PutSources(*at, it.clone())));
    plan.extend(changed(&have.pools, &want.pools).map(|(at, it)| Op::PutPool(*at, *it)));
    plan.extend(changed(&have.services, &want.services).map(|(at, it)| Op::PutService(*at, *it)));
    plan.extend(changed(&have.origins, &want.origins).map(|(at, it)| Op::PutOrigin(*at, *it)));
    plan.extend(generation.then_some(Op::SetHopGeneration(want.hop_generation)));
    plan.extend(key.then_some(Op::SetHashKey(want.hash_key)));

    plan.extend(gone(&have.origins, &want.origins).map(|at| Op::DeleteOrigin(*at)));
    plan.extend(gone(&have.services, &want.services).map(|at| Op::DeleteService(*at)));
    plan.extend(gone(&have.pools, &want.pools).map(|at| Op::DeletePool(*at)));
    plan.extend(gone_slots(have, want).map(Op::DeleteSlots));
    plan.extend(gone(&have.sources, &want.sources).map(|at| Op::DeleteSources(*at)));
    plan.extend(gone(&have.backends, &want.backends).map(|at| Op::DeleteBackend(*at)));
    plan.extend(gone(&have.backend_names, &want.backend_names).map(|at| Op::DeleteBackendName(*at)));
    plan.extend(gone(&have.service_names, &want.service_names).map(|at| Op::DeleteServiceName(*at)));
    plan.extend(gone(&have.interfaces, &want.interfaces).map(|at| Op::DeleteInterface(*at)));
    plan.extend(last);
    plan
}

/// What `want` has and `have` lacks or has with a different value.
fn changed<'a, K: Ord, V: PartialEq>(
    have: &'a BTreeMap<K, V>,
    want: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    want.iter().filter(|(key, value)| have.get(key) != Some(value))
}

/// What `have` has and `want` lacks.
fn gone<'a, K: Ord, V>(have: &'a BTreeMap<K, V>, want: &'a BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    have.keys().filter(|key| !want.contains_key(key))
}

fn gone_slots(have: &Snapshot, want: &Snapshot) -> impl Iterator<Item = SlotRange> {
    let ranges = have.slots.iter().filter(|(offset, _)| !want.slots.contains_key(offset));
    ranges.map(|(offset, ids)| SlotRange { offset: *offset, length: ids.len() as u32 })
}

#[cfg(test)]
mod tests;
