//! Many services work. How fast, `cargo xtask bench scale` measures with 4,096 of them; the limits here are generous.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::lab::{Daemon, Lab, Shape, Topology, eventually, many};

const SERVICES: u16 = 1024;
const BACKENDS: u8 = 2;

#[test]
fn with_a_thousand_services_backends_are_up_soon_and_a_change_takes_a_moment() -> Result<()> {
    let lab = Lab::build(&Topology::new("scale", Shape::TwoNics).backends(BACKENDS))?;
    let _web = lab.web_servers_on(many::ports(SERVICES))?;

    let xlb = lab.start(&many::config(&lab, SERVICES))?;

    let all = u64::from(SERVICES) * u64::from(BACKENDS);
    eventually(Duration::from_secs(30), "all backends serve", || Ok(serving(&xlb)? == all))?;
    let service = many::name(*many::ports(SERVICES).end());
    let begun = Instant::now();
    for state in ["drain", "maint", "ready"] {
        xlb.run(&["backend", state, &format!("{service}/web-1")])?;
        assert_eq!(serving(&xlb)?, if state == "ready" { all } else { all - 1 }, "after {state}");
    }
    let taken = begun.elapsed();
    assert!(taken < Duration::from_secs(5), "three changes took {taken:?}");
    Ok(())
}

fn serving(xlb: &Daemon) -> Result<u64> {
    let status = xlb.json(&["status"])?;
    let services = status["services"].as_array().into_iter().flatten();
    Ok(services.filter_map(|service| service["backends_serving"].as_u64()).sum())
}
