//! The API: HTTP/1.1 and JSON on a unix socket. The CLI is a client of it and nothing more.

pub mod view;
