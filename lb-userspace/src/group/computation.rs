//! The backends that nodes compute alike, and so need not tell each other.
//!
//! They follow from the definition of a service and from the hash key, whatever the health of its backends. A node that gets a
//! packet of such a flow without having the flow continues it with the backend that it computes.

use lb_common::{
    backend::BackendId,
    net::{V4, V6},
    pool::{Picker, PoolSlot},
};
use lb_ebpf::{family::Family, picker::hash};

use crate::{datapath::SharedFlow, hash_key::HashKey, shared::Shared};

/// How the XDP program computes the backends of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Computation {
    /// The ids of backends; [`BackendId::NONE`] in a slot whose flows are not computed.
    pub slots: Shared<Vec<BackendId>>,
    /// How the slot of a flow is chosen.
    pub picker: Picker,
    /// The key of the pickers that hash.
    pub key: HashKey,
}

impl Computation {
    /// The backend of a flow. `None`: it cannot be computed.
    pub fn backend_of(&self, flow: &SharedFlow) -> Option<BackendId> {
        let slot = if flow.client.is_ipv4() { self.slot::<V4>(flow) } else { self.slot::<V6>(flow) }?;
        self.slots.get(slot.0 as usize).copied().filter(|id| *id != BackendId::NONE)
    }

    fn slot<F: Family>(&self, flow: &SharedFlow) -> Option<PoolSlot> {
        let (keys, tuple, length) = (self.key.words(), flow.request::<F>(), self.slots.len() as u32);
        match self.picker {
            Picker::SourceHash => Some(hash::source_slot(keys, &tuple, length)),
            Picker::FlowHash => Some(hash::flow_slot(keys, &tuple, length)),
            Picker::Turn | Picker::LeastOfAll | Picker::LeastOfTwo => None,
        }
    }
}
