//! Every row in the host engine: no kernel, no privileges.

use std::collections::BTreeSet;

use lb_common::reason::Reason;
use tests::{
    case::{self, Case},
    host::HostEngine,
    rows,
};

/// Runs all rows and reports each that fails.
fn pass(rows: Vec<Case>) {
    let mut engine = HostEngine::default();
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|row| case::run(row, &mut engine).err())
        .map(|error| format!("{error:#}"))
        .collect();

    assert!(failures.is_empty(), "{} of {} rows:\n\n{}", failures.len(), rows.len(), failures.join("\n\n"));
}

#[test]
fn runts() {
    pass(rows::malformed::runts());
}

#[test]
fn damage() {
    pass(rows::damage::rows());
}

#[test]
fn without_daemon() {
    pass(rows::next_hops::without_daemon());
}

macro_rules! themes {
    ($($theme:ident),*) => {
        $(
            #[test]
            fn $theme() {
                pass(rows::$theme::rows());
            }
        )*

        #[test]
        fn no_two_rows_have_one_name() {
            let mut names = BTreeSet::new();
            for row in [$(rows::$theme::rows()),*].into_iter().flatten() {
                assert!(names.insert(row.name.clone()), "{}", row.name);
            }
            println!("{} rows", names.len());
        }

        /// All reasons except the one that only the kernel's device map can cause, which `kernel_cases` tests.
        #[test]
        fn every_reason_has_a_row() {
            let rows: Vec<Case> = [$(rows::$theme::rows()),*, rows::malformed::runts(), rows::damage::rows()].into_iter().flatten().collect();
            let met: BTreeSet<Reason> = rows.iter().flat_map(Case::reasons).collect();
            let missing = Reason::ALL.iter().filter(|reason| !met.contains(*reason));

            assert!(missing.eq([&Reason::RedirectFailed]), "{met:?}");
        }
    };
}

tests::for_all_themes!(themes);
