//! Tables for the exchange, without a kernel, for tests.

use std::sync::Arc;

use lb_common::{backend::Backend, flow::FlowId, settings::Settings};

use super::{FlowEvents, Reporter, SharedTables};
use crate::datapath::flows::{Flows, fixture};

/// There is no XDP program: tests report flows as the controller does.
#[derive(Debug)]
pub struct NoEvents;

impl FlowEvents for NoEvents {
    fn take(&mut self, _: usize, _: &mut Vec<FlowId>) {}

    fn lost(&self) -> u64 {
        0
    }
}

/// The same tables, for the exchange of another daemon. The former one must be gone.
pub fn tables_of(settings: Settings, flows: &Arc<Flows>) -> SharedTables<NoEvents> {
    // The tables keep the reporter of the former daemon: what is reported there is lost, as it is with the former program.
    let (_, reported) = Reporter::new();
    SharedTables::new(Arc::clone(flows), settings, NoEvents, reported)
}

/// Empty tables, for the exchange and for the test.
pub fn tables(settings: Settings, backends: &[Backend]) -> (SharedTables<NoEvents>, Arc<Flows>) {
    let (reporter, reported) = Reporter::new();
    let flows = Arc::new(fixture::flows(&settings, backends, Some(reporter)));
    (SharedTables::new(Arc::clone(&flows), settings, NoEvents, reported), flows)
}
