//! The task that reads etcd each second, writes what the controller decides, and describes this node to the others.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use log::{info, warn};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Changes, Document, News, NodeRecord, Report, Revision, Revisions, Status, Stored, Write, Written,
    client::{Client, Unanswered},
    wire::{KeyValue, Part, Step, TxnAnswer, has, txn},
};
use crate::{
    event::{Event, Reply, Request},
    spec::Cluster,
};

/// The time between two reads.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a node is listed that says nothing.
const LEASE: Duration = Duration::from_secs(15);
/// The time between two renewals.
const RENEWAL: Duration = Duration::from_secs(5);
/// The time for the controller to say whether all services are ready.
const ANSWER: Duration = Duration::from_secs(1);
/// Writes in the queue: the controller has one at a time.
pub const WRITES: usize = 1;

/// Its connections to the rest of the daemon.
#[derive(Debug)]
pub struct Ports {
    pub events: mpsc::Sender<Event>,
    pub writes: mpsc::Receiver<Write>,
    pub report: watch::Receiver<Report>,
    pub status: watch::Sender<Arc<Status>>,
}

/// The keys of a fleet.
#[derive(Clone, Debug)]
struct Keys {
    document: String,
    changes: String,
    /// What the keys of the nodes begin with.
    nodes: String,
}

impl Keys {
    fn of(prefix: &str) -> Self {
        let key = |end: &str| format!("{prefix}/{end}");
        Self { document: key("document"), changes: key("changes"), nodes: key("nodes/") }
    }
}

struct Exchange {
    client: Client,
    keys: Keys,
    node: String,
    ports: Ports,
    /// What the controller was told last. `None`: nothing since the connection began. Another etcd may be there by then,
    /// with the same revisions.
    told: Option<(u64, Revisions)>,
    status: Status,
    lease: Option<Lease>,
    /// What etcd has of this node.
    recorded: Option<NodeRecord>,
    /// Why it has not. Logged when it changes.
    record_failure: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: u64,
    renewed: Instant,
}

/// Runs until `stop`.
pub async fn run(cluster: Cluster, ports: Ports, stop: CancellationToken) {
    let mut exchange = Exchange {
        keys: Keys::of(&cluster.prefix),
        node: cluster.node.clone(),
        client: Client::new(cluster),
        ports,
        told: None,
        status: Status { since: SystemTime::now(), ..Status::default() },
        lease: None,
        recorded: None,
        record_failure: None,
    };
    tokio::select! {
        () = exchange.rounds() => {}
        () = stop.cancelled() => {}
    }
}

impl Exchange {
    /// Ends when the controller has ended.
    async fn rounds(&mut self) {
        let mut round = interval(INTERVAL);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let news = tokio::select! {
                write = self.ports.writes.recv() => match write {
                    Some(write) => Some(News::Written(self.write(write).await)),
                    None => return,
                },
                _ = round.tick() => self.look().await.map(News::Stored),
            };
            self.ports.status.send_replace(Arc::new(self.status.clone()));
            if let Some(news) = news
                && self.ports.events.send(Event::Cluster(news)).await.is_err()
            {
                return;
            }
            if self.status.is_connected {
                self.keep_record().await;
            }
        }
    }

    /// Reads what is stored, and returns it if the controller has not been told of it.
    async fn look(&mut self) -> Option<Stored> {
        match self.read().await {
            Ok(news) => {
                self.connected();
                news
            }
            Err(unanswered) => {
                self.disconnected(unanswered.why);
                None
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Stored>, Unanswered> {
        let Keys { document, changes, nodes } = &self.keys;
        let steps = [Step::get(document, Part::Keys), Step::get(changes, Part::Keys), Step::get_all(nodes)];
        let answer = self.client.txn(&txn(&[], &steps, &[])).await?;
        let etcd = answer.cluster_id();
        let [document, changes, nodes] = answer.ranges().map_err(Unanswered::unclear)?;
        let revision = |found: &[KeyValue]| found.first().map(KeyValue::revision);
        let revisions = Revisions { document: revision(&document), changes: revision(&changes) };
        self.status.nodes = nodes_of(&nodes, &self.keys.nodes);
        self.look_for_a_double(&nodes);
        if self.told == Some((etcd, revisions)) {
            return Ok(None);
        }
        let answer = self.client.txn(&txn(&[], &self.both(), &[])).await?;
        let stored = stored(answer).map_err(Unanswered::unclear)?;
        self.told = Some((stored.etcd, stored.revisions()));
        Ok(Some(stored))
    }

    /// The record of this node ends with the lease of this daemon, unless another one has written it.
    fn look_for_a_double(&mut self, nodes: &[KeyValue]) {
        let key = format!("{}{}", self.keys.nodes, self.node);
        let lease = nodes.iter().find(|it| it.key == key.as_bytes()).map(|it| it.lease);
        let own = self.lease.map(|it| it.id);
        let has_a_double = self.recorded.is_some() && own.is_some() && lease.is_some() && lease != own;
        if has_a_double && !self.status.has_a_double {
            warn!("another node of the cluster is named {}, too: set `node` in its [cluster]", self.node);
        }
        self.status.has_a_double = has_a_double;
    }

    fn both(&self) -> [Step; 2] {
        [Step::get(&self.keys.document, Part::All), Step::get(&self.keys.changes, Part::All)]
    }

    async fn write(&mut self, write: Write) -> Written {
        let Keys { document, changes, nodes: _ } = &self.keys;
        let conditions = [has(document, write.base.document), has(changes, write.base.changes)];
        let puts: Vec<_> = [(document, &write.document), (changes, &write.changes)]
            .into_iter()
            .filter_map(|(key, value)| Some(Step::put(key, value.as_deref()?)))
            .collect();
        let answer = match self.client.patient_txn(&txn(&conditions, &puts, &self.both())).await {
            Ok(answer) => answer,
            Err(unanswered) => return self.unwritten(unanswered),
        };
        self.connected();
        let (etcd, revision) = (answer.cluster_id(), answer.revision());
        if answer.succeeded {
            self.told = Some((etcd, write.stored_at(revision)));
            return Written::Stored { revision, etcd };
        }
        let stored = match stored(answer) {
            Ok(stored) => stored,
            Err(why) => return self.unwritten(Unanswered::unclear(why)),
        };
        self.told = Some((etcd, stored.revisions()));
        match write.is_done(&stored) {
            Some(revision) => Written::Stored { revision, etcd },
            None => Written::Outdated(stored),
        }
    }

    fn unwritten(&mut self, Unanswered { why, may_be_done, is_refused }: Unanswered) -> Written {
        if !is_refused {
            self.disconnected(why.clone());
        }
        match (may_be_done, is_refused) {
            (true, _) => Written::Unknown(why),
            (false, true) => Written::Refused(why),
            (false, false) => Written::Failed(why),
        }
    }

    fn connected(&mut self) {
        if !self.status.is_connected {
            (self.status.is_connected, self.status.since) = (true, SystemTime::now());
            self.status.failure = None;
            info!("connected to etcd");
        }
        self.status.endpoint = self.client.endpoint().map(ToString::to_string);
    }

    fn disconnected(&mut self, why: String) {
        if self.status.is_connected || self.status.failure.is_none() {
            (self.status.is_connected, self.status.since) = (false, SystemTime::now());
            warn!(
                "etcd cannot be reached, or has no majority: {why}; what is in force stays so, commands are refused"
            );
        }
        self.status.failure = Some(why);
        self.told = None;
    }

    /// Describes this node to the others.
    async fn keep_record(&mut self) {
        let failure = self.try_to_keep_record().await.err().map(|it| it.why);
        if let Some(why) = failure.as_ref().filter(|_| self.record_failure != failure) {
            warn!("cannot describe this node in etcd: {why}");
        }
        self.record_failure = failure;
    }

    async fn try_to_keep_record(&mut self) -> Result<(), Unanswered> {
        let record = self.record().await;
        let lease = self.renewed_lease().await?;
        let is_there = self.status.nodes.contains(&record);
        if is_there && self.recorded.as_ref() == Some(&record) {
            return Ok(());
        }
        let value = serde_json::to_string(&record).map_err(|error| Unanswered::unclear(error.to_string()))?;
        let put = Step::put_leased(&format!("{}{}", self.keys.nodes, self.node), &value, lease);
        self.client.txn(&txn(&[], &[put], &[])).await?;
        self.recorded = Some(record);
        Ok(())
    }

    async fn record(&self) -> NodeRecord {
        let unready = self.unready().await;
        let Report { revisions, refused } = self.ports.report.borrow().clone();
        let reasons = NodeRecord::limited(refused.into_iter().chain(unready));
        NodeRecord {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            document: revisions.document,
            changes: revisions.changes,
            healthy: reasons.is_empty(),
            reasons,
        }
    }

    async fn unready(&self) -> Vec<String> {
        let (reply, answer) = Reply::channel();
        let request = Event::Request(Request::Readiness { service: None, reply });
        let asking = async {
            self.ports.events.send(request).await.ok()?;
            answer.await.ok()?.ok()
        };
        let silent = || vec!["the daemon is busy".to_owned()];
        timeout(ANSWER, asking).await.ok().flatten().unwrap_or_else(silent)
    }

    /// A lease that has been renewed lately.
    async fn renewed_lease(&mut self) -> Result<u64, Unanswered> {
        if let Some(lease) = self.lease.filter(|it| it.renewed.elapsed() < RENEWAL) {
            return Ok(lease.id);
        }
        let renewed = match self.lease.take() {
            Some(lease) => Some(self.client.renew(lease.id).await?).filter(|it| it.ttl > 0),
            None => None,
        };
        let lease = match renewed {
            Some(renewed) => renewed,
            None => {
                self.recorded = None;
                self.client.grant(LEASE).await?
            }
        };
        self.lease = Some(Lease { id: lease.id, renewed: Instant::now() });
        Ok(lease.id)
    }
}

impl Write {
    /// What is stored after it.
    pub fn stored_at(&self, revision: Revision) -> Revisions {
        Revisions {
            document: self.document.as_ref().map(|_| revision).or(self.base.document),
            changes: self.changes.as_ref().map(|_| revision).or(self.base.changes),
        }
    }

    /// An answer may have been lost, and the request sent again: then its conditions do not hold, because it was done.
    fn is_done(&self, stored: &Stored) -> Option<Revision> {
        let (document, changes) = (stored.document.as_ref(), stored.changes.as_ref());
        let has_document = self.document.is_none() || self.document.as_ref() == document.map(|it| &it.text);
        let has_changes = self.changes.is_none() || self.changes.as_ref() == changes.map(|it| &it.json);
        let now = stored.revisions();
        let revision = if self.document.is_some() { now.document } else { now.changes }?;
        (has_document && has_changes && now == self.stored_at(revision)).then_some(revision)
    }
}

/// The keys that [`Exchange::both`] reads.
pub fn stored(answer: TxnAnswer) -> Result<Stored, String> {
    let etcd = answer.cluster_id();
    let [document, changes] = answer.ranges()?.map(|found| found.into_iter().next());
    let text = |it: &KeyValue| String::from_utf8_lossy(&it.value).into_owned();
    Ok(Stored {
        etcd,
        document: document.map(|it| Document { revision: it.revision(), text: text(&it) }),
        changes: changes.map(|it| Changes { revision: it.revision(), json: text(&it) }),
    })
}

/// Records that cannot be read are those of other versions: their nodes are listed without details.
fn nodes_of(found: &[KeyValue], prefix: &str) -> Vec<NodeRecord> {
    let node = |it: &KeyValue| {
        let node = String::from_utf8_lossy(it.key.get(prefix.len()..)?).into_owned();
        let record = serde_json::from_slice::<NodeRecord>(&it.value);
        Some(match record {
            Ok(record) => NodeRecord { node, ..record },
            Err(error) => NodeRecord {
                node,
                version: "unknown".to_owned(),
                document: None,
                changes: None,
                healthy: false,
                reasons: vec![format!("its record cannot be read: {error}")],
            },
        })
    };
    found.iter().filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_done_although_its_answer_was_lost_is_found() {
        let document =
            |revision, text: &str| Some(Document { revision: Revision(revision), text: text.to_owned() });
        let changes =
            |revision, json: &str| Some(Changes { revision: Revision(revision), json: json.to_owned() });
        let base = Revisions { document: Some(Revision(3)), changes: Some(Revision(4)) };
        let drain = Write { base, document: None, changes: Some("drain".to_owned()) };
        let push = Write { base, document: Some("web".to_owned()), changes: Some("drain".to_owned()) };
        let cases = [
            (&drain, document(3, "old"), changes(5, "drain"), Some(Revision(5))),
            (&drain, document(3, "old"), changes(5, "maint"), None),
            (&drain, document(6, "new"), changes(5, "drain"), None),
            (&drain, document(3, "old"), None, None),
            (&push, document(5, "web"), changes(5, "drain"), Some(Revision(5))),
            (&push, document(5, "web"), changes(6, "drain"), None),
            (&push, document(5, "other"), changes(5, "drain"), None),
        ];
        for (write, document, changes, done) in cases {
            let stored = Stored { document, changes, etcd: 1 };

            assert_eq!(write.is_done(&stored), done, "{stored:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_that_of_a_node() {
        let record = |key: &str, value: &str| KeyValue {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            ..KeyValue::default()
        };
        let good = r#"{"version":"0.2.0","document":3,"changes":null,"healthy":true,"reasons":[]}"#;

        let nodes =
            nodes_of(&[record("/xlb/nodes/lb-1", good), record("/xlb/nodes/lb-2", "{}")], "/xlb/nodes/");

        assert_eq!([nodes[0].node.as_str(), nodes[1].node.as_str()], ["lb-1", "lb-2"]);
        assert_eq!((nodes[0].healthy, nodes[0].document), (true, Some(Revision(3))));
        assert!(!nodes[1].healthy && nodes[1].reasons[0].contains("cannot be read"), "{nodes:?}");
    }
}
