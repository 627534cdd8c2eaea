//! What is remembered of database clusters, on disk: terms, primaries and fences.
//!
//! A file that cannot be read is an error at start: without it, an old primary might be taken for the present one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    controller::roles::{ClusterId, Fence, Forced, Holder, RoleMemory, ServiceMemory},
    durable, limited_file,
};

const VERSION: u32 = 1;
const NAME: &str = "roles.json";
/// More than 16,384 services with the longest names and histories take.
const MAX_FILE: u64 = 32 * 1024 * 1024;
const CURE: &str = "move it away to start without the fences and the terms that it holds";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}: {CURE}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    why: String,
}

/// Read first: a file of another version has other fields.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    version: u32,
    clusters: Vec<ClusterRow>,
    services: Vec<ServiceRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterRow {
    /// In decimal. Not every JSON reader has integers of 64 bits.
    cluster: String,
    term: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceRow {
    service: String,
    cluster: Option<String>,
    primary: Option<Holder>,
    fence: Option<Fence>,
    forced: Option<Forced>,
}

/// Reads the file, if there is one.
pub fn load(directory: &Path) -> Result<RoleMemory, Unreadable> {
    let path = directory.join(NAME);
    let unreadable = |why: String| Unreadable { path: path.clone(), why };
    let bytes = limited_file::read_if_present(&path, MAX_FILE).map_err(|why| unreadable(why.to_string()))?;
    let Some(bytes) = bytes else { return Ok(RoleMemory::default()) };
    decode(&bytes).map_err(unreadable)
}

/// Writes the file durably.
pub fn save(directory: &Path, memory: &RoleMemory) -> Result<(), durable::Failure> {
    durable::write_json(directory, NAME, &encode(memory))
}

pub fn encode(memory: &RoleMemory) -> Stored {
    let cluster = |(id, term): (&ClusterId, &u32)| ClusterRow { cluster: id.0.to_string(), term: *term };
    let service = |(name, it): (&String, &ServiceMemory)| ServiceRow {
        service: name.clone(),
        cluster: it.cluster.map(|id| id.0.to_string()),
        primary: it.primary.clone(),
        fence: it.fence.clone(),
        forced: it.forced,
    };
    Stored {
        version: VERSION,
        clusters: memory.terms.iter().map(cluster).collect(),
        services: memory.services.iter().map(service).collect(),
    }
}

pub fn decode(bytes: &[u8]) -> Result<RoleMemory, String> {
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("format {version}, but this version of xlb reads {VERSION}"));
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let cluster = |text: &str| text.parse().map(ClusterId).map_err(|_| format!("`{text}` is not a cluster"));
    let terms = stored.clusters.iter().map(|row| Ok((cluster(&row.cluster)?, row.term)));
    let terms = terms.collect::<Result<BTreeMap<_, _>, String>>()?;
    let mut services = BTreeMap::new();
    for row in stored.services {
        let memory = ServiceMemory {
            cluster: row.cluster.as_deref().map(cluster).transpose()?,
            primary: row.primary,
            fence: row.fence,
            forced: row.forced,
        };
        services.insert(row.service, memory);
    }
    Ok(RoleMemory { terms, services })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let holder = Holder { address: "10.0.0.11:5432".parse().unwrap(), term: Some(3), history: None };
        let service = ServiceMemory {
            cluster: Some(ClusterId(u64::MAX)),
            primary: Some(holder.clone()),
            fence: Some(Fence { fenced: vec![holder.address], term: Some(3), since: 5 }),
            forced: Some(Forced { address: holder.address, term: None }),
        };
        let memory = RoleMemory {
            terms: [(ClusterId(u64::MAX), 3)].into(),
            services: [("db".to_owned(), service), ("other".to_owned(), ServiceMemory::default())].into(),
        };

        save(directory.path(), &memory).unwrap();

        assert_eq!(load(directory.path()).unwrap(), memory);
    }

    #[test]
    fn a_start_without_a_file_remembers_nothing_and_one_with_a_broken_file_fails() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), RoleMemory::default());

        fs::write(directory.path().join(NAME), r#"{"version": 2, "nodes": []}"#).unwrap();
        let newer = load(directory.path()).unwrap_err().to_string();
        assert!(newer.contains("format 2, but this version of xlb reads 1"), "{newer}");

        for broken in ["", "{}", r#"{"version": 2, "clusters": [], "services": []}"#, "{\"version\": 1}"] {
            fs::write(directory.path().join(NAME), broken).unwrap();

            let error = load(directory.path()).unwrap_err().to_string();

            assert!(error.contains("roles.json") && error.contains("move it away"), "{error}");
        }
    }
}
