//! Requests to etcd's JSON gateway, and its answers. Keys and values are in base64, and integers of 64 bits are strings
//! (proto3 JSON), of which absent ones are zero.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Value, json};

use super::Revision;

/// A key and its value, as etcd has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// The whole key.
    #[serde(deserialize_with = "base64")]
    pub key: Vec<u8>,
    /// Empty if only keys were asked for.
    #[serde(deserialize_with = "base64")]
    pub value: Vec<u8>,
    /// When it was changed last.
    #[serde(deserialize_with = "number")]
    pub mod_revision: u64,
    /// With which it ends. 0: it stays.
    #[serde(deserialize_with = "number")]
    pub lease: u64,
}

impl KeyValue {
    /// When it was changed last.
    pub fn revision(&self) -> Revision {
        Revision(self.mod_revision)
    }
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TxnAnswer {
    header: Header,
    /// The comparisons held.
    #[serde(default)]
    pub succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

impl TxnAnswer {
    /// Of the store, after it.
    pub fn revision(&self) -> Revision {
        Revision(self.header.revision)
    }

    /// Of the etcd that answered.
    pub fn cluster_id(&self) -> u64 {
        self.header.cluster_id
    }

    /// What was found, for each range in the order of the request. `N`: how many it has. If one lacked, its keys would
    /// count as deleted.
    pub fn ranges<const N: usize>(self) -> Result<[Vec<KeyValue>; N], String> {
        let found = self.responses.into_iter().filter_map(|it| Some(it.response_range?.kvs));
        <[_; N]>::try_from(found.collect::<Vec<_>>())
            .map_err(|found| format!("an answer that is not etcd's: {} ranges instead of {N}", found.len()))
    }
}

/// The answer to the grant or the renewal of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LeaseAnswer {
    /// Its id.
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: u64,
    /// Seconds that are left. 0: it has ended.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub ttl: u64,
}

/// The gateway wraps the answers of streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Streamed {
    /// The answer.
    pub result: LeaseAnswer,
}

/// What an answer says of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// For people.
    pub error: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Header {
    #[serde(deserialize_with = "number", default)]
    cluster_id: u64,
    /// No etcd is without one.
    #[serde(deserialize_with = "number")]
    revision: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Response {
    response_range: Option<Range>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Range {
    kvs: Vec<KeyValue>,
}

/// What a read returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Keys and revisions.
    Keys,
    /// Values, too.
    All,
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Step(Value);

impl Step {
    /// Reads one key.
    pub fn get(key: &str, part: Part) -> Self {
        Self(json!({ "request_range": { "key": encoded(key), "keys_only": part == Part::Keys } }))
    }

    /// Reads all keys that begin with this.
    pub fn get_all(prefix: &str) -> Self {
        // The first key after all of them.
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self(json!({ "request_range": { "key": encoded(prefix), "range_end": encoded(end) } }))
    }

    /// Writes a key.
    pub fn put(key: &str, value: &str) -> Self {
        Self(json!({ "request_put": { "key": encoded(key), "value": encoded(value) } }))
    }

    /// Writes a key that ends with a lease.
    pub fn put_leased(key: &str, value: &str, lease: u64) -> Self {
        let lease = lease.to_string();
        Self(json!({ "request_put": { "key": encoded(key), "value": encoded(value), "lease": lease } }))
    }
}

/// A condition: the key has this revision, or does not exist.
pub fn has(key: &str, revision: Option<Revision>) -> Value {
    let revision = revision.map_or(0, |it| it.0).to_string();
    json!({ "key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision })
}

/// A transaction.
pub fn txn(conditions: &[Value], success: &[Step], failure: &[Step]) -> Value {
    json!({ "compare": conditions, "success": success, "failure": failure })
}

/// Reads an answer.
pub fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("an answer that is not etcd's: {error}"))
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(D::Error::custom)
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_etcd_is_read() {
        let body = br#"{"header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437",
            "revision":"7","raft_term":"2"},"succeeded":true,"responses":[
            {"response_put":{"header":{"revision":"7"}}},
            {"response_range":{"header":{"revision":"7"},"kvs":[{"key":"L2E=","create_revision":"2",
            "mod_revision":"5","version":"3","value":"Yg==","lease":"7587855761"}],"count":"1"}},
            {"response_range":{"header":{"revision":"7"}}}]}"#;

        let answer: TxnAnswer = parse(body).unwrap();

        assert!(answer.succeeded);
        assert_eq!(answer.revision(), Revision(7));
        let found =
            KeyValue { key: b"/a".to_vec(), value: b"b".to_vec(), mod_revision: 5, lease: 7_587_855_761 };
        assert_eq!(answer.cluster_id(), 14_841_639_068_965_178_418);
        assert!(answer.clone().ranges::<3>().is_err());
        assert_eq!(answer.ranges(), Ok([vec![found], vec![]]));
    }

    #[test]
    fn all_keys_with_a_prefix_end_before_the_next_one() {
        let Step(step) = Step::get_all("/xlb/nodes/");

        let text = |key: &str| STANDARD.decode(step["request_range"][key].as_str().unwrap()).unwrap();
        assert_eq!((text("key"), text("range_end")), (b"/xlb/nodes/".to_vec(), b"/xlb/nodes0".to_vec()));
    }

    #[test]
    fn what_is_not_an_answer_is_an_error() {
        for body in [
            "",
            "{}",
            "{\"header\":{}}",
            "{\"header\":{\"revision\":\"-1\"}}",
            "{\"header\":{\"revision\":\"1\"},\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"?\"}]}}]}",
        ] {
            assert!(parse::<TxnAnswer>(body.as_bytes()).is_err(), "{body}");
        }
    }
}
