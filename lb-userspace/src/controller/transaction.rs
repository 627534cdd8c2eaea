//! Changes of the intent: checked, saved and applied, or else undone completely.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use log::{error, info, warn};

use super::{
    Controller, Host,
    changes::{changes, need_restart},
    cluster::Member,
    fill,
    intent::Intent,
    pinned,
    state::Scope,
};
use crate::{
    datapath::Datapath,
    probe::exec,
    problem::{Problem, ProblemKind},
    spec::{Spec, overlay::Overlay},
    view,
};

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Changes the overlay.
    pub(super) fn change(
        &mut self,
        now: Instant,
        edit: impl FnOnce(&mut Overlay, &Spec) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut overlay = self.intent.overlay.clone();
        edit(&mut overlay, &self.intent.file)?;
        self.put_in_force(Arc::clone(&self.intent.file), &overlay, now)?;
        Ok(())
    }

    /// Saves the overlay without the changes that the file overrides. Otherwise they would apply again if the former
    /// file were restored. A failure (disk full) is only logged.
    pub(super) fn save_without_overridden(&mut self) {
        if let Err(error) = self.host.save_overlay(&self.intent.overlay) {
            warn!("cannot remove overridden changes from the saved overlay: {error:#}");
        }
    }

    /// Reads the file again. If it is invalid, nothing changes.
    pub(super) fn reload(&mut self, now: Instant) -> Result<view::Reloaded, Problem> {
        let outcome = self.read_and_put_in_force(now);
        match &outcome {
            Ok(reloaded) => {
                self.reload.error = None;
                self.reload.succeeded = SystemTime::now();
                info!(changes = reloaded.changes.len(); "reloaded");
                reloaded.changes.iter().for_each(|change| info!("{change}"));
                for warning in &reloaded.warnings {
                    warn!("{warning}");
                    self.warned.insert(warning.clone(), (now, true));
                }
            }
            Err(problem) => {
                error!("reload failed: {}", problem.detail);
                problem.mistakes.iter().for_each(|mistake| error!("{mistake}"));
                self.reload.error = Some(problem.detail.clone());
            }
        }
        outcome
    }

    fn read_and_put_in_force(&mut self, now: Instant) -> Result<view::Reloaded, Problem> {
        let document = self.member.as_ref().and_then(Member::document);
        let file = self.host.read_spec(document)?;
        let before = self.state.spec().clone();
        let overruled = self.put_in_force(Arc::new(file), &self.intent.overlay.clone(), now)?;
        exec::PROGRAMS.set_most(self.intent.file.programs_at_once);
        self.host.keep_file();
        self.compare_with_file();
        self.retry_stored(now);

        let mut lines = changes(&before, self.state.spec());
        lines.extend(overruled);
        Ok(view::Reloaded { changes: lines, warnings: self.warnings() })
    }

    /// All problems with the intent and the host.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.state.warnings();
        warnings.extend(self.start_warnings.iter().cloned());
        warnings.extend(self.intent.warnings.iter().cloned());
        warnings.extend(pinned::other_limits(&self.capacity, &self.intent.file.limits));
        warnings.extend(pinned::other_room(&self.capacity, &self.intent.file.limits));
        warnings.extend(pinned::other_ports(&self.capacity, self.state.spec(), self.local_ports));
        warnings.extend(self.with_facts(|facts| fill::warnings(facts, &self.state, &self.capacity)));
        warnings.extend(need_restart(&self.running, &self.intent.file));
        warnings
    }

    /// Returns the changes of the overlay that the file overrides.
    pub(super) fn put_in_force(
        &mut self,
        file: Arc<Spec>,
        overlay: &Overlay,
        now: Instant,
    ) -> Result<Vec<String>, Problem> {
        let (intent, applied) = Intent::of(file, overlay);
        let replaced = self.state.set_intent(applied.spec, applied.admin_states, now);
        if let Err(problem) = self.fit_and_save(&intent.overlay, now) {
            self.state.restore(replaced);
            return Err(problem);
        }

        let old_intent = std::mem::replace(&mut self.intent, intent);
        match self.reconcile(now) {
            Ok(()) => Ok(applied.log),
            Err(error) => {
                self.state.restore(replaced);
                self.state.set_dirty(Scope::All);
                self.state.set_watches_changed();
                let failed_intent = std::mem::replace(&mut self.intent, old_intent);
                Err(failed(format!("{error:#}; {}", self.undo(&failed_intent, now))))
            }
        }
    }

    /// Checks that the maps have room for the new state, and saves the overlay.
    fn fit_and_save(&mut self, overlay: &Overlay, now: Instant) -> Result<(), Problem> {
        self.fit(now)?;
        self.save(overlay).map_err(|error| failed(format!("{error:#}; nothing was changed")))
    }

    /// Checks that the maps have room for the new state.
    pub(super) fn fit(&mut self, now: Instant) -> Result<(), Problem> {
        if let Err(no_room) = self.plan() {
            let refused = |error: anyhow::Error| {
                Problem::new(ProblemKind::Conflict, format!("{error:#}; nothing was changed"))
            };
            self.make_room(no_room, now).map_err(refused)?;
            self.plan().map_err(|no_room| refused(no_room.into()))?;
        }
        Ok(())
    }

    /// Applies the former intent again. Returns how that went.
    fn undo(&mut self, failed: &Intent, now: Instant) -> String {
        let overlay = self.intent.overlay.clone();
        let is_saved = failed.overlay == overlay || self.member.is_some();
        let saved = if is_saved { Ok(()) } else { self.host.save_overlay(&overlay) };
        match saved.and_then(|()| self.reconcile(now)) {
            Ok(()) => "all changes were undone".to_owned(),
            Err(error) => format!("undoing the changes failed as well: {error:#}"),
        }
    }

    /// In a cluster, the copy is saved when it is in force.
    fn save(&mut self, overlay: &Overlay) -> anyhow::Result<()> {
        if *overlay == self.intent.overlay || self.member.is_some() {
            Ok(())
        } else {
            self.host.save_overlay(overlay)
        }
    }
}

fn failed(detail: String) -> Problem {
    Problem::new(ProblemKind::Failed, detail)
}
