//! Indexes into the flow table. They are different types, because all of them are small numbers that look alike.

use super::WAYS;

/// A bucket of the flow table.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketIndex(pub u32);

/// A record of the flow table: bucket * [`WAYS`] + way.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordIndex(pub u32);

/// A line of the reply index.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineIndex(pub u32);

impl RecordIndex {
    /// The record in a way of a bucket.
    #[inline(always)]
    pub const fn new(bucket: BucketIndex, way: u32) -> Self {
        Self(bucket.0 * WAYS as u32 + way)
    }

    /// The bucket that it lies in.
    #[inline(always)]
    pub const fn bucket(self) -> BucketIndex {
        BucketIndex(self.0 / WAYS as u32)
    }

    /// Its way in the bucket.
    #[inline(always)]
    pub const fn way(self) -> usize {
        self.0 as usize & (WAYS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_lies_in_one_way_of_one_bucket() {
        let record = RecordIndex::new(BucketIndex(5), 7);

        assert_eq!((record.bucket(), record.way()), (BucketIndex(5), 7));
    }
}
