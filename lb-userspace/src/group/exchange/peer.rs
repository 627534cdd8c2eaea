//! A peer, with the connections of both directions, and what is counted of it.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use lb_common::settings::PortPool;

use super::{computed::Computed, subscriber::Subscriber, subscription::Subscription};
use crate::group::{
    session::HEARD,
    wire::{Hello, SourcePorts},
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Peer {
    pub subscriber: Option<Subscriber>,
    pub subscription: Subscription,
    pub computed: Computed,
    /// Of earlier connections.
    pub sent: u64,
    pub resyncs: u64,
    pub skipped: BTreeMap<&'static str, u64>,
    pub received: u64,
    pub ended: u64,
    pub hash_key: Option<u64>,
    pub differs: Option<Vec<String>>,
    pub clock_difference_ms: Option<i64>,
    pub source_ports: Option<PortPool>,
    pub failure: Option<String>,
    /// When its last frame came.
    pub heard: Option<Instant>,
    pub since: Option<SystemTime>,
}

impl Peer {
    pub fn meet(&mut self, hello: &Hello) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let here = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let there = i64::try_from(hello.unix_ms).unwrap_or(i64::MAX);
        self.clock_difference_ms = Some(there.saturating_sub(here));
        self.hash_key = Some(hello.hash_key);
        self.source_ports = hello.source_ports.and_then(SourcePorts::pool);
    }

    /// It is connected, and not silent.
    pub fn is_heard(&self, now: Instant) -> bool {
        self.subscription.is_connected()
            && self.heard.is_some_and(|heard| now.saturating_duration_since(heard) <= HEARD)
    }

    pub fn forget_subscriber(&mut self) {
        if let Some(former) = self.subscriber.take() {
            self.sent += former.sent;
            self.resyncs += former.resyncs;
        }
    }
}
