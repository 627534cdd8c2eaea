//! Digests of services and of the hash key, by which nodes notice that their files differ.
//!
//! That of a service covers what decides where a flow goes, and nothing else, such as health checks or the names of
//! backends. It is the same in all versions: a field that is added later is added to the text only if it has another value
//! than its default.

use std::fmt::{Display, Write as _};

use ring::digest::{SHA256, digest as hash};

use crate::{
    hash_key::HashKey,
    named::Named as _,
    spec::{Backend, Service},
};

/// Equal if the services are.
pub fn digest(service: &Service) -> u64 {
    first(text(service).as_bytes())
}

/// Equal if the keys are; nothing of the key follows from it. 0: there is no key.
pub fn of_key(key: &HashKey) -> u64 {
    if *key == HashKey::default() {
        return 0;
    }
    let words = key.words().iter().flat_map(|word| word.to_be_bytes());
    first(&b"hash key ".iter().copied().chain(words).collect::<Vec<_>>())
}

/// Equal if nodes compute the same backends for the flows of a service. Never 0. `service`, `key`: their digests.
pub fn of_computation(service: u64, key: u64) -> u64 {
    // The number is that of the way in which slots are filled and chosen.
    first(format!("computation 1 {service:016x} {key:016x}").as_bytes()).max(1)
}

fn first(bytes: &[u8]) -> u64 {
    hash(&SHA256, bytes).as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// One line for each value. No value has a line end.
fn text(service: &Service) -> String {
    let mut lines = Lines(String::new());
    lines.add("service", &service.name);
    lines.add("protocol", &service.protocol.name());
    lines.add("mode", &service.mode.name());
    lines.add("scheduler", &service.scheduler.name());
    lines.add_sorted("listen", &service.listen);
    lines.add_sorted("source", &service.all_sources().collect::<Vec<_>>());
    let mut backends: Vec<_> = service.backends.iter().collect();
    // Turns begin with the first one, and its place does not matter to the others.
    backends.sort_by_key(|backend| backend.address);
    for Backend { name: _, address, weight, backup, max_flows } in backends {
        lines.add("backend", address);
        lines.add("weight", weight);
        lines.add("backup", backup);
        lines.add("max_flows", max_flows);
    }
    lines.0
}

struct Lines(String);

impl Lines {
    fn add(&mut self, key: &str, value: &dyn Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{key} {value}");
    }

    /// For lists whose order has no meaning.
    fn add_sorted<T: Display + Ord>(&mut self, key: &str, values: &[T]) {
        let mut values: Vec<_> = values.iter().collect();
        values.sort();
        for value in values {
            self.add(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    const FILE: &str = r#"
version = 1
[[interface]]
name = "eth0"
[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
source = ["10.0.0.1", "fd00::1"]
scheduler = "maglev"
[[service.backend]]
name = "web-1"
address = "10.0.0.11:8080"
[[service.backend]]
name = "web-2"
address = "10.0.0.12:8080"
weight = 50
backup = true
max_flows = 7
[[service.backend]]
name = "web-3"
address = "[fd00::11]:8080"
"#;

    #[test]
    fn the_digest_of_a_service_never_changes() {
        let golden = "service web\nprotocol tcp\nmode full-nat\nscheduler maglev\n\
            listen 192.0.2.10:80\nlisten [2001:db8::10]:80\nsource 10.0.0.1\nsource fd00::1\n\
            backend 10.0.0.11:8080\nweight 100\nbackup false\nmax_flows 0\n\
            backend 10.0.0.12:8080\nweight 50\nbackup true\nmax_flows 7\n\
            backend [fd00::11]:8080\nweight 100\nbackup false\nmax_flows 0\n";

        assert_eq!(text(&service(FILE)), golden);
        assert_eq!(digest(&service(FILE)), 0xd317_b6bf_72dd_425e);
    }

    #[test]
    fn what_decides_where_a_flow_goes_changes_it_and_nothing_else_does() {
        let before = digest(&service(FILE));
        let with = |from: &str, to: &str| digest(&service(&FILE.replacen(from, to, 1)));

        for (from, to) in [
            ("\"web\"", "\"www\""),
            ("10:80", "10:81"),
            ("10.0.0.1\"", "10.0.0.2\""),
            ("maglev", "source-hash"),
            ("10.0.0.11:8080", "10.0.0.11:8081"),
            ("weight = 50", "weight = 51"),
            ("backup = true", "backup = false"),
            ("max_flows = 7", "max_flows = 8"),
            ("source = [\"10.0.0.1\", \"fd00::1\"]", "mode = \"nat\""),
        ] {
            assert_ne!(with(from, to), before, "{to}");
        }
        for (from, to) in [
            ("\"web-1\"", "\"web-9\""),
            ("scheduler", "quorum = 2\nreject = \"drop\"\nscheduler"),
            ("[[service.backend]]", "[service.health]\ntype = \"http\"\n[[service.backend]]"),
            ("\"192.0.2.10:80\", \"[2001:db8::10]:80\"", "\"[2001:db8::10]:80\", \"192.0.2.10:80\""),
        ] {
            assert_eq!(with(from, to), before, "{to}");
        }
    }

    #[test]
    fn it_does_not_matter_which_node_a_source_belongs_to() {
        let mut here = service(FILE);
        let mut there = here.clone();
        (here.sources, here.peer_sources) = (vec![ip("10.0.0.1")], vec![ip("10.0.0.2")]);
        (there.sources, there.peer_sources) = (vec![ip("10.0.0.2")], vec![ip("10.0.0.1")]);
        assert_eq!(digest(&here), digest(&there));
    }

    #[test]
    fn the_digest_of_a_key_never_changes() {
        assert_eq!(of_key(&HashKey::new([1, 2, 3, 4, 5, 6])), 0x4c55_c8fd_8f08_9e2f);
        assert_ne!(of_key(&HashKey::new([1, 2, 3, 4, 5, 7])), of_key(&HashKey::new([1, 2, 3, 4, 5, 6])));
        assert_eq!(of_key(&HashKey::default()), 0);
    }

    #[test]
    fn a_computation_is_that_of_a_service_and_a_key_and_never_changes() {
        assert_eq!(of_computation(1, 2), 0xa553_75b1_7104_313b);
        assert_ne!(of_computation(1, 3), of_computation(1, 2));
        assert_ne!(of_computation(3, 2), of_computation(1, 2));
    }

    fn ip(text: &str) -> std::net::IpAddr {
        text.parse().unwrap()
    }

    fn service(text: &str) -> Service {
        (*spec::parse("xlb.toml", text).unwrap().services[0]).clone()
    }
}
