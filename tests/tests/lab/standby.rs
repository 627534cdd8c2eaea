//! A second xlb with the same configuration on the same Ethernet, which gets every frame that the active one gets.

use anyhow::Result;
use lb_common::service::Mode;
use tests::lab::{Config, Family, Lab, Namespace, Pair, Shape, Topology, link, pass, sweep};

/// The standby's own addresses, as clients and as backends see them.
const OUTSIDE: Pair = Pair::new([192, 0, 2, 2], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x2]);
const INSIDE: Pair = Pair::new([10, 0, 0, 2], [0xfd00, 0, 0, 0, 0, 0, 0, 0x2]);
const CONNECTIONS: usize = 300;

#[test]
fn a_standby_behind_a_switch_that_floods_leaves_all_frames_to_the_active_one() -> Result<()> {
    for mode in [Mode::FullNat, Mode::Nat] {
        let lab = Lab::build(&Topology::new("standby", Shape::OneNic).mode(mode))?;
        let _web = lab.web_servers()?;
        let standby = plug_in_a_standby(&lab)?;
        flood(&lab)?;
        let config = Config::web(&lab, mode);
        let (active, passive) = (lab.start(&config)?, lab.start_another(&standby, &config)?);
        active.wait_until_all_are_up()?;
        passive.wait_until_all_are_up()?;

        for family in Family::ALL {
            let tally = lab.visit(family, 80, CONNECTIONS)?;
            // Not in equal shares: if SYNs are lost, their backend may be ejected for a second.
            assert!(tally.failed() == 0 && tally.answers.len() == 3, "{mode:?} {family:?}: {tally}");
        }

        let new_flows = |xlb: &tests::lab::Daemon| {
            xlb.metrics().map(|metrics| metrics.sum("xlb_service_new_flows_total", &[]))
        };
        let packets = |action: &str| -> Result<f64> {
            Ok(passive.metrics()?.sum("xlb_xdp_packets_total", &[("action", action)]))
        };
        assert!(new_flows(&active)? >= (2 * CONNECTIONS) as f64, "{mode:?}: {}", new_flows(&active)?);
        assert!(new_flows(&passive)? == 0.0, "{mode:?}: the standby made {} flows", new_flows(&passive)?);
        assert!(packets("pass")? > (10 * CONNECTIONS) as f64, "{mode:?}: the switch did not flood");
        for action in ["drop", "tx", "redirect"] {
            assert!(packets(action)? == 0.0, "{mode:?}: the standby took {} by {action}", packets(action)?);
        }
    }
    Ok(())
}

fn plug_in_a_standby(lab: &Lab) -> Result<Namespace> {
    let standby = Namespace::create(format!("{}-other", lab.name()))?;
    standby.sysctl("net.ipv4.ip_forward", "1")?;
    standby.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    link::veth((&standby, "eth0"), (&lab.switch, "other"))?;
    link::behave_as_a_nic((&lab.switch, "other"))?;
    lab.switch.ip("link set other master br0")?;
    pass::pass_everything((&lab.switch, "other"), &lab.directory().join(sweep::BPFFS))?;
    link::address((&standby, "eth0"), OUTSIDE)?;
    link::address((&standby, "eth0"), INSIDE)?;
    standby.ip("link set eth0 promisc on")?;
    Ok(standby)
}

/// Turns off learning: the switch sends every frame out of every port.
fn flood(lab: &Lab) -> Result<()> {
    let backends = lab.backends.iter().map(|backend| backend.name.as_str());
    let ports = ["client", "xlb", "other"].into_iter().chain(backends);
    let lines = ports.map(|port| format!("link set {port} type bridge_slave learning off flood on\n"));
    lab.switch.ip(&lines.collect::<String>())?;
    lab.switch.run(&["bridge", "fdb", "flush", "dev", "br0"]).map(drop)
}
