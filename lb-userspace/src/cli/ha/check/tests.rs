//! A pair without findings, and each thing that can be wrong with it.

use super::*;
use crate::{fake::Balancer, interface_address::InterfaceAddress, spec};

const PAIR: &str = r#"
version = 1

[[interface]]
name = "eth0"

[[interface]]
name = "eth1.7"

[hash]
key_file = "/etc/xlb/hash.key"

[group]
node = "lb-1"
listen = "10.0.0.2:4790"
cert = "/etc/xlb/lb-1.pem"
key = "/etc/xlb/lb-1.key"
ca = "/etc/xlb/ca.pem"

[[group.peer]]
node = "lb-2"
address = "10.0.0.3:4790"

[[service]]
name = "web"
listen = ["192.0.2.10:80"]
source = ["10.0.0.1"]
scheduler = "maglev"

[[service.backend]]
name = "web-1"
address = "10.0.0.11:8080"
"#;

const ALONE: [&str; 2] = ["[group]", "[[service]]"];

#[test]
fn a_sound_pair_has_no_findings_and_says_what_was_checked() {
    let lines = judge(&pair());

    let texts: Vec<String> = lines.iter().map(Line::text).collect();
    assert_eq!(
        texts,
        [
            concat!("ok: daemon: it answers, version ", env!("CARGO_PKG_VERSION")),
            "ok: interfaces: the program is attached to all of them",
            "ok: drain: this node is not drained",
            "ok: arp: no service address is on another device than the interfaces, which share no network",
            "ok: rp_filter: not strict on any interface of xlb",
            "ok: keepalived: there is no /etc/keepalived/keepalived.conf",
            "ok: group: this node is lb-1, with 1 peer",
            "ok: peers: flows go both ways, and all have arrived",
            "ok: services: the same on all nodes",
            "ok: hash_key: the same on all nodes",
            "ok: source_ports: no node uses those of another one",
            "ok: clocks: less than a second apart",
            "ok: skipped_flows: none because of the configuration",
            "ok: ecmp: one node is active: the file has no [announce]",
        ]
    );
}

#[test]
fn a_daemon_that_does_not_answer_is_an_error_and_the_host_is_judged_all_the_same() {
    let mut facts = pair();
    facts.status = Err(Finding::error("cannot reach the daemon", "is it running?"));
    facts.settings[0].rp_filter = 1;

    let found = findings(&facts);

    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "error: daemon: cannot reach the daemon; is it running?");
    assert!(found[1].starts_with("warning: rp_filter: "), "{found:?}");
}

#[test]
fn each_fault_of_the_host_is_found() {
    let address = |interface: &str, net: &str| InterfaceAddress {
        interface: interface.to_owned(),
        net: net.parse().unwrap(),
    };
    for (change, expected) in [
        (
            Box::new(|facts: &mut Facts| facts.settings[1].rp_filter = 1) as Box<dyn Fn(&mut Facts)>,
            &["warning: rp_filter: it is strict (1) on eth1.7: | sysctl -w net.ipv4.conf.eth1/7.rp_filter=2"]
                [..],
        ),
        (Box::new(|facts: &mut Facts| facts.settings[0].rp_filter = 2), &[]),
        (
            Box::new(move |facts: &mut Facts| facts.networks.push(address("lo", "192.0.2.10/32"))),
            &[
                "warning: arp: arp_ignore is 0 and arp_announce is 0 on eth0, but service addresses are on lo | \
                 sysctl -w net.ipv4.conf.eth0.arp_ignore=1 net.ipv4.conf.eth0.arp_announce=2",
                "warning: arp: arp_ignore is 0 and arp_announce is 0 on eth1.7, | net.ipv4.conf.eth1/7.arp_ignore=1",
            ],
        ),
        (
            Box::new(move |facts: &mut Facts| {
                facts.networks.push(address("lo", "192.0.2.10/32"));
                (facts.settings[0].arp_ignore, facts.settings[0].arp_announce) = (2, 2);
                (facts.settings[1].arp_ignore, facts.settings[1].arp_announce) = (1, 1);
            }),
            &["warning: arp: arp_announce is 1 on eth1.7, | sysctl -w net.ipv4.conf.eth1/7.arp_announce=2"],
        ),
        (
            Box::new(move |facts: &mut Facts| facts.networks.push(address("eth0", "10.0.1.9/16"))),
            &[
                "warning: arp: arp_ignore is 0 and arp_announce is 0 on eth0, but eth0 and eth1.7 are both in 10.0.0.0/24 |",
                "warning: arp: arp_ignore is 0 and arp_announce is 0 on eth1.7, |",
            ],
        ),
        (Box::new(move |facts: &mut Facts| facts.networks.push(address("eth0", "10.0.0.1/32"))), &[]),
        (
            Box::new(|facts: &mut Facts| {
                facts.keepalived = Ok(Some("# /run/xlb/ready\nvrrp_instance x {}".to_owned()))
            }),
            &[
                "warning: keepalived: /etc/keepalived/keepalived.conf does not name /run/xlb/ready: | `xlb ha keepalived`",
            ],
        ),
        (
            Box::new(|facts: &mut Facts| facts.keepalived = Ok(Some("  file \"/run/xlb/ready\"".to_owned()))),
            &[],
        ),
        (Box::new(|facts: &mut Facts| facts.keepalived = Ok(Some("include conf.d/*".to_owned()))), &[]),
        (
            Box::new(|facts: &mut Facts| facts.keepalived = Err("cannot read it".to_owned())),
            &["warning: keepalived: cannot read it | root"],
        ),
    ] {
        expect(change, expected);
    }
}

#[test]
fn each_fault_of_the_node_and_its_group_is_found() {
    let peer = |change: fn(&mut view::GroupPeer)| {
        Box::new(move |facts: &mut Facts| {
            change(&mut facts.status.as_mut().unwrap().group.as_mut().unwrap().peers[0]);
        }) as Box<dyn Fn(&mut Facts)>
    };
    let status = |change: fn(&mut Status)| {
        Box::new(move |facts: &mut Facts| change(facts.status.as_mut().unwrap())) as Box<dyn Fn(&mut Facts)>
    };
    for (change, expected) in [
        (
            status(|it| it.interfaces[1].attached = false),
            &["error: interfaces: the program is not attached to eth1: | `ip link show eth1`"][..],
        ),
        (status(|it| it.node.drained = true), &["warning: drain: this node is drained: | `xlb ha ready`"]),
        (
            status(|it| it.group = None),
            &["warning: group: the file has a [group], and the running daemon has none: | restart"],
        ),
        (
            peer(|it| {
                (it.receiving, it.complete, it.failure) = (false, false, Some("no\u{1b}route".to_owned()))
            }),
            &[
                "warning: peers: the flows of lb-2 do not come to this node: no\u{fffd}route; | `xlb group status`",
            ],
        ),
        (peer(|it| it.sending = false), &["warning: peers: lb-2 has not connected to this node, |"]),
        (peer(|it| it.complete = false), &["warning: peers: not all flows of lb-2 have arrived yet: |"]),
        (
            peer(|it| it.services_differing = Some(vec!["web".to_owned(), "dns (only there)".to_owned()])),
            &["warning: services: lb-2 has another definition of web, dns (only there); |"],
        ),
        (peer(|it| it.services_differing = None), &[]),
        (
            peer(|it| it.same_hash_key = Some(false)),
            &["warning: hash_key: that of lb-2 differs: | `[hash] key_file`"],
        ),
        (
            peer(|it| it.source_ports_overlap = Some(true)),
            &["warning: source_ports: lb-2: it uses | ip_local_port_range"],
        ),
        (
            peer(|it| it.clock_difference_ms = Some(-2_500)),
            &["warning: clocks: lb-2: its clock is 2.5s behind: | NTP"],
        ),
        (
            peer(|it| {
                let skipped = [("other_source", 3), ("unknown_backend", 1), ("newer_here", 9)];
                it.flows_skipped_total = skipped.map(|(reason, count)| (reason.to_owned(), count)).into();
            }),
            &[
                "warning: skipped_flows: | could not take flows of lb-2: 3 (other_source), 1 (unknown_backend); |",
            ],
        ),
        (
            peer(|it| {
                it.flows_skipped_total = [("newer_here".to_owned(), 9), ("closed_here".to_owned(), 1)].into()
            }),
            &[],
        ),
    ] {
        expect(change, expected);
    }
}

#[test]
fn a_file_that_shares_nothing_is_found() {
    let nat = PAIR.replace("source = [\"10.0.0.1\"]\n", "mode = \"nat\"\n");
    let announcing = |text: &str| text.replace("[group]", "[announce]\ndevice = \"lo\"\n\n[group]");
    for (text, expected) in [
        (without(PAIR, ALONE), &["warning: group: the file has no [group]: | restart xlb"][..]),
        (
            PAIR.replace("[hash]\nkey_file = \"/etc/xlb/hash.key\"\n", ""),
            &[
                "warning: hash_key: service web (maglev) hashes with a key that this node has made for itself: | key_file",
            ],
        ),
        (without(&announcing(PAIR), ALONE), &["error: ecmp: [announce] without [group]: | resilient"]),
        (announcing(&nat), &[]),
    ] {
        let facts = Facts { spec: spec::parse("xlb.toml", &text).unwrap(), ..quiet() };

        matches(&findings(&facts), expected);
    }
}

#[test]
fn active_nodes_need_sources_of_their_own_in_full_nat() {
    let announcing = PAIR.replace("[group]", "[announce]\ndevice = \"lo\"\n\n[group]");
    let both = announcing.replace("[\"10.0.0.1\"]", "[\"10.0.0.1\", \"10.0.0.9\"]");
    let told = both.replace("[[group.peer]]\n", "[[group.peer]]\nsource = [\"10.0.0.9\"]\n");
    let missing = "warning: sources: service web has no IPv4 source of another node: | [[group.peer]]";
    for (text, expected) in [(&announcing, &[missing][..]), (&both, &[missing]), (&told, &[])] {
        let facts = Facts { spec: spec::parse("xlb.toml", text).unwrap(), ..quiet() };

        matches(&findings(&facts), expected);
    }
}

/// Exactly these findings, each with the given parts, which `|` separates. It begins with the first one.
fn matches(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        let mut parts = expected.split('|').map(str::trim);
        assert!(found.starts_with(parts.next().unwrap()), "{found}");
        parts.for_each(|part| assert!(found.contains(part), "{found} lacks {part}"));
    }
}

fn expect(change: impl Fn(&mut Facts), expected: &[&str]) {
    let mut facts = pair();
    change(&mut facts);

    matches(&findings(&facts), expected);
}

fn findings(facts: &Facts) -> Vec<String> {
    judge(facts).iter().filter(|line| line.level != Level::Ok).map(Line::text).collect()
}

/// The text without what is between these.
fn without(text: &str, [first, end]: [&str; 2]) -> String {
    let (before, after) = text.split_once(first).unwrap();
    format!("{before}{end}{}", after.split_once(end).unwrap().1)
}

/// The pair on interfaces that are ready for addresses on `lo`.
fn quiet() -> Facts {
    let mut facts = pair();
    facts.settings.iter_mut().for_each(|it| (it.arp_ignore, it.arp_announce) = (1, 2));
    facts
}

fn pair() -> Facts {
    let network = |interface: &str, net: &str| InterfaceAddress {
        interface: interface.to_owned(),
        net: net.parse().unwrap(),
    };
    let settings = |interface: &str| InterfaceSettings {
        interface: interface.to_owned(),
        arp_ignore: 0,
        arp_announce: 0,
        rp_filter: 0,
    };
    let mut status = Balancer::new().status();
    status.group.as_mut().unwrap().peers.truncate(1);
    Facts {
        spec: spec::parse("xlb.toml", PAIR).unwrap(),
        networks: vec![
            network("lo", "127.0.0.1/8"),
            network("eth0", "192.0.2.2/24"),
            network("eth0", "2001:db8::2/64"),
            network("eth1.7", "10.0.0.2/24"),
            network("eth1.7", "2001:db8::3/64"),
        ],
        settings: vec![settings("eth0"), settings("eth1.7")],
        keepalived: Ok(None),
        track_file: "/run/xlb/ready".into(),
        status: Ok(status),
    }
}
