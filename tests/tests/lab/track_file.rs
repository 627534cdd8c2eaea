//! The track file, which keepalived reads: it outlives the daemon, and is changed before the data plane is removed.

use std::{collections::BTreeSet, fs, time::Instant};

use anyhow::Result;
use lb_common::service::Mode;
use tests::lab::{Config, Daemon, Lab, Shape, Topology, eventually, wait::SOON};

#[test]
fn the_track_file_outlives_the_daemon_and_says_unfit_before_a_detach() -> Result<()> {
    let lab = Lab::build(&Topology::new("track", Shape::TwoNics).backends(2))?;
    let _web = lab.web_servers()?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    wait_for(&xlb, "0")?;

    xlb.kill()?;
    assert_eq!(value(&xlb)?, "0", "traffic flows, so no address must move");
    xlb.start_again()?;
    wait_for(&xlb, "0")?;

    let backends = xlb.json(&["backend", "list"])?;
    let services: BTreeSet<_> =
        backends.as_array().into_iter().flatten().filter_map(|it| it["service"].as_str()).collect();
    for backend in backends.as_array().into_iter().flatten() {
        let name = format!(
            "{}/{}",
            backend["service"].as_str().unwrap_or_default(),
            backend["name"].as_str().unwrap_or_default()
        );
        xlb.run(&["backend", "drain", &name])?;
    }
    wait_for(&xlb, &format!("-{}", services.len()))?;

    lab.xlb.ip("address del 192.0.2.10/24 dev eth0\naddress del 2001:db8::10/64 dev eth0\n")?;
    eventually(SOON, "the node is standby", || Ok(xlb.json(&["status"])?["node"]["state"] == "standby"))?;
    let began = Instant::now();
    xlb.run(&["detach"])?;
    eprintln!("detached a standby in {} ms", began.elapsed().as_millis());
    assert_eq!(value(&xlb)?, "-254");
    xlb.wait()
}

#[test]
fn what_an_earlier_daemon_left_is_removed_after_the_track_file_says_unfit() -> Result<()> {
    let lab = Lab::build(&Topology::new("trackgone", Shape::TwoNics).backends(1))?;
    let _web = lab.web_servers()?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    wait_for(&xlb, "0")?;
    xlb.kill()?;

    xlb.run(&["detach"])?;

    assert_eq!(value(&xlb)?, "-254");
    Ok(())
}

fn wait_for(xlb: &Daemon, expected: &str) -> Result<()> {
    eventually(SOON, &format!("the track file says {expected}"), || Ok(value(xlb)? == expected)).map(drop)
}

fn value(xlb: &Daemon) -> Result<String> {
    // The socket is there, too.
    let path = xlb.config_path().with_file_name("ready");
    Ok(fs::read_to_string(path).unwrap_or_default().trim().to_owned())
}
