//! What a stopped daemon leaves behind, and what `xlb detach` removes.

use anyhow::Result;
use lb_common::service::Mode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::lab::{
    Config, Family,
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
    let program = lab.pins().join("lb");

    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    assert!(program.exists() && lab.xlb.programs()?.len() == 2);
    xlb.run(&["detach"])?;
    xlb.wait()?;
    assert!(!program.exists() && lab.xlb.programs()?.is_empty(), "by a daemon that ends");

    xlb.start_again()?;
    xlb.kill()?;
    assert!(program.exists() && lab.xlb.programs()?.len() == 2, "a daemon that dies takes nothing with it");
    xlb.run(&["detach"])?;
    assert!(!program.exists() && lab.xlb.programs()?.is_empty(), "behind a daemon that died");
    Ok(())
}

#[test]
fn a_daemon_with_detach_on_exit_leaves_nothing() -> Result<()> {
    let lab = configured("onexit")?;
    let program = lab.pins().join("lb");
    let mut command = lab.xlb.command(binary()?);
    let mut xlb = command.args(["run", "--detach-on-exit"]).envs(environment(lab.directory())).spawn()?;
    eventually(SOON, "the programs are attached", || Ok(lab.xlb.programs()?.len() == 2))?;

    kill(Pid::from_raw(xlb.id().cast_signed()), Signal::SIGTERM)?;
    let status = xlb.wait()?;

    assert!(status.success(), "{status}");
    assert!(!program.exists() && lab.xlb.programs()?.is_empty());
    Ok(())
}
