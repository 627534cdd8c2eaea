//! The flow table, xlb's conntrack: records, the reply index that leads replies to them, and how a record is reserved,
//! filled, kept alive and freed.

pub mod adopt;
pub mod evict;
pub mod expire;
pub mod first_seen;
pub mod half_open;
pub mod handshake;
pub mod hash;
pub mod insert;
pub mod lifecycle;
pub mod preload;
pub mod record;
pub mod reply_index;
pub mod reply_tuple;
pub mod scratch;
pub mod transition;
