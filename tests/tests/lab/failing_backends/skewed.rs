//! A server that has almost all of the weight dies.

use anyhow::{Context as _, Result};
use lb_common::service::Mode;

use super::{Servers, summary};

/// Of the slots, fewer than one in 50 are of the other servers.
const WEIGHTS: [u32; 3] = [1000, 10, 10];

#[test]
fn the_death_of_a_server_with_almost_all_of_the_weight_costs_no_connection() -> Result<()> {
    for (tag, mode, scheduler) in [
        ("skewturn", Mode::FullNat, "weighted-round-robin"),
        ("skewtwo", Mode::Nat, "random-two"),
        ("skewhash", Mode::FullNat, "source-hash"),
        ("skewglev", Mode::Nat, "maglev"),
        ("skewleast", Mode::FullNat, "least-connections"),
    ] {
        let mut servers = Servers::start_with(tag, mode, |config| {
            let service = &mut config.services[0];
            service.scheduler = Some(scheduler);
            service.backends.iter_mut().zip(WEIGHTS).for_each(|(backend, weight)| backend.weight = weight);
        })?;
        let connections = servers.kill(0).context(scheduler)?;
        println!("{scheduler}: {}", summary(&connections));
    }
    Ok(())
}
