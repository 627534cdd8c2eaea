//! `[cluster]`: where the nodes of a fleet keep the services that they have in common.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use hyper::Uri;
use tokio_rustls::rustls::pki_types::ServerName;
use toml::de::DeValue;

use super::group;
use crate::{
    document::{
        mistakes::{At, Report, Span},
        table::{Given, List, Table},
        value,
    },
    text::quote,
};

/// Members of etcd that a node may ask. Clusters have 3 to 7.
const MAX_ENDPOINTS: usize = 9;
/// The prefix is part of each key.
const MAX_PREFIX: usize = 200;
const DEFAULT_PREFIX: &str = "/xlb";

/// How this node reaches etcd, and what it calls itself there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The name of this node.
    pub node: String,
    /// 1 to 9, in the order of the file. All with TLS, or all without.
    pub endpoints: Vec<Endpoint>,
    /// What all keys of this fleet begin with. No slash at its end.
    pub prefix: String,
    /// The file of the CA that signs etcd's certificates. `None`: without TLS.
    pub ca: Option<PathBuf>,
    /// The files of this node's certificate chain and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// HTTPS?
    pub is_encrypted: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// 2379 by default, as in etcd.
    pub port: u16,
}

impl Endpoint {
    /// The host and port, as in a URL.
    pub fn authority(&self) -> String {
        let Self { is_encrypted: _, host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_encrypted { "https" } else { "http" }, self.authority())
    }
}

/// The keys as written.
pub struct Written {
    header: Span,
    node: Given<String>,
    endpoints: List<Endpoint>,
    prefix: Given<String>,
    ca: Given<PathBuf>,
    cert: Given<PathBuf>,
    key: Given<PathBuf>,
}

impl Written {
    pub fn read(mut table: Table<'_>) -> Self {
        let written = Self {
            header: table.span(),
            node: table.optional("node", group::node),
            endpoints: table.list("endpoints", endpoint),
            prefix: table.optional("prefix", prefix),
            ca: table.optional("ca", value::file_path),
            cert: table.optional("cert", value::file_path),
            key: table.optional("key", value::secret_path),
        };
        table.close();
        written
    }

    /// `in_group`: the name of this node in `[group]`. `host`: the name of this host.
    pub fn validate(self, in_group: Option<&str>, host: &str, report: &Report<'_>) -> Option<Cluster> {
        self.endpoints(report);
        self.files(report);
        let node = match (self.node, in_group) {
            (Given::Good(own), Some(group)) if own.value != group => {
                let message = format!("this node is `{group}` in [group]: leave `node` out here");
                report.add(own.span, message);
                None
            }
            (Given::Good(own), _) => Some(own.value),
            (Given::Wrong, _) => None,
            (Given::Absent, Some(group)) => Some(group.to_owned()),
            (Given::Absent, None) => report.take(self.header, group::node_of_host(host)),
        };
        Some(Cluster {
            node: node?,
            endpoints: self.endpoints.items.into_iter().map(|it| it.value).collect(),
            prefix: self.prefix.or(DEFAULT_PREFIX.to_owned()),
            ca: self.ca.value(),
            identity: self.cert.value().zip(self.key.value()),
        })
    }

    fn endpoints(&self, report: &Report<'_>) {
        let List { items, is_complete, span } = &self.endpoints;
        let place = span.unwrap_or(self.header);
        if items.is_empty() && *is_complete {
            let example = "endpoints = [\"https://10.0.0.21:2379\"]";
            report.add(place, format!("[cluster] needs at least one member of etcd, such as {example}"));
        }
        if let Some(one_too_many) = items.get(MAX_ENDPOINTS) {
            report.add(one_too_many.span, format!("at most {MAX_ENDPOINTS} endpoints"));
        }
        let mut seen = BTreeSet::new();
        for At { value, span } in items.iter().filter(|it| !seen.insert(&it.value)) {
            report.add(*span, format!("endpoint `{value}` is listed twice"));
        }
        if let [first, others @ ..] = &items[..]
            && let Some(other) = others.iter().find(|it| it.value.is_encrypted != first.value.is_encrypted)
        {
            report.add(other.span, "all endpoints must be https, or all http");
        }
    }

    /// The CA is needed for HTTPS: certificates of etcd are seldom signed by a public one.
    fn files(&self, report: &Report<'_>) {
        let Some(first) = self.endpoints.items.first() else { return };
        let keys = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        for (name, given) in keys {
            if let Some(it) = given.good().filter(|_| !first.value.is_encrypted) {
                report.add(it.span, format!("`{name}` needs endpoints with https"));
            }
        }
        if first.value.is_encrypted && matches!(self.ca, Given::Absent) {
            report.add(first.span, "https needs `ca`: the file of the CA that signs etcd's certificates");
        }
        for (name, given, other, missing) in
            [("cert", &self.cert, "key", &self.key), ("key", &self.key, "cert", &self.cert)]
        {
            if let (Some(it), Given::Absent) = (given.good(), missing) {
                report.add(it.span, format!("`{name}` needs the key `{other}`"));
            }
        }
    }
}

fn endpoint(value: &DeValue<'_>) -> Result<Endpoint, String> {
    let written = value::text(value)?;
    parse_endpoint(written).ok_or_else(|| {
        let expected = "expected a URL of etcd like `https://10.0.0.21:2379`";
        format!("{} is not an endpoint: {expected}", quote(written))
    })
}

fn parse_endpoint(written: &str) -> Option<Endpoint> {
    let url: Uri = written.parse().ok()?;
    let is_encrypted = match url.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = url.authority().filter(|it| !it.as_str().contains('@'))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    ServerName::try_from(host.as_str()).ok()?;
    let port = match authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, end)| end) {
        rest if rest.contains(':') => authority.port_u16().filter(|port| *port != 0)?,
        _ => 2379,
    };
    Some(Endpoint { is_encrypted, host, port })
}

fn prefix(value: &DeValue<'_>) -> Result<String, String> {
    let prefix = value::text(value)?;
    let is_good = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_path = prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains("//");
    if !is_path || !prefix.chars().all(is_good) || prefix.len() > MAX_PREFIX {
        return Err(format!(
            "{} is not a prefix of keys: expected one like `/xlb/edge`, of letters, digits, `.`, `_`, `-` and `/`",
            quote(prefix)
        ));
    }
    Ok(prefix.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn a_file_needs_no_services_and_those_of_the_cluster_replace_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xlb.toml");
        let file = "version = 1\n[[interface]]\nname = 'eth0'\n\
                    [cluster]\nnode = 'lb-1'\nendpoints = ['http://10.0.0.21']\n";
        std::fs::write(&path, file).unwrap();
        let source = spec::read_source(&path).unwrap();
        let with =
            |text: &str| source.parse_with(spec::Services { name: "revision 7", text }, &BTreeSet::new());
        let text = "version = 1\n[[service]]\nname = 'web'\nmode = 'nat'\nlisten = ['192.0.2.10:80']\n\
                    [[service.backend]]\nname = 'web-1'\naddress = '10.0.0.11:80'\n";

        assert!(source.parse(&BTreeSet::new()).unwrap().services.is_empty());
        let spec = with(text).unwrap();
        assert_eq!((spec.interfaces[0].name.as_str(), spec.services[0].name.as_str()), ("eth0", "web"));
        for (wrong, mistake) in [
            ("version = 1\n".to_owned(), "revision 7:1:1: no [[service]]"),
            (text.replace("10:80", "10:0"), "revision 7:5:11: `0` is not a port"),
            (format!("{text}[api]\n"), "revision 7:9:2: unknown key `api`"),
        ] {
            let mistakes = with(&wrong).unwrap_err().to_string();
            assert!(mistakes.starts_with(mistake), "{mistakes}");
        }
    }

    #[test]
    fn an_endpoint_is_a_url_without_a_path() {
        for (written, shown) in [
            ("https://10.0.0.21:2379", Some("https://10.0.0.21:2379")),
            ("http://Etcd-1.example.org", Some("http://etcd-1.example.org:2379")),
            ("https://[2001:db8::21]:2379/", Some("https://[2001:db8::21]:2379")),
            ("https://[2001:db8::21]", Some("https://[2001:db8::21]:2379")),
            ("10.0.0.21:2379", None),
            ("ftp://10.0.0.21", None),
            ("https://10.0.0.21:0", None),
            ("https://10.0.0.21:99999", None),
            ("https://10.0.0.21/v3", None),
            ("https://root:secret@10.0.0.21", None),
            ("https://a b", None),
            ("", None),
        ] {
            assert_eq!(parse_endpoint(written).map(|it| it.to_string()).as_deref(), shown, "{written}");
        }
    }
}
