//! `type = "tcp"`: up if the backend accepts a connection.
//!
//! The connection is closed cleanly, with a FIN. A reset (`SO_LINGER` 0) would save this host a socket in TIME-WAIT
//! for a minute (some 250 bytes each; their ports are not those of flows), but servers report resets as errors:
//! a line in a log for every probe, and some count them until they lock the sender out (MySQL, max_connect_errors).

use std::time::Duration;

use tokio::time::timeout;

use super::{Answer, CheckType, Fault, Place, Verdict, connect::connect};
use crate::document::{AnyKey, Keys};

/// Connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp;

impl CheckType for Tcp {
    const NAME: &'static str = "tcp";
    const KEYS: &'static [&'static dyn AnyKey] = &[];
    type Session = ();

    fn read(_: &Keys<'_>) -> Self {
        Self
    }

    async fn run(&self, (): &mut (), place: Place, limit: Duration) -> Verdict {
        let connected = timeout(limit, connect(place)).await.unwrap_or(Err(Fault::Silent));
        Verdict::now(connected.map(|_stream| Answer::from("connected".to_owned())))
    }
}
