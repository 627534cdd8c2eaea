//! The flow table, our conntrack: one record per flow, and a reply index that leads replies to it.
//!
//! ```text
//! request ─hash─▶ bucket of 8 records (the hash also selects the way to check first; a full bucket has a second)
//! reply   ─hash─▶ line of 8 entries ─index─▶ record, which is checked: a stale entry is a miss
//! ```
//!
//! A record changes owner by a compare-exchange on its [`Control`] word, which counts its owners (`generation`).
//! Records are read like a seqlock: read the word, copy the needed fields, read the word again. If the generation is the
//! same, all fields belong to one owner.

mod id;
mod index;
mod state;

pub use self::{
    id::FlowId,
    index::{BucketIndex, LineIndex, RecordIndex},
    state::State,
};
use crate::{
    backend::BackendId,
    cell::{HalfWord, Shared, Word},
    hop::{ClientHop, HopStamp},
    layout::{Layout, Type},
    net::{Ports, V4, V6},
    service::Mode,
};

/// Records per bucket. With 8, and a second bucket for overflow, 0.03 % of flows are refused at half load.
pub const WAYS: usize = 8;
/// Reply index entries in a line of 64 bytes.
pub const ENTRIES_PER_LINE: usize = 8;
/// Records per flow of capacity: a table has twice as many records as its capacity in flows.
pub const RECORDS_PER_FLOW: u32 = 2;
/// Lines of the reply index per bucket of records. With 2, one line in a thousand is full when the table is filled to
/// capacity. Fewer would refuse flows with nat, which has few reply tuples to choose from; more would slow down replies.
pub const LINES_PER_BUCKET: u32 = 2;
/// Reply index entries have 24 bits for the record's number.
pub const MAX_RECORDS: u32 = 1 << 24;

/// A record's control word: `tag (32) | state (8) | generation (24)`.
///
/// The tag is a part of the flow's hash and distinguishes most records of other flows. The generation counts the flows
/// that have used the record.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control(pub u64);

impl Control {
    const STATE: u64 = 0xff << 32;

    /// Builds the word.
    #[inline(always)]
    pub const fn new(generation: u32, state: State, tag: u32) -> Self {
        Self((generation as u64) << 40 | (state.0 as u64) << 32 | tag as u64)
    }

    /// A part of the flow's hash.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        self.0 as u32
    }

    /// The record's state.
    #[inline(always)]
    pub const fn state(self) -> State {
        State((self.0 >> 32) as u8)
    }

    /// The number of flows that have used the record, modulo 2^24.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// The same owner in another state.
    #[inline(always)]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !Self::STATE | (state.0 as u64) << 32)
    }

    /// Does `later` have the same owner, in a live state?
    #[inline(always)]
    pub const fn is_still(self, later: Self) -> bool {
        (self.0 ^ later.0) & !Self::STATE == 0 && later.state().is_live()
    }
}

/// An entry of the reply index: `tag (32) | generation (8) | record number (24)`. Zero is an empty entry.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyEntry(pub u64);

impl ReplyEntry {
    /// An empty entry. The entry of record 0 with tag 0 and generation 0 looks the same, so its flow would get no
    /// replies: one in 2^40 flows of record 0.
    pub const NONE: Self = Self(0);

    /// Builds an entry.
    #[inline(always)]
    pub const fn new(tag: u32, generation: u32, record: RecordIndex) -> Self {
        Self((tag as u64) << 32 | ((generation & 0xff) as u64) << 24 | (record.0 & 0xff_ffff) as u64)
    }

    /// A part of the reply tuple's hash.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The low bits of the record's generation when the entry was written.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The record.
    #[inline(always)]
    pub const fn record(self) -> RecordIndex {
        RecordIndex(self.0 as u32 & 0xff_ffff)
    }
}

/// From which side's packet the backend of a flow was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Computed {
    /// The client's. A segment of the backend confirms that it has the connection.
    FromClient = 2,
    /// The backend's.
    FromBackend = 3,
}

/// What is known from the client's SYN and the backend's SYN-ACK (or first datagram): `generation (24) | seen (8) |
/// sequence number (32)`.
///
/// It includes the generation, so a late store is not valid for the record's next owner.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(pub u64);

impl Proof {
    /// The backend has not answered the flow of `generation`, whose client's SYN has this sequence number. This value
    /// differs between owners as well, so a late compare-exchange for an earlier owner cannot replace the next owner's
    /// value.
    #[inline(always)]
    pub const fn none(generation: u32, syn: u32) -> Self {
        Self((generation as u64) << 40 | syn as u64)
    }

    /// The backend has answered the flow of `generation`, with this sequence number.
    #[inline(always)]
    pub const fn new(generation: u32, sequence: u32) -> Self {
        Self((generation as u64) << 40 | 1 << 32 | sequence as u64)
    }

    /// Another node may know the flow of `generation`, whose backend was [computed](crate::service::Service::computed_pool)
    /// from a packet of this side. The other side has sent nothing since.
    #[inline(always)]
    pub const fn computed(generation: u32, from: Computed) -> Self {
        Self((generation as u64) << 40 | (from as u64) << 32)
    }

    /// The side from whose packet this owner's flow was computed, if it was, and is not confirmed.
    #[inline(always)]
    pub const fn computed_from(self, generation: u32) -> Option<Computed> {
        if self.0 == Self::computed(generation, Computed::FromClient).0 {
            Some(Computed::FromClient)
        } else if self.0 == Self::computed(generation, Computed::FromBackend).0 {
            Some(Computed::FromBackend)
        } else {
            None
        }
    }

    /// Has the backend answered this owner's flow?
    #[inline(always)]
    pub const fn is_of(self, generation: u32) -> bool {
        self.0 >> 32 == (generation as u64) << 8 | 1
    }

    /// The sequence number of the backend's latest SYN-ACK or, before that, of the client's SYN.
    #[inline(always)]
    pub const fn sequence(self) -> u32 {
        self.0 as u32
    }
}

/// The backend of a flow, its mode and its protocol, in one word: `id (24) | mode (4) | protocol (4)`.
///
/// The low four bits of a protocol number are enough: TCP has 6, UDP 17.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner(pub u32);

impl Owner {
    /// Builds the word.
    #[inline(always)]
    pub const fn new(backend: BackendId, mode: Mode, protocol: u8) -> Self {
        Self(backend.0 << 8 | (mode as u32) << 4 | (protocol & 0xf) as u32)
    }

    /// The backend's id.
    #[inline(always)]
    pub const fn backend(self) -> BackendId {
        BackendId(self.0 >> 8)
    }

    /// How its packets are rewritten.
    #[inline(always)]
    pub const fn mode(self) -> Option<Mode> {
        Mode::from_number(self.0 >> 4 & 0xf)
    }

    /// The IP protocol number.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        // 1 stands for UDP: 17 is 1 + 16.
        let low = self.0 as u8 & 0xf;
        low | (low & 1) << 4
    }
}

/// The differences that a request's rewrite makes to its checksums (RFC 1624): sums of `~old + new`, folded.
/// A reply undoes them, so its differences are the complements.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deltas {
    /// The difference of the IPv4 header's checksum: addresses.
    pub ip: u16,
    /// The difference of the TCP or UDP checksum: addresses and ports.
    pub l4: u16,
}

crate::fields!(Deltas { ip, l4 });

/// One flow: a precompiled rewrite for both directions. One cache line for IPv4, two for IPv6.
///
/// `S` fills the last cache line, so that there is no padding.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Record<A: Copy, S> {
    /// The [`Control`] word.
    pub control: Word,
    /// The client, as the source of requests.
    pub client: Shared<A>,
    /// The service's address, as the destination of requests.
    pub listen: Shared<A>,
    /// Client port, service port.
    pub request_ports: Shared<Ports>,
    /// The backend, the mode and the protocol.
    pub owner: Shared<Owner>,
    /// Backend port, and the source port that the backend sees (nat: the client's own).
    pub reply_ports: Shared<Ports>,
    /// When the last packet was seen, in [`Ticks`](crate::clock::Ticks), with a resolution of a quarter of a second.
    pub last_seen: HalfWord,
    /// The [`Proof`].
    pub proof: Word,
    /// The backend, as the source of replies.
    pub backend: Shared<A>,
    /// The client as the backend sees it: an address of xlb (nat: the client's own).
    pub source: Shared<A>,
    /// The [`ClientHop`].
    pub client_hop: Word,
    /// Checksum differences of a request.
    pub deltas: Shared<Deltas>,
    /// When the next hop was looked up, and for which owner.
    pub hop_stamp: Shared<HopStamp>,
    /// Unused rest of the second cache line.
    pub spare: S,
}

/// A record of an IPv4 flow.
pub type Record4 = Record<V4, [u32; 0]>;
/// A record of an IPv6 flow.
pub type Record6 = Record<V6, [u32; 4]>;

macro_rules! records {
    ($($record:ident),*) => {
        $(crate::fields!($record {
            control: Control,
            client,
            listen,
            request_ports,
            owner,
            reply_ports,
            last_seen,
            proof: Proof,
            backend,
            source,
            client_hop: ClientHop,
            deltas,
            hop_stamp,
            spare,
        });)*
    };
}

records!(Record4, Record6);

crate::plain! {
    Control = "control: generation 24, state 8, tag 32",
    ReplyEntry = "reply index: tag 32, generation 8, record 24",
    Proof = "proof: generation 24, answered 8, sequence 32",
    Owner = "owner: backend 24, mode 4, protocol 4",
}

const _: () = assert!(size_of::<Record4>() == 64);
const _: () = assert!(size_of::<Record6>() == 128);

/// The records of one hash value.
#[repr(C)]
#[derive(Debug)]
pub struct Bucket<R> {
    /// The ways.
    pub way: [R; WAYS],
}

impl<R: Layout> Layout for Bucket<R> {
    const TYPE: Type = Type { count: WAYS, ..R::TYPE };
}

/// The reply index entries of one hash value: one cache line.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReplyLine {
    /// The entries, each a [`ReplyEntry`].
    pub entry: [Word; ENTRIES_PER_LINE],
}

crate::fields!(ReplyLine { entry: [ReplyEntry; ENTRIES_PER_LINE] });

const _: () = assert!(size_of::<ReplyLine>() == 64);

/// The sizes of one family's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Buckets of [`WAYS`] records.
    pub buckets: u32,
    /// Lines of [`ENTRIES_PER_LINE`] reply index entries.
    pub lines: u32,
    /// From this number of half-open flows on, a new flow evicts another half-open flow instead of using an empty record.
    pub half_open: u32,
    /// The number of half-open flows that each CPU may leave out of the shared count.
    pub half_open_batch: u32,
}

crate::fields!(Shape { buckets, lines, half_open, half_open_batch });

impl Shape {
    /// The smallest table with a capacity of `flows`.
    pub const fn for_flows(flows: u32, half_open: u32) -> Self {
        let buckets = (flows * RECORDS_PER_FLOW).div_ceil(WAYS as u32);
        let lines = buckets * LINES_PER_BUCKET;
        Self { buckets, lines, half_open, half_open_batch: Self::batch(half_open) }
    }

    /// With 64 CPUs, the number of half-open flows exceeds the limit by at most 1.6 %.
    const fn batch(half_open: u32) -> u32 {
        let batch = half_open / 4096;
        if batch < 32 { batch } else { 32 }
    }

    /// The capacity of the table, in flows.
    pub const fn flows(self) -> u32 {
        self.buckets * WAYS as u32 / RECORDS_PER_FLOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Protocol;

    #[test]
    fn a_control_word_keeps_its_parts_apart() {
        let control = Control::new(0xff_fffe, State::HALF_OPEN, 0xdead_beef);

        assert_eq!(
            (control.generation(), control.state(), control.tag()),
            (0xff_fffe, State::HALF_OPEN, 0xdead_beef)
        );
        assert!(control.is_still(control.with_state(State::ESTABLISHED)));
        assert!(!control.is_still(control.with_state(State::EMPTY)));
        assert!(!control.is_still(Control::new(0xff_ffff, State::HALF_OPEN, 0xdead_beef)));
    }

    #[test]
    fn an_owner_keeps_its_parts_apart() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for mode in [Mode::FullNat, Mode::Nat] {
                let owner = Owner::new(BackendId(0xff_fffe), mode, protocol.number());

                assert_eq!(
                    (owner.backend(), owner.mode(), owner.protocol()),
                    (BackendId(0xff_fffe), Some(mode), protocol.number())
                );
            }
        }
    }

    #[test]
    fn a_proof_is_valid_for_one_owner_only() {
        let proof = Proof::new(7, 1000);

        assert!(proof.is_of(7) && !proof.is_of(8) && !Proof::none(7, 1000).is_of(7));
        let computed = Proof::computed(7, Computed::FromClient);
        assert_eq!(
            (computed.computed_from(7), computed.computed_from(8)),
            (Some(Computed::FromClient), None)
        );
        assert!(!computed.is_of(7) && proof.computed_from(7).is_none());
        assert_eq!(proof.sequence(), 1000);
    }

    #[test]
    fn a_table_holds_what_it_promises_within_the_promised_memory() {
        for flows in [1, 1000, 65_536, 262_144, 262_145, 4_000_000] {
            let shape = Shape::for_flows(flows, flows);

            assert!(shape.flows() >= flows && shape.flows() < flows + WAYS as u32);
            let bytes = |bucket: usize| {
                u64::from(shape.buckets) * bucket as u64
                    + u64::from(shape.lines) * size_of::<ReplyLine>() as u64
            };
            if flows >= 1000 {
                assert!(bytes(size_of::<Bucket<Record4>>()) <= 300 * u64::from(flows), "IPv4, {flows} flows");
                assert!(bytes(size_of::<Bucket<Record6>>()) <= 400 * u64::from(flows), "IPv6, {flows} flows");
            }
        }
    }
}
