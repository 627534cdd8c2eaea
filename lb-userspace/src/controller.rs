//! The controller.

pub mod compile;
pub mod diff;
#[cfg(test)]
mod fixture;
pub mod known;
pub mod snapshot;
pub mod state;
