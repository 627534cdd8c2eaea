//! Constants and types shared by the test programs (`src/bin`) and the tests that load them.
//!
//! The programs are BPF and never part of the product: `bench` measures the XDP program, `race` runs the packet core on
//! several CPUs at once, `delay` keeps packets inside the XDP program, `pass` does nothing.
#![no_std]
#![warn(missing_docs)]

pub mod bench;
pub mod race;
