//! Take-overs between two nodes under load: the events of `cargo xtask lab failover`, shorter.

use anyhow::{Result, ensure};
use lb_common::service::Mode;
use tests::lab::{
    Lab,
    failover::{DRAINED, Event, FRONT_CUT, KILLED, Row, Scene, XLB_KILLED},
};

/// Live connections, of both families together.
const CONNECTIONS: usize = 200;

#[test]
fn live_connections_go_on_in_full_nat_mode() -> Result<()> {
    plays("overfull", Mode::FullNat, &[KILLED, DRAINED, XLB_KILLED])
}

#[test]
fn live_connections_go_on_in_nat_mode() -> Result<()> {
    plays("overnat", Mode::Nat, &[KILLED, FRONT_CUT])
}

fn plays(tag: &'static str, mode: Mode, events: &[Event]) -> Result<()> {
    let mut scene = Scene::start(tag, mode, CONNECTIONS, Lab::tcp_echoes)?;
    eprintln!("{}", Row::head());
    for event in events {
        let rows = scene.play(event)?;
        for row in &rows {
            eprintln!("{}", row.line());
            row.keeps_all()?;
        }
        let must_be_noticed = [KILLED, FRONT_CUT].iter().any(|it| it.name == event.name);
        ensure!(!must_be_noticed || rows[0].figures.failed > 0, "no client noticed it: {}", rows[0]);
    }
    scene.end()
}
