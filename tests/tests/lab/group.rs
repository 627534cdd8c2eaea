//! Two nodes share their flows: connections survive the node that they went through.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Family, Lab,
    config::Service,
    eventually,
    live::Live,
    nodes::{Node, Nodes},
};

const ECHO: u16 = 7;
const CONNECTIONS: usize = 100;

#[test]
fn connections_survive_the_death_of_their_node_its_return_and_a_drain() -> Result<()> {
    for (tag, mode) in [("takeover", Mode::FullNat), ("takeovernat", Mode::Nat)] {
        let lab = Nodes::network(tag, mode)?;
        let _servers = (lab.tcp_echoes(ECHO)?, lab.web_servers()?);
        let config = services(&lab, mode);
        let mut both = Nodes::start(lab, &config)?;
        let live: Vec<Live> = Family::ALL
            .into_iter()
            .map(|family| both.lab.live(family, ECHO, CONNECTIONS))
            .collect::<Result<_>>()?;
        both.nodes[1].wait_until_it_holds(2 * CONNECTIONS as u64)?;

        let switch = both.lab.switch.clone();
        both.nodes[0].die(&switch)?;
        both.nodes[1].wait_until("active")?;
        goes_on(&both.lab, &live)?;

        both.nodes[0].come_back(&switch)?;
        both.nodes[0].wait_until("standby")?;
        both.nodes[0].wait_until_it_holds(2 * CONNECTIONS as u64)?;
        both.nodes[1].xlb.run(&["ha", "drain", "--wait", "10s"])?;
        both.nodes[0].wait_until("active")?;
        goes_on(&both.lab, &live)?;

        for connections in live {
            eprintln!("{mode:?}: {}", connections.finish_unbroken()?);
        }
        for node in &both.nodes {
            is_without_flows(node)?;
        }
    }
    Ok(())
}

/// Bytes come back on every connection, and there are new ones.
fn goes_on(lab: &Lab, live: &[Live]) -> Result<()> {
    live.iter().try_for_each(|connections| connections.wait_for_bytes(2))?;
    for family in Family::ALL {
        let tally = lab.visit(family, 80, 20)?;
        ensure!(tally.failed() == 0, "{family:?}: {tally}");
    }
    Ok(())
}

/// All connections were closed: both nodes know.
fn is_without_flows(node: &Node) -> Result<()> {
    let what = format!("{} has no flow of the echo service", node.name);
    let waited = eventually(Duration::from_secs(10), &what, || {
        let flows = node.xlb.json(&["flow", "list", "--service", "echo"])?;
        let open = flows.as_array().into_iter().flatten().filter(|flow| flow["state"] == "established");
        Ok(open.count() == 0)
    });
    waited.map(drop)
}

fn services(lab: &Lab, mode: Mode) -> Config {
    let echo = Service::over(lab, "echo", Protocol::Tcp, mode, ECHO, ECHO);
    Config::web(lab, mode).service(echo)
}
