//! Walks over the flow tables, one chunk at a time between other work.
//!
//! The tables are walked in a cycle that counts, lists, removals and sweeps share: each joins at the current chunk, and
//! leaves when the walk returns there.
//!
//! ```text
//!            ┌──▶ chunk 0 ─▶ 1 ─▶ 2 ─▶ 3 ─▶ .. ─▶ n ────┐      a count that joins at 2 visits
//!            └───────────────────────────────────────────┘      2, 3, .. n, 0, 1, and leaves
//! ```
//!
//! So a count takes one round however many backends are removed meanwhile, and all removals share the rounds. Tables
//! can be large, but a change is applied within milliseconds, because the controller handles its events after each
//! chunk.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context;
use lb_common::backend::BackendId;

use super::{listing::Listing, removal::Removal};
use crate::{
    datapath::{Datapath, Flow, Snapshot},
    metrics::Flows,
    view::FlowState,
};

/// A request for flow counts is answered with a count that began at most this long before the request.
pub const COUNT_MAX_AGE: Duration = Duration::from_secs(1);
/// The time between sweeps of expired flows: short beside every idle timeout of a counted flow.
const EXPIRY: Duration = Duration::from_secs(30);
/// Maximum number of concurrent counts. Requests for which the first count began too early share the second.
pub const COUNTS_MAX: usize = 2;
/// Maximum number of flow lists and removals at one time. Each list holds up to its limit of flows.
pub const SELECTIONS_MAX: usize = 16;

/// The jobs of the walk, and the last count.
#[derive(Debug)]
pub struct Walks {
    /// Where the next chunk begins.
    at: u32,
    jobs: Vec<Job>,
    /// Backend ids whose flows are being ended, and where the sweep of each began.
    retired: BTreeMap<BackendId, u32>,
    /// Where the sweep of expired flows began, if one is under way.
    expiry: Option<u32>,
    /// When the next one begins.
    expiry_due: Instant,
    last: Option<Count>,
}

#[derive(Debug)]
struct Job {
    /// Where it began.
    from: u32,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Count(Count),
    List(Listing),
    Remove(Removal),
}

/// Number of flows by backend id. This includes ids of removed backends, which must not be part of any sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// When the count began. Every flow that has been in the tables since then was counted.
    begun: Instant,
    flows: BTreeMap<BackendId, Flows>,
}

impl Walks {
    pub fn new(now: Instant) -> Self {
        Self {
            at: 0,
            jobs: Vec::new(),
            retired: BTreeMap::new(),
            expiry: None,
            expiry_due: now + EXPIRY,
            last: None,
        }
    }

    /// Starts a sweep of expired flows, if one is due. The program retires them itself, but only as new flows come; until then
    /// they count for the loads of their backends.
    pub fn expire_if_due(&mut self, now: Instant) {
        if now >= self.expiry_due {
            self.expiry_due = now + EXPIRY;
            self.expiry.get_or_insert(self.at);
        }
    }

    /// When the next sweep of expired flows begins.
    pub const fn due(&self) -> Instant {
        self.expiry_due
    }

    /// Starts to end the flows of these ids, whose backends were removed.
    pub fn retire(&mut self, ids: BTreeSet<BackendId>) {
        for id in ids {
            self.retired.entry(id).or_insert(self.at);
        }
    }

    /// Ensures that a count which began at `since` or later becomes the [last count](Self::last_count). Returns
    /// whether it is already.
    pub fn count_since(&mut self, since: Instant, now: Instant) -> bool {
        if self.last.as_ref().is_some_and(|count| count.begun >= since) {
            return true;
        }
        let counts = self.jobs.iter().filter_map(|job| match &job.purpose {
            Purpose::Count(count) => Some(count.begun),
            Purpose::List(_) | Purpose::Remove(_) => None,
        });
        let (under_way, will_do) =
            counts.fold((0, false), |(number, will_do), begun| (number + 1, will_do || begun >= since));
        if !will_do && under_way < COUNTS_MAX {
            self.join(Purpose::Count(Count { begun: now, flows: BTreeMap::new() }));
        }
        false
    }

    /// The last count, however old.
    pub fn last_count(&self) -> Option<&Count> {
        self.last.as_ref()
    }

    /// Adds a list, unless there are too many.
    pub fn list(&mut self, listing: Listing) {
        match self.room() {
            Ok(()) => self.join(Purpose::List(listing)),
            Err(why) => listing.refuse(why),
        }
    }

    /// Adds a removal, unless there are too many.
    pub fn remove(&mut self, removal: Removal) {
        match self.room() {
            Ok(()) => self.join(Purpose::Remove(removal)),
            Err(why) => removal.refuse(why),
        }
    }

    fn room(&self) -> Result<(), String> {
        let selections = self.jobs.iter().filter(|job| !matches!(job.purpose, Purpose::Count(_))).count();
        if selections < SELECTIONS_MAX {
            return Ok(());
        }
        Err(format!("{SELECTIONS_MAX} lists or removals of flows are already under way: try again later"))
    }

    pub fn is_walking(&self) -> bool {
        !self.jobs.is_empty() || self.is_sweeping()
    }

    fn is_sweeping(&self) -> bool {
        self.expiry.is_some() || !self.retired.is_empty()
    }

    /// Walks over the next chunk. On an error all jobs are dropped: requests start new counts, and the next
    /// count finds what a sweep left behind.
    pub fn advance(&mut self, datapath: &mut impl Datapath, have: &Snapshot) -> anyhow::Result<()> {
        if !self.is_walking() {
            return Ok(());
        }
        match self.walk_chunk(datapath, have) {
            Ok(next) => self.at = next,
            Err(error) => {
                self.abort(&error);
                return Err(error);
            }
        }
        self.retired.retain(|_, from| *from != self.at);
        self.expiry.take_if(|from| *from == self.at);
        let at = self.at;
        let arrived = self.jobs.extract_if(.., |job| job.from == at || job.purpose.is_done());
        for job in arrived.collect::<Vec<_>>() {
            self.finish(job.purpose, have);
        }
        Ok(())
    }

    fn join(&mut self, purpose: Purpose) {
        self.jobs.push(Job { from: self.at, purpose });
    }

    /// Returns where the next chunk begins.
    fn walk_chunk(&mut self, datapath: &mut impl Datapath, have: &Snapshot) -> anyhow::Result<u32> {
        let mut next = None;
        // Ended before counted, so an id that is found afterwards was left behind.
        if self.is_sweeping() {
            let ids = self.retired.keys().copied().collect();
            next = datapath.sweep(self.at, &ids).context("cannot end flows")?;
        }
        for job in &mut self.jobs {
            if let Purpose::Remove(removal) = &mut job.purpose {
                next = removal.walk_chunk(self.at, datapath, have).context("cannot end flows")?;
            }
        }
        if !self.jobs.is_empty() {
            let jobs = &mut self.jobs;
            let mut visit = |flow: &Flow| jobs.iter_mut().for_each(|it| it.purpose.visit(flow, have));
            next = datapath.flows(self.at, &mut visit).context("cannot walk over the flows")?;
        }
        Ok(next.unwrap_or(0))
    }

    fn finish(&mut self, purpose: Purpose, have: &Snapshot) {
        match purpose {
            Purpose::Count(count) => {
                self.retire(count.orphans(have).collect());
                self.last = Some(count);
            }
            Purpose::List(listing) => listing.finish(),
            Purpose::Remove(removal) => removal.finish(),
        }
    }

    fn abort(&mut self, error: &anyhow::Error) {
        self.retired.clear();
        self.expiry = None;
        for job in self.jobs.drain(..) {
            match job.purpose {
                Purpose::Count(_) => {}
                Purpose::List(listing) => listing.refuse(format!("{error:#}")),
                Purpose::Remove(removal) => removal.refuse(format!("{error:#}")),
            }
        }
    }
}

impl Purpose {
    fn visit(&mut self, flow: &Flow, have: &Snapshot) {
        match self {
            Self::Count(count) => count.add(flow),
            Self::List(listing) => listing.add(flow, have),
            Self::Remove(_) => {}
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Count(_) => false,
            Self::List(listing) => listing.is_done(),
            Self::Remove(removal) => removal.is_done(),
        }
    }
}

impl Count {
    fn add(&mut self, flow: &Flow) {
        let flows = self.flows.entry(flow.backend_id).or_default();
        match flow.state.into() {
            FlowState::HalfOpen => flows.half_open += 1,
            FlowState::Established => flows.established += 1,
            FlowState::Closing => {
                flows.closing += 1;
                flows.reset += u64::from(flow.state.is_reset());
            }
            // Not counted: any flow that needs the record may take it.
            FlowState::Closed => {}
        }
    }

    pub const fn begun(&self) -> Instant {
        self.begun
    }

    /// The flows of one backend.
    pub fn of(&self, id: BackendId) -> Flows {
        self.flows.get(&id).copied().unwrap_or_default()
    }

    /// Ids that have flows but no backend, for instance because a daemon died during a plan.
    fn orphans(&self, have: &Snapshot) -> impl Iterator<Item = BackendId> {
        self.flows.keys().copied().filter(|id| have.backend(*id).is_none())
    }
}
