//! Every row in the host engine: no kernel, no privileges.

use tests::{
    case::{self, Case},
    host::HostEngine,
    rows,
};

/// Runs all rows and tells of each that fails.
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

macro_rules! themes {
    ($($theme:ident),*) => {
        $(
            #[test]
            fn $theme() {
                pass(rows::$theme::rows());
            }
        )*
    };
}

tests::for_all_themes!(themes);
