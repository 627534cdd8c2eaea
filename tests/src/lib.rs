//! Case rows for two engines, kernel tests, and the lab.

#![warn(missing_docs)]

pub mod bench;
pub mod case;
pub mod dialogue;
pub mod engine;
pub mod host;
pub mod kernel;
pub mod lab;
pub mod memory;
pub mod model;
pub mod packet;
pub mod programs;
pub mod rows;
pub mod world;
