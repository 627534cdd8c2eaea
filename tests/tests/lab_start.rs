//! What an operator sees of a daemon that does not start, and of one that ends: exit codes, lines, and what is left.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::{DirEntryExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_common::{LAYOUT, service::Mode};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::lab::{
    Config, Family, Lab, Shape, Topology, address,
    command::Output,
    daemon::{binary, environment, log_path},
    eventually, link, pass, sweep,
};

const CONFLICT: i32 = 5;
const INVALID_CONFIGURATION: i32 = 6;
const HOST_UNFIT: i32 = 78;

/// For what has no deadline of its own.
const SOON: Duration = Duration::from_secs(5);
/// From an interface that appears to the first answer: the look at the host, the load, and the first health checks.
const BOOT: Duration = Duration::from_secs(20);
/// Before each command that must end: one that does not is ended, and shows by its exit code.
const LIMIT: [&str; 2] = ["timeout", "20"];

#[test]
fn a_file_that_is_not_there_or_wrong_is_told_with_line_and_column() -> Result<()> {
    let lab = lab("file")?;
    let config = Config::web(&lab, Mode::FullNat).to_string();
    let wrong = config.replace("\"192.0.2.10:80\"", "\"192.0.2.10:0\"").replace("flows_ipv6", "flow_ipv6");

    let missing = refused(&lab, &[])?;
    fs::write(file(&lab), &wrong)?;
    let mistaken = refused(&lab, &[])?;

    let path = file(&lab).display().to_string();
    assert_eq!(
        said(&missing),
        (
            INVALID_CONFIGURATION,
            format!(
                "error: {path}: there is no such file\n\
                 hint: `xlb run --config FILE` or XLB_CONFIG names another file\n"
            )
        )
    );
    assert_eq!(
        said(&mistaken),
        (
            INVALID_CONFIGURATION,
            format!(
                "{path}:11:1: unknown key `flow_ipv6` in [limits]: did you mean `flows_ipv6`?\n\
                 \x20  11 | flow_ipv6 = 65536\n\
                 \x20     | ^^^^^^^^^\n\
                 {path}:16:11: `0` is not a port: 1 to 65535 are\n\
                 \x20  16 | listen = [\"192.0.2.10:0\", \"[2001:db8::10]:80\"]\n\
                 \x20     |           ^^^^^^^^^^^^^^\n\
                 error: {path} is not a valid configuration\n"
            )
        )
    );
    Ok(())
}

#[test]
fn a_daemon_without_rights_is_told_which_before_it_meets_a_file_that_it_may_not_touch() -> Result<()> {
    let lab = configured("rights")?;
    let locked = lab.directory().join("state");
    fs::create_dir(&locked)?;
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000))?;
    let socket = format!("XLB_SOCKET={}", locked.join("xlb.sock").display());

    let output = refused(&lab, &["setpriv", "--bounding-set=-all", "env", &socket])?;

    assert_unfit(
        &output,
        &[
            "CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON missing: run xlb as root, or by its systemd unit, which grants \
           them",
        ],
    );
    Ok(())
}

#[test]
fn pins_need_a_bpffs() -> Result<()> {
    let lab = configured("bpffs")?;
    let pins = format!("XLB_PINS={}", lab.directory().join("elsewhere/xlb").display());

    let output = refused(&lab, &["env", &pins])?;

    let mount = lab.directory().display();
    assert_unfit(&output, &[&format!("{mount} is no bpffs: mount -t bpf bpf {mount}")]);
    Ok(())
}

#[test]
fn a_missing_interface_is_told_with_those_that_there_are() -> Result<()> {
    let lab = lab("missing")?;
    let config =
        Config { interfaces: vec!["eth0".into(), "eth7".into()], ..Config::web(&lab, Mode::FullNat) };
    fs::write(file(&lab), config.to_string())?;

    let output = refused(&lab, &[])?;

    assert_unfit(&output, &["there is no interface eth7: name one of eth0, eth1 in the configuration"]);
    Ok(())
}

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
fn a_wait_for_interfaces_ends_with_the_refusal_of_a_start_without_one() -> Result<()> {
    let lab = lab("waited")?;
    let config =
        Config { interfaces: vec!["eth0".into(), "eth7".into()], ..Config::web(&lab, Mode::FullNat) };
    fs::write(file(&lab), config.to_string())?;

    let output = refused_with(&lab, &[], &["--wait-interfaces", "500ms"])?;

    let refusal = "there is no interface eth7: name one of eth0, eth1 in the configuration\n\
                   error: this host cannot run xlb as it is\n";
    assert_eq!(output.code, HOST_UNFIT, "{}", output.stderr);
    assert!(output.stderr.ends_with(refusal), "{}", output.stderr);
    Ok(())
}

#[test]
fn a_program_of_somebody_else_is_named_and_left_alone() -> Result<()> {
    let lab = configured("other")?;
    pass::pass_everything((&lab.xlb, "eth1"), &lab.directory().join(sweep::BPFFS))?;

    let output = refused(&lab, &[])?;

    let id = programs(&lab)?.remove("eth1").context("eth1 has no program")?;
    assert_unfit(
        &output,
        &[&format!(
            "eth1 runs another XDP program, id {id}: see whose it is by `bpftool prog show id {id}` and have its \
             owner remove it"
        )],
    );
    Ok(())
}

#[test]
fn a_host_that_does_not_forward_is_told_for_each_interface_and_family() -> Result<()> {
    let lab = configured("forward")?;
    lab.xlb.sysctl("net.ipv4.ip_forward", "0")?;
    lab.xlb.sysctl("net.ipv6.conf.all.forwarding", "0")?;

    let output = refused(&lab, &[])?;

    let lines = ["eth0", "eth1"].map(|name| {
        [("4", "net.ipv4.ip_forward"), ("6", "net.ipv6.conf.all.forwarding")].map(|(family, all)| {
            format!(
                "{name} does not forward IPv{family}: sysctl -w {all}=1, or for this interface alone sysctl -w \
                 net.ipv{family}.conf.{name}.forwarding=1"
            )
        })
    });
    assert_unfit(&output, &lines.as_flattened().iter().map(String::as_str).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn an_mtu_that_native_mode_cannot_have_is_told_with_the_longest_that_it_can() -> Result<()> {
    let lab = lab("mtu")?;
    let config = Config::web(&lab, Mode::FullNat).to_string();
    fs::write(file(&lab), config.replace("name = \"eth1\"", "name = \"eth1\"\nmode = \"native\""))?;
    lab.xlb.ip("link set eth1 mtu 9000")?;

    let output = refused(&lab, &[])?;

    assert_unfit(
        &output,
        &[
            "eth1 has an MTU of 9000, too large for native mode: ip link set dev eth1 mtu 3506, or mode = \"auto\"",
        ],
    );
    Ok(())
}

#[test]
fn limits_that_the_host_cannot_hold_are_told_with_both_figures() -> Result<()> {
    let lab = configured("memory")?;
    let meminfo = lab.directory().join("meminfo");
    fs::write(&meminfo, "MemTotal: 65536 kB\nMemAvailable: 8192 kB\n")?;
    let small = format!("mount --bind {} /proc/meminfo && exec \"$@\"", meminfo.display());

    let output = refused(&lab, &["unshare", "--mount", "sh", "-c", &small, "sh"])?;

    let Output { code, stderr, .. } = &output;
    assert_eq!(*code, HOST_UNFIT, "{stderr}");
    let (needed, rest) = stderr
        .strip_prefix("the maps need ")
        .and_then(|rest| rest.split_once(" MiB of memory, and 8 MiB are available: "))
        .with_context(|| stderr.clone())?;
    assert!(needed.parse::<u32>()? > 8, "{stderr}");
    assert_eq!(
        rest,
        "lower `flows` and `flows_ipv6` in [limits], or add memory\nerror: this host cannot run xlb as it is\n"
    );
    Ok(())
}

#[test]
fn a_host_that_takes_all_ports_for_itself_is_told_before_anything_is_changed() -> Result<()> {
    let lab = configured("ports")?;
    lab.xlb.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;

    let output = refused(&lab, &[])?;

    assert_unfit(
        &output,
        &[
            "net.ipv4.ip_local_port_range is 1024 to 65535, which leaves full-nat no source ports: narrow it, for \
             instance sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
        ],
    );
    Ok(())
}

#[test]
fn a_second_daemon_is_told_what_is_taken_and_the_first_serves_on() -> Result<()> {
    let lab = lab("second")?;
    let _web = lab.web_servers()?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;
    let directory = lab.directory().display();

    let same = refused(&lab, &[])?;
    let other_socket = refused(&lab, &["env", &format!("XLB_SOCKET={directory}/other/xlb.sock")])?;
    let other_pins = refused(&lab, &["env", &format!("XLB_PINS={directory}/{}/other", sweep::BPFFS)])?;

    let taken = format!(
        "error: another xlb holds {directory}/{}/xlb: stop it, or give this one other pins by XLB_PINS\n",
        sweep::BPFFS
    );
    assert_eq!(said(&same), (CONFLICT, taken.clone()));
    assert_eq!(said(&other_socket), (CONFLICT, taken));
    assert_eq!(other_pins.code, HOST_UNFIT, "{}", other_pins.stderr);
    assert!(other_pins.stderr.contains("eth0 runs another XDP program"), "{}", other_pins.stderr);
    assert!(lab.visit(Family::V4, 80, 30)?.is_even(1));
    Ok(())
}

#[test]
fn a_metrics_address_that_somebody_else_has_is_a_conflict_and_changes_nothing() -> Result<()> {
    let lab = lab("metrics")?;
    // A socket stays in the namespace that it was made in.
    let theirs = lab.xlb.inside(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let address = theirs.local_addr()?;
    let config = Config::web(&lab, Mode::FullNat);
    fs::write(file(&lab), format!("{config}\n[metrics]\nlisten = \"{address}\"\n"))?;

    let output = refused(&lab, &[])?;

    let taken = format!(
        "error: listen on {address}: address in use (`ss -ltnp` says by whom; [metrics] listen chooses another)\n"
    );
    assert_eq!(said(&output), (CONFLICT, taken));
    Ok(())
}

#[test]
fn a_metrics_address_that_appears_late_is_served_once_it_is_there() -> Result<()> {
    let lab = lab("late")?;
    let config = Config::web(&lab, Mode::FullNat);
    let mut xlb = lab.start(&config)?;
    xlb.stop()?;
    fs::write(file(&lab), format!("{config}\n[metrics]\nlisten = \"10.0.0.9:9191\"\n"))?;

    xlb.start_again()?;

    let log = fs::read_to_string(log_path(lab.directory()))?;
    assert!(log.contains("listen on 10.0.0.9:9191: this host does not have the address"), "{log}");
    lab.xlb.ip("address add 10.0.0.9/24 dev eth1")?;
    eventually(SOON, "the address is served", || {
        Ok(lab.xlb.output(&["curl", "-sf", "-m", "1", "http://10.0.0.9:9191/livez"])?.code == 0)
    })?;
    Ok(())
}

#[test]
fn a_refusal_is_said_whatever_the_log_is_told() -> Result<()> {
    let lab = lab("log")?;

    for words in [&["env", "XLB_LOG=off"][..], &["env", "XLB_LOG=lb_userspace::health=debug"]] {
        let output = refused(&lab, words)?;

        assert_eq!(output.code, INVALID_CONFIGURATION);
        let missing = format!("error: {}: there is no such file", file(&lab).display());
        assert!(output.stderr.starts_with(&missing), "{words:?}: {}", output.stderr);
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_told_to_stop_succeeds_and_leaves_traffic_flowing() -> Result<()> {
    let lab = lab("stop")?;
    let _web = lab.web_servers()?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;
    // The daemon finds out where a client on the same Ethernet is; from then on, the kernel knows.
    lab.visit(Family::V4, 80, 30)?;

    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        xlb.stop_by(signal)?;

        assert_eq!(programs(&lab)?.len(), 2, "{signal}");
        assert!(!lab.directory().join("xlb.sock").exists(), "{signal}");
        assert!(lab.visit(Family::V4, 80, 30)?.is_even(1), "{signal}");
        xlb.start_again()?;
    }
    Ok(())
}

#[test]
fn what_was_detached_is_gone() -> Result<()> {
    let lab = lab("detach")?;
    let layout = lab.directory().join(sweep::BPFFS).join(format!("xlb/v{LAYOUT}"));

    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    assert!(layout.exists() && programs(&lab)?.len() == 2);
    xlb.run(&["detach"])?;
    xlb.wait()?;
    assert!(!layout.exists() && programs(&lab)?.is_empty(), "by a daemon that ends");

    xlb.start_again()?;
    xlb.kill()?;
    assert!(layout.exists() && programs(&lab)?.len() == 2, "a daemon that dies takes nothing with it");
    xlb.run(&["detach"])?;
    assert!(!layout.exists() && programs(&lab)?.is_empty(), "behind a daemon that died");
    Ok(())
}

#[test]
fn a_daemon_that_is_to_detach_at_its_end_leaves_nothing() -> Result<()> {
    let lab = configured("onexit")?;
    let layout = lab.directory().join(sweep::BPFFS).join(format!("xlb/v{LAYOUT}"));
    let mut command = lab.xlb.command(binary()?);
    let mut xlb = command.args(["run", "--detach-on-exit"]).envs(environment(lab.directory())).spawn()?;
    eventually(SOON, "the programs are attached", || Ok(programs(&lab)?.len() == 2))?;

    kill(Pid::from_raw(xlb.id().cast_signed()), Signal::SIGTERM)?;
    let status = xlb.wait()?;

    assert!(status.success(), "{status}");
    assert!(!layout.exists() && programs(&lab)?.is_empty());
    Ok(())
}

#[test]
fn commands_end_as_the_manual_says() -> Result<()> {
    let lab = lab("codes")?;
    let mut xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;

    for (words, code, stderr) in [
        (&["backend", "show", "web/web-9"][..], 3, "error: there is no backend `web/web-9`\n"),
        (&["backend", "drain", "web/web-9"], 3, "error: there is no backend `web/web-9`\n"),
        (&["backend", "add", "mail/m-1", "10.0.0.14:25"], 3, "error: there is no service `mail`\n"),
        (&["backend", "add", "web/web-1", "10.0.0.14:80"], 5, "error: web/web-1 is there already\n"),
        (&["service", "show", "mail"], 3, "error: there is no service `mail`\n"),
        (&["health", "probe", "web/web-9"], 3, "error: there is no backend `web/web-9`\n"),
    ] {
        assert_eq!(said(&xlb.output(words)?), (code, stderr.to_owned()), "{words:?}");
    }
    assert_eq!(xlb.output(&["backend", "weight", "web/web-1", "many"])?.code, 2);
    assert_eq!(xlb.output(&["backend", "weight", "web/web-1", "1001"])?.code, 2);
    // By a socket that nobody listens on, so that it meets the pins of a daemon that lives.
    let pins = format!("{}/{}/xlb", lab.directory().display(), sweep::BPFFS);
    let held =
        format!("error: another xlb holds {pins}\nhint: ask it by its socket (--socket), or stop it\n");
    assert_eq!(said(&xlb.output(&["--socket", "/absent/xlb.sock", "detach"])?), (CONFLICT, held));
    assert_eq!(programs(&lab)?.len(), 2);
    xlb.kill()?;
    assert_eq!(xlb.output(&["backend", "drain", "web/web-1"])?.code, 4);
    Ok(())
}

#[test]
fn a_backend_that_was_added_outlives_the_daemon_and_is_told_by_status() -> Result<()> {
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
    let told = "changed by commands, on top of the file:\n  web/spare: added, 10.0.0.12:8080 weight 7\n";
    assert!(status.contains(told), "{status}");
    Ok(())
}

#[test]
fn a_bad_file_at_reload_changes_nothing_and_says_where() -> Result<()> {
    let lab = lab("badfile")?;
    let _web = lab.web_servers()?;
    let config = Config::web(&lab, Mode::FullNat);
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let before = (xlb.json(&["backend", "list"])?, programs(&lab)?);
    let wrong = config.to_string().replace("\"192.0.2.10:80\"", "\"192.0.2.10:0\"");
    fs::write(file(&lab), wrong)?;

    let output = xlb.output(&["reload"])?;

    let path = file(&lab).display().to_string();
    assert_eq!(
        said(&output),
        (
            INVALID_CONFIGURATION,
            format!(
                "{path}:16:11: `0` is not a port: 1 to 65535 are\n\
                 \x20  16 | listen = [\"192.0.2.10:0\", \"[2001:db8::10]:80\"]\n\
                 \x20     |           ^^^^^^^^^^^^^^\n\
                 error: {path} is not in force, because it has mistakes\n"
            )
        )
    );
    let status = xlb.run(&["status"])?;
    assert!(status.contains("last reload   failed"), "{status}");
    let check = xlb.output(&["status", "--check"])?;
    assert!(check.code == 1 && check.stdout.contains("the last reload failed"), "{check:?}");
    assert_eq!((xlb.json(&["backend", "list"])?, programs(&lab)?), before);
    assert!(lab.visit(Family::V4, 80, 30)?.is_even(1));

    xlb.write(&config)?;
    xlb.run(&["reload"])?;
    assert!(xlb.run(&["status"])?.contains("last reload   successful\n"));
    Ok(())
}

#[test]
fn a_bad_file_at_sighup_changes_nothing_and_is_logged_once() -> Result<()> {
    let lab = lab("hangup")?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    fs::write(file(&lab), "version = 2\n")?;

    xlb.hang_up()?;
    eventually(SOON, "the reload failed", || Ok(xlb.json(&["status"])?["last_reload_successful"] == false))?;
    xlb.run(&["reload"]).unwrap_err();
    xlb.run(&["backend", "list"])?;

    let log = fs::read_to_string(lab.directory().join("xlb.log"))?;
    // Once by SIGHUP, once by command.
    assert_eq!(log.matches("xlb.toml:1:11: ").count(), 2, "{log}");
    Ok(())
}

/// One backend behind two NICs.
fn lab(tag: &'static str) -> Result<Lab> {
    Lab::build(&Topology::new(tag, Shape::TwoNics).backends(1))
}

/// A lab in which nothing but what a test spoils keeps a daemon from starting.
fn configured(tag: &'static str) -> Result<Lab> {
    let lab = lab(tag)?;
    fs::write(file(&lab), Config::web(&lab, Mode::FullNat).to_string())?;
    Ok(lab)
}

fn file(lab: &Lab) -> PathBuf {
    lab.directory().join("xlb.toml")
}

/// Runs a daemon through `words`, which must end by itself and leave the host as it was.
fn refused(lab: &Lab, words: &[&str]) -> Result<Output> {
    refused_with(lab, words, &[])
}

/// The same with options for `xlb run`.
fn refused_with(lab: &Lab, words: &[&str], options: &[&str]) -> Result<Output> {
    let before = Traces::of(lab)?;
    let variables = environment(lab.directory()).map(|(name, value)| format!("{name}={}", value.display()));
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let binary = binary()?.display().to_string();

    let output =
        lab.xlb.output(&[&LIMIT, &["env"][..], &variables, words, &[&binary, "run"], options].concat())?;

    assert_eq!(Traces::of(lab)?, before, "{}", output.stderr);
    Ok(output)
}

fn said(output: &Output) -> (i32, String) {
    (output.code, output.stderr.clone())
}

/// Every cause in a line of its own, and nothing else.
fn assert_unfit(output: &Output, causes: &[&str]) {
    let causes: String = causes.iter().map(|cause| format!("{cause}\n")).collect();
    assert_eq!(said(output), (HOST_UNFIT, format!("{causes}error: this host cannot run xlb as it is\n")));
}

/// What a daemon leaves on a host: files and pins, and programs on interfaces.
#[derive(Debug, PartialEq)]
struct Traces {
    /// By inode: one that was made anew is another.
    files: BTreeMap<PathBuf, u64>,
    programs: BTreeMap<String, u64>,
}

impl Traces {
    fn of(lab: &Lab) -> Result<Self> {
        let mut files = BTreeMap::new();
        find(lab.directory(), &mut files)?;
        Ok(Self { files, programs: programs(lab)? })
    }
}

/// Everything below a directory.
fn find(directory: &Path, files: &mut BTreeMap<PathBuf, u64>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.insert(entry.path(), entry.ino());
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The XDP programs of the host's interfaces, as the kernel numbers them.
fn programs(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let links = lab.xlb.run(&["ip", "-json", "-details", "link", "show"])?;
    let links: Vec<Value> = serde_json::from_str(&links)?;
    let program =
        |link: &Value| Some((link["ifname"].as_str()?.to_owned(), link["xdp"]["prog"]["id"].as_u64()?));
    Ok(links.iter().filter_map(program).collect())
}
