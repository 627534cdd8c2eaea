//! Two nodes with one configuration in etcd, of which members die.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use serde_json::Value;
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address, command::Output, etcd::Etcd, eventually, link,
};

/// Time for a change to reach another node, and for etcd to elect a leader.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn two_nodes_run_what_is_stored_and_go_on_without_etcd() -> Result<()> {
    let lab = Lab::build(&Topology::new("cluster", Shape::Pair))?;
    let _web = lab.web_servers()?;
    let mut etcd = Etcd::start(&lab)?;
    let (mut one, two) = start(&lab, &etcd)?;
    wait_until_connected(&one, true)?;

    shares_services_and_changes(&lab, &one, &two)?;
    refuses_what_is_outdated_or_wrong(&lab, &one, &two)?;

    etcd.kill(0)?;
    two.run(&["backend", "ready", "web/web-1"])?;
    wait_until_admin_state(&one, "web-1", "ready")?;

    etcd.kill(1)?;
    goes_on_without_a_majority(&lab, &mut one, &two)?;
    etcd.start_again(&lab, 1)?;
    wait_until_connected(&one, true)?;
    wait_until_connected(&two, true)?;

    resumes_after_a_cut(&lab, &one, &two)
}

/// The first node has the addresses. The second one has no services of its own.
fn start(lab: &Lab, etcd: &Etcd) -> Result<(Daemon, Daemon)> {
    let other = lab.others.first().context("a lab without a second balancer")?;
    link::address((&lab.xlb, "eth0"), address::SERVICE)?;
    link::address((&lab.xlb, "eth1"), address::SOURCE)?;
    let cluster = |node: &str| etcd.cluster(lab, node).map(Some);
    let first = Config { cluster: cluster("lb-1")?, ..Config::web(lab, Mode::FullNat) };
    let second = Config { cluster: cluster("lb-2")?, ..Config::new(lab) };
    Ok((lab.start(&first)?, lab.start_another(other, &second)?))
}

fn shares_services_and_changes(lab: &Lab, one: &Daemon, two: &Daemon) -> Result<()> {
    assert_eq!(two.json(&["service", "list"])?, Value::Array(Vec::new()));

    let early = one.output(&["backend", "drain", "web/web-1"])?;
    assert!(early.code == 5 && early.stderr.contains("xlb cluster push FILE"), "{early:?}");

    let config = lab.config_path().display().to_string();
    one.run(&["cluster", "push", &config])?;
    one.wait_until_all_are_up()?;
    eventually(SOON, "the second node has the service", || {
        Ok(two.json(&["service", "list"])?[0]["name"] == "web")
    })?;
    two.wait_until_all_are_up()?;
    for family in Family::ALL {
        let tally = lab.visit(family, 80, 30)?;
        ensure!(tally.failed() == 0, "{family:?}: {tally}");
    }

    one.run(&["backend", "drain", "web/web-1"])?;
    wait_until_admin_state(two, "web-1", "drain")?;
    all_are_current(two)
}

fn refuses_what_is_outdated_or_wrong(lab: &Lab, one: &Daemon, two: &Daemon) -> Result<()> {
    let file = |name: &str| lab.directory().join(name);
    let push = |node: &Daemon, name: &str, text: &str| -> Result<Output> {
        fs::write(file(name), text)?;
        node.output(&["cluster", "push", &file(name).display().to_string()])
    };
    let pulled = two.run(&["cluster", "pull"])?;
    ensure!(!pulled.contains("[[interface]]"), "a table of the node was stored:\n{pulled}");

    let changed = pulled.replacen("weight = 100", "weight = 50", 1);
    let stored = push(one, "changed.toml", &changed)?;
    assert_eq!(stored.code, 0, "{stored:?}");
    let outdated = push(two, "outdated.toml", &pulled)?;
    assert_eq!(outdated.code, 5, "{outdated:?}");
    assert!(outdated.stderr.contains("stored by lb-1"), "{outdated:?}");

    let unmarked = push(two, "unmarked.toml", pulled.split_once('\n').context("one line")?.1)?;
    assert_eq!(unmarked.code, 5, "{unmarked:?}");
    assert!(unmarked.stderr.contains("--base"), "{unmarked:?}");
    let again = push(one, "again.toml", changed.split_once('\n').context("one line")?.1)?;
    assert_eq!(again.code, 0, "{again:?}");

    let before = status(one)?["document"].clone();
    let wrong = push(one, "wrong.toml", &one.run(&["cluster", "pull"])?.replacen(":80\"", ":0\"", 1))?;
    assert_eq!(wrong.code, 6, "{wrong:?}");
    assert!(wrong.stderr.contains("wrong.toml:") && wrong.stderr.contains("is not a port"), "{wrong:?}");
    assert_eq!(status(one)?["document"], before);
    assert_eq!(one.json(&["backend", "list"])?[0]["weight"], 50);
    Ok(())
}

/// Traffic and the daemon go on; commands are refused; a restart uses the copy.
fn goes_on_without_a_majority(lab: &Lab, one: &mut Daemon, two: &Daemon) -> Result<()> {
    wait_until_connected(one, false)?;
    wait_until_connected(two, false)?;

    let refused = one.output(&["backend", "drain", "web/web-2"])?;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("etcd"), "{refused:?}");
    let check = one.output(&["status", "--check"])?;
    assert!(check.code == 1 && check.stdout.contains("etcd cannot be reached"), "{check:?}");
    assert_eq!(one.metrics()?.sum("xlb_cluster_connected", &[]), 0.0);

    one.stop()?;
    one.start_again()?;
    one.wait_until_all_are_up()?;
    assert_eq!(admin_state(one, "web-2")?, "ready");
    for family in Family::ALL {
        let tally = lab.visit(family, 80, 30)?;
        ensure!(tally.failed() == 0 && tally.answers.len() == 3, "{family:?}: {tally}");
    }
    Ok(())
}

fn resumes_after_a_cut(lab: &Lab, one: &Daemon, two: &Daemon) -> Result<()> {
    lab.switch.ip("link set lb-2 down\n")?;
    wait_until_connected(two, false)?;
    one.run(&["backend", "maint", "web/web-3"])?;
    let unsent = two.output(&["backend", "drain", "web/web-2"])?;
    assert!(unsent.code == 1 && unsent.stderr.contains("nothing was changed"), "{unsent:?}");
    assert_eq!(admin_state(two, "web-3")?, "ready");

    lab.switch.ip("link set lb-2 up\n")?;
    wait_until_admin_state(two, "web-3", "maint")?;
    two.run(&["backend", "drain", "web/web-2"])?;
    wait_until_admin_state(one, "web-2", "drain")?;
    all_are_current(one)
}

/// Both nodes are listed, run what is stored, and are healthy.
fn all_are_current(node: &Daemon) -> Result<()> {
    let waited = eventually(SOON, "both nodes are current and healthy", || {
        let nodes = status(node)?["nodes"].clone();
        let is_good = |node: &Value| node["current"] == true && node["healthy"] == true;
        Ok(nodes.as_array().is_some_and(|all| all.len() == 2 && all.iter().all(is_good)))
    });
    waited.map(drop).with_context(|| format!("{}", status(node).unwrap_or_default()))
}

fn status(node: &Daemon) -> Result<Value> {
    node.json(&["cluster", "status"])
}

fn wait_until_connected(node: &Daemon, is: bool) -> Result<()> {
    let what = format!("`connected` is {is}");
    eventually(SOON, &what, || Ok(status(node)?["connected"] == is)).map(drop)
}

fn admin_state(node: &Daemon, backend: &str) -> Result<String> {
    let backends = node.json(&["backend", "list", "web"])?;
    let found = backends.as_array().into_iter().flatten().find(|it| it["name"] == backend);
    let found = found.with_context(|| format!("there is no {backend}"))?;
    Ok(found["admin_state"].as_str().unwrap_or_default().to_owned())
}

fn wait_until_admin_state(node: &Daemon, backend: &str, state: &str) -> Result<()> {
    let what = format!("{backend} is {state}");
    eventually(SOON, &what, || Ok(admin_state(node, backend)? == state)).map(drop)
}
