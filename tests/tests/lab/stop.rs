//! What a stopped daemon leaves behind, and what `xlb detach` removes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use lb_common::service::Mode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::lab::{
    Config, Family, Lab,
    daemon::{binary, environment},
    eventually,
    wait::SOON,
};

use crate::stage::{configured, one_backend};

#[test]
fn a_stopped_daemon_exits_successfully_and_leaves_traffic_flowing() -> Result<()> {
    let lab = one_backend("stop")?;
    let _web = lab.web_servers()?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;
    // The daemon resolves a client on the same Ethernet; then the kernel has its neighbour entry.
    lab.visit(Family::V4, 80, 30)?;

    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        xlb.stop_by(signal)?;

        assert_eq!(lab.xlb.programs()?.len(), 2, "{signal}");
        assert!(!lab.directory().join("xlb.sock").exists(), "{signal}");
        assert!(lab.visit(Family::V4, 80, 30)?.is_even(1), "{signal}");
        xlb.start_again()?;
    }
    Ok(())
}

#[test]
fn what_was_detached_is_gone() -> Result<()> {
    let lab = one_backend("detach")?;

    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    let all = lab.pin_names()?;
    assert!(all.contains("lb") && lab.xlb.programs()?.len() == 2, "{all:?}");
    xlb.run(&["detach"])?;
    xlb.wait()?;
    assert_nothing_is_left(&lab)?;

    xlb.start_again()?;
    let all = lab.pin_names()?;
    xlb.kill()?;
    assert_eq!(lab.pin_names()?, all, "a killed daemon leaves the data plane in place");
    assert_eq!(lab.xlb.programs()?.len(), 2, "a killed daemon leaves the data plane in place");
    xlb.run(&["detach"])?;
    assert_nothing_is_left(&lab)
}

#[test]
fn a_daemon_with_detach_on_exit_leaves_nothing() -> Result<()> {
    let lab = configured("onexit")?;
    let mut command = lab.xlb.command(binary()?);
    let mut xlb = command.args(["run", "--detach-on-exit"]).envs(environment(lab.directory())).spawn()?;
    eventually(SOON, "the programs are attached", || Ok(lab.xlb.programs()?.len() == 2))?;

    kill(Pid::from_raw(xlb.id().cast_signed()), Signal::SIGTERM)?;
    let status = xlb.wait()?;

    assert!(status.success(), "{status}");
    assert_nothing_is_left(&lab)
}

/// No program on an interface, and no pin of any kind.
fn assert_nothing_is_left(lab: &Lab) -> Result<()> {
    assert_eq!(lab.xlb.programs()?, BTreeMap::new());
    assert_eq!(lab.pin_names()?, BTreeSet::new());
    Ok(())
}
