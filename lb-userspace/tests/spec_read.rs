//! Reading files: valid ones, unreadable ones, and ones over the limits.

#[path = "spec/many.rs"]
mod many;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    time::Duration,
};

use lb_common::{net::Protocol, service::Mode};
use lb_userspace::{
    paths,
    probe::{Http, Probe, Tcp},
    spec::{self, AttachMode, Availability, Limits, OnDown, OnRefused, Percent, Scheduler, Spec},
};
use nix::unistd::geteuid;
use proptest::prelude::*;

#[test]
fn the_example_of_the_manual_is_read_as_it_is_meant() {
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")).unwrap();
    let example = manual.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();

    let spec = spec::parse("xlb.toml", example).unwrap();

    assert_eq!(spec.interfaces[0].name, "eth0");
    assert_eq!(spec.interfaces[0].mode, AttachMode::Auto);
    assert_eq!(spec.limits, Limits::default());
    assert_eq!(spec.metrics, Some(paths::METRICS));
    let web = &spec.services[0];
    assert_eq!((web.listen.len(), web.sources.len(), web.backends.len()), (2, 2, 3));
    assert_eq!((web.protocol, web.mode), (Protocol::Tcp, Mode::FullNat));
    let health = web.health.as_ref().unwrap();
    assert_eq!(health.probe, http("/healthz", None));
    assert_eq!((health.interval, health.rise, health.fall), (Duration::from_secs(1), 2, 3));
    let dns = &spec.services[1];
    assert_eq!((dns.protocol, dns.mode), (Protocol::Udp, Mode::Nat));
    assert_eq!(dns.health.as_ref().unwrap().port, Some(53));
}

#[test]
fn the_examples_of_the_readme_and_of_the_package_are_good() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(top.join("README.md")).unwrap();
    let first = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();

    assert_eq!(spec::parse("README.md", first).unwrap().services[0].backends.len(), 2);
    assert_eq!(
        spec::read(&top.join("deploy/xlb.toml"), &BTreeSet::new()).unwrap().services[0].backends.len(),
        4
    );
}

#[test]
fn the_device_for_announced_addresses_may_be_lo() {
    let spec = parse("\n[announce]\ndevice = 'lo'\n").unwrap();

    assert_eq!(spec.announce.unwrap().device, "lo");
}

#[test]
fn what_is_left_out_has_its_default() {
    let spec = parse("").unwrap();

    assert_eq!(spec.interfaces[0].mode, AttachMode::Auto);
    assert_eq!(spec.api.socket, Path::new(paths::SOCKET));
    assert_eq!(spec.metrics, Some(paths::METRICS));
    assert_eq!(spec.limits, Limits::default());
    assert_eq!(spec.announce, None);
    let web = &spec.services[0];
    assert_eq!(
        (web.protocol, web.mode, web.scheduler),
        (Protocol::Tcp, Mode::FullNat, Scheduler::RoundRobin)
    );
    let Availability { quorum, panic_threshold, on_down, on_refused, slow_start } = web.availability;
    assert_eq!((quorum, panic_threshold), (1, Percent(0)));
    assert_eq!((on_down, on_refused), (OnDown::Keep, OnRefused::Retry));
    assert_eq!(slow_start, Duration::ZERO);
    assert_eq!((web.backends[0].weight, web.backends[0].backup), (100, false));
    let health = web.health.as_ref().unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(health.probe, Probe::Tcp(Tcp));
    assert_eq!(
        (health.interval, health.timeout, health.rise, health.fall, health.port),
        (second, second, 2, 3, None)
    );
}

#[test]
fn the_sources_of_peers_are_known_and_not_used_for_new_flows() {
    let group = "[group]\nlisten = '10.0.0.1:4790'\ncert = '/tls/node.pem'\nkey = '/tls/node.key'\nca = '/tls/ca.pem'\n\
        [[group.peer]]\nnode = 'lb-2'\naddress = '10.0.0.2:4790'\nsource = ['10.1.0.2', '10.1.0.9']\n";
    let text = format!(
        "version = 1\n{group}[[interface]]\nname = 'eth0'\n[[service]]\nname = 'web'\nlisten = ['192.0.2.10:80']\n\
         source = ['10.1.0.2', '10.1.0.1']\n[[service.backend]]\nname = 'a'\naddress = '10.0.0.11:80'\n"
    );

    let spec = spec::parse("xlb.toml", &text).unwrap();

    let addresses = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect::<Vec<IpAddr>>();
    let web = &spec.services[0];
    assert_eq!((&web.sources, &web.peer_sources), (&addresses(&["10.1.0.1"]), &addresses(&["10.1.0.2"])));
    assert_eq!(
        spec.addresses().into_iter().collect::<Vec<_>>(),
        addresses(&["10.1.0.1", "10.1.0.2", "192.0.2.10"])
    );
}

#[test]
fn a_group_is_read_as_it_is_meant_and_named_after_the_host() {
    let written = "[group]\nlisten = '10.0.0.1:4790'\ncert = '/tls/node.pem'\nkey = '/tls/node.key'\nca = '/tls/ca.pem'\n\
        [[group.peer]]\nnode = 'LB-2.example.org'\naddress = '[fd00::2]:4790'\n";

    let group = |text: &str| parse(text).unwrap().group;

    let named = group(&written.replace("[group]", "[group]\nnode = 'LB-1'")).unwrap();
    assert_eq!((named.node.as_str(), named.listen.to_string().as_str()), ("lb-1", "10.0.0.1:4790"));
    let files = [&named.cert, &named.key, &named.ca].map(|path| path.to_str().unwrap());
    assert_eq!(files, ["/tls/node.pem", "/tls/node.key", "/tls/ca.pem"]);
    let peers: Vec<_> = named.peers.iter().map(|it| (it.node.as_str(), it.address.to_string())).collect();
    assert_eq!(peers, [("lb-2.example.org", "[fd00::2]:4790".to_owned())]);
    assert_eq!(group(""), None);
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    match parse(written) {
        Ok(spec) => assert_eq!(spec.group.unwrap().node, host.to_lowercase()),
        Err(mistakes) => assert!(mistakes.to_string().contains(&format!("this host's name, `{host}`"))),
    }
}

#[test]
fn health_checks_inherit_key_by_key() {
    let check = |text: &str| parse(text).unwrap().services[0].health.clone();
    let defaults =
        "[defaults.health]\ntype = 'http'\npath = '/up'\nhost = 'example.org'\ninterval = '5s'\nfall = 7\n";

    let inherited = check(&format!("{defaults}[service.health]\nfall = 1\ntimeout = '2s'\n")).unwrap();

    assert_eq!(inherited.probe, http("/up", Some("example.org")));
    assert_eq!((inherited.interval, inherited.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!((inherited.rise, inherited.fall), (2, 1));
    // Keys of http are for services that use it.
    assert_eq!(check(&format!("{defaults}[service.health]\ntype = 'tcp'\n")).unwrap().probe, Probe::Tcp(Tcp));
    assert_eq!(check(&format!("{defaults}[service.health]\ntype = 'none'\n")), None);
    assert_eq!(check("[defaults.health]\ntype = 'none'\n"), None);
    assert_eq!(check("[service.health]\ntype = 'http'\n").unwrap().probe, http("/", None));
}

#[test]
fn the_default_timeout_is_at_most_the_interval() {
    let spec = parse("[service.health]\ninterval = '200ms'\n").unwrap();

    assert_eq!(spec.services[0].health.as_ref().unwrap().timeout, Duration::from_millis(200));
}

#[test]
fn durations_are_written_as_the_cli_takes_them() {
    let spec = parse("[service.health]\ninterval = '1h'\n").unwrap();

    assert_eq!(spec.services[0].health.as_ref().unwrap().interval, Duration::from_hours(1));
}

#[test]
fn the_default_half_open_flows_are_at_most_all_flows() {
    let spec = parse("[limits]\nflows = 1000\nflows_ipv6 = 2000\n").unwrap();

    assert_eq!(
        spec.limits,
        Limits { flows: 1000, flows_ipv6: 2000, half_open_flows: 2000, ..Limits::default() }
    );
}

#[test]
fn metrics_can_be_moved_or_switched_off() {
    let everywhere: SocketAddr = "0.0.0.0:9191".parse().unwrap();

    assert_eq!(parse("[metrics]\nlisten = '0.0.0.0:9191'\n").unwrap().metrics, Some(everywhere));
    assert_eq!(parse("[metrics]\nlisten = 'none'\n").unwrap().metrics, None);
}

#[test]
fn tcp_and_udp_can_share_an_address_and_a_port() {
    let spec = parse(
        "[service.health]\ntype = 'none'\n\
         [[service]]\nname = 'dns'\nprotocol = 'udp'\nlisten = ['192.0.2.10:80']\nsource = ['10.0.0.1']\n\
         health.type = 'none'\nbackend = [{ name = 'a', address = '10.0.0.11:80' }]\n",
    );

    assert_eq!(spec.unwrap().services.len(), 2);
}

#[test]
fn a_good_file_is_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlb.toml");
    fs::write(&path, format!("\u{feff}{BASE}").replace('\n', "\r\n")).unwrap();

    assert_eq!(spec::read(&path, &BTreeSet::new()), parse(""));
}

#[test]
fn programs_are_allowed_only_in_a_file_that_only_root_can_replace() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("xlb.toml");
    let text = format!("{BASE}[exec]\nallow = true\n");
    fs::write(&file, &text).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);
    let pipe = format!("/dev/fd/{}", reader.as_raw_fd());
    let is_read = |file: &Path| spec::read(file, &BTreeSet::new()).is_ok();

    for (mode, is_allowed) in
        [(0o755, geteuid().is_root()), (0o1777, geteuid().is_root()), (0o777, false), (0o775, false)]
    {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();

        assert_eq!(is_read(&file), is_allowed, "{mode:o}");
    }
    assert!(!is_read(Path::new(&pipe)), "a pipe has no owner that means anything");
}

#[test]
fn the_number_of_programs_is_not_part_of_a_check() {
    let with_at_most = |max: u32| {
        let check = "[defaults.health]\ntype = 'exec'\ncommand = ['/bin/true']\n";
        parse(&format!("{check}[exec]\nallow = true\nmax = {max}\n")).unwrap()
    };

    let (few, many) = (with_at_most(2), with_at_most(64));

    assert_eq!((few.programs_at_once, many.programs_at_once), (2, 64));
    assert_eq!(few.services[0].health, many.services[0].health);
}

/// In one service as in many.
#[test]
fn there_are_as_many_services_and_backends_as_the_limits_say() {
    let with = |limits: &str, services: usize, backends: usize| {
        spec::parse("x", &format!("{}\n[limits]\n{limits}\n", many::services(services, 1, backends)))
    };
    assert!(with("services = 2\nbackends = 2000", 2, 1000).is_ok());
    assert!(with("backends = 65536", 1, 65_536).is_ok(), "whose addresses are compared with each other");
    let lines = told(&with("services = 20000", 1025, 1).unwrap_err());
    assert_eq!(lines.len(), 1, "and nothing about the default: {lines:?}");
    assert!(lines[0].ends_with("`20000` is out of range: 1 to 16384"), "{lines:?}");

    let lines = told(&with("backends = 999", 1, 1000).unwrap_err());
    assert_eq!(
        lines,
        ["x:4:1: too many backends, from this service on: at most 999; raise `backends` in [limits]"]
    );
    let lines = told(&with("services = 1", 2, 1).unwrap_err());
    assert_eq!(
        lines,
        ["x:11:1: too many services, from this service on: at most 1; raise `services` in [limits]"]
    );
}

proptest! {
    /// Any content gives a spec or mistakes, and no control characters for a terminal.
    #[test]
    fn no_file_does_harm(at in 0..400usize, cut in 0..40usize, with in "[ -~\\n\u{0}-\u{1f}ä]{0,12}") {
        let mut text = format!("{BASE}[service.health]\ntype = 'http'\npath = '/up'\ninterval = '5s'\n");
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &with);

        if let Err(mistakes) = spec::parse("x", &text) {
            prop_assert!(!mistakes.each().is_empty());
            prop_assert!(mistakes.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{mistakes}");
        }
    }
}

const BASE: &str = "\
version = 1
[[interface]]
name = 'eth0'
[[service]]
name = 'web'
listen = ['192.0.2.10:80']
source = ['10.0.0.1']
[[service.backend]]
name = 'web-1'
address = '10.0.0.11:8080'
";

fn http(path: &str, host: Option<&str>) -> Probe {
    Probe::Http(Http::get(path, host))
}

fn parse(more: &str) -> Result<Spec, spec::Mistakes> {
    spec::parse("x", &format!("{BASE}{more}"))
}

/// Each mistake without the line that it shows.
fn told(mistakes: &spec::Mistakes) -> Vec<String> {
    mistakes.each().iter().map(|mistake| mistake.lines().next().unwrap_or_default().to_owned()).collect()
}
