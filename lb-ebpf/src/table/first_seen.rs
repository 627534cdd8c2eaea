//! When flows that are not in the table were first seen: another node of the group may know them.

use lb_common::quiet::{FirstSeen, Quiet};

use crate::{
    family::{Family, Tuple},
    storage::Maps,
};

/// May the sender of a packet learn that its flow is not known?
#[inline(always)]
pub fn may_be_told<F: Family>(maps: &impl Maps, request: &Tuple<F>) -> bool {
    match Quiet::from_number(maps.settings().quiet) {
        Quiet::No => true,
        Quiet::AtFirst => is_old(maps, request),
        Quiet::Always => false,
    }
}

/// Was the first packet seen a while ago? If this is the first one, it is remembered.
#[inline(always)]
fn is_old<F: Family>(maps: &impl Maps, request: &Tuple<F>) -> bool {
    let (hash, now) = (F::hash(&maps.settings().keys, request), maps.now());
    let Some(word) = maps.first_seen(FirstSeen::place(hash)) else { return false };
    match FirstSeen(word.load()).age(hash, now) {
        Some(age) => age.is_over(FirstSeen::WHILE),
        None => {
            word.store(FirstSeen::new(hash, now).0);
            false
        }
    }
}
