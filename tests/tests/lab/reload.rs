//! A reload of a file with mistakes.

use std::fs;

use anyhow::Result;
use lb_common::service::Mode;
use tests::lab::{Config, Family, eventually, wait::SOON};

use crate::{
    refusal::{INVALID_CONFIGURATION, said},
    stage::one_backend,
};

#[test]
fn a_reload_of_a_bad_file_changes_nothing_and_reports_the_line() -> Result<()> {
    let lab = one_backend("badfile")?;
    let _web = lab.web_servers()?;
    let config = Config::web(&lab, Mode::FullNat);
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let before = (xlb.json(&["backend", "list"])?, lab.xlb.programs()?);
    let wrong = config.to_string().replace("\"192.0.2.10:80\"", "\"192.0.2.10:0\"");
    fs::write(lab.config_path(), wrong)?;

    let output = xlb.output(&["reload"])?;

    let path = lab.config_path().display().to_string();
    assert_eq!(
        said(&output),
        (
            INVALID_CONFIGURATION,
            format!(
                "{path}:16:11: `0` is not a port: expected 1 to 65535\n\
                 \x20  16 | listen = [\"192.0.2.10:0\", \"[2001:db8::10]:80\"]\n\
                 \x20     |           ^^^^^^^^^^^^^^\n\
                 error: {path} has errors and was not applied\n"
            )
        )
    );
    let status = xlb.run(&["status"])?;
    assert!(status.contains("last reload   failed"), "{status}");
    let check = xlb.output(&["status", "--check"])?;
    assert!(check.code == 1 && check.stdout.contains("the last reload failed"), "{check:?}");
    assert_eq!((xlb.json(&["backend", "list"])?, lab.xlb.programs()?), before);
    assert!(lab.visit(Family::V4, 80, 30)?.is_even(1));

    xlb.write(&config)?;
    xlb.run(&["reload"])?;
    assert!(xlb.run(&["status"])?.contains("last reload   successful\n"));
    Ok(())
}

#[test]
fn a_bad_file_at_sighup_changes_nothing_and_is_logged_once() -> Result<()> {
    let lab = one_backend("hangup")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    fs::write(lab.config_path(), "version = 2\n")?;

    xlb.hang_up()?;
    eventually(SOON, "the reload failed", || Ok(xlb.json(&["status"])?["last_reload_successful"] == false))?;
    xlb.run(&["reload"]).unwrap_err();
    xlb.run(&["backend", "list"])?;

    let log = lab.log()?;
    // Once by SIGHUP, once by command.
    assert_eq!(log.matches("xlb.toml:1:11: ").count(), 2, "{log}");
    Ok(())
}
