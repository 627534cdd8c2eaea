//! The API: HTTP/1.1 and JSON on a unix socket. The CLI is a client of it and nothing more.
//!
//! ```text
//!   CLI ── client ──▶ socket ─▶ server ─▶ routes ─▶ desk ── event::Request ──▶ controller
//!   Prometheus ────▶ TCP ─────▶ server ─▶ routes ──┘   ◀─ Answer | Problem ───────┘
//! ```
//!
//! Nothing here knows the state: the desk asks the controller, the routes turn what it says into HTTP.

pub(crate) mod client;
pub mod desk;
pub mod listen;
mod problem;
pub(crate) mod routes;
pub mod server;

#[cfg(test)]
mod tests;
