//! Round robin: one slot after the other.

use lb_common::{pool::SlotRange, reason::Reason};

use crate::storage::Maps;

/// Attempts to start the next round before the first slot is used regardless.
const ATTEMPTS: u32 = 4;

/// The next slot of the round.
///
/// Exact, also on several CPUs, and without a division: each turn within the range goes to one CPU. Of the CPUs that find
/// the round over, the one with the latest turn starts the next round. A round is also over if the range has shrunk.
#[inline(always)]
pub fn pick(maps: &impl Maps, pool: u32, slots: SlotRange) -> Result<u32, Reason> {
    let turns = maps.turn(pool).ok_or(Reason::Internal)?;
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let turn = turns.fetch_add(1);
        if turn < u64::from(slots.length) {
            return Ok(turn as u32);
        }
        if turns.replace(turn + 1, 1) {
            return Ok(0);
        }
        attempt += 1;
    }
    Ok(0)
}
