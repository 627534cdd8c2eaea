//! keepalived with what `xlb ha keepalived` prints: it accepts it, brings the addresses, and takes them off for
//! a drain and before a detach.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, daemon::binary, eventually, process::Program,
};

/// A start of keepalived takes up to three intervals and a delay of a few seconds.
const MASTER: Duration = Duration::from_secs(20);

#[test]
fn the_printed_configuration_brings_the_addresses_and_takes_them_off_for_a_drain_and_a_detach() -> Result<()>
{
    let lab = Lab::build(&Topology::new("vrrp", Shape::TwoNics).backends(2))?;
    let _web = lab.web_servers()?;
    // Addresses of its own, in place of those that keepalived will bring.
    lab.xlb.ip("address del 192.0.2.10/24 dev eth0\naddress add 192.0.2.2/24 dev eth0\n\
         address add 2001:db8::2/64 dev eth0 nodad\naddress del 2001:db8::10/64 dev eth0\n\
         address del 10.0.0.1/24 dev eth1\naddress add 10.0.0.2/24 dev eth1\n\
         address add fd00::2/64 dev eth1 nodad\naddress del fd00::1/64 dev eth1\n")?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;
    assert_eq!(state(&xlb)?, "standby");

    let fragment = lab.directory().join("keepalived.conf");
    let (program, config) = (binary()?.display().to_string(), xlb.config_path().display().to_string());
    let socket = xlb.config_path().with_file_name("xlb.sock").display().to_string();
    fs::write(&fragment, lab.xlb.run(&[&program, "--socket", &socket, "ha", "keepalived", &config])?)?;
    let file = fragment.display().to_string();
    let test = lab.xlb.output(&["keepalived", "--config-test", "-f", &file])?;
    ensure!(test.code == 0, "keepalived refuses the configuration: {test:?}");
    let mut keepalived = start(&lab, &file)?;

    eventually(MASTER, "keepalived brings the addresses", || Ok(state(&xlb)? == "active"))?;
    assert_eq!(xlb.json(&["status"])?["warnings"].as_array().map(Vec::len), Some(0));
    for family in Family::ALL {
        assert!(lab.visit(family, 80, 20)?.is_even(2));
    }

    eventually(MASTER, "the script of keepalived finds that the daemon lives", || {
        Ok(fs::read_to_string(lab.directory().join("keepalived.log"))?
            .contains("VRRP_Script(xlb_alive) succeeded"))
    })?;

    xlb.run(&["ha", "drain", "--wait", "10s"])?;
    assert_eq!(state(&xlb)?, "standby");
    xlb.run(&["ha", "ready"])?;
    eventually(MASTER, "the addresses are back", || Ok(state(&xlb)? == "active"))?;

    let began = Instant::now();
    xlb.run(&["detach"])?;
    let took = began.elapsed();
    let left = lab.xlb.run(&["ip", "-brief", "address"])?;
    assert!(!left.contains("192.0.2.10") && !left.contains("2001:db8::10"), "{left}");
    eprintln!("the addresses left, and the data plane was removed, in {} ms", took.as_millis());
    xlb.wait()?;
    keepalived.kill()
}

fn state(xlb: &Daemon) -> Result<String> {
    let status = xlb.json(&["status"])?;
    Ok(status["node"]["state"].as_str().context("a status without a state")?.to_owned())
}

fn start(lab: &Lab, config: &str) -> Result<Program> {
    let log = fs::File::create(lab.directory().join("keepalived.log"))?;
    let pid = |name: &str| lab.directory().join(name).display().to_string();
    let mut command: Command = lab.xlb.command("keepalived");
    command
        .args(["--dont-fork", "--vrrp", "--log-console", "--log-detail", "--use-file", config])
        .args(["--pid", &pid("keepalived.pid"), "--vrrp_pid", &pid("vrrp.pid")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command.spawn().context("start keepalived; `cargo xtask setup` installs it")?.into())
}
