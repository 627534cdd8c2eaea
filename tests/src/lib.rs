//! Case rows for two engines, kernel tests, and the lab.

pub mod lab;
