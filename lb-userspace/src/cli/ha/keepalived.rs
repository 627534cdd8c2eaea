//! `xlb ha keepalived`: one VRRP instance that moves all addresses of a pair together.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, path::Path};

use ipnet::IpNet;

use crate::{
    interface_address::{InterfaceAddress, interface_of},
    spec::Spec,
    track_file::{TrackFile, UNFIT},
};

/// The track file lowers it by at most 100.
const PRIORITY: u8 = 150;

pub struct Pair<'a> {
    pub file: &'a Path,
    pub spec: &'a Spec,
    /// Of `xlb`, and of the daemon.
    pub program: &'a Path,
    pub socket: &'a Path,
    pub track_file: TrackFile,
    pub networks: &'a [InterfaceAddress],
    /// Addresses that move with the others.
    pub also: &'a [IpNet],
    pub router_id: u8,
}

/// An address that moves, and its interface.
struct Moving<'a> {
    net: IpNet,
    interface: &'a str,
}

impl Pair<'_> {
    /// The same on both nodes.
    pub fn fragment(&self) -> String {
        let moving = self.moving();
        // An instance sends IPv4 or IPv6. Addresses of the other family are excluded from its advertisements, and move all the same.
        let is_v4 = moving.iter().any(|it| it.net.addr().is_ipv4());
        let (sent, excluded): (Vec<_>, Vec<_>) =
            moving.iter().partition(|it| it.net.addr().is_ipv4() == is_v4);
        let advertised = sent.first().map_or("IFACE", |it| it.interface);
        // It follows its own interface anyway.
        let others = self.spec.interfaces.iter().map(|it| it.name.clone()).filter(|it| it != advertised);
        let others: Vec<String> = others.collect();
        let mut text = self.head();
        let _infallible = write!(
            text,
            "vrrp_instance xlb {{\n    state BACKUP\n    interface {advertised}\n    virtual_router_id {}\n    \
             # The same on both nodes, and no `nopreempt`: then the node that serves more services is the master, and a\n    \
             # node that returns does not preempt.\n    priority {PRIORITY}\n    advert_int 0.1\n",
            self.router_id
        );
        block(&mut text, "virtual_ipaddress", &lines(&sent));
        block(&mut text, "virtual_ipaddress_excluded", &lines(&excluded));
        block(&mut text, "track_interface", &others);
        block(&mut text, "track_file", &["xlb_ready weight 1".to_owned()]);
        block(&mut text, "track_script", &["xlb_alive".to_owned()]);
        text + "}\n"
    }

    fn head(&self) -> String {
        let (file, track_file) = (self.file.display(), self.track_file.path().display());
        let (program, socket) = (self.program.display(), self.socket.display());
        let nat =
            if self.spec.services.iter().any(|service| service.sources.is_empty()) && self.also.is_empty() {
                "# nat: give the address that backends use as their gateway with --also ADDRESS/LENGTH.\n"
            } else {
                ""
            };
        format!(
            "# For keepalived, made from {file} by `xlb ha keepalived`. The same on both nodes.\n{nat}\
             global_defs {{\n    vrrp_version 3\n    vrrp_garp_master_repeat 3\n    vrrp_garp_master_delay 1\n    \
             vrrp_garp_master_refresh 10\n    script_user root\n    enable_script_security\n}}\n\n\
             # 0: ready. -1 for each service that is not. {UNFIT}: this node must not be the master.\n\
             vrrp_track_file xlb_ready {{\n    file \"{track_file}\"\n    weight 1\n    init_file {UNFIT}\n}}\n\n\
             # A daemon that has been dead for long knows nothing of the health of backends.\n\
             vrrp_script xlb_alive {{\n    script \"{program} --socket {socket} ha ready --grace 30s\"\n    interval 5\n    \
             weight -40\n}}\n\n"
        )
    }

    /// Listen addresses, then sources, then the others. Each once.
    fn moving(&self) -> Vec<Moving<'_>> {
        let services = || self.spec.services.iter();
        let listens = services().flat_map(|it| it.listen.iter().map(|listen| listen.ip()));
        let sources = services().flat_map(|it| it.all_sources());
        let mut interfaces = self.spec.interfaces.iter().map(|it| it.name.as_str());
        let first = interfaces.next().unwrap_or("IFACE");
        let last = interfaces.next_back().unwrap_or(first);
        let given = |address: IpAddr| self.also.iter().find(|it| it.addr() == address).copied();
        let moving = |address: IpAddr, otherwise| Moving {
            net: given(address).unwrap_or_else(|| IpNet::from(address)),
            interface: interface_of(address, self.networks).unwrap_or(otherwise),
        };
        let listens = listens.map(|it| moving(it, first));
        let others = sources.chain(self.also.iter().map(IpNet::addr)).map(|it| moving(it, last));
        let mut seen = BTreeSet::new();
        listens.chain(others).filter(|it| seen.insert(it.net.addr())).collect()
    }
}

fn lines(moving: &[&Moving<'_>]) -> Vec<String> {
    moving.iter().map(|it| format!("{} dev {}", it.net, it.interface)).collect()
}

/// One statement in each line.
fn block(text: &mut String, name: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let lines: String = lines.iter().map(|line| format!("        {line}\n")).collect();
    *text += &format!("    {name} {{\n{lines}    }}\n");
}
