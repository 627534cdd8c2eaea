//! Least connections: of the slots that are compared, the one whose backend has the fewest flows for its weight.
//!
//! Of all slots, the new flow counts, too: (flows + 1) / weight, as in HAProxy's `leastconn`. So weights matter between backends
//! without flows. Of two slots it does not: they are drawn by weight.

use lb_common::{
    backend::{Backend, BackendId, Load},
    clock::Ticks,
    ejection::Ejection,
    limits::LEAST_SLOTS,
    pool::{PoolSlot, SlotRange},
    reason::Reason,
};

use crate::{opaque::opaque, storage::Maps, table::hash::reduce};

/// The slots of a pool that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Among {
    /// The first one, which wins if others are equal.
    pub first: PoolSlot,
    /// From one to the next.
    pub stride: u32,
    /// How many. Not more than [`LEAST_SLOTS`] are compared.
    pub count: u32,
    /// Added to the flows of each backend.
    pub added: u32,
}

impl Among {
    /// All slots, from the one whose turn it is: backends with equal loads take turns.
    #[inline(always)]
    pub const fn all(turn: PoolSlot, slots: SlotRange) -> Self {
        Self { first: turn, stride: 1, count: slots.length, added: 1 }
    }

    /// Two slots that the hash of the flow chooses. Its key is a secret, so clients cannot choose their backend.
    #[inline(always)]
    pub const fn two(hash: u64, slots: SlotRange) -> Self {
        let first = PoolSlot(reduce(hash as u32, slots.length));
        let stride = 1 + reduce((hash >> 32) as u32, slots.length.saturating_sub(1));
        Self { first, stride, count: 2, added: 0 }
    }
}

/// The slot whose backend has the fewest flows for its weight, and has not just refused the client.
#[inline(always)]
pub fn of(
    maps: &impl Maps,
    slots: SlotRange,
    among: Among,
    refused_by: BackendId,
    now: Ticks,
) -> Result<PoolSlot, Reason> {
    let hidden = Hidden(now.0.into());
    let (mut slot, mut step) = (among.first, 0);
    let mut best = hidden.candidate(u64::MAX >> 24, 1, slot);
    while step < LEAST_SLOTS && step < among.count {
        let id = maps.slot(slots.at(slot)).ok_or(Reason::Internal)?;
        let backend = maps.backend(id).ok_or(Reason::Internal)?;
        let passed_over = hidden.passed_over(id, backend, maps.load_of(backend), refused_by, now);
        let flows = maps.load_of(backend).flows.load().wrapping_add(among.added.into());
        best = hidden.better(best, hidden.candidate(flows | passed_over << 39, backend.weight, slot));
        slot = PoolSlot(hidden.wrapped(slot.0 + among.stride, slots.length));
        step += 1;
    }
    Ok(best.slot())
}

/// A slot whose backend has these flows.
#[derive(Clone, Copy)]
struct Candidate {
    flows: u64,
    /// `weight (32) | slot (32)`
    weight_and_slot: u64,
}

impl Candidate {
    #[inline(always)]
    const fn weight(self) -> u64 {
        self.weight_and_slot >> 32
    }

    #[inline(always)]
    const fn slot(self) -> PoolSlot {
        PoolSlot(self.weight_and_slot as u32)
    }
}

/// Arithmetic instead of branches, of which the verifier would explore every combination in each step. Its value is unknown to
/// the verifier.
#[derive(Clone, Copy)]
struct Hidden(u64);

impl Hidden {
    /// All bits are set if `left < right`, and none otherwise. They differ by less than 2^63.
    #[inline(always)]
    fn is_less(self, left: u64, right: u64) -> u64 {
        // Hidden twice: the compiler would make a branch of a difference that it knows, or of a mask that it knows.
        let difference = opaque(left.wrapping_sub(right), self.0) as i64;
        opaque((difference >> 63) as u64, self.0)
    }

    /// `left` if all bits of the mask are set, `right` if none is.
    #[inline(always)]
    const fn choose(mask: u64, left: u64, right: u64) -> u64 {
        right ^ ((left ^ right) & mask)
    }

    #[inline(always)]
    fn candidate(self, flows: u64, weight: u32, slot: PoolSlot) -> Candidate {
        let weight_and_slot = u64::from(weight) << 32 | u64::from(slot.0);
        Candidate { flows: opaque(flows, self.0), weight_and_slot: opaque(weight_and_slot, self.0) }
    }

    /// The one with fewer flows per weight, compared without a division.
    #[inline(always)]
    fn better(self, best: Candidate, other: Candidate) -> Candidate {
        let (of_other, of_best) =
            (other.flows.wrapping_mul(best.weight()), best.flows.wrapping_mul(other.weight()));
        let is_better = self.is_less(of_other, of_best);
        Candidate {
            flows: Self::choose(is_better, other.flows, best.flows),
            weight_and_slot: Self::choose(is_better, other.weight_and_slot, best.weight_and_slot),
        }
    }

    #[inline(always)]
    fn wrapped(self, slot: u32, length: u32) -> u32 {
        let is_in_range = self.is_less(slot.into(), length.into());
        Self::choose(is_in_range, slot.into(), u64::from(slot).wrapping_sub(length.into())) as u32
    }

    /// 1 if [`super::usable`] would pass over the backend, 0 if not.
    #[inline(always)]
    fn passed_over(
        self,
        id: BackendId,
        backend: &Backend,
        load: &Load,
        refused_by: BackendId,
        now: Ticks,
    ) -> u64 {
        let ejection = Ejection(load.ejection.load());
        // Differences, of which only the signs matter: the sign bit is set if the left number is less.
        let less = |left: u64, right: u64| left.wrapping_sub(right);
        let is_ejected = less(0, ejection.level().into());
        let is_probed = less(0, ejection.overdue(now) as u64);
        let has_room = less(load.flows.load(), backend.most_flows());
        let is_another = less(0, u64::from(id.0 ^ backend.id.0));
        let has_not_refused = less(0, u64::from(id.0 ^ refused_by.0));
        let passed_over = (is_ejected & !is_probed) | !has_room | is_another | !has_not_refused;
        opaque(passed_over, self.0) >> 63
    }
}
