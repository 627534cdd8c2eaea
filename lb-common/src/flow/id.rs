//! The identity of a flow in the tables of one node.

use super::{MAX_RECORDS, RecordIndex};

/// One owner of a record: `generation (24, in the high half) | family (1) | record (24)`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

impl FlowId {
    const FAMILY_AT: u32 = MAX_RECORDS.ilog2();

    /// The owner of this generation of a record.
    #[inline(always)]
    pub const fn new(is_v6: bool, record: RecordIndex, generation: u32) -> Self {
        Self((generation as u64) << 32 | (is_v6 as u64) << Self::FAMILY_AT | record.0 as u64)
    }

    /// Is the record in the table of IPv6?
    pub const fn is_v6(self) -> bool {
        self.0 >> Self::FAMILY_AT & 1 != 0
    }

    /// The record.
    pub const fn record(self) -> RecordIndex {
        RecordIndex(self.0 as u32 & (MAX_RECORDS - 1))
    }

    /// The record's generation.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_parts_apart() {
        for is_v6 in [false, true] {
            let id = FlowId::new(is_v6, RecordIndex(MAX_RECORDS - 1), 0xff_fffe);

            let parts = (id.is_v6(), id.record(), id.generation());
            assert_eq!(parts, (is_v6, RecordIndex(MAX_RECORDS - 1), 0xff_fffe));
        }
    }
}
