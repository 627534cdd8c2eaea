//! Services and changes that are stored in etcd.

use std::sync::Arc;

use super::*;
use crate::{
    cluster::{Changes, Document, News, NodeRecord, Revision, Revisions, Status, Stored, Write, Written},
    event::Answer,
    spec::{Cluster, Spec},
};

const ONE: &str = "version = 1\n[[service]]\nname = 'web'\nlisten = ['192.0.2.10:80']\nsource = ['10.0.0.1']\n\
                   [[service.backend]]\nname = 'web-1'\naddress = '10.0.0.11:8080'\n";

#[test]
fn a_push_is_stored_first_and_then_in_force() {
    let mut world = member();

    let mut answer = world.push(&two());
    assert!(answer.try_recv().is_err(), "it is not stored yet");
    assert_eq!(world.names(), ["web-1", "web-2", "web-3"]);
    let write = world.write();
    assert_eq!(write.base, Revisions::default());
    assert!(write.document.as_ref().unwrap().ends_with(&two()) && write.changes.is_some(), "{write:?}");
    world.written(Written::Stored { revision: Revision(7), etcd: 1 });

    let pushed = answer.try_recv().unwrap().unwrap();
    assert_eq!(pushed.revision, Revision(7));
    assert_eq!(pushed.changes, ["web/web-3: removed"]);
    assert_eq!(world.names(), ["web-1", "web-2"]);
    assert_eq!(world.host().copy.document.as_ref().unwrap().revision, Revision(7));
    assert_eq!(world.host().report.revisions, revisions(7, 7));
    assert!(world.host().saved.is_empty(), "the overlay of the node is left alone");
}

#[test]
fn a_text_with_mistakes_is_not_stored() {
    let mut world = member();

    for wrong in ["version = 1\n", "version = 1\n[[servcie]]\n", &two().replace("10:80", "10:0"), "["] {
        let problem = world.push(wrong).try_recv().unwrap().unwrap_err();

        assert_eq!(problem.kind, ProblemKind::InvalidConfiguration, "{wrong}");
        assert!(problem.mistakes[0].starts_with("new.toml:"), "{problem:?}");
    }
    assert!(world.host().writes.is_empty());
}

#[test]
fn a_push_of_a_text_that_is_not_the_latest_is_a_conflict() {
    let mut world = member();
    world.stored(stored(Some((7, ONE)), None));

    let old = format!("# xlb cluster: revision 5, stored by lb-2\n{ONE}");
    let problem = world.push(&old).try_recv().unwrap().unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Conflict);
    assert!(problem.detail.contains("the cluster has revision 7"), "{problem:?}");

    let mut answer = world.push_based(&two(), Some(7));
    world.written(Written::Outdated(stored(Some((9, ONE)), None)));
    let problem = answer.try_recv().unwrap().unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Conflict);
    assert!(problem.detail.contains("the cluster has revision 9"), "{problem:?}");

    let _answer = world.push(&format!("# xlb cluster: revision 9, stored by lb-2\n{}", two()));
    assert_eq!(world.host().writes.len(), 2);
}

/// Its author may not have seen what is stored, although this node runs it.
#[test]
fn a_push_of_a_text_that_names_no_revision_is_a_conflict_unless_the_command_names_it() {
    let mut world = member();
    world.stored(stored(Some((7, ONE)), None));

    for text in [two(), format!("# xlb cluster: revision x, stored by lb-2\n{}", two())] {
        let problem = world.push(&text).try_recv().unwrap().unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Conflict);
        assert!(problem.detail.contains("`xlb cluster pull > FILE`"), "{problem:?}");
        assert!(problem.detail.contains("`--base 7`"), "{problem:?}");
    }

    let mut answer = world.push_based(&two(), Some(7));
    world.written(Written::Stored { revision: Revision(8), etcd: 1 });
    let first_line = answer.try_recv().unwrap().unwrap().first_line;
    assert_eq!(first_line, "# xlb cluster: revision 8, stored by lb-1");
    let _answer = world.push(&format!("{first_line}\n{ONE}"));
    assert_eq!(world.host().writes.len(), 2);
}

#[test]
fn a_text_that_names_no_revision_replaces_what_the_same_node_has_stored() {
    for (node, writes) in [("lb-1", 1), ("lb-2", 0)] {
        let mut world = member();
        let text = format!("# xlb cluster: stored by {node} at 100\n{ONE}");
        world.stored(stored(Some((7, &text)), None));

        let _answer = world.push(&two());

        assert_eq!(world.host().writes.len(), writes, "{node}");
    }
}

/// It would end what commands have changed on the other nodes.
#[test]
fn a_command_is_refused_while_nothing_is_stored() {
    let mut world = member();
    let problem = world.ask(patch("web/web-1", AdminState::Drain)).unwrap_err();
    assert!(problem.detail.ends_with("store them first, with `xlb cluster push FILE`"), "{problem:?}");

    world.stored(stored(Some((7, &two())), None));
    world.stored(Stored::default());
    let problem = world.ask(patch("web/web-1", AdminState::Drain)).unwrap_err();
    assert!(problem.detail.contains("`xlb cluster pull > FILE`, then"), "{problem:?}");
    assert!(world.host().writes.is_empty());
}

#[test]
fn a_push_into_an_empty_etcd_is_refused_if_another_node_runs_something_later() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));
    world.stored(Stored::default());
    let record = |node: &str, document: u64, changes: Option<u64>| NodeRecord {
        node: node.to_owned(),
        version: "0.2.0".to_owned(),
        document: Some(Revision(document)),
        changes: changes.map(Revision),
        healthy: true,
        reasons: Vec::new(),
    };
    for later in [record("lb-3", 9, None), record("lb-3", 7, Some(8))] {
        world.records(vec![record("lb-1", 7, None), record("lb-2", 5, None), later]);

        let problem = world.push(&two()).try_recv().unwrap().unwrap_err();

        assert_eq!(problem.kind, ProblemKind::Conflict);
        assert!(problem.detail.contains("lb-3 runs something later"), "{problem:?}");
    }
    world.records(vec![record("lb-2", 5, None)]);
    let _answer = world.push(&two());
    assert_eq!(world.host().writes.len(), 1);
}

#[test]
fn a_command_is_in_force_when_it_is_stored_and_answered_then() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));

    let mut drain = world.send(patch("web/web-1", AdminState::Drain));
    world.turn();
    let mut maint = world.send(patch("web/web-2", AdminState::Maint));
    world.turn();
    assert_eq!(world.write().base, Revisions { document: Some(Revision(7)), changes: None });
    assert!(drain.try_recv().is_err() && world.status().overlay.is_empty());
    assert_eq!(world.host().writes.len(), 1, "the second one waits");

    world.written(Written::Stored { revision: Revision(8), etcd: 1 });
    world.settle();
    assert_eq!(drain.try_recv().unwrap().unwrap().unwrap().admin_state, AdminState::Drain);
    assert_eq!(world.write().base, revisions(7, 8));
    world.written(Written::Stored { revision: Revision(9), etcd: 1 });
    world.settle();

    assert_eq!(maint.try_recv().unwrap().unwrap().unwrap().admin_state, AdminState::Maint);
    assert_eq!(world.status().overlay, ["web/web-1: drain", "web/web-2: maint"]);
}

#[test]
fn a_command_is_made_again_to_what_another_node_stored_meanwhile() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));
    let mut drain = world.send(patch("web/web-1", AdminState::Drain));
    world.turn();

    let theirs = changes_of(&mut world, "web/web-2");
    world.written(Written::Outdated(stored(Some((7, &two())), Some((9, &theirs)))));
    assert_eq!(world.status().overlay, ["web/web-2: drain"]);
    assert_eq!(world.write().base, revisions(7, 9));
    world.written(Written::Stored { revision: Revision(10), etcd: 1 });
    world.settle();

    assert!(drain.try_recv().unwrap().is_ok());
    assert_eq!(world.status().overlay, ["web/web-1: drain", "web/web-2: drain"]);
}

#[test]
fn a_command_changes_nothing_while_etcd_is_away() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));
    for (written, words) in [
        (Written::Failed("no route to host".to_owned()), "nothing was changed"),
        (Written::Refused("etcd refused it: no space".to_owned()), "nothing was changed"),
        (Written::Unknown("no answer within 1s".to_owned()), "if the change was stored"),
    ] {
        let mut drain = world.send(patch("web/web-1", AdminState::Drain));
        world.turn();
        world.written(written);

        let problem = drain.try_recv().unwrap().unwrap_err();
        assert!(problem.detail.contains(words), "{problem:?}");
        assert!(world.status().overlay.is_empty() && world.host().saved.is_empty());
    }
}

#[test]
fn what_this_node_cannot_run_is_said_and_the_former_stays() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));

    world.stored(stored(Some((8, "version = 2\n")), None));

    assert_eq!(world.names(), ["web-1", "web-2"]);
    assert_eq!(world.host().copy.document.as_ref().unwrap().revision, Revision(7));
    let report = world.host().report.clone();
    assert_eq!(report.revisions.document, Some(Revision(7)));
    let why = report.refused.unwrap();
    assert!(why.contains("revision 8") && why.contains("unknown format version 2"), "{why}");
    assert!(world.status().warnings.iter().any(|it| it.contains("unknown format version 2")));
    let refused = world.ask(patch("web/web-1", AdminState::Drain)).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);

    // It is printed, so that it can be corrected.
    let shown = world.ask(Request::ClusterDocument).unwrap();
    assert_eq!(shown.revision, Revision(8));
    let corrected = shown.text.replace("version = 2", ONE);
    let mut answer = world.push(&corrected);
    world.written(Written::Stored { revision: Revision(9), etcd: 1 });
    assert_eq!(answer.try_recv().unwrap().unwrap().revision, Revision(9));
    assert_eq!((world.names(), world.host().report.refused.clone()), (vec!["web-1".to_owned()], None));
}

#[test]
fn changes_that_cannot_be_read_are_named_with_the_cure() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), Some((8, "{"))));

    let refused = world.host().report.refused.clone().unwrap();
    assert!(refused.contains("key `changes`") && refused.contains("etcdctl del"), "{refused}");

    world.stored(stored(Some((7, &two())), None));
    assert_eq!(world.host().report.refused, None);
}

#[test]
fn a_key_that_is_deleted_changes_nothing() {
    let mut world = member();
    let theirs = changes_of(&mut world, "web/web-2");
    world.stored(stored(Some((7, &two())), Some((8, &theirs))));

    world.stored(Stored::default());

    assert_eq!(
        (world.names(), world.status().overlay),
        (vec!["web-1".into(), "web-2".into()], vec!["web/web-2: drain".to_owned()])
    );
    for words in ["services of the cluster were deleted", "changes of the cluster were deleted"] {
        assert!(world.status().warnings.iter().any(|it| it.contains(words)), "{words}");
    }
    assert!(world.status().warnings.iter().any(|it| it.contains("`xlb cluster pull > FILE`, then")));
    let _answer = world.push(&two());
    assert_eq!(world.write().base, Revisions::default());
}

#[test]
fn an_etcd_that_is_another_or_was_restored_is_not_believed_until_a_push_confirms_it() {
    let older = |revision, etcd| Stored { etcd, ..stored(Some((revision, ONE)), None) };
    for other in [older(5, 1), older(9, 2)] {
        let mut world = member();
        world.stored(stored(Some((7, &two())), None));

        world.stored(other.clone());

        assert_eq!(world.names(), ["web-1", "web-2"]);
        let warnings = world.status().warnings;
        assert!(warnings.iter().any(|it| it.contains("is another cluster, or was restored")), "{warnings:?}");
        assert!(world.ask(patch("web/web-1", AdminState::Drain)).is_err());

        let pulled = world.ask(Request::ClusterDocument).unwrap().text;
        let mut answer = world.push(&pulled);
        world.written(Written::Stored { revision: Revision(10), etcd: other.etcd });
        assert!(answer.try_recv().unwrap().is_ok());
        assert_eq!((world.names(), world.host().report.refused.clone()), (vec!["web-1".to_owned()], None));
        assert_eq!(world.host().copy.etcd, Some(other.etcd));

        world.stored(Stored { etcd: other.etcd, ..stored(Some((11, &two())), None) });
        assert_eq!(world.names(), ["web-1", "web-2"]);
    }
}

/// A backup that is complete needs no confirmation.
#[test]
fn another_etcd_with_what_is_in_force_is_adopted() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));

    world.stored(Stored { etcd: 2, ..stored(Some((7, &two())), None) });

    assert_eq!((world.host().copy.etcd, world.host().report.refused.clone()), (Some(2), None));
}

#[test]
fn a_restart_and_a_reload_go_on_with_the_copy() {
    let mut world = member();
    world.stored(stored(Some((7, &two())), None));
    let spec = world.spec().services.clone();
    world.host().file = Ok(Spec { programs_at_once: 3, ..world.host().file.clone().unwrap() });

    world.ask(Request::Reload).unwrap();
    assert_eq!(world.spec().services, spec);

    world.absorb(Event::Cluster(News::Stored(stored(Some((7, &two())), None))));
    let shown = world.ask(Request::Cluster).unwrap();
    assert_eq!(shown.document.in_force, Some(Revision(7)));
    assert_eq!(shown.services_not_in_force, ["web"]);
}

/// A full disk does not keep a node from running what is stored.
#[test]
fn a_copy_that_cannot_be_saved_is_saved_later() {
    let mut world = member();
    world.host().is_full = true;
    world.stored(stored(Some((7, &two())), None));
    assert_eq!(world.names(), ["web-1", "web-2"]);
    assert!(world.status().warnings.iter().any(|it| it.contains("no space left")));

    world.host().is_full = false;
    let now = world.now();
    world.controller.retry_stored(now);

    assert_eq!(world.host().copy.document.as_ref().unwrap().revision, Revision(7));
    assert!(!world.status().warnings.iter().any(|it| it.contains("no space left")));
}

#[test]
fn a_node_without_a_cluster_says_so() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);

    assert_eq!(world.ask(Request::Cluster).unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(world.ask(Request::ClusterDocument).unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(world.push(ONE).try_recv().unwrap().unwrap_err().kind, ProblemKind::NotFound);
}

impl World {
    fn push(&mut self, text: &str) -> Answer<view::ClusterPushed> {
        self.push_based(text, None)
    }

    fn push_based(&mut self, text: &str, base: Option<u64>) -> Answer<view::ClusterPushed> {
        let (file, text, base) = ("new.toml".to_owned(), text.to_owned(), base.map(Revision));
        let push = view::ClusterPush { file, text, base };
        let answer = self.send(|reply| Request::Push { push, reply });
        self.turn();
        answer
    }

    fn write(&mut self) -> Write {
        self.host().writes.last().unwrap().clone()
    }

    fn stored(&mut self, stored: Stored) {
        self.absorb(Event::Cluster(News::Stored(stored)));
    }

    fn written(&mut self, written: Written) {
        self.absorb(Event::Cluster(News::Written(written)));
    }

    fn records(&mut self, nodes: Vec<NodeRecord>) {
        self.host().cluster = Some(Arc::new(Status { is_connected: true, nodes, ..Status::default() }));
    }

    fn names(&self) -> Vec<String> {
        self.spec().services[0].backends.iter().map(|it| it.name.clone()).collect()
    }
}

fn member() -> World {
    let cluster = Cluster {
        node: "lb-1".to_owned(),
        endpoints: Vec::new(),
        prefix: "/xlb".to_owned(),
        ca: None,
        identity: None,
    };
    let mut world = World::unprobed_of(Spec { cluster: Some(cluster), ..spec(vec![web(Protocol::Tcp)]) });
    world.host().cluster = Some(Arc::new(Status { is_connected: true, ..Status::default() }));
    world
}

fn two() -> String {
    format!("{ONE}[[service.backend]]\nname = 'web-2'\naddress = '10.0.0.12:8080'\n")
}

fn stored(document: Option<(u64, &str)>, changes: Option<(u64, &str)>) -> Stored {
    Stored {
        etcd: 1,
        document: document.map(|(it, text)| Document { revision: Revision(it), text: text.to_owned() }),
        changes: changes.map(|(it, json)| Changes { revision: Revision(it), json: json.to_owned() }),
    }
}

fn revisions(document: u64, changes: u64) -> Revisions {
    Revisions { document: Some(Revision(document)), changes: Some(Revision(changes)) }
}

/// What another node stores for a drain of this backend.
fn changes_of(world: &mut World, backend: &str) -> String {
    let patch = BackendPatch { admin_state: Some(AdminState::Drain), ..BackendPatch::default() };
    let mut overlay = Overlay::default();
    overlay.patch(&world.controller.intent.file, &name(backend), &patch).unwrap();
    String::from_utf8(crate::spec::store::encode(&overlay).unwrap()).unwrap()
}
