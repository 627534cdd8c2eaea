//! One slot after the other. Round robin has one for each backend.

use lb_common::{pool::SlotRange, reason::Reason};

use crate::storage::Maps;

/// How often another CPU may be faster at the end of a round.
const ATTEMPTS: u32 = 4;

/// The next slot of the round.
///
/// Exact without a division, and whatever CPUs do at once: a turn within the range is one CPU's alone, and of those that
/// find the round over, the one whose turn was the last begins the next round. If the range has become shorter, the round
/// is over, too.
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
