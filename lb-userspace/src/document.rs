//! Reads a TOML document key by key, and reports everything that is wrong with it at once.
//!
//! ```text
//!   document ─ Table ─▶ value: one function for each kind of value ─▶ Given ─▶ rules about several values
//!                 └──────────── mistakes, with their places ─────────────────────┘
//! ```
//!
//! Nothing here knows what xlb is configured with: that is in `spec` and `probe`.

mod layers;
pub mod mistakes;
pub mod table;
pub mod value;

pub use layers::{AnyKey, Key, Layers};
