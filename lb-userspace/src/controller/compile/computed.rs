//! What follows from the file and the key alone: the backends of flows that another node may know (`share_flows = "exceptions"`),
//! and the services that backends reply for.

use std::collections::BTreeMap;

use lb_common::{
    backend::BackendId,
    counters::ServiceNumber,
    net::Be16,
    pool::{Pool, PoolNumber, SourceSetNumber},
};

use super::{
    Compiler, NoRoom,
    schedule::{self, Entry},
};
use crate::{
    controller::{index::origin, snapshot::place},
    datapath::Listen,
    spec::{Service, ShareFlows, rules::Family},
};

impl Compiler<'_> {
    /// The pool in which the backends of flows that another node may know are computed: from all backends that have weight,
    /// whatever their state. `None`: they are not computed.
    pub(super) fn computed_pool(
        &mut self,
        service: &Service,
        counters: ServiceNumber,
        family: Family,
        entries: Vec<Entry>,
    ) -> Result<Option<PoolNumber>, NoRoom> {
        if service.share_flows == ShareFlows::All {
            return Ok(None);
        }
        let number = match self.have.computed_pool(counters, family) {
            Some(number) => number,
            None => self.fresh_pool()?,
        };
        let ids = schedule::slots(service.scheduler, &entries, &self.state.spec().hash.key);
        let (slots, picker) = (self.slots(number, ids)?, schedule::picker(service.scheduler));
        self.want.pools.insert(number, Pool::new(slots, picker, service.mode, SourceSetNumber::NONE));
        Ok(Some(number))
    }

    /// The backends that reply for a service whose flows are computed, as far as they may have flows.
    pub(super) fn mark_origins(&mut self, service: &Service, placed: &BTreeMap<Family, Vec<BackendId>>) {
        if service.share_flows == ShareFlows::All {
            return;
        }
        for listen in &service.listen {
            let to =
                Listen { address: listen.ip(), port: Be16::new(listen.port()), protocol: service.protocol };
            let ids = placed.get(&Family::of(listen.ip())).into_iter().flatten();
            for backend in ids.filter_map(|id| self.want.backends.get(&place(*id))) {
                self.want.origins.entry(origin(backend)).or_insert(to);
            }
        }
    }
}
