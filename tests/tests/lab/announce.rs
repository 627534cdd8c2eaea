//! The addresses of ready services on a device: the daemon puts them there, takes them off, and leaves them when it dies.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::IpAddr,
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use lb_common::{net::Protocol, service::Mode};
use serde_json::{Value, json};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, Web,
    config::Service,
    daemon::{binary, environment},
    eventually,
    process::Program,
    wait::SOON,
    web,
};

/// From the moment in which a service becomes ready.
const AT_ONCE: Duration = Duration::from_secs(1);
/// After a start, nothing is taken off for 10 s.
const STARTED: Duration = Duration::from_secs(15);
/// What `Config::web` needs.
const ALL: [&str; 4] = ["10.0.0.1/32", "192.0.2.10/32", "2001:db8::10/128", "fd00::1/128"];
/// The operator has it on the device, too.
const OWN: &str = "2001:db8::10/128";

#[test]
fn the_addresses_of_a_service_come_and_go_with_it_and_those_of_the_operator_stay() -> Result<()> {
    let (lab, mut web) = build("announce")?;
    lab.xlb.ip(&format!("address add {OWN} dev lo\n"))?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat).announce("lo"))?;

    xlb.wait_until_all_are_up()?;
    let waited = wait_for(&lab, AT_ONCE, &ALL)?;
    eprintln!("announced {} ms after the backends were up", waited.as_millis());
    eventually(SOON, "the status says so", || {
        let node = &xlb.json(&["status"])?["node"];
        Ok(node["state"] == "active" && node["announce"]["withdrawn"] == json!([]))
    })?;
    assert_eq!(xlb.json(&["status"])?["warnings"], json!([]));
    assert!(lab.visit(Family::V4, 80, 20)?.is_even(2));

    web.iter_mut().try_for_each(Web::kill)?;
    eventually(SOON, "the service is not ready", || is_ready(&xlb).map(|is_ready| !is_ready))?;
    let waited = wait_for(&lab, STARTED, &[OWN])?;
    eprintln!("withdrawn {} ms after the service was not ready, soon after a start", waited.as_millis());
    let warnings = xlb.json(&["status"])?["warnings"].to_string();
    assert!(!warnings.contains("is not an address of this host"), "{warnings}");

    web.iter_mut().try_for_each(Web::start_again)?;
    eventually(SOON, "the service is ready", || is_ready(&xlb))?;
    wait_for(&lab, AT_ONCE, &ALL)?;
    web.iter_mut().try_for_each(Web::kill)?;
    eventually(SOON, "the service is not ready", || is_ready(&xlb).map(|is_ready| !is_ready))?;
    let waited = wait_for(&lab, SOON, &[OWN])?;
    eprintln!("withdrawn {} ms after the service was not ready", waited.as_millis());
    Ok(())
}

#[test]
fn a_drain_takes_the_addresses_off_and_what_others_take_off_comes_back() -> Result<()> {
    let (lab, _web) = build("announcedrain")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat).announce("lo"))?;
    wait_for(&lab, SOON, &ALL)?;

    lab.xlb.ip("address del 192.0.2.10/32 dev lo\n")?;
    wait_for(&lab, SOON, &ALL)?;

    // The sources are on another interface, too; listen addresses are what a drain waits for.
    xlb.run(&["ha", "drain", "--wait", "2s"])?;
    assert_eq!(on_lo(&lab)?, BTreeSet::new());
    xlb.run(&["ha", "ready"])?;
    assert_eq!(on_lo(&lab)?, names(&ALL), "it is answered when they are back");
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_the_addresses_and_the_next_one_takes_off_those_of_a_service_that_is_gone()
-> Result<()> {
    let (lab, _web) = build("announcekill")?;
    let service = |name: &str, address: [u8; 4]| {
        let over = Service::over(&lab, name, Protocol::Tcp, Mode::FullNat, 80, web::PORT).only(Family::V4);
        Service { listen: vec![(IpAddr::from(address), 80).into()], ..over }
    };
    let one = Config::new(&lab).announce("lo").service(service("web", [192, 0, 2, 10]));
    let mut xlb = lab.start(&one.clone().service(service("old", [203, 0, 113, 10])))?;
    wait_for(&lab, SOON, &["10.0.0.1/32", "192.0.2.10/32", "203.0.113.10/32"])?;
    let monitor = Monitor::start(&lab)?;

    xlb.kill()?;
    xlb.write(&one)?;
    xlb.start_again()?;

    xlb.wait_until_all_are_up()?;
    wait_for(&lab, STARTED, &["10.0.0.1/32", "192.0.2.10/32"])?;
    eventually(SOON, "the monitor has seen it", || Ok(monitor.seen()?.contains("203.0.113.10")))?;
    let seen = monitor.seen()?;
    assert!(!seen.contains("192.0.2.10") && !seen.contains("10.0.0.1/"), "they stay all the time: {seen}");

    xlb.stop()?;
    assert_eq!(on_lo(&lab)?.len(), 2, "a daemon that stops leaves them");
    Ok(())
}

#[test]
fn a_detach_takes_the_addresses_off_before_the_data_plane() -> Result<()> {
    let (lab, _web) = build("announcegone")?;
    for dies_before in [false, true] {
        let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat).announce("lo"))?;
        wait_for(&lab, SOON, &ALL)?;
        if dies_before {
            xlb.kill()?;
        }

        thread::scope(|scope| -> Result<()> {
            let detach = scope.spawn(|| detach(&lab));
            let (gone, programs) = (wait_for(&lab, SOON, &[]), lab.xlb.programs()?);
            detach.join().map_err(|_| anyhow!("the thread that detaches panicked"))??;
            gone?;
            assert!(!programs.is_empty(), "the program is still attached");
            Ok(())
        })?;

        assert!(lab.xlb.programs()?.is_empty(), "and then it is removed");
        xlb.wait()?;
    }
    Ok(())
}

#[test]
fn a_device_that_does_not_exist_is_an_error_of_the_start() -> Result<()> {
    let (lab, _web) = build("announcenone")?;

    let refused = lab.start(&Config::web(&lab, Mode::FullNat).announce("anycast0"));

    assert!(refused.is_err());
    assert!(lab.log()?.contains("there is no device anycast0 for [announce]"), "{}", lab.log()?);
    Ok(())
}

/// The service addresses are on no interface.
fn build(tag: &'static str) -> Result<(Lab, Vec<Web>)> {
    let lab = Lab::build(&Topology::new(tag, Shape::TwoNics).backends(2))?;
    let web = lab.web_servers()?;
    lab.xlb.ip("address del 192.0.2.10/24 dev eth0\naddress del 2001:db8::10/64 dev eth0\n")?;
    Ok((lab, web))
}

/// Without a daemon, the command itself takes the addresses off, so it runs where they are.
fn detach(lab: &Lab) -> Result<String> {
    let environment = environment(lab.directory());
    let variables = environment.map(|(name, value)| format!("{name}={}", value.display()));
    let program = binary()?.display().to_string();
    let words = ["env"].into_iter().chain(variables.iter().map(String::as_str));
    lab.xlb.run(&words.chain([program.as_str(), "detach"]).collect::<Vec<_>>())
}

fn is_ready(xlb: &Daemon) -> Result<bool> {
    Ok(xlb.json(&["service", "show", "web"])?["ready"] == true)
}

fn wait_for(lab: &Lab, within: Duration, expected: &[&str]) -> Result<Duration> {
    eventually(within, &format!("lo has {expected:?}"), || Ok(on_lo(lab)? == names(expected)))
}

fn names(nets: &[&str]) -> BTreeSet<String> {
    nets.iter().map(|net| (*net).to_owned()).collect()
}

/// Besides those that it always has.
fn on_lo(lab: &Lab) -> Result<BTreeSet<String>> {
    let shown: Value = serde_json::from_str(&lab.xlb.run(&["ip", "-json", "address", "show", "dev", "lo"])?)?;
    let addresses = shown[0]["addr_info"].as_array().context("ip lists no addresses")?;
    let nets =
        addresses.iter().filter_map(|it| Some(format!("{}/{}", it["local"].as_str()?, it["prefixlen"])));
    Ok(nets.filter(|net| net != "127.0.0.1/8" && net != "::1/128").collect())
}

/// `ip monitor address`, which writes a line for each address that comes or goes.
struct Monitor {
    seen: PathBuf,
    _program: Program,
}

impl Monitor {
    fn start(lab: &Lab) -> Result<Self> {
        let seen = lab.directory().join("addresses.log");
        let mut command = lab.xlb.command("ip");
        command.args(["monitor", "address"]).stdin(Stdio::null()).stdout(File::create(&seen)?);
        let monitor = Self { seen, _program: command.spawn().context("start ip monitor")?.into() };
        // It has subscribed when it sees one of these.
        let mut number = 0_u8;
        eventually(SOON, "ip monitor has begun", || {
            number = number.wrapping_add(1);
            lab.xlb.ip(&format!("address replace 198.18.0.{number}/32 dev eth0\n"))?;
            Ok(monitor.seen()?.contains("198.18.0."))
        })?;
        Ok(monitor)
    }

    fn seen(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.seen)?)
    }
}
