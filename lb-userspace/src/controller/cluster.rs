//! What is stored in etcd is put in force here, and changes of it begin here.
//!
//! A change is made to what is stored, checked against this node, and then written on the condition that nothing else was
//! stored meanwhile. It is answered when it is in force. One change is under way at a time; others wait.

mod command;
mod show;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use log::{error, info, warn};

use self::command::Command;
use super::{Controller, Host, changes::changes, intent::Intent};
use crate::{
    cluster::{Changes, Document, News, Report, Stored, copy::Copy},
    datapath::Datapath,
    problem::{Problem, ProblemKind},
    spec::{Cluster, Services, Spec, overlay::Overlay, store},
};

/// This node as a part of the cluster.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    node: String,
    /// Not acted upon yet.
    news: VecDeque<News>,
    /// What is in force.
    copy: Copy,
    /// Why the copy is not on disk.
    copy_failure: Option<String>,
    /// What etcd has, as far as is known.
    latest: Stored,
    /// Why that is not in force.
    refused: Option<String>,
    /// The change that is being written.
    command: Option<Command>,
    /// Services of this node's file that are not in force.
    idle: Vec<String>,
}

impl Member {
    pub fn new(cluster: &Cluster, copy: Copy) -> Self {
        let latest = copy.stored();
        Self {
            node: cluster.node.clone(),
            news: VecDeque::new(),
            copy,
            copy_failure: None,
            latest,
            refused: None,
            command: None,
            idle: Vec::new(),
        }
    }

    pub fn document(&self) -> Option<&Document> {
        self.copy.document.as_ref()
    }

    pub fn hear(&mut self, news: News) {
        self.news.push_back(news);
    }

    pub const fn is_writing(&self) -> bool {
        self.command.is_some()
    }
}

/// The overlay in these changes.
pub fn overlay_of(changes: &Changes) -> Result<Overlay, Problem> {
    store::decode(changes.json.as_bytes()).map_err(|why| {
        let detail = format!(
            "the changes of the cluster (the key `changes`, revision {}) cannot be read: {why}: delete it, with `etcdctl del \
             PREFIX/changes`; those that are in force stay so, and the next command stores them again",
            changes.revision
        );
        Problem::new(ProblemKind::Failed, detail)
    })
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Acts on what the exchange has said.
    pub(super) fn take_cluster_news(&mut self, now: Instant) {
        while let Some(news) = self.member.as_mut().and_then(|it| it.news.pop_front()) {
            match news {
                News::Stored(stored) => {
                    // A failure is logged, and shown in the status.
                    let _shown = self.adopt_stored(stored, now);
                }
                News::Written(written) => self.written(written, now),
            }
        }
    }

    /// Puts in force what is stored. Returns what changed. If that fails, what was in force stays so.
    pub(super) fn adopt_stored(&mut self, stored: Stored, now: Instant) -> Result<Vec<String>, Problem> {
        let is_familiar = self.member.as_ref().map_or(Ok(()), |it| it.copy.precedes(&stored));
        let outcome = is_familiar.and_then(|()| self.put_stored_in_force(&stored, now));
        self.has_adopted(stored, outcome)
    }

    /// This node has written it, knowing what was stored before.
    fn adopt_own(&mut self, stored: Stored, now: Instant) -> Result<Vec<String>, Problem> {
        let outcome = self.put_stored_in_force(&stored, now);
        self.has_adopted(stored, outcome)
    }

    fn has_adopted(
        &mut self,
        stored: Stored,
        outcome: Result<Vec<String>, Problem>,
    ) -> Result<Vec<String>, Problem> {
        let Some(member) = &mut self.member else { return outcome };
        let refused = outcome.as_ref().err().map(explain);
        if let Some(why) = refused.as_ref().filter(|_| refused != member.refused) {
            error!("what is stored in the cluster is not put in force: {why}");
        }
        let was_deleted = |before: bool, after: bool| before && !after;
        if was_deleted(member.latest.document.is_some(), stored.document.is_some())
            || was_deleted(member.latest.changes.is_some(), stored.changes.is_some())
        {
            warn!("a key of the cluster was deleted from etcd: what is in force stays so");
        }
        (member.latest, member.refused) = (stored, refused);
        self.report();
        outcome
    }

    /// Tries again what this node could not run: the cause may have gone.
    pub(super) fn retry_stored(&mut self, now: Instant) {
        let Some(member) = &self.member else { return };
        if member.refused.is_some() {
            let latest = member.latest.clone();
            let _shown = self.adopt_stored(latest, now);
        }
        if self.member.as_ref().is_some_and(|it| it.copy_failure.is_some()) {
            self.save_copy();
        }
    }

    fn put_stored_in_force(&mut self, stored: &Stored, now: Instant) -> Result<Vec<String>, Problem> {
        let Some(member) = &self.member else { return Ok(Vec::new()) };
        let document = stored.document.as_ref().filter(|it| Some(*it) != member.copy.document.as_ref());
        let changed = stored.changes.as_ref().filter(|it| Some(*it) != member.copy.changes.as_ref());
        if document.is_none() && changed.is_none() {
            // A restored etcd may have just what is in force.
            if !stored.is_empty() && member.copy.etcd != Some(stored.etcd) {
                self.keep(stored, &[]);
            }
            return Ok(Vec::new());
        }
        let file = match document {
            Some(document) => Arc::new(self.combine(document)?),
            None => Arc::clone(&self.intent.file),
        };
        let overlay = match &stored.changes {
            Some(changes) => overlay_of(changes)?,
            None => self.intent.overlay.clone(),
        };
        let (before, commands) = (self.state.spec().clone(), self.intent.overlay.differences());
        let overruled = self.put_in_force(file, &overlay, now)?;

        let mut lines = changes(&before, self.state.spec());
        let differences = self.intent.overlay.differences();
        let ended: Vec<_> = commands
            .iter()
            .filter(|it| !differences.contains(it))
            .map(|it| format!("no longer {it}"))
            .collect();
        self.warn_of_the_first_changes(&ended);
        let begun = differences.iter().filter(|it| !commands.contains(it)).cloned();
        lines.extend(ended.into_iter().chain(begun).map(|it| format!("by command: {it}")).chain(overruled));
        self.keep(stored, &lines);
        Ok(lines)
    }

    /// Until then, this node had changes of its own.
    fn warn_of_the_first_changes(&self, ended: &[String]) {
        let is_first = self.member.as_ref().is_some_and(|it| it.copy.changes.is_none());
        if is_first && !ended.is_empty() {
            warn!("the changes of the cluster replace those of this node: {}", ended.join(", "));
        }
    }

    /// It is in force.
    fn keep(&mut self, stored: &Stored, lines: &[String]) {
        let Some(member) = &mut self.member else { return };
        if let Some(document) = stored.document.as_ref().filter(|it| Some(*it) != member.document()) {
            info!("the services of the cluster are in force: {}", document.named());
        }
        lines.iter().for_each(|line| info!("{line}"));
        let Stored { document, changes, etcd } = stored.clone();
        let copy = &mut member.copy;
        copy.etcd = Some(etcd);
        copy.document = document.or_else(|| copy.document.take());
        copy.changes = changes.or_else(|| copy.changes.take());
        self.save_copy();
        self.compare_with_file();
    }

    /// A failure does not matter until the next start: it is tried again.
    fn save_copy(&mut self) {
        let Some(member) = &mut self.member else { return };
        let failure = self.host.save_copy(&member.copy).err().map(|error| format!("{error:#}"));
        if let Some(why) = failure.as_ref().filter(|_| failure != member.copy_failure) {
            warn!("{why}");
        }
        member.copy_failure = failure;
    }

    /// Finds the services of this node's file that are not in force.
    pub(super) fn compare_with_file(&mut self) {
        let Some(member) = &mut self.member else { return };
        let Some(document) = &member.copy.document else { return };
        let idle = self.host.idle_services(&self.intent.file);
        if idle != member.idle && !idle.is_empty() {
            let services = idle.join(", ");
            info!(services; "services of the file are not in force: the cluster has others ({})", document.named());
        }
        member.idle = idle;
    }

    fn combine(&mut self, document: &Document) -> Result<Spec, Problem> {
        let name = format!("cluster revision {}", document.revision);
        self.host.combine(Services { name: &name, text: &document.text })
    }

    /// Would this be put in force? Nothing is changed.
    fn judge(&mut self, file: Arc<Spec>, overlay: &Overlay, now: Instant) -> Result<(), Problem> {
        let (_, applied) = Intent::of(file, overlay);
        let replaced = self.state.set_intent(applied.spec, applied.admin_states, now);
        let fits = self.fit(now);
        self.state.restore(replaced);
        fits
    }

    /// Tells the exchange what is in force.
    pub(super) fn report(&mut self) {
        let Some(member) = &self.member else { return };
        self.host
            .report(Report { revisions: member.copy.stored().revisions(), refused: member.refused.clone() });
    }
}

/// In one line, with the first mistakes.
fn explain(problem: &Problem) -> String {
    const SHOWN: usize = 3;
    let first = |mistake: &String| mistake.lines().next().unwrap_or_default().to_owned();
    let mistakes = problem.mistakes.iter().take(SHOWN).map(first);
    let parts: Vec<_> = [problem.detail.clone()].into_iter().chain(mistakes).collect();
    parts.join("; ")
}
