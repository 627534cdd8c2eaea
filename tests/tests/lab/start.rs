//! Failed starts: exit codes and messages, and nothing was changed.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};
use lb_common::service::Mode;
use tests::lab::{Config, Family, command::Output, pass, sweep};

use crate::{
    refusal::{CONFLICT, HOST_UNFIT, INVALID_CONFIGURATION, assert_unfit, refused, said},
    stage::{configured, one_backend},
};

#[test]
fn a_missing_or_invalid_file_is_reported_with_line_and_column() -> Result<()> {
    let lab = one_backend("file")?;
    let config = Config::web(&lab, Mode::FullNat).to_string();
    let wrong = config.replace("\"192.0.2.10:80\"", "\"192.0.2.10:0\"").replace("flows_ipv6", "flow_ipv6");

    let missing = refused(&lab, &[])?;
    fs::write(lab.config_path(), &wrong)?;
    let mistaken = refused(&lab, &[])?;

    let path = lab.config_path().display().to_string();
    assert_eq!(
        said(&missing),
        (
            INVALID_CONFIGURATION,
            format!(
                "error: {path}: no such file\n\
                 hint: choose another file with `xlb run --config FILE` or XLB_CONFIG\n"
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
                 {path}:16:11: `0` is not a port: expected 1 to 65535\n\
                 \x20  16 | listen = [\"192.0.2.10:0\", \"[2001:db8::10]:80\"]\n\
                 \x20     |           ^^^^^^^^^^^^^^\n\
                 error: {path} is not a valid configuration\n"
            )
        )
    );
    Ok(())
}

#[test]
fn missing_privileges_are_reported_before_any_file_that_needs_them() -> Result<()> {
    let lab = configured("rights")?;
    let locked = lab.directory().join("state");
    fs::create_dir(&locked)?;
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000))?;
    let socket = format!("XLB_SOCKET={}", locked.join("xlb.sock").display());

    let output = refused(&lab, &["setpriv", "--bounding-set=-all", "env", &socket])?;

    assert_unfit(
        &output,
        &[
            "CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON missing: run xlb as root, or with its systemd unit, which grants \
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
    assert_unfit(&output, &[&format!("{mount} is not a bpffs: mount -t bpf bpf {mount}")]);
    Ok(())
}

#[test]
fn a_missing_interface_is_reported_with_those_that_exist() -> Result<()> {
    let lab = one_backend("missing")?;
    let config =
        Config { interfaces: vec!["eth0".into(), "eth7".into()], ..Config::web(&lab, Mode::FullNat) };
    fs::write(lab.config_path(), config.to_string())?;

    let output = refused(&lab, &[])?;

    assert_unfit(&output, &["there is no interface eth7: name one of eth0, eth1 in the configuration"]);
    Ok(())
}

#[test]
fn a_foreign_program_is_named_and_left_alone() -> Result<()> {
    let lab = configured("other")?;
    pass::pass_everything((&lab.xlb, "eth1"), &lab.directory().join(sweep::BPFFS))?;

    let output = refused(&lab, &[])?;

    let id = lab.xlb.programs()?.remove("eth1").context("eth1 has no program")?;
    assert_unfit(
        &output,
        &[&format!(
            "eth1 runs another XDP program, id {id}: remove it (`bpftool prog show id {id}` shows its owner)"
        )],
    );
    Ok(())
}

#[test]
fn a_host_that_does_not_forward_is_reported_for_each_interface_and_family() -> Result<()> {
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
fn an_mtu_too_large_for_native_mode_is_reported_with_the_largest_possible() -> Result<()> {
    let lab = one_backend("mtu")?;
    let config = Config::web(&lab, Mode::FullNat).to_string();
    fs::write(lab.config_path(), config.replace("name = \"eth1\"", "name = \"eth1\"\nmode = \"native\""))?;
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
fn limits_that_exceed_the_hosts_memory_are_reported_with_both_figures() -> Result<()> {
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
        "lower `flows` and `flows_ipv6` in [limits], or add memory\nerror: this host cannot run xlb\n"
    );
    Ok(())
}

#[test]
fn a_host_that_uses_all_ports_itself_is_reported_before_anything_is_changed() -> Result<()> {
    let lab = configured("ports")?;
    lab.xlb.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;

    let output = refused(&lab, &[])?;

    assert_unfit(
        &output,
        &[
            "net.ipv4.ip_local_port_range is 1024 to 65535, which leaves no source ports for full-nat: narrow it, for \
             instance sysctl -w net.ipv4.ip_local_port_range='32768 60999'",
        ],
    );
    Ok(())
}

#[test]
fn a_second_daemon_reports_the_conflict_and_the_first_serves_on() -> Result<()> {
    let lab = one_backend("second")?;
    let _web = lab.web_servers()?;
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;
    let directory = lab.directory().display();

    let same = refused(&lab, &[])?;
    let other_socket = refused(&lab, &["env", &format!("XLB_SOCKET={directory}/other/xlb.sock")])?;
    let other_pins = refused(&lab, &["env", &format!("XLB_PINS={directory}/{}/other", sweep::BPFFS)])?;

    let taken = format!(
        "error: another xlb is using {directory}/{}/xlb: stop it, or choose another pin directory with \
         XLB_PINS\n",
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
fn a_metrics_address_in_use_is_a_conflict_and_changes_nothing() -> Result<()> {
    let lab = one_backend("metrics")?;
    // A socket stays in the namespace where it was created.
    let theirs = lab.xlb.inside(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let address = theirs.local_addr()?;
    let config = Config::web(&lab, Mode::FullNat);
    fs::write(lab.config_path(), format!("{config}\n[metrics]\nlisten = \"{address}\"\n"))?;

    let output = refused(&lab, &[])?;

    let taken = format!(
        "error: cannot listen on {address}: address in use (`ss -ltnp` shows the process; `listen` in [metrics] \
         changes the address)\n"
    );
    assert_eq!(said(&output), (CONFLICT, taken));
    Ok(())
}

#[test]
fn a_failed_start_is_reported_with_any_log_filter() -> Result<()> {
    let lab = one_backend("log")?;

    for words in [&["env", "XLB_LOG=off"][..], &["env", "XLB_LOG=lb_userspace::health=debug"]] {
        let output = refused(&lab, words)?;

        assert_eq!(output.code, INVALID_CONFIGURATION);
        let missing = format!("error: {}: no such file", lab.config_path().display());
        assert!(output.stderr.starts_with(&missing), "{words:?}: {}", output.stderr);
    }
    Ok(())
}
