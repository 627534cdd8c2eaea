//! (see event.rs)
