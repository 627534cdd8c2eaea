//! A change of what is stored: from the request to the answer.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{super::edit::Edit, Controller, Member, overlay_of};
use crate::{
    cluster::{Changes, Document, MAX_STORED, NodeRecord, Revision, Stored, Write, Written, pushed},
    controller::Host,
    datapath::Datapath,
    event::Reply,
    problem::{Problem, ProblemKind},
    spec::{Services, SharedPart, overlay::Overlay, shared_part, store},
    view,
};

/// How often a change is made again because other nodes were faster.
const MAX_TRIES: u32 = 8;

/// A change that is being written.
#[derive(Debug)]
pub struct Command {
    what: What,
    tries: u32,
    /// What was sent.
    write: Write,
}

#[derive(Debug)]
enum What {
    Edit(Edit),
    Push(Push),
}

/// Other services.
#[derive(Debug)]
pub struct Push {
    /// The file name in messages.
    file: String,
    part: SharedPart,
    /// The revision that the text was made from. `None`: it does not say so, and may replace what this node has stored.
    base: Option<Revision>,
    reply: Reply<view::ClusterPushed>,
}

impl What {
    fn refuse(self, problem: Problem) {
        match self {
            Self::Edit(edit) => edit.refuse(problem),
            Self::Push(push) => push.reply.send(Err(problem)),
        }
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    pub(in crate::controller) fn edit_in_cluster(&mut self, edit: Edit, now: Instant) {
        self.begin(What::Edit(edit), 0, now);
    }

    pub(in crate::controller) fn push(
        &mut self,
        push: view::ClusterPush,
        reply: Reply<view::ClusterPushed>,
        now: Instant,
    ) {
        let view::ClusterPush { file, text, base } = push;
        match shared_part(&file, &text) {
            Ok(part) => {
                let base = base.or(pushed(&text).0);
                self.begin(What::Push(Push { file, part, base, reply }), 0, now);
            }
            Err(mistakes) => reply.send(Err(Problem {
                kind: ProblemKind::InvalidConfiguration,
                detail: format!("{file} has errors and was not stored"),
                mistakes: mistakes.each(),
            })),
        }
    }

    /// Sends the write, or refuses the change.
    fn begin(&mut self, what: What, tries: u32, now: Instant) {
        let prepared = match &what {
            What::Edit(edit) => self.prepare_edit(edit, now),
            What::Push(push) => self.prepare_push(push, now),
        };
        let sent = prepared.and_then(|write| self.host.write(write.clone()).map(|()| write));
        match (sent, &mut self.member) {
            (Ok(write), Some(member)) => member.command = Some(Command { what, tries, write }),
            (Ok(_), None) => {}
            (Err(problem), _) => what.refuse(problem),
        }
    }

    fn prepare_edit(&mut self, edit: &Edit, now: Instant) -> Result<Write, Problem> {
        let latest = self.latest()?.clone();
        if let Some(why) = self.member.as_ref().and_then(|it| it.refused.as_ref()) {
            let detail = format!(
                "this node does not run what is stored in the cluster, so it cannot change it: {why}; use another node"
            );
            return Err(Problem::new(ProblemKind::Conflict, detail));
        }
        if latest.document.is_none() {
            return Err(self.nothing_stored());
        }
        let file = Arc::clone(&self.intent.file);
        let mut overlay = self.stored_overlay(&latest)?;
        edit.apply(&mut overlay, &file)?;
        self.judge(file, &overlay, now)?;
        let write = Write { base: latest.revisions(), document: None, changes: Some(encode(&overlay)?) };
        of_a_size_to_store(write)
    }

    fn prepare_push(&mut self, push: &Push, now: Instant) -> Result<Write, Problem> {
        let latest = self.latest()?.clone();
        let Some(member) = &self.member else { return Err(no_cluster()) };
        let node = member.node.clone();
        let is_base = |stored: &&Document| match push.base {
            Some(base) => stored.revision == base,
            None => stored.origin().is_some_and(|(by, _)| by == node),
        };
        if let Some(stored) = latest.document.as_ref().filter(|it| !is_base(it)) {
            return Err(outdated(stored, push));
        }
        if latest.document.is_none() {
            self.is_ahead()?;
        }
        let file = self.host.combine(Services { name: &push.file, text: &push.part.in_place })?;
        let file = Arc::new(file);
        // Changes that the new services override end with this.
        let overlay = self.stored_overlay(&latest)?.apply(&file).overlay;
        self.judge(file, &overlay, now)?;
        let changes = encode(&overlay)?;
        let are_the_same = latest.changes.as_ref().is_some_and(|it| it.json == changes);
        let (_, text) = pushed(&push.part.compact);
        of_a_size_to_store(Write {
            base: latest.revisions(),
            document: Some(Document::value(text, &node, SystemTime::now())),
            changes: (!are_the_same).then_some(changes),
        })
    }

    /// A change that is stored has the whole overlay of this node. It would end those of the others.
    fn nothing_stored(&self) -> Problem {
        let status = self.host.cluster();
        if let Some(why) = status.filter(|it| !it.is_connected).map(|it| it.failure.clone()) {
            return away(&why.unwrap_or_else(|| "it has not answered yet".to_owned()));
        }
        let cure = match self.member.as_ref().and_then(Member::document) {
            Some(_) => "`xlb cluster pull > FILE`, then `xlb cluster push FILE`",
            None => "`xlb cluster push FILE`",
        };
        let detail = format!("no services are stored in the cluster: store them first, with {cure}");
        Problem::new(ProblemKind::Conflict, detail)
    }

    /// In an empty etcd, what this node stores becomes that of all: no other one may run something later.
    fn is_ahead(&self) -> Result<(), Problem> {
        let (Some(member), Some(status)) = (&self.member, self.host.cluster()) else {
            return Err(no_cluster());
        };
        let own = member.copy.stored().revisions();
        let is_later = |it: &&NodeRecord| it.document > own.document || it.changes > own.changes;
        let Some(other) = status.nodes.iter().find(is_later) else { return Ok(()) };
        let detail = format!(
            "nothing is stored in the cluster, and {node} runs something later than this node: on {node}, run \
             `xlb cluster pull > FILE`, then `xlb cluster push FILE`",
            node = other.node
        );
        Err(Problem::new(ProblemKind::Conflict, detail))
    }

    /// What etcd has.
    fn latest(&self) -> Result<&Stored, Problem> {
        self.member.as_ref().map(|it| &it.latest).ok_or_else(no_cluster)
    }

    /// The changes of this node become those of the cluster if it has none.
    fn stored_overlay(&self, latest: &Stored) -> Result<Overlay, Problem> {
        latest.changes.as_ref().map_or_else(|| Ok(self.intent.overlay.clone()), overlay_of)
    }

    /// The write has ended.
    pub(super) fn written(&mut self, written: Written, now: Instant) {
        let Some(Command { what, tries, write }) = self.member.as_mut().and_then(|it| it.command.take())
        else {
            return;
        };
        match written {
            Written::Stored { revision, etcd } => {
                let outcome = self.adopt_written(write, revision, etcd, now);
                self.answer_command(what, revision, outcome, now);
            }
            Written::Outdated(stored) => match self.adopt_stored(stored, now) {
                Ok(_) if tries < MAX_TRIES => self.begin(what, tries + 1, now),
                Ok(_) => what.refuse(Problem::new(
                    ProblemKind::Conflict,
                    "other nodes change the cluster all the time: try again later",
                )),
                Err(problem) => {
                    let detail = format!("another node was faster, and {}", problem.detail);
                    what.refuse(Problem { kind: ProblemKind::Conflict, detail, ..problem });
                }
            },
            Written::Failed(why) => what.refuse(away(&why)),
            Written::Refused(why) => {
                what.refuse(Problem::new(ProblemKind::Failed, format!("{why}; nothing was changed")));
            }
            Written::Unknown(why) => what.refuse(unavailable(format!(
                "etcd did not answer: {why}; if the change was stored all the same, it comes into force when etcd answers again"
            ))),
        }
    }

    fn adopt_written(
        &mut self,
        write: Write,
        revision: Revision,
        etcd: u64,
        now: Instant,
    ) -> Result<Vec<String>, Problem> {
        let mut stored = Stored { etcd, ..self.latest()?.clone() };
        if let Some(text) = write.document {
            stored.document = Some(Document { revision, text });
        }
        if let Some(json) = write.changes {
            stored.changes = Some(Changes { revision, json });
        }
        self.adopt_own(stored, now).map_err(|problem| {
            let detail =
                format!("stored as revision {revision}, but not in force on this node: {}", problem.detail);
            Problem { detail, ..problem }
        })
    }

    fn answer_command(
        &mut self,
        what: What,
        revision: Revision,
        outcome: Result<Vec<String>, Problem>,
        now: Instant,
    ) {
        match what {
            What::Edit(edit) => self.edited(edit, outcome.map(drop), now),
            What::Push(push) => {
                let warnings = self.warnings();
                let document = self.member.as_ref().and_then(Member::document);
                let first_line = document.map(Document::first_line).unwrap_or_default();
                let pushed = |changes| view::ClusterPushed { revision, first_line, changes, warnings };
                push.reply.send(outcome.map(pushed));
            }
        }
    }
}

fn encode(overlay: &Overlay) -> Result<String, Problem> {
    let failed = |error: &dyn std::error::Error| Problem::new(ProblemKind::Failed, error.to_string());
    let bytes = store::encode(overlay).map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

fn of_a_size_to_store(write: Write) -> Result<Write, Problem> {
    let bytes: usize = [&write.document, &write.changes].into_iter().flatten().map(String::len).sum();
    if bytes > MAX_STORED {
        let detail =
            format!("{bytes} bytes are too many for etcd, which stores at most {MAX_STORED} at once");
        return Err(Problem::new(ProblemKind::Failed, detail));
    }
    Ok(write)
}

fn outdated(stored: &Document, push: &Push) -> Problem {
    let by = match stored.origin() {
        Some((node, at)) => {
            let age = SystemTime::now().duration_since(at).unwrap_or_default().as_secs();
            format!("stored by {node} {age}s ago")
        }
        None => "not stored by xlb".to_owned(),
    };
    let (revision, file) = (stored.revision, &push.file);
    let base = match push.base {
        Some(base) => format!("is based on revision {base}"),
        None => "does not say in its first line on which revision it is based".to_owned(),
    };
    let detail = format!(
        "the cluster has revision {revision}, {by}, and {file} {base}: print the former with `xlb cluster pull > FILE`, add your \
         changes, and push that; or push {file} with `--base {revision}` to replace it"
    );
    Problem::new(ProblemKind::Conflict, detail)
}

fn away(why: &str) -> Problem {
    unavailable(format!("etcd cannot be reached, or has no majority: {why}; nothing was changed"))
}

fn unavailable(detail: String) -> Problem {
    Problem::new(ProblemKind::Unavailable, detail)
}

pub fn no_cluster() -> Problem {
    let detail = "this node is in no cluster: the configuration has no [cluster]";
    Problem::new(ProblemKind::NotFound, detail)
}
