//! The changes that commands can make, and their errors.
//!
//! A rejected change leaves the overlay as it was.

use super::{Applied, Change, Definition, MAX_CHANGES, Overlay};
use crate::{
    problem::{Problem, ProblemKind},
    spec::{
        AdminState, BackendName, BackendPatch, NewBackend, Spec,
        rules::{self, OwnAddresses, Refusal},
    },
};

impl Overlay {
    /// `backend add`
    pub fn add(&mut self, file: &Spec, name: &BackendName, body: &NewBackend) -> Result<(), Problem> {
        let Applied { mut spec, mut overlay, .. } = self.apply(file);
        rules::name(&name.backend).map_err(invalid)?;
        rules::weight(body.weight).map_err(invalid)?;
        rules::endpoint(body.address).map_err(invalid)?;
        if spec.definition(name).is_some() {
            return Err(Problem::new(ProblemKind::Conflict, format!("{name} already exists")));
        }
        let NewBackend { address, weight, backup, max_flows } = *body;
        let command = Definition { address, weight, backup, max_flows };
        let own = OwnAddresses::of(&spec);
        spec.put(name, spec.place(&name.service), command, &own)?;

        // Drain and maint stay until `ready`, even if the backend was removed from the file meanwhile.
        let change = overlay.change_of(name, file);
        overlay.keep(name, Change { command: Some(command), ..change });
        self.become_if_small(overlay)
    }

    /// `backend remove`: also for an entry whose backend or service is no longer in the file.
    pub fn remove(&mut self, file: &Spec, name: &BackendName) -> Result<(), Problem> {
        let (mut overlay, _) = self.settled(file);
        let change = overlay.change_of(name, file);
        if change.command.is_none() && change.admin_state == AdminState::Ready {
            return Err(not_found(file, name));
        }

        overlay.keep(name, Change { command: None, admin_state: AdminState::Ready, ..change });
        self.become_if_small(overlay)
    }

    /// `backend ready`, `drain`, `maint`, `weight`
    pub fn patch(&mut self, file: &Spec, name: &BackendName, patch: &BackendPatch) -> Result<(), Problem> {
        let (mut overlay, _) = self.settled(file);
        let BackendPatch { admin_state, weight, backup } = *patch;
        if admin_state.is_none() && weight.is_none() && backup.is_none() {
            return Err(invalid("nothing to change: set admin_state, weight or backup".to_owned()));
        }
        weight.map_or(Ok(()), rules::weight).map_err(invalid)?;
        let mut change = overlay.change_of(name, file);
        let is_held = change.admin_state != AdminState::Ready;
        match &mut change.command {
            Some(command) => {
                command.weight = weight.unwrap_or(command.weight);
                command.backup = backup.unwrap_or(command.backup);
            }
            // It is no longer in the file, but drain and maint stay until `ready`.
            None if is_held && weight.is_none() && backup.is_none() => {}
            None => return Err(not_found(file, name)),
        }

        change.admin_state = admin_state.unwrap_or(change.admin_state);
        overlay.keep(name, change);
        self.become_if_small(overlay)
    }

    fn become_if_small(&mut self, next: Self) -> Result<(), Problem> {
        if next.entries.len() > MAX_CHANGES {
            let detail = format!(
                "{MAX_CHANGES} backends already differ from the configuration file: move some changes into \
                 the file"
            );
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        *self = next;
        Ok(())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::NoService(_) => ProblemKind::NotFound,
            Refusal::Own { .. } | Refusal::NotListening { .. } => ProblemKind::Invalid,
            Refusal::Taken { .. } | Refusal::Full(_) => ProblemKind::Conflict,
        };
        Self::new(kind, refusal.to_string())
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

fn not_found(file: &Spec, name: &BackendName) -> Problem {
    match file.place(&name.service) {
        None => Refusal::NoService(name.service.clone()).into(),
        Some(_) => Problem::new(ProblemKind::NotFound, format!("there is no backend `{name}`")),
    }
}
