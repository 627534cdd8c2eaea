use std::path::PathBuf;

use lb_common::{
    net::Protocol,
    service::{Mode, Reject},
};

use super::{links::Xdp, *};
use crate::spec::{Announce, Api, Limits, Scheduler, Service};

const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

#[test]
fn a_good_host_is_not_refused() {
    let host = host(vec![link("eth0", 2)]);

    assert_eq!(check_host(&host), []);
    assert_eq!(check_interfaces(&spec(&["eth0"], AttachMode::Native), &host, &BTreeMap::new()), []);
    assert_eq!(check_memory(1 << 30, false, &host), None);
    assert_eq!(veths(&spec(&["eth0"], AttachMode::Native), &host), None);
}

#[test]
fn all_problems_of_the_host_are_reported_at_once_with_a_remedy() {
    let host = Host {
        kernel: (5, 10),
        capabilities: ALL_CAPABILITIES & !(1 << CAP_SYS_ADMIN | 1 << CAP_BPF),
        pins_on_bpffs: false,
        ..host(vec![])
    };

    let causes: Vec<String> = check_host(&host).iter().map(Cause::to_string).collect();

    assert_eq!(
        causes,
        [
            "the kernel is Linux 5.10: boot Linux 6.1 or newer",
            "CAP_BPF missing: run xlb as root, or with its systemd unit, which grants them",
            "/sys/fs/bpf is not a bpffs: mount -t bpf bpf /sys/fs/bpf",
        ]
    );
}

#[test]
fn cap_sys_admin_includes_the_bpf_capabilities() {
    assert_eq!(missing_capabilities(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN), [""; 0]);
    assert_eq!(missing_capabilities(0), ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
}

#[test]
fn each_problem_of_an_interface_is_one_line_with_a_remedy() {
    let good = || link("eth0", 2);
    for (link, mode, expected) in [
        (
            Link { mac: None, ..good() },
            AttachMode::Auto,
            "eth0 is not an Ethernet interface: name one that is",
        ),
        (
            Link { index: 4096, ..good() },
            AttachMode::Auto,
            "eth0 has the interface index 4096, and xlb supports only those below 4096: reboot, or move the \
             interface to a new network namespace",
        ),
        (
            Link { xdp: Some(Xdp { program: 77, is_generic: true }), ..good() },
            AttachMode::Auto,
            "eth0 runs another XDP program, id 77: remove it (`bpftool prog show id 77` shows its owner)",
        ),
        (Link { lro: true, ..good() }, AttachMode::Auto, "eth0 has LRO enabled: ethtool -K eth0 lro off"),
        (
            Link { mtu: 9000, ..good() },
            AttachMode::Native,
            "eth0 has an MTU of 9000, too large for native mode: ip link set dev eth0 mtu 3506, or mode = \"auto\"",
        ),
        (
            Link { forwarding_v4: Some(false), ..good() },
            AttachMode::Auto,
            "eth0 does not forward IPv4: sysctl -w net.ipv4.ip_forward=1, or for this interface alone sysctl -w \
             net.ipv4.conf.eth0.forwarding=1",
        ),
        (
            Link { forwarding_v4: None, ..good() },
            AttachMode::Auto,
            "eth0 has no IPv4: set its MTU to at least 68, and enable IPv4 in the kernel if it is off",
        ),
        (
            Link { forwarding_v6: None, ..good() },
            AttachMode::Auto,
            "eth0 has no IPv6: set its MTU to at least 1280, and enable IPv6 in the kernel if it is off",
        ),
    ] {
        let causes = check_interfaces(&spec(&["eth0"], mode), &host(vec![link]), &BTreeMap::new());

        assert_eq!(causes.iter().map(Cause::to_string).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn a_missing_interface_is_reported_with_the_existing_ones() {
    let host = host(vec![link("eth1", 2), link("lo", 1)]);

    let causes = check_interfaces(&spec(&["eth0"], AttachMode::Auto), &host, &BTreeMap::new());

    let words: Vec<_> = causes.iter().map(Cause::to_string).collect();
    assert_eq!(words, ["there is no interface eth0: name one of eth1 in the configuration"]);
}

#[test]
fn a_missing_device_for_announced_addresses_is_reported_and_may_appear_later() {
    let host = host(vec![link("lo", 1)]);
    let announcing = |device: &str| Spec {
        announce: Some(Announce { device: device.to_owned() }),
        ..spec(&["eth0"], AttachMode::Auto)
    };

    let cause = check_announce(&announcing("anycast0"), &host).unwrap();

    assert_eq!(
        cause.to_string(),
        "there is no device anycast0 for [announce]: name lo, or make it: ip link add anycast0 type dummy"
    );
    assert!(cause.is_transient);
    assert_eq!(check_announce(&announcing("lo"), &host), None);
    assert_eq!(check_announce(&spec(&["eth0"], AttachMode::Auto), &host), None);
}

#[test]
fn generic_mode_allows_lro_and_a_large_mtu() {
    let host = host(vec![Link { lro: true, mtu: 9000, ..link("eth0", 2) }]);

    assert_eq!(check_interfaces(&spec(&["eth0"], AttachMode::Generic), &host, &BTreeMap::new()), []);
}

#[test]
fn our_own_program_is_not_a_conflict() {
    let host = host(vec![Link { xdp: Some(Xdp { program: 77, is_generic: false }), ..link("eth0", 2) }]);
    let spec = spec(&["eth0"], AttachMode::Auto);

    assert_eq!(check_interfaces(&spec, &host, &BTreeMap::from([(2, 77)])), []);
    assert_eq!(check_interfaces(&spec, &host, &BTreeMap::from([(2, 76)])).len(), 1);
}

#[test]
fn forwarding_matters_only_for_families_that_services_listen_in() {
    let host = host(vec![Link { forwarding_v4: Some(false), forwarding_v6: None, ..link("eth0", 2) }]);
    let spec = Spec { services: Vec::new(), ..spec(&["eth0"], AttachMode::Auto) };

    assert_eq!(check_interfaces(&spec, &host, &BTreeMap::new()), []);
}

#[test]
fn maps_that_do_not_fit_are_rejected_with_both_sizes() {
    let host = Host { available_bytes: 100 << 20, ..host(vec![]) };

    let cause = check_memory((100 << 20) + 1, false, &host).unwrap();

    assert_eq!(cause.what, "the maps need 101 MiB of memory, and 100 MiB are available");
}

#[test]
fn full_nat_needs_ports_outside_the_ephemeral_range() {
    let nat = spec(&["eth0"], AttachMode::Auto);
    let mut full_nat = nat.clone();
    full_nat.services[0].mode = Mode::FullNat;

    let cause = check_ports(&full_nat, (1024, 65_535)).unwrap();

    assert_eq!(
        cause.to_string(),
        "net.ipv4.ip_local_port_range is 1024 to 65535, which leaves no source ports for full-nat: narrow it, for instance \
         sysctl -w net.ipv4.ip_local_port_range='32768 60999'"
    );
    assert_eq!(
        check_ports(&full_nat, (1, 65_535)),
        Some(Cause { what: cause.what.replace("1024", "1"), ..cause })
    );
    assert_eq!(check_ports(&full_nat, (1025, 65_535)), None);
    assert_eq!(check_ports(&nat, (1024, 65_535)), None);
}

#[test]
fn veths_are_listed_with_the_settings_their_peers_need() {
    let veth = |name, index| Link { is_veth: true, ..link(name, index) };
    let host = host(vec![veth("eth0", 2), link("eth1", 3), veth("eth2", 4), veth("eth3", 5)]);

    let warning = veths(&spec(&["eth0", "eth1", "eth2"], AttachMode::Auto), &host).unwrap();

    assert!(warning.starts_with("veth (eth0, eth2): "), "{warning}");
    assert!(warning.contains("`ethtool -K PEER tx-checksum-ip-generic off gro on`"), "{warning}");
    assert!(warning.ends_with("need an XDP program on the peer"), "{warning}");
}

fn link(name: &str, index: u32) -> Link {
    Link {
        name: name.to_owned(),
        index,
        mac: Some(lb_common::net::Mac::new([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        forwarding_v4: Some(true),
        forwarding_v6: Some(true),
        ..Link::default()
    }
}

fn host(links: Vec<Link>) -> Host {
    Host {
        kernel: (6, 1),
        capabilities: ALL_CAPABILITIES,
        pins_mount: PathBuf::from("/sys/fs/bpf"),
        pins_on_bpffs: true,
        available_bytes: 1 << 30,
        cpus: 2,
        page_size: 4096,
        local_ports: (32_768, 60_999),
        links,
    }
}

fn spec(interfaces: &[&str], mode: AttachMode) -> Spec {
    Spec {
        interfaces: interfaces.iter().map(|name| Interface { name: (*name).to_owned(), mode }).collect(),
        api: Api { socket: PathBuf::from("/run/xlb/xlb.sock") },
        metrics: None,
        limits: Limits::default(),
        hash: Default::default(),
        announce: None,
        group: None,
        cluster: None,
        programs_at_once: 8,
        services: vec![
            Service {
                name: "web".to_owned(),
                listen: vec!["192.0.2.10:80".parse().unwrap(), "[2001:db8::10]:80".parse().unwrap()],
                protocol: Protocol::Tcp,
                mode: Mode::Nat,
                peer_sources: Vec::new(),
                sources: Vec::new(),
                scheduler: Scheduler::RoundRobin,
                availability: Default::default(),
                role: Default::default(),
                reject: Reject::Reset,
                share_flows: Default::default(),
                health: None,
                backends: Vec::new(),
            }
            .into(),
        ],
    }
}
