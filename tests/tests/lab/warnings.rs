//! Warnings do not stop xlb: the log and `xlb status` show them with a remedy until the cause is gone.

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology,
    config::{Backend, Limits, Service},
    daemon::binary,
    eventually,
    wait::SOON,
};

#[test]
fn a_standby_gets_its_addresses_by_the_commands_that_it_shows() -> Result<()> {
    let lab = Lab::build(&Topology::new("lacks", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    // A listen address of each family, and the source of one. The route to the backends stays.
    lab.xlb.ip("address del 192.0.2.10/24 dev eth0\naddress del 2001:db8::10/64 dev eth0\n\
         address del 10.0.0.1/24 dev eth1\naddress add 10.0.0.2/24 dev eth1\n")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;

    // Another node may have the addresses: no fault.
    let node = &xlb.json(&["status"])?["node"];
    assert_eq!(node["state"], "standby");
    let check = xlb.output(&["status", "--check"])?;
    assert!(check.code == 0 && check.stdout.starts_with("XLB OK: standby, "), "{check:?}");
    is_logged(&lab, "no listen address is on this host")?;
    let first = node["missing"][0].as_str().context("no address is missing")?.to_owned();
    assert!(first.starts_with("192.0.2.10 (web): ip address add "), "{first}");
    carry_out(&lab, &first)?;

    let missing = ["2001:db8::10", "10.0.0.1"];
    let told =
        wait_for_warnings(&xlb, |warnings| of(warnings, "which is not an address of this host").len() == 2)?;
    for (warning, address) in of(&told, "which is not an address of this host").into_iter().zip(missing) {
        assert!(
            warning.starts_with("service web ") && warning.contains(&format!(" {address},")),
            "{warning}"
        );
        is_logged(&lab, warning)?;
        carry_out(&lab, warning)?;
    }
    wait_for_warnings(&xlb, |warnings| of(warnings, "which is not an address of this host").is_empty())?;
    assert_eq!(xlb.json(&["status"])?["node"]["state"], "active");
    assert!(lab.xlb.run(&["ip", "address", "show", "dev", "eth1"])?.contains("inet 10.0.0.1/32"));
    for family in Family::ALL {
        assert!(lab.visit(family, 80, 30)?.is_even(3));
    }
    Ok(())
}

/// The command at the end of a line.
fn carry_out(lab: &Lab, line: &str) -> Result<()> {
    let (_, command) = line.rsplit_once(": ").context("a line without a command")?;
    lab.xlb.run(&command.split(' ').collect::<Vec<_>>()).map(drop)
}

#[test]
fn a_backend_beyond_the_configured_interfaces_is_refused_until_its_interface_is_configured() -> Result<()> {
    let lab = Lab::build(&Topology::new("beyond", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    let whole = Config::web(&lab, Mode::FullNat);
    let mut xlb = lab.start(&Config { interfaces: vec!["eth0".to_owned()], ..whole.clone() })?;

    let told = wait_for_warnings(&xlb, |warnings| of(warnings, "which is not configured").len() == 6)?;
    assert_eq!(
        of(&told, "backend web/web-2:"),
        [
            "backend web/web-2: its route leads through eth1, which is not configured: add an [[interface]] named \
             \"eth1\" and restart xlb, or change the route to 10.0.0.12"
        ]
    );
    is_logged(&lab, of(&told, "backend web/web-2:")[0])?;
    assert_ne!(lab.client.output(&["curl", "-s", "-m", "1", "http://192.0.2.10/"])?.code, 0);
    assert!(xlb.metrics()?.sum("xlb_dropped_packets_total", &[("reason", "no_backend")]) > 0.0);

    xlb.write(&whole)?;
    xlb.stop()?;
    xlb.start_again()?;

    wait_for_warnings(&xlb, |warnings| of(warnings, "which is not configured").is_empty())?;
    xlb.wait_until_all_are_up()?;
    assert!(lab.visit(Family::V4, 80, 30)?.is_even(3));
    Ok(())
}

#[test]
fn a_backend_on_the_balancer_itself_is_refused_by_commands_and_files_and_warned_of_at_a_start() -> Result<()>
{
    let lab = Lab::build(&Topology::new("itself", Shape::TwoNics).mode(Mode::Nat).backends(1))?;
    let _web = lab.web_servers()?;
    // In nat mode there is no `source`, so only the host's addresses show that the address is the balancer's own.
    let good = Config::new(&lab)
        .service(Service::over(&lab, "web", Protocol::Tcp, Mode::Nat, 80, 8080).only(Family::V4));
    let mut xlb = lab.start(&good)?;
    xlb.wait_until_all_are_up()?;
    let refusal = "`10.0.0.1` cannot be a backend: it is an address of this host";

    let added = xlb.output(&["backend", "add", "web/own", "10.0.0.1:80"])?;
    assert!(added.code == 2 && added.stderr.contains(refusal), "{added:?}");

    let mut bad = good.clone();
    let own = Backend {
        name: "own".to_owned(),
        address: "10.0.0.1:80".parse()?,
        weight: 100,
        backup: false,
        max_flows: 0,
    };
    bad.services[0].backends.push(own);
    xlb.write(&bad)?;
    let (binary, path) = (binary()?.display().to_string(), xlb.config_path().display().to_string());
    let checked = lab.xlb.output(&[&binary, "check", &path])?;
    assert!(checked.code == 6 && checked.stderr.contains(refusal), "{checked:?}");
    let reloaded = xlb.output(&["reload"])?;
    assert!(reloaded.code == 6 && reloaded.stderr.contains(refusal), "{reloaded:?}");

    xlb.stop()?;
    xlb.start_again()?;
    let warning = "backend web/own: 10.0.0.1 is an address of this host: a backend on the load balancer \
        itself is not supported; move it to another host";
    let told = wait_for_warnings(&xlb, |warnings| of(warnings, "backend web/own").len() == 1)?;
    assert_eq!(of(&told, "backend web/own"), [warning]);
    is_logged(&lab, warning)?;
    let answers = lab.visit(Family::V4, 80, 10)?;
    assert!(answers.is_even(1), "{answers:?}");
    Ok(())
}

#[test]
fn unequal_mtus_are_a_warning_until_they_are_equal() -> Result<()> {
    let lab = Lab::build(&Topology::new("mtus", Shape::TwoNics).backends(1))?;
    let _web = lab.web_servers()?;
    lab.xlb.ip("link set eth1 mtu 1400\n")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;

    let told = wait_for_warnings(&xlb, |warnings| of(warnings, "too_big").len() == 1)?;
    let told = of(&told, "too_big")[0];
    assert!(told.contains("eth0 has MTU 1500, eth1 has MTU 1400"), "{told}");
    is_logged(&lab, told)?;

    lab.xlb.ip("link set eth1 mtu 1500\n")?;

    wait_for_warnings(&xlb, |warnings| of(warnings, "too_big").is_empty()).map(drop)
}

#[test]
fn limits_that_differ_from_the_pinned_maps_are_a_warning_until_the_file_matches() -> Result<()> {
    let lab = Lab::build(&Topology::new("pinned", Shape::TwoNics).backends(1))?;
    let _web = lab.web_servers()?;
    let as_pinned = Config::web(&lab, Mode::FullNat);
    let mut xlb = lab.start(&as_pinned)?;
    xlb.stop()?;
    let limits = Limits { flows: 2 * as_pinned.limits.flows, ..as_pinned.limits };
    xlb.write(&Config { limits, ..as_pinned.clone() })?;

    xlb.start_again()?;

    let told = wait_for_warnings(&xlb, |warnings| of(warnings, "[limits]").len() == 1)?;
    let told = of(&told, "[limits]")[0];
    let sizes = "65536 IPv4 flows, 65536 IPv6 flows, 16384 half-open; to change them, run `xlb detach`";
    assert!(told.contains(sizes), "{told}");
    is_logged(&lab, told)?;
    xlb.wait_until_all_are_up()?;
    let check = xlb.output(&["status", "--check"])?;
    assert!(check.code == 1 && check.stdout.contains(told), "{check:?}");

    xlb.write(&as_pinned)?;
    xlb.run(&["reload"])?;

    wait_for_warnings(&xlb, |warnings| of(warnings, "[limits]").is_empty()).map(drop)
}

#[test]
fn status_shows_warnings_of_the_start_for_as_long_as_the_daemon_runs() -> Result<()> {
    let lab = Lab::build(&Topology::new("generic", Shape::TwoNics).backends(1))?;
    let _web = lab.web_servers()?;
    // A veth judges by its peer.
    lab.switch.ip("link set xlb mtu 9000")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;

    let refused = "eth1 does not support native mode";
    let told = wait_for_warnings(&xlb, |warnings| of(warnings, refused).len() == 1)?;
    is_logged(&lab, of(&told, refused)[0])?;
    let screen = xlb.run(&["status"])?;
    assert!(screen.contains("\nwarnings:\n") && screen.contains(&format!("  {refused}")), "{screen}");
    xlb.wait_until_all_are_up()?;
    assert!(lab.visit(Family::V4, 80, 30)?.is_even(1));
    Ok(())
}

/// Waits until the warnings of `xlb status` are right, and returns them. [`SOON`] is sooner than the next full check: one
/// runs every ten seconds.
fn wait_for_warnings(xlb: &Daemon, are_right: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let waited = eventually(SOON, "`xlb status` has the right warnings", || {
        let status = xlb.json(&["status"])?;
        let lines = status["warnings"].as_array().context("a status without warnings")?;
        warnings = lines.iter().filter_map(|line| line.as_str()).map(str::to_owned).collect();
        Ok(are_right(&warnings))
    });
    waited.with_context(|| format!("{warnings:#?}"))?;
    Ok(warnings)
}

fn of<'a>(warnings: &'a [String], part: &str) -> Vec<&'a str> {
    warnings.iter().map(String::as_str).filter(|warning| warning.contains(part)).collect()
}

/// Once, however often the daemon looks. The log waits two seconds, because most warnings of a start are gone by then.
fn is_logged(lab: &Lab, warning: &str) -> Result<()> {
    let lines = || -> Result<usize> { Ok(lab.log()?.lines().filter(|line| line.contains(warning)).count()) };
    eventually(SOON, &format!("the log says: {warning}"), || Ok(lines()? > 0))?;
    let said = lines()?;
    ensure!(said == 1, "the log says {said} times: {warning}");
    Ok(())
}
