//! Reads a TOML document key by key, and reports all mistakes at once.
//!
//! ```text
//!   document ─ Table ─▶ value: one function for each kind of value ─▶ Given ─▶ rules about several values
//!                 └──────────── mistakes, with their places ─────────────────────┘
//! ```
//!
//! This module is independent of xlb's keys, which are in `spec` and `probe`.

mod layers;
pub mod mistakes;
pub mod parts;
pub mod table;
pub mod value;

pub use layers::{AnyKey, Key, Keys, Layers};
