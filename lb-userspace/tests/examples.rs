//! Every file in `examples/`, and every complete one in `docs/high-availability.md`, is a valid configuration, and the README
//! points to the directory.

#![expect(clippy::unwrap_used, reason = "a failed test reports by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use lb_common::service::Mode;
use lb_userspace::spec::{self, Spec};

#[test]
fn every_example_passes_xlb_check() {
    for path in examples() {
        if let Err(mistakes) = spec::read(&path, &BTreeSet::new()) {
            panic!("{mistakes}");
        }
    }
}

#[test]
fn every_example_gives_the_host_the_addresses_that_it_uses() {
    for path in examples() {
        let (spec, text) = (spec::read(&path, &BTreeSet::new()).unwrap(), fs::read_to_string(&path).unwrap());
        for address in addresses_of_the_host(&spec) {
            let command = format!("#   ip address add {address}/");
            assert!(text.contains(&command), "{}: no `{command}`", path.display());
        }
    }
}

#[test]
fn complete_files_of_several_nodes_pass_xlb_check() {
    let document = fs::read_to_string(top().join("docs/high-availability.md")).unwrap();
    let blocks = document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let complete = blocks.filter(|text| text.contains("[[interface]]") && text.contains("[[service]]"));

    let nodes: Vec<_> = complete
        .map(|text| spec::parse("xlb.toml", text).unwrap_or_else(|mistakes| panic!("{mistakes}")))
        .filter_map(|spec| spec.group.map(|group| group.node))
        .collect();

    assert_eq!(nodes, ["lb-1", "lb-2", "lb-1", "lb-2"]);
}

#[test]
fn the_readme_points_to_the_examples() {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();

    assert!(readme.contains("(examples/)"));
}

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(top().join("examples")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(
        paths.iter().all(|path| path.extension().is_some_and(|extension| extension == "toml")),
        "{paths:?}"
    );
    assert!(paths.len() >= 6, "{paths:?}");
    paths
}

fn addresses_of_the_host(spec: &Spec) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for service in &spec.services {
        addresses.extend(service.listen.iter().map(|listen| listen.ip()));
        if service.mode == Mode::FullNat {
            addresses.extend(&service.sources);
        }
    }
    addresses
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
