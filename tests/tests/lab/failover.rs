//! Take-overs between nodes under load: some events of `cargo xtask lab failover`, with fewer connections.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_common::service::Mode;
use tests::lab::{
    Lab,
    failover::{
        DRAINED, Event, FRONT_CUT, Fleet, KEEPALIVED_KILLED, KILLED, ONE_DRAINED, ONE_KILLED, Row, Scene,
        XLB_KILLED,
    },
};

/// Live connections, of both families together.
const CONNECTIONS: usize = 200;
/// How long the nodes do not see each other: longer than a node is quiet after a take-over.
const SPLIT: Duration = Duration::from_secs(6);

#[test]
fn live_connections_go_on_in_full_nat_mode_and_while_both_nodes_are_active() -> Result<()> {
    let mut scene = play("overfull", Mode::FullNat, &[KILLED, DRAINED, XLB_KILLED])?;

    let split = scene.split(SPLIT, CONNECTIONS)?;

    all_are_kept(&split.rows)?;
    eprintln!("the tables agree {} ms later", split.agreed_after.as_millis());
    ensure!(
        split.left == split.begun,
        "{} of {} connections that began meanwhile are left",
        split.left,
        split.begun
    );
    scene.end()
}

#[test]
fn live_connections_go_on_in_nat_mode() -> Result<()> {
    play("overnat", Mode::Nat, &[KILLED, FRONT_CUT, KEEPALIVED_KILLED])?.end()
}

#[test]
fn all_live_connections_go_on_when_one_of_three_active_nodes_leaves_and_returns() -> Result<()> {
    let mut fleet = Fleet::start("overthree", CONNECTIONS, Lab::tcp_echoes)?;
    for departure in [ONE_KILLED, ONE_DRAINED] {
        all_are_kept(&fleet.play(&departure)?)?;
    }
    fleet.end()
}

fn play(tag: &'static str, mode: Mode, events: &[Event]) -> Result<Scene> {
    let mut scene = Scene::start(tag, mode, CONNECTIONS, Lab::tcp_echoes)?;
    for event in events {
        let rows = scene.play(event)?;
        all_are_kept(&rows)?;
        let must_be_noticed = [KILLED, FRONT_CUT].iter().any(|it| it.name == event.name);
        ensure!(!must_be_noticed || rows[0].figures.failed > 0, "no client noticed it: {}", rows[0]);
    }
    Ok(scene)
}

fn all_are_kept(rows: &[Row; 2]) -> Result<()> {
    eprintln!("{}", rows[0].line());
    eprintln!("{}", rows[1].line());
    rows.iter().try_for_each(Row::keeps_all)
}
