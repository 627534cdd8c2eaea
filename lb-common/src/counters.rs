//! Counters: per CPU, only ever added to, read by the controller.

/// Packets and bytes. Bytes are of whole frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Of one backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Requests sent to it.
    pub forwarded: Tally,
    /// Replies that came from it and went to a client.
    pub returned: Tally,
    /// Flows that were given to it.
    pub new_flows: u64,
}

/// Of one service. What it received is what its backends were sent, and this.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Packets for the service that were not forwarded.
    pub refused: Tally,
}

/// Of one interface: what became of the packets that it received. Their sum is the packets received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionCounters {
    /// Left to the host.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
    /// Sent out of the same interface.
    pub transmitted: u64,
    /// Sent out of another interface.
    pub redirected: u64,
}
