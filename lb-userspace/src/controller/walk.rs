//! Walks over the flow tables, a stretch at a time between other work.
//!
//! The tables are walked round and round, and one round serves everyone: counts, lists and sweeps get on wherever the
//! walk is, and get off when it comes by that place again.
//!
//! ```text
//!            ┌──▶ stretch 0 ─▶ 1 ─▶ 2 ─▶ 3 ─▶ .. ─▶ n ──┐      a count that gets on at 2 has seen
//!            └───────────────────────────────────────────┘      2, 3, .. n, 0, 1, and gets off
//! ```
//!
//! So a count takes one round however many backends are removed meanwhile, and all removals share the rounds. Tables can
//! be large; a change is put in force within milliseconds all the same, because the controller looks at its events
//! again after each stretch.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::listing::Listing;
use crate::{
    datapath::{Datapath, Flow, Snapshot},
    metrics::Flows,
    view::FlowState,
};

/// A request for numbers of flows is answered with a count that began at most this long before it came.
pub const COUNT_MAX_AGE: Duration = Duration::from_secs(1);
/// Counts under way at one time: while one runs, requests that it began too early for share the other.
pub const COUNTS_MAX: usize = 2;
/// Lists of flows that are made at one time: each holds up to its limit of flows.
pub const LISTINGS_MAX: usize = 16;

/// What is being walked for, and what the last count found.
#[derive(Debug, Default)]
pub struct Walks {
    /// Where the next stretch begins.
    at: u32,
    riders: Vec<Rider>,
    /// Backend ids whose flows are being freed, and where the sweep for each got on.
    retired: BTreeMap<u32, u32>,
    last: Option<Count>,
}

#[derive(Debug)]
struct Rider {
    /// Where it got on.
    from: u32,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Count(Count),
    List(Listing),
}

/// How many flows there are, by backend id: also by ids of backends that have left, which no sum is to include.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// All that was in the tables then and still is was counted.
    begun: Instant,
    flows: BTreeMap<u32, Flows>,
}

impl Walks {
    /// Frees the flows of these ids, whose backends have left. Those that are being freed already are.
    pub fn retire(&mut self, ids: BTreeSet<u32>) {
        for id in ids {
            self.retired.entry(id).or_insert(self.at);
        }
    }

    /// Sees to it that a count that began no earlier than `since` becomes the [last](Self::last_count). Returns whether
    /// it is.
    pub fn count_since(&mut self, since: Instant, now: Instant) -> bool {
        if self.last.as_ref().is_some_and(|count| count.begun >= since) {
            return true;
        }
        let counts = self.riders.iter().filter_map(|rider| match &rider.purpose {
            Purpose::Count(count) => Some(count.begun),
            Purpose::List(_) => None,
        });
        let (under_way, will_do) =
            counts.fold((0, false), |(number, will_do), begun| (number + 1, will_do || begun >= since));
        if !will_do && under_way < COUNTS_MAX {
            self.get_on(Purpose::Count(Count { begun: now, flows: BTreeMap::new() }));
        }
        false
    }

    /// The last count, however old.
    pub fn last_count(&self) -> Option<&Count> {
        self.last.as_ref()
    }

    /// Makes a list, unless too many are being made.
    pub fn list(&mut self, listing: Listing) {
        let lists = self.riders.iter().filter(|rider| matches!(rider.purpose, Purpose::List(_))).count();
        if lists >= LISTINGS_MAX {
            listing.refuse(format!("{LISTINGS_MAX} flow lists are being read already: try again"));
            return;
        }
        self.get_on(Purpose::List(listing));
    }

    pub fn is_walking(&self) -> bool {
        !self.riders.is_empty() || !self.retired.is_empty()
    }

    /// Walks over the next stretch. If that fails, everything under way is given up: requests for counts begin others,
    /// and what a sweep leaves behind is found by the next count.
    pub fn go_on(&mut self, datapath: &mut impl Datapath, have: &Snapshot) -> anyhow::Result<()> {
        if !self.is_walking() {
            return Ok(());
        }
        match self.stretch(datapath, have) {
            Ok(next) => self.at = next,
            Err(error) => {
                self.give_up(&error);
                return Err(error);
            }
        }
        self.retired.retain(|_, from| *from != self.at);
        let at = self.at;
        let arrived = self.riders.extract_if(.., |rider| rider.from == at || rider.purpose.is_done());
        for rider in arrived.collect::<Vec<_>>() {
            self.arrive(rider.purpose, have);
        }
        Ok(())
    }

    fn get_on(&mut self, purpose: Purpose) {
        self.riders.push(Rider { from: self.at, purpose });
    }

    /// Returns where the next stretch begins.
    fn stretch(&mut self, datapath: &mut impl Datapath, have: &Snapshot) -> anyhow::Result<u32> {
        let mut next = None;
        // Freed before they are counted: an id that is found later has been left behind.
        if !self.retired.is_empty() {
            let ids = self.retired.keys().copied().collect();
            next = datapath.sweep(self.at, &ids).context("free the flows of backends that left")?;
        }
        if !self.riders.is_empty() {
            let riders = &mut self.riders;
            let mut visit = |flow: &Flow| riders.iter_mut().for_each(|it| it.purpose.visit(flow, have));
            next = datapath.flows(self.at, &mut visit).context("walk over the flows")?;
        }
        Ok(next.unwrap_or(0))
    }

    fn arrive(&mut self, purpose: Purpose, have: &Snapshot) {
        match purpose {
            Purpose::Count(count) => {
                self.retire(count.orphans(have).collect());
                self.last = Some(count);
            }
            Purpose::List(listing) => listing.finish(),
        }
    }

    fn give_up(&mut self, error: &anyhow::Error) {
        self.retired.clear();
        for rider in self.riders.drain(..) {
            match rider.purpose {
                Purpose::Count(_) => {}
                Purpose::List(listing) => listing.refuse(format!("{error:#}")),
            }
        }
    }
}

impl Purpose {
    fn visit(&mut self, flow: &Flow, have: &Snapshot) {
        match self {
            Self::Count(count) => count.add(flow),
            Self::List(listing) => listing.add(flow, have),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Count(_) => false,
            Self::List(listing) => listing.is_done(),
        }
    }
}

impl Count {
    fn add(&mut self, flow: &Flow) {
        let flows = self.flows.entry(flow.backend_id).or_default();
        match flow.state.into() {
            FlowState::HalfOpen => flows.half_open += 1,
            FlowState::Established => flows.established += 1,
            FlowState::Closing => flows.closing += 1,
            // It no longer counts: any flow that needs the record may take it.
            FlowState::Closed => {}
        }
    }

    pub const fn begun(&self) -> Instant {
        self.begun
    }

    /// The flows of one backend.
    pub fn of(&self, id: u32) -> Flows {
        self.flows.get(&id).copied().unwrap_or_default()
    }

    /// Ids that have flows and no backend, for instance since a daemon died in the middle of a plan.
    fn orphans(&self, have: &Snapshot) -> impl Iterator<Item = u32> {
        self.flows.keys().copied().filter(|id| have.backend(*id).is_none())
    }
}
