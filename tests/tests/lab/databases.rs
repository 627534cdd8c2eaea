//! Database clusters behind a service for writes and one for reads: promotions, dead and cut primaries, fences.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::lab::{
    MariaDb, Redis,
    database::{Engine, Scene},
    postgres::Postgres,
    wait::eventually,
};

#[test]
fn writes_follow_a_promotion_and_none_goes_to_the_old_primary_after_it() -> Result<()> {
    let scene = Scene::<Postgres>::start("promote")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    let promoted = scene.promote()?;
    scene.wait_for_rows(&clients, 1)?;

    scene.wait_for_readers(&["web-3"])?;
    let (verdict, reads) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    scene.ensure_readers_lost_nothing(&reads)
}

#[test]
fn a_fence_before_the_promotion_lets_no_row_at_all_reach_the_old_primary_after_it() -> Result<()> {
    let scene = Scene::<Postgres>::start("fence")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    scene.xlb.run(&["role", "fence", "db"])?;
    let promoted = scene.promote()?;
    scene.wait_for_rows(&clients, 1)?;

    let (verdict, reads) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    assert_eq!(verdict.after_promotion, 0, "{verdict}");
    scene.ensure_readers_lost_nothing(&reads)
}

#[test]
fn writes_go_on_after_the_primary_was_killed_and_it_gets_none_when_it_returns() -> Result<()> {
    let scene = killed_and_back(Scene::<Postgres>::start("killed")?)?;

    assert_eq!(scene.roles("db")?["servers"][0]["reason"], "outdated");
    Ok(())
}

#[test]
fn a_primary_that_was_cut_off_gets_no_writes_when_it_is_back() -> Result<()> {
    let scene = Scene::<Postgres>::start("cut")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    let promoted = scene.cut_and_promote()?;
    scene.wait_for_rows(&clients, 1)?;

    let roles = scene.roles("db")?;
    assert_eq!((&roles["primary"], &roles["servers"][0]["reason"]), (&json!("web-2"), &json!("outdated")));
    let (verdict, reads) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    scene.ensure_readers_lost_nothing(&reads)
}

#[test]
fn new_connections_are_refused_at_once_while_there_is_no_primary() -> Result<()> {
    let scene = Scene::<Postgres>::start("noprimary")?;

    scene.xlb.run(&["role", "fence", "db"])?;
    eprintln!("fenced: refused after {:?}", scene.ensure_writes_are_refused_at_once()?);
    scene.xlb.run(&["role", "unfence", "db"])?;
    scene.wait_for_primary("web-1")?;
    scene.servers[0].kill()?;
    scene.wait_for_no_primary()?;
    eprintln!("dead: refused after {:?}", scene.ensure_writes_are_refused_at_once()?);
    Ok(())
}

#[test]
fn without_a_daemon_writes_stay_at_one_server_and_a_start_moves_them() -> Result<()> {
    let mut scene = Scene::<Postgres>::start("daemonless")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    scene.xlb.kill()?;
    let promoted = scene.promote()?;
    scene.wait_for_rows(&clients, 0)?;
    scene.xlb.start_again()?;
    scene.wait_for_rows(&clients, 1)?;

    let (verdict, _) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()
}

#[test]
fn a_replica_that_is_far_behind_gets_no_reads_and_the_primary_serves_them_if_all_are_gone() -> Result<()> {
    let scene = Scene::<Postgres>::start("behind")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    scene.servers[2].set("recovery_min_apply_delay", "30s")?;
    scene.wait_for_readers(&["web-2"])?;
    scene.servers[1].kill()?;
    scene.wait_for_readers(&["web-1"])?;
    scene.servers[1].start()?;
    scene.wait_for_readers(&["web-2"])?;

    clients.stop().map(drop)
}

#[test]
fn idle_time_before_a_write_is_no_lag() -> Result<()> {
    let scene = Scene::<Postgres>::start("idle")?;
    let [primary, _, replica] = &scene.servers;
    let write = || primary.sql_of("app", "insert into rows values (0, 0)");
    write()?;
    let age = "select clock_timestamp() - pg_last_xact_replay_timestamp() > '5s'";
    eventually(Duration::from_secs(30), "nothing was written for 5 s", || Ok(replica.sql(age)? == "t"))?;

    replica.sql("select pg_wal_replay_pause()")?;
    write()?;

    let mut lag = None;
    eventually(Duration::from_secs(5), "web-3 is behind", || {
        lag = scene.roles("db-read")?["servers"][2]["lag_ms"].as_u64().filter(|lag| *lag > 0);
        Ok(lag.is_some())
    })?;
    assert!(lag < Some(2000), "{lag:?} ms after one write");
    scene.wait_for_readers(&["web-2"])?;
    replica.sql("select pg_wal_replay_resume()")?;
    scene.wait_for_readers(&["web-2", "web-3"])?;
    Ok(())
}

#[test]
fn the_primary_serves_reads_while_all_replicas_are_dead() -> Result<()> {
    let scene = Scene::<Postgres>::start("alone")?;
    let clients = scene.clients();
    scene.wait_for_reads(&clients, 1)?;

    scene.servers[2].kill()?;
    scene.servers[1].kill()?;
    scene.wait_for_readers(&["web-1"])?;
    scene.wait_for_reads(&clients, 0)?;
    clients.stop()?;
    scene.servers[1].start()?;
    scene.wait_for_readers(&["web-2"])?;

    assert_eq!(scene.roles("db-read")?["servers"][2]["reason"], "down");
    all_reads_go_to_candidate(&scene)
}

#[test]
fn a_replica_of_the_old_primary_gets_no_reads_after_a_promotion() -> Result<()> {
    let scene = Scene::<Postgres>::start("oldline")?;
    scene.servers[2].follow(&scene.servers[0])?;
    scene.wait_for_readers(&["web-2", "web-3"])?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    let promoted = scene.promote()?;
    scene.wait_for_rows(&clients, 1)?;
    scene.wait_for_readers(&["web-2"])?;

    let reason = &scene.roles("db-read")?["servers"][2]["reason"];
    assert_eq!(reason, "of another history");
    let (verdict, _) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    all_reads_go_to_candidate(&scene)
}

#[test]
fn checks_leave_no_errors_in_the_log_of_the_server() -> Result<()> {
    // A check that the machine is too busy for would end its connection.
    let scene = Scene::<Postgres>::start_with("silent", Duration::from_secs(1))?;
    let address = scene.servers[0].address();
    eventually(Duration::from_secs(30), "some checks", || {
        let metrics = scene.xlb.metrics()?;
        let labels = [("service", "db"), ("backend", "web-1"), ("result", "success")];
        Ok(metrics.sum("xlb_health_checks_total", &labels) >= 10.0)
    })?;

    let log = scene.servers[0].log()?;

    let of_checks = log.lines().filter(|line| line.contains("user=xlb")).count();
    assert!(of_checks <= 4, "one connection for all checks, but {address} logged {of_checks} lines:\n{log}");
    for word in ["incomplete startup packet", "unexpected EOF", "FATAL", "could not receive"] {
        assert!(!log.contains(word), "{word}:\n{log}");
    }
    Ok(())
}

#[test]
fn writes_follow_a_switchover_of_mariadb() -> Result<()> {
    let scene = Scene::<MariaDb>::start("switched")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    let promoted = scene.switch_over()?;
    scene.wait_for_rows(&clients, 1)?;
    let before = scene.servers[0].requests_of_application()?;
    scene.wait_for_rows(&clients, 1)?;

    // A read-only server takes no row, so the table alone would not show a wrong destination.
    assert!(before > 0);
    assert_eq!(scene.servers[0].requests_of_application()?, before);
    let (verdict, reads) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    assert_eq!((verdict.after_promotion, verdict.not_shipped), (0, 0), "{verdict}");
    scene.ensure_readers_lost_nothing(&reads)
}

#[test]
fn writes_go_on_after_the_primary_of_mariadb_was_killed() -> Result<()> {
    let scene = killed_and_back(Scene::<MariaDb>::start("mariadbkill")?)?;

    // A read-only server takes no row, so the table alone would not show a wrong destination.
    let [old, new, _] = &scene.servers;
    assert_eq!(old.requests_of_application()?, 0);
    assert!(new.requests_of_application()? > 0);
    Ok(())
}

#[test]
fn writes_follow_a_promotion_of_redis() -> Result<()> {
    let scene = Scene::<Redis>::start("redispromo")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    let promoted = scene.promote()?;
    scene.wait_for_rows(&clients, 1)?;

    let (verdict, reads) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    scene.ensure_readers_lost_nothing(&reads)
}

#[test]
fn writes_go_on_after_the_primary_of_redis_was_killed() -> Result<()> {
    let scene = killed_and_back(Scene::<Redis>::start("rediskill")?)?;

    assert_eq!(scene.roles("db")?["servers"][0]["reason"], "outdated");
    Ok(())
}

/// New clients are answered by web-2 only.
fn all_reads_go_to_candidate(scene: &Scene<Postgres>) -> Result<()> {
    scene.wait_for_new_reads(&["web-2"])?;
    let clients = scene.clients();
    scene.wait_for_reads(&clients, 1)?;
    let (_, reads) = clients.stop()?;
    let others = reads.answers.iter().find(|(_, server)| server != "web-2");
    assert!(others.is_none(), "{others:?}");
    scene.ensure_readers_lost_nothing(&reads)
}

/// The primary is killed, web-2 takes over, and the old primary starts again.
fn killed_and_back<E: Engine>(mut scene: Scene<E>) -> Result<Scene<E>> {
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;

    let promoted = scene.kill_and_promote()?;
    scene.wait_for_rows(&clients, 1)?;
    scene.start_old_again()?;
    scene.wait_for_rows(&clients, 1)?;

    assert_eq!(scene.roles("db")?["primary"], "web-2");
    scene.wait_for_readers(&["web-3"])?;
    let (verdict, reads) = scene.judge(clients, &promoted)?;
    eprintln!("{verdict}");
    verdict.keeps_its_order()?;
    scene.ensure_readers_lost_nothing(&reads)?;
    Ok(scene)
}
