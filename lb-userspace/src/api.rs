//! The API: HTTP/1.1 and JSON on a unix socket. The CLI is just a client of it.
//!
//! ```text
//!   CLI ── client ──▶ socket ─▶ server ─▶ routes ─▶ handle ── Request, Reply ──▶ controller
//!   Prometheus ────▶ TCP ─────▶ server ─▶ routes ──┘    ◀── answer or Problem ──────┘
//! ```
//!
//! The API keeps no state: the handle queries the controller, and the routes turn its answers into HTTP.

pub(crate) mod client;
pub mod handle;
pub mod listen;
mod problem;
pub(crate) mod routes;
pub mod server;

#[cfg(test)]
mod tests;
