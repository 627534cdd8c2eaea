//! The layouts of the pinned maps, which other versions read: they must not change by accident.

use std::{fs, path::Path};

use lb_userspace::datapath::shapes;

#[test]
fn layouts_change_only_on_purpose() {
    let layouts = shapes::layouts().iter().map(|layout| format!("{}\n{layout}\n", layout.pin_name()));
    let layouts: String = layouts.collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts.golden");
    if std::env::var_os("XLB_BLESS").is_some() {
        fs::write(&path, &layouts).unwrap();
    }

    let golden = fs::read_to_string(&path).unwrap_or_default();

    let changed: Vec<&str> = layouts.split("\n\n").filter(|layout| !golden.contains(layout)).collect();
    assert!(
        layouts == golden,
        "the layout of pinned maps has changed:\n\n{}\n\n\
         An upgrade to this version replaces these maps. Contents are copied field by field, by name, size and meaning; \
         the flows of a family are lost if its FLOWS, REPLY_INDEX, HALF_OPEN, HALF_OPEN_CPU or flow hash changes. If that is intended, say so in the changelog \
         and run\n\
         XLB_BLESS=1 cargo test -p lb-userspace --test layouts_golden",
        changed.join("\n\n")
    );
}
