//! Walks over the flow tables, a stretch at a time between other work.
//!
//! Tables can be large; a change is put in force within milliseconds all the same, because a walk is never finished
//! before the controller has looked at its events again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::listing::Listing;
use crate::{
    datapath::{Datapath, Flow, Snapshot},
    metrics::Flows,
};

/// Flows are counted anew when somebody asks and the last count is older.
pub const COUNT_MAX_AGE: Duration = Duration::from_secs(1);
/// Lists of flows that are being made at one time: each holds up to its limit of flows.
pub const LISTINGS_MAX: usize = 16;

/// What is being walked for, and what the last count said.
#[derive(Debug, Default)]
pub struct Walks {
    waiting: VecDeque<Walk>,
    count: Option<(Count, Instant)>,
}

#[derive(Debug)]
struct Walk {
    from: u32,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    Sweep(BTreeSet<u32>),
    Count(Count),
    List(Listing),
}

/// How many flows there are, by backend id: also by ids that nobody answers for any more, which no sum is to include.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count(BTreeMap<u32, Flows>);

impl Walks {
    /// These ids answer for their flows no more.
    pub fn retire(&mut self, ids: BTreeSet<u32>) {
        if !ids.is_empty() {
            self.waiting.push_back(Walk { from: 0, purpose: Purpose::Sweep(ids) });
        }
    }

    /// Returns the last count if it is fresh; if not, one is begun.
    pub fn count(&mut self, now: Instant) -> Option<&Count> {
        let is_fresh = self.count.as_ref().is_some_and(|(_, at)| now.duration_since(*at) <= COUNT_MAX_AGE);
        if !is_fresh && !self.waiting.iter().any(|walk| matches!(walk.purpose, Purpose::Count(_))) {
            self.waiting.push_back(Walk { from: 0, purpose: Purpose::Count(Count::default()) });
        }
        self.count.as_ref().filter(|_| is_fresh).map(|(count, _)| count)
    }

    /// The last count, however old.
    pub fn last_count(&self) -> Option<&Count> {
        self.count.as_ref().map(|(count, _)| count)
    }

    /// Makes a list, unless too many are being made.
    pub fn list(&mut self, listing: Listing) {
        let lists = self.waiting.iter().filter(|walk| matches!(walk.purpose, Purpose::List(_))).count();
        if lists >= LISTINGS_MAX {
            listing.refuse(format!("{LISTINGS_MAX} lists of flows are being made already: try again"));
            return;
        }
        self.waiting.push_back(Walk { from: 0, purpose: Purpose::List(listing) });
    }

    pub fn is_walking(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Walks over the next stretch. What cannot be walked for is given up: whoever needs a count or a list asks again,
    /// and what a sweep leaves behind the next count finds.
    pub fn go_on(
        &mut self,
        datapath: &mut impl Datapath,
        have: &Snapshot,
        now: Instant,
    ) -> anyhow::Result<()> {
        let Some(mut walk) = self.waiting.pop_front() else {
            return Ok(());
        };
        let next = walk.stretch(datapath, have);
        match next {
            Ok(Some(from)) => self.waiting.push_front(Walk { from, ..walk }),
            Ok(None) => self.arrive(walk.purpose, have, now),
            Err(error) => {
                walk.purpose.give_up(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, purpose: Purpose, have: &Snapshot, now: Instant) {
        match purpose {
            Purpose::Sweep(_) => {}
            Purpose::Count(count) => {
                self.retire(count.orphans(have));
                self.count = Some((count, now));
            }
            Purpose::List(listing) => listing.finish(),
        }
    }
}

impl Walk {
    fn stretch(&mut self, datapath: &mut impl Datapath, have: &Snapshot) -> anyhow::Result<Option<u32>> {
        match &mut self.purpose {
            Purpose::Sweep(ids) => {
                datapath.sweep(self.from, ids).context("free the flows of backends that left")
            }
            Purpose::Count(count) => {
                datapath.flows(self.from, &mut |flow| count.add(flow)).context("count the flows")
            }
            Purpose::List(listing) => {
                let next =
                    datapath.flows(self.from, &mut |flow| listing.add(flow, have)).context("list flows")?;
                Ok(next.filter(|_| !listing.is_done()))
            }
        }
    }
}

impl Purpose {
    fn give_up(self, error: &anyhow::Error) {
        match self {
            Self::Sweep(_) | Self::Count(_) => {}
            Self::List(listing) => listing.refuse(format!("{error:#}")),
        }
    }
}

impl Count {
    fn add(&mut self, flow: &Flow) {
        let flows = self.0.entry(flow.backend_id).or_default();
        if flow.state.is_closed() {
            // Both sides have said goodbye: the record waits for late packets, and is anybody's who needs one.
        } else if flow.state.is_half_open() {
            flows.half_open += 1;
        } else if flow.state.is_closing() {
            flows.closing += 1;
        } else {
            flows.established += 1;
        }
    }

    /// The flows of one backend.
    pub fn of(&self, id: u32) -> Flows {
        self.0.get(&id).copied().unwrap_or_default()
    }

    /// Ids that have flows and nobody to answer for them, for instance since a daemon died in the middle of a plan.
    fn orphans(&self, have: &Snapshot) -> BTreeSet<u32> {
        self.0.keys().copied().filter(|id| have.backend(*id).is_none()).collect()
    }
}
