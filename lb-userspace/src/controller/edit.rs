//! Commands that change backends: in the overlay of this node, or in that of the cluster.

use std::time::Instant;

use log::info;

use super::{Controller, Host, requests::Pending};
use crate::{
    datapath::Datapath,
    event::{Reply, Request},
    problem::Problem,
    spec::{
        BackendName, BackendPatch, NewBackend, Spec,
        overlay::Overlay,
        rules::{OwnAddresses, Refusal},
    },
    view,
};

/// A change, and whom to answer. It names a backend, so it can be made to any overlay.
#[derive(Debug)]
pub enum Edit {
    Add { backend: BackendName, body: NewBackend, reply: Reply<view::Backend> },
    Remove { backend: BackendName, reply: Reply<()> },
    Patch { backend: BackendName, body: BackendPatch, reply: Reply<Option<view::Backend>> },
}

impl Edit {
    pub fn apply(&self, overlay: &mut Overlay, file: &Spec) -> Result<(), Problem> {
        match self {
            Self::Add { backend, body, .. } => overlay.add(file, backend, body),
            Self::Remove { backend, .. } => overlay.remove(file, backend),
            Self::Patch { backend, body, .. } => overlay.patch(file, backend, body),
        }
    }

    pub fn refuse(self, problem: Problem) {
        match self {
            Self::Add { reply, .. } => reply.send(Err(problem)),
            Self::Remove { reply, .. } => reply.send(Err(problem)),
            Self::Patch { reply, .. } => reply.send(Err(problem)),
        }
    }

    fn log(&self) {
        match self {
            Self::Add { backend, body, .. } => {
                info!(backend:% = backend, address:% = body.address; "backend added");
            }
            Self::Remove { backend, .. } => info!(backend:% = backend; "backend removed"),
            Self::Patch { backend, body, .. } => {
                info!(backend:% = backend, change:% = body; "backend changed");
            }
        }
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(super) fn edit(&mut self, edit: Edit, now: Instant) {
        if let Err(refusal) = self.allows(&edit) {
            return edit.refuse(refusal.into());
        }
        if self.member.is_some() {
            return self.edit_in_cluster(edit, now);
        }
        let outcome = self.change(now, |overlay, file| edit.apply(overlay, file));
        self.edited(edit, outcome, now);
    }

    /// A backend cannot be on this host.
    fn allows(&self, edit: &Edit) -> Result<(), Refusal> {
        match edit {
            Edit::Add { body, .. } => OwnAddresses::of_host(self.state.addresses()).refuse(body.address),
            Edit::Remove { .. } | Edit::Patch { .. } => Ok(()),
        }
    }

    /// Answers. A backend is shown with its flows, counted after the change.
    pub(super) fn edited(&mut self, edit: Edit, outcome: Result<(), Problem>, now: Instant) {
        if let Err(problem) = outcome {
            return edit.refuse(problem);
        }
        edit.log();
        match edit {
            Edit::Add { backend, reply, .. } => {
                self.reply_with_backend(Pending::Request(Request::Backend { backend, reply }), now);
            }
            Edit::Remove { reply, .. } => reply.send(Ok(())),
            Edit::Patch { backend, reply, .. } if self.state.find(&backend).is_some() => {
                self.reply_with_backend(Pending::Changed { backend, reply }, now);
            }
            // `ready` for a backend that is no longer in the file: its entry is gone.
            Edit::Patch { reply, .. } => reply.send(Ok(None)),
        }
    }
}
