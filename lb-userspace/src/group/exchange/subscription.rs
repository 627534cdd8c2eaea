//! What this node gets from a peer.

use crate::group::wire::{Flow, ServiceDigest};

/// Services that are kept of a peer: as many as a file can have.
const SERVICES_MAX: usize = lb_common::limits::MAX_SERVICES as usize;

/// Flows of a round that are tried again.
const SKIPPED_MAX: usize = 4096;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Subscription {
    /// `None`: not connected.
    connection: Option<u64>,
    /// Of the peer's tables, when it was last connected.
    epoch: Option<u64>,
    /// How many rounds have begun, over all connections.
    round: u64,
    /// The number of the last round that was whole.
    whole: u64,
    /// A round has begun on this connection, and has not ended.
    is_in_round: bool,
    /// A whole round has come over this connection.
    is_complete: bool,
    /// Flows of this round that could not be taken, and may be able to be when it has ended.
    skipped: Vec<Flow>,
    /// The definitions of its services, as far as they have come.
    incoming: Vec<ServiceDigest>,
    services: Option<Vec<ServiceDigest>>,
}

impl Subscription {
    /// Returns whether the peer's tables are others than before.
    pub fn begin(&mut self, connection: u64, epoch: u64) -> bool {
        let is_other = self.epoch.is_some_and(|before| before != epoch);
        let Self { round, whole, .. } = *self;
        *self = Self { connection: Some(connection), epoch: Some(epoch), round, whole, ..Self::default() };
        is_other
    }

    pub fn end(&mut self) {
        self.connection = None;
        self.is_in_round = false;
        self.skipped.clear();
    }

    pub const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub fn is(&self, connection: u64) -> bool {
        self.connection == Some(connection)
    }

    #[cfg(test)]
    pub const fn connection(&self) -> Option<u64> {
        self.connection
    }

    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub const fn round(&self) -> u64 {
        self.round
    }

    /// The number of the last whole round, when one that has not begun yet was whole.
    pub const fn next_whole(&self) -> u64 {
        self.round + 1
    }

    pub const fn whole(&self) -> u64 {
        self.whole
    }

    pub fn begin_round(&mut self) {
        self.round += 1;
        self.is_in_round = true;
        self.skipped.clear();
        self.incoming.clear();
    }

    /// Keeps a flow that could not be taken until the round has ended.
    pub fn keep(&mut self, flow: &Flow) {
        if self.is_in_round && self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(flow.clone());
        }
    }

    /// The flows that were kept.
    pub fn take_skipped(&mut self) -> Vec<Flow> {
        std::mem::take(&mut self.skipped)
    }

    /// The number of the round, if it was a whole one.
    pub const fn end_round(&mut self) -> Option<u64> {
        if !self.is_in_round {
            return None;
        }
        self.is_in_round = false;
        self.is_complete = true;
        self.whole = self.round;
        Some(self.round)
    }

    /// Collects the definitions of services. True: they are all here.
    pub fn collect(&mut self, services: Vec<ServiceDigest>, is_end: bool) -> bool {
        let room = SERVICES_MAX.saturating_sub(self.incoming.len());
        self.incoming.extend(services.into_iter().take(room));
        if is_end {
            self.services = Some(std::mem::take(&mut self.incoming));
        }
        is_end
    }

    /// The definitions of its services.
    pub fn services(&self) -> Option<&[ServiceDigest]> {
        self.services.as_deref()
    }

    /// The same, if they have come over the connection that is there: then it tells of each change.
    pub fn current_services(&self) -> Option<&[ServiceDigest]> {
        self.services().filter(|_| self.is_connected())
    }
}
