//! The ids of flows that the XDP program reports, if flows are shared with other nodes.

use anyhow::{Context, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
};
use lb_common::{cell::Word, flow::FlowId};

use super::maps::{array, mapping};
use crate::datapath::{mapping::Mapping, sharing::FlowEvents};

pub const RING: &str = "FLOW_EVENTS";
const LOST: &str = "FLOW_EVENTS_LOST";

/// Sets in the program that it reports flows.
pub fn enable(loader: &mut EbpfLoader<'_>) {
    loader.override_global("SHARES_FLOWS", &1u8, true);
}

/// The ring buffer, which belongs to the loaded program.
pub struct RingEvents {
    ring: RingBuf<MapData>,
    /// A single word.
    lost: Mapping<Word>,
}

impl RingEvents {
    pub fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let ring = ebpf.take_map(RING).ok_or_else(|| anyhow!("the XDP program has no map {RING}"))?;
        let ring = RingBuf::try_from(ring).with_context(|| format!("cannot use the map {RING}"))?;
        Ok(Self { ring, lost: mapping(&array(ebpf, LOST)?, LOST)? })
    }
}

impl FlowEvents for RingEvents {
    fn take(&mut self, most: usize, ids: &mut Vec<FlowId>) {
        for _ in 0..most {
            let Some(item) = self.ring.next() else { return };
            // The program writes no other length.
            if let Ok(bytes) = <[u8; size_of::<FlowId>()]>::try_from(&*item) {
                ids.push(FlowId(u64::from_ne_bytes(bytes)));
            }
        }
    }

    fn lost(&self) -> u64 {
        self.lost.first().map_or(0, Word::load)
    }
}
