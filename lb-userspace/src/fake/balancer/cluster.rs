//! Three nodes: the second is behind, the third cannot run what is stored.

use std::path::Path;

use crate::{
    cluster::Revision,
    problem::{Problem, ProblemKind},
    view::{Cluster, ClusterDocument, ClusterNode, ClusterPart, ClusterPush, ClusterPushed},
};

pub fn cluster() -> Cluster {
    let node = |node: &str, document: u64, reasons: &[&str]| ClusterNode {
        node: node.to_owned(),
        version: "0.2.0".to_owned(),
        document: Some(Revision(document)),
        changes: Some(Revision(14)),
        current: document == 12,
        healthy: reasons.is_empty(),
        reasons: reasons.iter().map(|it| (*it).to_owned()).collect(),
    };
    Cluster {
        node: "lb-1".to_owned(),
        connected: true,
        since_seconds: 3_725,
        failure: None,
        endpoint: Some("https://10.0.0.21:2379".to_owned()),
        document: ClusterPart { in_force: Some(Revision(12)), stored: Some(Revision(12)) },
        changes: ClusterPart { in_force: Some(Revision(14)), stored: Some(Revision(14)) },
        stored_by: Some("lb-2".to_owned()),
        stored_seconds_ago: Some(90),
        refused: None,
        services_not_in_force: vec!["mail".to_owned()],
        nodes: vec![
            node("lb-1", 12, &[]),
            node("lb-2", 9, &[]),
            node("lb-3", 9, &["cluster revision 12 has errors and was not applied\u{1b}[2J"]),
        ],
    }
}

pub fn document() -> ClusterDocument {
    let text = "# xlb cluster: revision 12, stored by lb-2\nversion = 1\n\n[[service]]\nname = \"web\"\n";
    ClusterDocument { revision: Revision(12), text: text.to_owned(), connected: false }
}

/// A text that names an older revision is refused.
pub fn push(push: &ClusterPush) -> Result<ClusterPushed, Problem> {
    let name = Path::new(&push.file).file_name().unwrap_or_default();
    if push.text.contains("revision 9") {
        let detail = "the cluster has revision 12, stored by lb-2 90s ago, and outdated.toml is based on revision 9: print the \
                      former with `xlb cluster pull > FILE`, add your changes, and push that; or push outdated.toml with \
                      `--base 12` to replace it";
        return Err(Problem::new(ProblemKind::Conflict, detail));
    }
    let changes = vec![format!("web/web-4: added by {}", name.display())];
    Ok(ClusterPushed {
        revision: Revision(15),
        first_line: "# xlb cluster: revision 15, stored by lb-1".to_owned(),
        changes,
        warnings: Vec::new(),
    })
}
