//! Brings the maps up to date with the intent.

use std::{collections::BTreeSet, time::Instant};

use anyhow::Context;
use log::{error, info};
use tokio::sync::watch;

use super::{Controller, Host, RETRY, Trust, compile::NoRoom, plan::plan, state::Scope};
use crate::{
    datapath::{Datapath, Op},
    duration,
    event::Target,
};

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Reconciles. An error is logged, and the maps are retried after [`RETRY`].
    pub(super) fn reconcile_or_warn(&mut self, now: Instant) {
        let had_failed = matches!(self.trust, Trust::Failed { .. });
        match self.reconcile(now).and_then(|()| self.confirm_if_due(now)) {
            Ok(()) if had_failed => info!("the maps are up to date again"),
            Ok(()) => {}
            Err(error) => error!("cannot update the maps: {error:#}; retrying in {}", duration::show(RETRY)),
        }
    }

    /// Observes, compiles, diffs and applies, then publishes the result.
    pub(super) fn reconcile(&mut self, now: Instant) -> anyhow::Result<()> {
        self.warnings_outdated |= self.state.dirty().is_some();
        self.all_changed |= matches!(self.state.dirty(), Some(Scope::All));
        let outcome = self.bring_in_step(now);
        self.readiness.update(&self.state, now);
        match &outcome {
            Ok(()) => {
                self.trust = Trust::Full;
                self.state.set_clean();
            }
            Err(error) => {
                self.trust = Trust::Failed { error: format!("{error:#}"), retry: now + RETRY };
                self.state.set_dirty(Scope::All);
            }
        }
        if self.state.take_watches_changed() {
            self.publish();
        }
        outcome
    }

    /// Services that become ready wait for this: their maps are read back.
    fn confirm_if_due(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.readiness.due().is_none_or(|due| now < due) {
            return Ok(());
        }
        let outcome = self.confirm(now);
        if let Err(error) = &outcome {
            self.trust = Trust::Failed { error: format!("{error:#}"), retry: now + RETRY };
            self.state.set_dirty(Scope::All);
        }
        outcome
    }

    fn confirm(&mut self, now: Instant) -> anyhow::Result<()> {
        let maps = self.datapath.observe().context("cannot read the maps back")?;
        if maps == *self.have {
            self.readiness.confirm(&self.state, now);
            return Ok(());
        }
        self.have = maps.into();
        anyhow::bail!("the maps differ from what was written")
    }

    fn bring_in_step(&mut self, now: Instant) -> anyhow::Result<()> {
        if !matches!(self.trust, Trust::Full) {
            let maps = self.datapath.observe().context("cannot read the maps back")?;
            if maps != *self.have {
                self.have = maps.into();
                self.state.set_dirty(Scope::All);
            }
        }
        let steps = match self.plan() {
            Err(no_room) => {
                self.make_room(no_room, now)?;
                self.plan()?
            }
            Ok(steps) => steps,
        };
        self.map_updates += u64::from(!steps.is_empty());
        self.take_steps(&steps, now)?;
        debug_assert_eq!(self.have.fault(), None);
        debug_assert_eq!(plan(&self.state, &self.have, &Scope::All), Ok(Vec::new()), "too narrow a scope");
        Ok(())
    }

    /// The operations that bring the maps up to date with the state.
    pub(super) fn plan(&self) -> Result<Vec<Op>, NoRoom> {
        self.state.dirty().map_or(Ok(Vec::new()), |scope| plan(&self.state, &self.have, scope))
    }

    pub(super) fn take_steps(&mut self, plan: &[Op], now: Instant) -> anyhow::Result<()> {
        let mut retired = BTreeSet::new();
        let outcome = plan.iter().try_for_each(|op| {
            self.state.applying(op, &self.have, now);
            self.datapath.apply(op).with_context(|| format!("cannot {op}"))?;
            if let Op::DeleteBackend(place) = op {
                retired.extend(self.have.backends.get(place).map(|backend| backend.id));
            }
            self.have.apply(op);
            Ok(())
        });
        self.walks.retire(retired);
        outcome
    }

    fn publish(&self) {
        let targets = self.state.targets();
        self.watched.targets.send_if_modified(|current| {
            let is_same = current.len() == targets.len() && current.iter().zip(&targets).all(is_same_watch);
            if !is_same {
                *current = targets;
            }
            !is_same
        });
        publish_if_changed(&self.watched.hops, self.state.paths());
        publish_if_changed(&self.watched.interfaces, self.state.attached().to_vec());
    }
}

fn publish_if_changed<T: PartialEq>(channel: &watch::Sender<T>, value: T) {
    channel.send_if_modified(|current| {
        let has_changed = *current != value;
        *current = value;
        has_changed
    });
}

/// The known health changes with each result. That alone does not restart a target's checks.
fn is_same_watch((a, b): (&Target, &Target)) -> bool {
    a.backend == b.backend && a.address == b.address && a.source == b.source && a.check == b.check
}
