//! `type = "tcp"`: up if the backend accepts a connection.
//!
//! The connection is closed cleanly, with a FIN. A reset (`SO_LINGER` 0) would save this host a socket in TIME-WAIT
//! for a minute (some 250 bytes each; their ports are not those of flows), but servers report resets as errors:
//! a line in a log for every probe, and some count them until they lock the sender out (MySQL, max_connect_errors).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::net::Protocol;
use tokio::time::timeout;

use super::{CheckType, Fault, Verdict, connect::connect};
use crate::document::{AnyKey, Layers};

/// Connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp;

impl CheckType for Tcp {
    const NAME: &'static str = "tcp";
    const KEYS: &'static [&'static dyn AnyKey] = &[];
    const OVER: Protocol = Protocol::Tcp;

    fn read(_: &Layers<'_>) -> Self {
        Self
    }

    async fn run(&self, address: SocketAddr, source: Option<IpAddr>, limit: Duration) -> Verdict {
        let connecting = timeout(limit, connect(address, source));
        let connected = connecting.await.unwrap_or(Err(Fault::Silent));
        Verdict::now(connected.map(|_stream| "connected".to_owned()))
    }
}
