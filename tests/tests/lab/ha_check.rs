//! `xlb ha check` on both nodes of a pair: it finds nothing, then each thing that is broken.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use serde_json::Value;
use tests::lab::{
    Config, Lab,
    daemon::binary,
    eventually,
    nodes::{Node, Nodes},
};

/// In which nodes connect again, and have told each other all flows.
const SHARED: Duration = Duration::from_secs(20);

#[test]
fn a_sound_pair_has_no_findings_and_each_fault_is_found() -> Result<()> {
    let lab = Nodes::network("hacheck", Mode::FullNat)?;
    let _web = lab.web_servers()?;
    let (key, other_key) = (hash_key(&lab, "one.key", "1")?, hash_key(&lab, "two.key", "2")?);
    let mut config = Config { key_file: Some(key.clone()), ..Config::web(&lab, Mode::FullNat) };
    config.services[0].scheduler = Some("maglev");
    let mut both = Nodes::start(lab, &config)?;
    let [one, two] = &both.nodes[..] else { unreachable!("a pair") };
    finds(one, &[])?;
    finds(two, &[])?;

    one.namespace.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    finds(one, &["rp_filter"])?;
    finds(two, &[])?;
    one.namespace.sysctl("net.ipv4.conf.all.rp_filter", "0")?;

    two.namespace.ip("address add 10.0.0.1/32 dev lo\n")?;
    finds(two, &["arp"])?;
    two.namespace.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    two.namespace.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
    finds(two, &[])?;
    two.namespace.ip("address del 10.0.0.1/32 dev lo\n")?;

    let file = fs::read_to_string(two.xlb.config_path())?;
    let path = |key: &PathBuf| key.display().to_string();
    reload(two, &file.replace(&path(&key), &path(&other_key)))?;
    finds(one, &["hash_key"])?;
    finds(two, &["hash_key"])?;
    reload(two, &file.replace("maglev", "source-hash"))?;
    finds(one, &["services"])?;
    finds(two, &["services"])?;
    reload(two, &file)?;
    finds(one, &[])?;

    two.xlb.run(&["ha", "drain", "--wait", "10s"])?;
    finds(two, &["drain"])?;
    both.nodes[1].xlb.kill()?;
    finds(&both.nodes[1], &["daemon"])?;
    finds(&both.nodes[0], &["peers"])
}

/// Waits until these checks, and no others, find something. The exit code says whether there is anything.
fn finds(node: &Node, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|&check| check.to_owned()).collect();
    let mut last = (0, Vec::new());
    let what = format!("{} finds {expected:?}", node.name);
    let waited = eventually(SHARED, &what, || {
        last = check(node)?;
        let names = last.1.iter().filter_map(|it| it["check"].as_str().map(str::to_owned));
        Ok(names.collect::<BTreeSet<_>>() == expected)
    });
    waited.with_context(|| format!("{last:?}"))?;
    last.1.iter().for_each(|finding| eprintln!("{}: {finding}", node.name));
    // A configuration of keepalived that this machine has is not the one that the lab uses.
    ensure!(last.0 == i32::from(!expected.is_empty()) || has_keepalived(), "exit code {}", last.0);
    Ok(())
}

/// The exit code, and the findings.
fn check(node: &Node) -> Result<(i32, Vec<Value>)> {
    let (program, config) = (binary()?.display().to_string(), node.xlb.config_path());
    let socket = config.with_file_name("xlb.sock").display().to_string();
    let config = config.display().to_string();
    let words = [&program, "--socket", &socket, "ha", "check", &config, "-o", "json"];
    let output = node.namespace.output(&words)?;
    let lines: Vec<Value> = serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
    let is_finding = |it: &Value| it["level"] != "ok" && it["check"] != "keepalived";
    Ok((output.code, lines.into_iter().filter(is_finding).collect()))
}

fn has_keepalived() -> bool {
    fs::exists("/etc/keepalived/keepalived.conf").unwrap_or_default()
}

fn reload(node: &Node, file: &str) -> Result<()> {
    fs::write(node.xlb.config_path(), file)?;
    node.xlb.run(&["reload"]).map(drop)
}

fn hash_key(lab: &Lab, name: &str, digit: &str) -> Result<PathBuf> {
    let path = lab.directory().join(name);
    fs::write(&path, digit.repeat(96))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(path)
}
