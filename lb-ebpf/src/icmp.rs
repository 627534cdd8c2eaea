//! (icmp)
use crate::{
    family::Family,
    parse::IcmpPacket,
    tables::{FlowTables, Tables},
};
use lb_common::reason::Reason;
/// x
#[inline(always)]
pub fn translate<F: Family, T: Tables + FlowTables<F>>(
    _packet: IcmpPacket<'_, F>,
    _tables: &T,
) -> Result<u32, Reason> {
    Err(Reason::NotService)
}
