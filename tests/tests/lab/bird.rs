//! BIRD with what `xlb ha bird` prints, and another one as the router: routes come and go with readiness, and the
//! sessions stay.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use serde_json::Value;
use tests::lab::{
    Config, Family, Lab, Namespace, Shape, Topology, Visit, Web,
    bird::{Bird, PROTOCOL_OPTIONS, printed},
    config::{Group, Peer, Service},
    eventually, visit,
    wait::SOON,
    web,
};

/// Two starts of BIRD, and the first 10 s of xlb, in which it takes nothing off.
const PATIENCE: Duration = Duration::from_secs(20);
const ADDRESSES: [&str; 2] = ["203.0.113.10", "2001:db8:5::10"];

#[test]
fn routes_to_the_addresses_come_and_go_with_readiness() -> Result<()> {
    let (lab, mut web) = build()?;
    let edge = lab.edge.as_ref().context("a lab without a router")?;
    let xlb = lab.start(&config(&lab)?)?;
    let node = Bird::start(&lab, &lab.xlb, "node", &printed(&lab.xlb, &xlb.config_path(), "65001")?)?;
    let router = Bird::start(&lab, edge, "router", &router())?;

    let waited = wait_for_routes(edge, 2)?;
    eprintln!("the router has the routes {} ms after the start of BIRD", waited.as_millis());
    for address in ADDRESSES {
        let to: IpAddr = address.parse()?;
        let clients = lab.client_addresses(if to.is_ipv4() { Family::V4 } else { Family::V6 });
        assert!(visit(&lab.client, &Visit::new(&clients, (to, 80).into(), 20))?.is_even(2), "{address}");
    }
    let sessions = router.sessions()?;
    assert_eq!(sessions.len(), 2, "{sessions:?}");

    web.iter_mut().try_for_each(Web::kill)?;
    eventually(SOON, "the service is not ready", || {
        Ok(xlb.json(&["service", "show", "web"])?["ready"] == false)
    })?;
    let waited = wait_for_routes(edge, 0)?;
    eprintln!("and has dropped them {} ms after the service was not ready", waited.as_millis());
    web.iter_mut().try_for_each(Web::start_again)?;
    wait_for_routes(edge, 2)?;

    xlb.run(&["ha", "drain", "--wait", "5s"])?;
    let waited = wait_for_routes(edge, 0)?;
    eprintln!("and again {} ms after the end of `xlb ha drain`", waited.as_millis());
    xlb.run(&["ha", "ready"])?;
    let waited = wait_for_routes(edge, 2)?;
    eprintln!("it has them back {} ms after `xlb ha ready`", waited.as_millis());

    assert_eq!(router.sessions()?, sessions, "the sessions were up all the time");
    drop(node);
    let waited = wait_for_routes(edge, 0)?;
    eprintln!("it has dropped them {} ms after BIRD on the node was killed", waited.as_millis());
    Ok(())
}

/// Within one AS and between two, sources of peers are a second choice.
#[test]
fn bird_takes_what_is_printed_for_sources_of_peers() -> Result<()> {
    let (lab, _web) = build()?;
    let files = ["cert", "key", "ca"].map(|name| lab.directory().join(name));
    let [cert, key, ca] = files;
    let sources = vec!["10.0.0.102".parse()?, "fd00::102".parse()?];
    let peer = Peer { node: "lb-2".to_owned(), address: "192.0.2.2:4790".parse()?, sources: sources.clone() };
    let group = Group {
        node: "lb-1".to_owned(),
        listen: "192.0.2.1:4790".parse()?,
        cert,
        key,
        ca,
        peers: vec![peer],
    };
    let mut config = Config { group: Some(group), ..config(&lab)? };
    config.services[0].sources = Some([vec!["10.0.0.101".parse()?, "fd00::101".parse()?], sources].concat());
    let file = lab.directory().join("peers.toml");
    fs::write(&file, config.to_string())?;

    for (local_as, second_choice) in
        [("65000", "bgp_local_pref = 50;"), ("65001", "bgp_path.prepend(65001);")]
    {
        let text = printed(&lab.xlb, &file, local_as)?;

        assert!(text.contains(second_choice), "{text}");
        Bird::check(&lab, &lab.xlb, &format!("as-{local_as}"), &text)?;
    }
    Ok(())
}

#[test]
fn bird_takes_the_file_of_a_router_in_the_documents() -> Result<()> {
    let lab = Lab::build(&Topology::new("bgpfile", Shape::Routers).backends(1))?;
    let document = include_str!("../../../docs/high-availability.md");
    let files = document.split("```text\n").filter_map(|rest| rest.split("```").next());
    let file = files.filter(|text| text.starts_with("router id")).last().context("no file of a router")?;

    Bird::check(&lab, lab.edge.as_ref().context("a lab without a router")?, "documented", file).map(drop)
}

/// Clients reach the addresses by the routes of BGP alone.
fn build() -> Result<(Lab, Vec<Web>)> {
    let lab = Lab::build(&Topology::new("bgp", Shape::Routers).backends(2))?;
    let web = lab.web_servers()?;
    let edge = lab.edge.as_ref().context("a lab without a router")?;
    edge.ip("route del 0.0.0.0/0\nroute del ::/0\n")?;
    // Then the link to the router has one address of each family.
    for address in ["192.0.2.10/24", "192.0.2.20/24", "2001:db8::10/64", "2001:db8::20/64"] {
        lab.xlb.ip(&format!("address del {address} dev eth0\n"))?;
    }
    Ok((lab, web))
}

fn config(lab: &Lab) -> Result<Config> {
    let over = Service::over(lab, "web", Protocol::Tcp, Mode::FullNat, 80, web::PORT);
    let listen = ADDRESSES.iter().map(|address| Ok((address.parse::<IpAddr>()?, 80).into()));
    Ok(Config::new(lab).announce("lo").service(Service { listen: listen.collect::<Result<_>>()?, ..over }))
}

fn router() -> String {
    format!(
        "router id 192.0.2.254;\n\
         protocol device {{ }}\n\
         protocol kernel {{ merge paths on limit 16; ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ merge paths on limit 16; ipv6 {{ export where source = RTS_BGP; }}; }}\n\
         protocol bfd {{ interface \"eth1\" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}\n\
         protocol bgp node_1 {{ local 192.0.2.254 as 65000; neighbor 192.0.2.1 as 65001; {PROTOCOL_OPTIONS}\n\
         \x20 ipv4 {{ import where net ~ [ 203.0.113.0/24{{32,32}}, 10.0.0.0/24{{32,32}} ]; export none; }}; }}\n\
         protocol bgp node_1_v6 {{ local 2001:db8::fe as 65000; neighbor 2001:db8::1 as 65001; {PROTOCOL_OPTIONS}\n\
         \x20 ipv6 {{ import where net ~ [ 2001:db8:5::/48{{128,128}}, fd00::/64{{128,128}} ]; export none; }}; }}\n"
    )
}

fn wait_for_routes(router: &Namespace, expected: usize) -> Result<Duration> {
    eventually(PATIENCE, &format!("the router has {expected} routes to the services"), || {
        let mut found = 0;
        for (option, address) in ["-4", "-6"].into_iter().zip(ADDRESSES) {
            let routes: Value =
                serde_json::from_str(&router.run(&["ip", "-json", option, "route", "show", address])?)?;
            found += routes.as_array().map_or(0, Vec::len);
        }
        Ok(found == expected)
    })
}
