//! Metrics are well formed and match the traffic.

use anyhow::Result;
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address, command, config::Service, metrics::Metrics,
};

const REQUESTS: usize = 300;
/// No server listens there.
const VOID: u16 = 81;

#[test]
fn counters_do_not_fall_over_removals_other_names_and_kills() -> Result<()> {
    let lab = Lab::build(&Topology::new("counters", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    let config = Config::web(&lab, Mode::FullNat);
    let mut xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    assert_eq!(lab.visit(Family::V4, 80, 90)?.failed(), 0);
    let counted = |xlb: &Daemon, name: &str| -> Result<[u64; 3]> {
        let metrics = xlb.metrics()?;
        let names = ["new_flows_total", "received_packets_total", "received_bytes_total"];
        let sum = |it: &str| metrics.sum(&format!("xlb_service_{it}"), &[("service", name)]) as u64;
        Ok(names.map(sum))
    };
    let before = counted(&xlb, "web")?;
    assert_eq!(before[0], 90);

    xlb.run(&["backend", "remove", "web/web-1"])?;
    assert_eq!(counted(&xlb, "web")?, before, "removed");
    xlb.kill()?;
    xlb.start_again()?;
    assert_eq!(counted(&xlb, "web")?, before, "started again after a kill");
    xlb.run(&["backend", "add", "web/web-1", &config.services[0].backends[0].address.to_string()])?;
    assert_eq!(counted(&xlb, "web")?, before, "added again");
    let of_web_1 = [("service", "web"), ("backend", "web-1")];
    assert_eq!(xlb.metrics()?.sum("xlb_backend_new_flows_total", &of_web_1) as u64, 30);

    let mut shop = config.clone();
    shop.services[0].name = "shop".to_owned();
    xlb.write(&shop)?;
    xlb.run(&["reload"])?;
    assert_eq!(counted(&xlb, "shop")?, [0; 3], "another name begins at zero");
    xlb.stop()?;
    xlb.write(&config)?;
    xlb.start_again()?;
    assert_eq!(counted(&xlb, "web")?, before, "its name is back");
    Ok(())
}

#[test]
fn metrics_are_clean_and_add_up() -> Result<()> {
    let lab = Lab::build(&Topology::new("metrics", Shape::TwoNics))?;
    let _web = lab.web_servers()?;
    let void = Service::over(&lab, "void", Protocol::Tcp, Mode::FullNat, VOID, VOID);
    let xlb = lab.start(&Config::web(&lab, Mode::FullNat))?;
    xlb.wait_until_all_are_up()?;
    xlb.write(&Config::web(&lab, Mode::FullNat).service(void))?;
    xlb.run(&["reload"])?;
    for family in Family::ALL {
        assert!(lab.visit(family, 80, REQUESTS)?.is_even(3));
        let url = format!("http://{}/", address::SERVICE.port(family, VOID));
        assert_ne!(lab.client.output(&["curl", "-s", "-m", "1", &url])?.code, 0);
    }

    let text = lab.xlb.run(&["curl", "-sSf", "-m", "5", "http://127.0.0.1:9191/metrics"])?;

    let said = command::run_with_input(&["promtool", "check", "metrics"], &text)?;
    assert!(said.is_empty(), "promtool: {said}");
    let metrics = Metrics::new(text);
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels) as usize;
    assert_eq!(sum("xlb_service_new_flows_total", &[("service", "web")]), 2 * REQUESTS);
    assert_eq!(sum("xlb_backend_new_flows_total", &[("backend", "web-2-v6")]), REQUESTS / 3);
    assert_eq!(sum("xlb_service_new_flows_total", &[("service", "void")]), 0);

    // Every packet to a service is forwarded, or refused for one reason.
    let refused = sum("xlb_dropped_packets_total", &[]);
    let (forwarded, returned) =
        (sum("xlb_backend_forwarded_packets_total", &[]), sum("xlb_backend_returned_packets_total", &[]));
    assert!(sum("xlb_dropped_packets_total", &[("reason", "no_backend")]) >= 2, "one SYN of each family");
    let by_action = |action| sum("xlb_xdp_packets_total", &[("action", action)]);
    assert_eq!(refused, by_action("drop") + by_action("reject"));
    assert!(by_action("reject") >= 2, "each of these SYNs is answered");
    assert_eq!(forwarded + returned, sum("xlb_xdp_packets_total", &[("action", "redirect")]));
    assert_eq!(forwarded + refused, sum("xlb_service_received_packets_total", &[]));
    Ok(())
}
