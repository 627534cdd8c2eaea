//! The rows, by theme.

pub mod forwarding;

use crate::case::Case;

/// A theme: its name, and its rows.
pub type Theme = (&'static str, fn() -> Vec<Case>);

/// All themes.
pub const THEMES: &[Theme] = &[("forwarding", forwarding::rows)];
