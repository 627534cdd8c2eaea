//! The interface of the packet core to its environment: the maps, and the host's routes.

use lb_common::{
    backend::{Backend, BackendId, Load},
    cell::Word,
    clock::Ticks,
    counters::{BackendNumber, ServiceNumber},
    event::NeighbourWanted,
    flow::{Bucket, BucketIndex, LineIndex, RecordIndex, ReplyLine, State},
    hop::{Hop, Interface, InterfaceIndex},
    net::{Address, Be16},
    pool::{Members, Pool, PoolNumber, SlotIndex, SourceSet, SourceSetNumber, Turn},
    reason::Reason,
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use crate::{
    family::{Family, RecordOf},
    table::half_open::HalfOpen,
    table::scratch::Scratch,
    table::transition,
};

/// Storage that both families share. If a required element is missing, callers refuse with [`Reason::Internal`].
pub trait Maps {
    /// Sizes and keys.
    fn settings(&self) -> &Settings;
    /// The time.
    fn now(&self) -> Ticks;
    /// A byte of the prefilter, by its [place](Filter::place).
    fn filter(&self, place: usize) -> u8;
    /// The service that listens on an address, port and protocol.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// The service whose clients a backend answers from this address, port and protocol, if its flows can be computed.
    fn origin(&self, key: &ServiceKey) -> Option<ServiceKey>;
    /// The current word of a pool.
    fn pool(&self, number: PoolNumber) -> Option<Pool>;
    /// The id of the backend in a slot.
    fn slot(&self, index: SlotIndex) -> Option<BackendId>;
    /// The members of a pool.
    fn members(&self, pool: PoolNumber) -> Option<&Members>;
    /// A set of sources.
    fn sources(&self, number: SourceSetNumber) -> Option<&SourceSet>;
    /// The turn of a pool, and the number of its ejected backends.
    fn turn(&self, pool: PoolNumber) -> Option<&Turn>;
    /// The backend in the element of `id`: the caller must compare the id.
    fn backend(&self, id: BackendId) -> Option<&Backend>;
    /// The load of a backend that was looked up.
    fn load_of<'a>(&'a self, backend: &'a Backend) -> &'a Load;
    /// An interface.
    fn interface(&self, index: InterfaceIndex) -> Option<&Interface>;
    /// Asks the daemon to resolve a neighbour. False: the ring buffer is full.
    fn request_neighbour(&self, wanted: NeighbourWanted) -> bool;
    /// The [account](lb_common::answers) of answers to refused packets.
    fn answers(&self) -> Option<&Word>;
    /// An element of the map of flows that are not known, by its [place](lb_common::quiet::FirstSeen::place).
    fn first_seen(&self, place: u32) -> Option<&Word>;
    /// Counts a request that was sent to a backend.
    fn count_forwarded(&self, number: BackendNumber, bytes: u64);
    /// Counts a reply that was sent to a client.
    fn count_returned(&self, number: BackendNumber, bytes: u64);
    /// Counts a new flow of a backend.
    fn count_new_flow(&self, number: BackendNumber);
    /// Counts a new TCP flow that a backend refused.
    fn count_refusal(&self, number: BackendNumber);
    /// Counts a SYN that a client repeated because a backend did not answer.
    fn count_unanswered(&self, number: BackendNumber);
    /// Counts a new flow of a client that another backend had refused.
    fn count_retried_flow(&self, number: ServiceNumber);
    /// Counts a packet for a service that was not forwarded.
    fn count_refused(&self, number: ServiceNumber, bytes: u64);
}

/// The host's route to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Its next hop.
    Resolved(Hop),
    /// The next hop's MAC address is not known.
    Unresolved {
        /// The hop, without the destination MAC address.
        hop: Hop,
        /// The neighbour to resolve: a gateway, or the address itself if it is on the link.
        next_hop: Address,
    },
}

/// The memory of one family's flow table. The daemon's sweeps work on it with the same code as the program.
pub trait FlowTable<F: Family>: Sized {
    /// A bucket of records.
    fn bucket(&self, index: BucketIndex) -> Option<&Bucket<RecordOf<F>>>;
    /// A line of the reply index.
    fn line(&self, index: LineIndex) -> Option<&ReplyLine>;
    /// The number of half-open records.
    fn half_open(&self) -> Option<HalfOpen<'_>>;
    /// The load of the backend with this id. `None`: there is no such backend any more.
    fn load(&self, id: BackendId) -> Option<&Load>;
    /// Reports that the owner of this generation of a record has become [shared](State::is_shared), or is shared no more.
    fn report(&self, record: RecordIndex, generation: u32);

    /// [`transition::count`]. The kernel calls it out of line.
    #[inline(always)]
    fn count(&self, backend: BackendId, before: State, after: State) {
        transition::count(self, backend, before, after);
    }
}

/// One family's storage: the flow table, and the host's routes.
pub trait Storage<F: Family>: FlowTable<F> + Maps {
    /// The working memory of slow paths, one per CPU.
    fn scratch(&self) -> Option<&Scratch<F>>;
    /// The host's route from `source` to `destination`. [`Reason::NoClientRoute`]: none leads through an attached
    /// interface.
    fn route(&self, source: F::Address, destination: F::Address) -> Result<Route, Reason>;
}

/// The prefilter: can a packet with this endpoint (destination or source) be a request, or a reply? See [`Filter`].
#[inline(always)]
pub fn may_match(maps: &impl Maps, folded: u32, port: Be16, what: u8) -> bool {
    maps.filter(Filter::place(folded, port)) & what != 0
}
