//! Commands: exit codes, messages, and what outlives the daemon.

use anyhow::Result;
use lb_common::service::Mode;
use tests::lab::{Config, Family, Lab, Shape, Topology, daemon};

use crate::{
    refusal::{CONFLICT, said},
    stage::one_backend,
};

#[test]
fn commands_exit_as_documented() -> Result<()> {
    let lab = one_backend("codes")?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;

    for (words, code, stderr) in [
        (&["backend", "show", "web/web-9"][..], 3, "error: there is no backend `web/web-9`\n"),
        (&["backend", "drain", "web/web-9"], 3, "error: there is no backend `web/web-9`\n"),
        (&["backend", "add", "mail/m-1", "10.0.0.14:25"], 3, "error: there is no service `mail`\n"),
        (&["backend", "add", "web/web-1", "10.0.0.14:80"], 5, "error: web/web-1 already exists\n"),
        (&["service", "show", "mail"], 3, "error: there is no service `mail`\n"),
        (&["health", "probe", "web/web-9"], 3, "error: there is no backend `web/web-9`\n"),
    ] {
        assert_eq!(said(&xlb.output(words)?), (code, stderr.to_owned()), "{words:?}");
    }
    assert_eq!(xlb.output(&["backend", "weight", "web/web-1", "many"])?.code, 2);
    assert_eq!(xlb.output(&["backend", "weight", "web/web-1", "1001"])?.code, 2);
    // Uses a socket without a listener, so that the command finds the pins of a running daemon.
    let pins = daemon::pins(lab.directory()).display().to_string();
    let hint = "run `xlb detach --socket PATH` with the socket of that xlb, or stop it first";
    let held = format!("error: another xlb is using {pins}\nhint: {hint}\n");
    assert_eq!(said(&xlb.output(&["--socket", "/absent/xlb.sock", "detach"])?), (CONFLICT, held));
    assert_eq!(lab.xlb.programs()?.len(), 2);
    xlb.kill()?;
    assert_eq!(xlb.output(&["backend", "drain", "web/web-1"])?.code, 4);
    Ok(())
}

#[test]
fn an_added_backend_outlives_the_daemon_and_status_shows_it() -> Result<()> {
    let lab = Lab::build(&Topology::new("added", Shape::TwoNics).backends(2))?;
    let _web = lab.web_servers()?;
    let mut config = Config::web(&lab, Mode::FullNat);
    config.services[0].backends.retain(|backend| backend.name.starts_with("web-1"));
    let mut xlb = lab.start(&config)?;
    let address = format!("{}:8080", lab.backends[1].address.v4);
    assert!(!xlb.run(&["status"])?.contains("changed by commands"));

    xlb.run(&["backend", "add", "web/spare", &address, "--weight", "7"])?;
    xlb.stop()?;
    xlb.start_again()?;
    xlb.run(&["reload"])?;
    xlb.wait_until_all_are_up()?;

    let spare = xlb.json(&["backend", "show", "web/spare"])?;
    assert!(spare["address"] == *address && spare["weight"] == 7, "{spare}");
    let tally = lab.visit(Family::V4, 80, 60)?;
    assert!(tally.is_even(2), "{tally}");
    let status = xlb.run(&["status"])?;
    let told = "changed by commands (not in the configuration file):\n  \
                web/spare: added, 10.0.0.12:8080 weight 7\n";
    assert!(status.contains(told), "{status}");
    Ok(())
}
