//! Flow tables without a kernel, for tests.

use std::sync::Arc;

use lb_common::{
    backend::Backend,
    flow::{Bucket, Shape},
    settings::Settings,
};
use lb_ebpf::family::{Family, RecordOf};

use super::{Flows, Table};
use crate::datapath::{
    backends::Backends,
    mapping::{Mapped, Mapping},
    sharing::Reporter,
};

/// Settings of tables with this many buckets, and as many lines of the reply index.
pub fn settings(buckets4: u32, buckets6: u32) -> Settings {
    let shape = |buckets| Shape { buckets, lines: buckets, half_open: 8, half_open_batch: 0 };
    Settings {
        keys: [3, 5, 7, 11, 13, 17],
        shape4: shape(buckets4),
        shape6: shape(buckets6),
        ..Settings::default()
    }
}

/// Empty tables, and these backends.
pub fn flows(settings: &Settings, backends: &[Backend], reporter: Option<Reporter>) -> Flows {
    let elements = Backends { elements: Mapping::of_zeros(16), turns: Mapping::of_zeros(1) };
    backends.iter().for_each(|backend| elements.put(backend));
    let elements = Arc::new(elements);
    Flows {
        v4: table(settings.shape4, &elements, reporter.clone()),
        v6: table(settings.shape6, &elements, reporter),
    }
}

fn table<F: Family>(shape: Shape, backends: &Arc<Backends>, reporter: Option<Reporter>) -> Table<F>
where
    Bucket<RecordOf<F>>: Mapped,
{
    Table {
        buckets: Mapping::of_zeros(shape.buckets),
        lines: Mapping::of_zeros(shape.lines),
        half_open: Mapping::of_zeros(1),
        backends: Arc::clone(backends),
        reporter,
    }
}
