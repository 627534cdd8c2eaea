//! Counters: per CPU, incremented by the program, read by the controller.

use crate::number::numbers;

numbers! {
    /// The number of a backend's counters. Counters belong to the backend's name, flows to its id: a backend that gets
    /// another id keeps this number.
    BackendNumber,
    /// The number of a service's counters. It belongs to the service's name.
    ServiceNumber,
}

/// Packets and bytes. Bytes count whole frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counters of one backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Requests sent to the backend.
    pub forwarded: Tally,
    /// Its replies sent to clients.
    pub returned: Tally,
    /// New flows assigned to it.
    pub new_flows: u64,
    /// New TCP flows that it refused by RST.
    pub refused: u64,
    /// SYNs that clients repeated because it did not answer.
    pub unanswered: u64,
}

/// Counters of one service. It received the packets counted here, plus those forwarded to its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Packets for the service that were not forwarded.
    pub refused: Tally,
    /// New flows of clients that another backend had refused.
    pub retried_flows: u64,
}

/// Counters of one interface: actions taken on received packets. Their sum is the number of packets received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionCounters {
    /// Passed to the host.
    pub passed: u64,
    /// Dropped.
    pub dropped: u64,
    /// Sent out of the same interface.
    pub transmitted: u64,
    /// Sent out of another interface.
    pub redirected: u64,
    /// Answered with a TCP reset or ICMP port unreachable, out of the same interface.
    pub rejected: u64,
}

crate::fields!(Tally { packets, bytes });
crate::fields!(BackendCounters { forwarded, returned, new_flows, refused, unanswered });
crate::fields!(ServiceCounters { refused, retried_flows });
crate::fields!(ActionCounters { passed, dropped, transmitted, redirected, rejected });
