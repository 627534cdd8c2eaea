//! A daemon that starts before its interfaces or addresses exist.

use std::{fs, time::Duration};

use anyhow::Result;
use lb_common::service::Mode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::lab::{
    Config, Family, address,
    daemon::{binary, environment},
    eventually, link,
    wait::SOON,
};

use crate::{
    refusal::{HOST_UNFIT, refused_with},
    stage::{configured, one_backend},
};

/// Time limit from the interface's appearance to the first answer: detection, loading, and the first health checks.
const BOOT: Duration = Duration::from_secs(20);

#[test]
fn a_daemon_that_starts_before_its_interface_serves_once_the_interface_exists() -> Result<()> {
    let lab = configured("boot")?;
    let _web = lab.web_servers()?;
    lab.xlb.ip("link del eth1")?;
    let log = lab.directory().join("boot.log");
    let mut command = lab.xlb.command(binary()?);
    command.args(["run", "--wait-interfaces", "30s"]).envs(environment(lab.directory()));
    let mut xlb = command.stderr(fs::File::create(&log)?).spawn()?;
    let waits = "waiting up to 30s for the interfaces: there is no interface eth1";
    eventually(SOON, "the log says what is missing", || Ok(fs::read_to_string(&log)?.contains(waits)))?;

    link::veth((&lab.xlb, "eth1"), (&lab.switch, "xlb"))?;
    link::behave_as_a_nic((&lab.switch, "xlb"))?;
    lab.switch.ip("link set xlb master br0")?;
    link::address((&lab.xlb, "eth1"), address::SOURCE)?;

    let url = format!("http://{}/", address::SERVICE.v4);
    eventually(BOOT, "a request is answered", || {
        Ok(lab.client.output(&["curl", "-s", "-m", "1", &url])?.code == 0)
    })?;
    assert!(lab.visit(Family::V4, 80, 30)?.is_even(1));
    kill(Pid::from_raw(xlb.id().cast_signed()), Signal::SIGTERM)?;
    assert!(xlb.wait()?.success());
    Ok(())
}

#[test]
fn a_wait_for_interfaces_ends_with_the_same_error_as_a_start_without_one() -> Result<()> {
    let lab = one_backend("waited")?;
    let config =
        Config { interfaces: vec!["eth0".into(), "eth7".into()], ..Config::web(&lab, Mode::FullNat) };
    fs::write(lab.config_path(), config.to_string())?;

    let output = refused_with(&lab, &[], &["--wait-interfaces", "500ms"])?;

    let refusal = "there is no interface eth7: name one of eth0, eth1 in the configuration\n\
                   error: this host cannot run xlb\n";
    assert_eq!(output.code, HOST_UNFIT, "{}", output.stderr);
    assert!(output.stderr.ends_with(refusal), "{}", output.stderr);
    Ok(())
}

#[test]
fn a_metrics_address_that_appears_late_is_served_once_it_is_there() -> Result<()> {
    let lab = one_backend("late")?;
    let config = Config::web(&lab, Mode::FullNat);
    let mut xlb = lab.start(&config)?;
    xlb.stop()?;
    fs::write(lab.config_path(), format!("{config}\n[metrics]\nlisten = \"10.0.0.9:9191\"\n"))?;

    xlb.start_again()?;

    let log = lab.log()?;
    assert!(log.contains("cannot listen on 10.0.0.9:9191: not an address of this host"), "{log}");
    lab.xlb.ip("address add 10.0.0.9/24 dev eth1")?;
    eventually(SOON, "the address is served", || {
        Ok(lab.xlb.output(&["curl", "-sf", "-m", "1", "http://10.0.0.9:9191/livez"])?.code == 0)
    })?;
    Ok(())
}
