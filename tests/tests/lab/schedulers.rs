//! Schedulers: the shares of real connections, and what stays when the scheduler or the file changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::service::Mode;
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Tally, Topology, Web, address,
    visit::{Visit, ask, ask_again, connect, visit},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    refusal::{INVALID_CONFIGURATION, refused, said},
    stage::one_backend,
};

const ALL: [&str; 6] =
    ["round-robin", "weighted-round-robin", "least-connections", "random-two", "source-hash", "maglev"];
/// A key file of the right form.
const KEY: &str =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f\n";

#[test]
fn weighted_round_robin_gives_exact_shares_in_the_smooth_order() -> Result<()> {
    let Stage { lab, xlb: _xlb, web: _web, .. } =
        Stage::new("weighted", 2, "weighted-round-robin", [5, 1, 1])?;

    for family in Family::ALL {
        let to = address::SERVICE.port(family, 80);
        let from = SocketAddr::new(lab.clients[0].of(family), 0);
        let order = lab.client.block_on(|| async move {
            let mut order = String::new();
            for _ in 0..14 {
                order.extend(ask(from, to).await?.strip_prefix("web-"));
            }
            Ok(order)
        })?;
        let tally = lab.visit(family, 80, 7_000)?;

        assert_eq!(order, "1121311".repeat(2), "{family:?}");
        assert_eq!(shares(&tally), [5_000, 1_000, 1_000], "{family:?}: {tally}");
    }
    Ok(())
}

#[test]
fn least_connections_gives_open_connections_exact_shares_by_weight() -> Result<()> {
    let Stage { lab, xlb: _xlb, web: _web, .. } = Stage::new("least", 2, "least-connections", [1, 2, 3])?;

    for family in Family::ALL {
        lab.client.block_on(|| async {
            let mut open = open(&lab, family, 60).await?;
            ensure!(count(&open) == [10, 20, 30], "{family:?}: {:?}", count(&open));

            // Those of web-3 end, so it gets the next ones.
            for (stream, _) in open.extract_if(.., |(_, backend)| backend == "web-3") {
                close(stream).await?;
            }
            let more = self::open(&lab, family, 30).await?;
            ensure!(count(&more) == [0, 0, 30], "{family:?}: {:?}", count(&more));
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn least_connections_sends_few_connections_to_a_server_that_is_slow() -> Result<()> {
    const AT_ONCE: usize = 12;
    let Stage { lab, xlb: _xlb, web, .. } = Stage::new("frozen", 2, "least-connections", [100; 3])?;
    web[0].freeze()?;
    let to = address::SERVICE.port(Family::V4, 80);
    let visits = Visit { at_once: AT_ONCE, ..Visit::new(&lab.client_addresses(Family::V4), to, 600) };

    let tally = visit(&lab.client, &visits)?;

    web[0].thaw()?;
    // In turn, it would soon hold all connections that are open at once.
    assert!((1..=AT_ONCE / 2).contains(&tally.failed()), "{tally}");
    assert!(tally.of("web-2") > 200 && tally.of("web-3") > 200, "{tally}");
    Ok(())
}

#[test]
fn random_two_shares_connections_by_weight() -> Result<()> {
    let Stage { lab, xlb: _xlb, web: _web, .. } = Stage::new("two", 8, "random-two", [1, 2, 3])?;

    for family in Family::ALL {
        // One after the other: no backend has a connection, so the weights decide alone.
        let to = address::SERVICE.port(family, 80);
        let visits = Visit { at_once: 1, ..Visit::new(&lab.client_addresses(family), to, 3000) };
        let tally = visit(&lab.client, &visits)?;

        assert_eq!(tally.failed(), 0, "{tally}");
        let distance = chi_square(shares(&tally), [500.0, 1_000.0, 1_500.0]);
        assert!(distance < UNLIKELY, "{family:?}: {distance}: {tally}");

        // With open connections, the second draw corrects the first.
        let open = lab.client.block_on(|| open(&lab, family, 300))?;
        let distance = chi_square(count(&open), [50.0, 100.0, 150.0]);
        assert!(distance < 1.0, "{family:?}: {distance}: {:?}", count(&open));
    }
    Ok(())
}

#[test]
fn a_backend_with_max_flows_connections_gets_others_only_when_one_ends() -> Result<()> {
    const SKEWED: [u32; 3] = [1000, 10, 10];
    for (tag, scheduler, weights) in [
        ("full1", "round-robin", [100; 3]),
        ("full2", "least-connections", [100; 3]),
        ("full3", "source-hash", [100; 3]),
        ("full4", "weighted-round-robin", SKEWED),
        ("full5", "random-two", SKEWED),
        ("full6", "maglev", SKEWED),
    ] {
        let Stage { lab, web: _web, mut config, xlb } = Stage::new(tag, 2, scheduler, weights)?;
        config.services[0].backends.iter_mut().for_each(|it| it.max_flows = 5);
        xlb.write(&config)?;
        xlb.run(&["reload"])?;
        lab.client.block_on(|| async {
            let mut open = open(&lab, Family::V4, 15).await?;
            ensure!(count(&open) == [5; 3], "{scheduler}: {:?}", count(&open));

            let (from, to) = (lab.clients[0].of(Family::V4), address::SERVICE.port(Family::V4, 80));
            let mut next = std::pin::pin!(ask(SocketAddr::new(from, 0), to));
            let early = timeout(Duration::from_millis(500), &mut next).await;
            ensure!(early.is_err(), "{scheduler}: connected beyond the limit: {early:?}");
            let (stream, backend) = open.swap_remove(7);
            close(stream).await?;
            // The client's second SYN.
            let answer = timeout(Duration::from_secs(3), next).await.context("no place for the client")??;
            ensure!(answer == backend, "{scheduler}: {answer} instead of {backend}");
            Ok(())
        })?;
        let refused = xlb.metrics()?.sum("xlb_dropped_packets_total", &[("reason", "backends_full")]);
        ensure!(refused >= 1.0, "{scheduler}: {refused} packets refused");
    }
    Ok(())
}

#[test]
fn maglev_shares_connections_by_weight() -> Result<()> {
    let Stage { lab, xlb: _xlb, web: _web, .. } = Stage::new("maglev", 8, "maglev", [1, 2, 3])?;

    for family in Family::ALL {
        let tally = lab.visit(family, 80, 12_000)?;

        assert_eq!(tally.failed(), 0, "{tally}");
        let distance = chi_square(shares(&tally), [2_000.0, 4_000.0, 6_000.0]);
        assert!(distance < UNLIKELY, "{family:?}: {distance}: {tally}");
    }
    Ok(())
}

#[test]
fn source_hash_keeps_the_backend_of_each_client_across_reload_and_restart() -> Result<()> {
    const CLIENTS: u8 = 120;
    let Stage { lab, web: _web, mut config, mut xlb } =
        Stage::new("source", CLIENTS, "source-hash", [100; 3])?;
    let before = homes(&lab)?;

    config.services[0].backends.reverse();
    config.services[0].health.fall = 5;
    xlb.write(&config)?;
    xlb.run(&["reload"])?;
    let after_reload = homes(&lab)?;
    xlb.stop()?;
    xlb.start_again()?;
    let after_restart = homes(&lab)?;

    assert_eq!((&after_reload, &after_restart), (&before, &before));
    let mut clients = BTreeMap::new();
    before.values().for_each(|backend| *clients.entry(backend.clone()).or_insert(0) += 1);
    let tally = Tally { answers: clients, ..Tally::default() };
    let expected = f64::from(CLIENTS) * 2.0 / 3.0;
    let distance = chi_square(shares(&tally), [expected; 3]);
    assert!(distance < UNLIKELY, "{distance}: {tally}");
    Ok(())
}

#[test]
fn with_the_same_key_another_node_sends_each_flow_to_the_same_backend() -> Result<()> {
    for (tag, scheduler) in [("nodemag", "maglev"), ("nodesrc", "source-hash")] {
        let Stage { lab, web: _web, mut config, mut xlb } = Stage::new(tag, 40, scheduler, [3, 2, 1])?;
        let key = lab.directory().join("a.key");
        fs::write(&key, KEY)?;
        fs::set_permissions(&key, Permissions::from_mode(0o600))?;
        config.key_file = Some(key);
        xlb.write(&config)?;
        xlb.run(&["reload"])?;
        let before = lab.client.block_on(|| backends_of_tuples(&lab))?;

        // The other node knows nothing of this one, and its file lists the backends in another order.
        xlb.stop()?;
        xlb.run(&["detach"])?;
        config.services[0].backends.reverse();
        xlb.write(&config)?;
        xlb.start_again()?;
        xlb.wait_until_all_are_up()?;
        let after = lab.client.block_on(|| backends_of_tuples(&lab))?;

        assert_eq!(after, before, "{scheduler}");
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "{scheduler}: {before:?}");
    }
    Ok(())
}

/// The backend of each of several flows, whose tuples are always the same.
async fn backends_of_tuples(lab: &Lab) -> Result<Vec<String>> {
    let mut backends = Vec::new();
    for family in Family::ALL {
        for client in &lab.clients {
            for port in 20_000..20_005 {
                let from = SocketAddr::new(client.of(family), port);
                let mut stream = connect(from, address::SERVICE.port(family, 80)).await?;
                backends.push(ask_again(&mut stream).await?);
                stream.set_zero_linger()?; // RST: the client's port is free at once
            }
        }
    }
    Ok(backends)
}

#[test]
fn no_connection_moves_when_the_scheduler_changes() -> Result<()> {
    let Stage { lab, web: _web, mut config, xlb } = Stage::new("changed", 4, ALL[0], [3, 2, 1])?;
    for family in Family::ALL {
        let (from, to) =
            (lab.clients.iter().map(|client| client.of(family)), address::SERVICE.port(family, 80));
        let from: Vec<_> = from.cycle().take(60).map(|address| SocketAddr::new(address, 0)).collect();

        lab.client.block_on(|| async {
            let mut connections = Vec::new();
            for from in from {
                let mut stream = connect(from, to).await?;
                let backend = ask_again(&mut stream).await?;
                connections.push((stream, backend));
            }
            for scheduler in ALL.into_iter().rev() {
                config.services[0].scheduler = Some(scheduler);
                xlb.write(&config)?;
                xlb.run(&["reload"])?;
                for (stream, backend) in &mut connections {
                    let answer = ask_again(stream).await.context(scheduler)?;
                    ensure!(answer == *backend, "{scheduler}: {answer} instead of {backend}");
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_hash_key_is_checked_at_start_and_on_reload_and_another_one_moves_no_connection() -> Result<()> {
    let lab = one_backend("hashkey")?;
    let _web = lab.web_servers()?;
    let key = lab.directory().join("a.key");
    let path = key.display();
    let config = Config { key_file: Some(key.clone()), ..Config::web(&lab, Mode::FullNat) };
    fs::write(lab.config_path(), config.to_string())?;
    let write = |text: &str, mode: u32| -> Result<()> {
        fs::write(&key, text)?;
        Ok(fs::set_permissions(&key, Permissions::from_mode(mode))?)
    };

    write(KEY, 0o644)?;
    let open = refused(&lab, &[])?;
    let expected =
        format!("error: {path}: others can use this secret (its mode is 0644): run `chmod 600 {path}`\n");
    assert_eq!(said(&open), (INVALID_CONFIGURATION, expected));

    write(KEY, 0o600)?;
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    let (from, to) =
        (SocketAddr::new(lab.clients[0].of(Family::V4), 0), address::SERVICE.port(Family::V4, 80));
    lab.client.block_on(|| async {
        let mut stream = connect(from, to).await?;
        let backend = ask_again(&mut stream).await?;

        write("not a key\n", 0o600)?;
        let reload = xlb.output(&["reload"])?;
        ensure!(
            reload.code == INVALID_CONFIGURATION && reload.stderr.contains("96 hexadecimal digits"),
            "{reload:?}"
        );
        write(&KEY.replace("00", "ff"), 0o600)?;
        let reload = xlb.output(&["reload"])?;
        ensure!(reload.code == 0 && reload.stderr.contains("the hash key changed"), "{reload:?}");

        ensure!(ask_again(&mut stream).await? == backend);
        Ok(())
    })
}

/// A serving daemon with three web servers, all up.
struct Stage {
    web: Vec<Web>,
    config: Config,
    xlb: Daemon,
    lab: Lab,
}

impl Stage {
    fn new(tag: &'static str, clients: u8, scheduler: &'static str, weights: [u32; 3]) -> Result<Self> {
        let lab = Lab::build(&Topology::new(tag, Shape::TwoNics).clients(clients))?;
        let web = lab.web_servers()?;
        let mut config = Config::web(&lab, Mode::FullNat);
        config.services[0].scheduler = Some(scheduler);
        for (backend, weight) in config.services[0].backends.iter_mut().zip(weights.iter().cycle()) {
            backend.weight = *weight;
        }
        let xlb = lab.start(&config)?;
        xlb.wait_until_all_are_up()?;
        Ok(Self { web, config, xlb, lab })
    }
}

/// The value that chi-square with two degrees of freedom exceeds once in a million times.
const UNLIKELY: f64 = 27.6;

fn chi_square(seen: [usize; 3], expected: [f64; 3]) -> f64 {
    seen.iter().zip(expected).map(|(seen, expected)| (*seen as f64 - expected).powi(2) / expected).sum()
}

/// Opens this many connections, one after the other, which stay open.
async fn open(lab: &Lab, family: Family, connections: usize) -> Result<Vec<(TcpStream, String)>> {
    let to = address::SERVICE.port(family, 80);
    let mut open = Vec::new();
    for from in lab.client_addresses(family).into_iter().cycle().take(connections) {
        let mut stream = connect(SocketAddr::new(from, 0), to).await?;
        let backend = ask_again(&mut stream).await?;
        open.push((stream, backend));
    }
    Ok(open)
}

/// Closes a connection, and waits for the other side's FIN.
async fn close(mut stream: TcpStream) -> Result<()> {
    stream.shutdown().await?;
    ensure!(stream.read(&mut [0]).await? == 0, "more bytes than expected");
    Ok(())
}

/// Connections of web-1, web-2 and web-3.
fn count(open: &[(TcpStream, String)]) -> [usize; 3] {
    ["web-1", "web-2", "web-3"].map(|name| open.iter().filter(|(_, backend)| backend == name).count())
}

/// Of web-1, web-2 and web-3.
fn shares(tally: &Tally) -> [usize; 3] {
    ["web-1", "web-2", "web-3"].map(|backend| tally.of(backend))
}

/// The backend of each client, which is the same for several connections.
fn homes(lab: &Lab) -> Result<BTreeMap<SocketAddr, String>> {
    let mut homes = BTreeMap::new();
    for family in Family::ALL {
        let to = address::SERVICE.port(family, 80);
        for client in &lab.clients {
            let from = SocketAddr::new(client.of(family), 0);
            let answers = lab.client.block_on(|| async {
                Ok([ask(from, to).await?, ask(from, to).await?, ask(from, to).await?])
            })?;
            ensure!(answers.iter().all(|answer| *answer == answers[0]), "{from}: {answers:?}");
            homes.insert(from, answers[0].clone());
        }
    }
    Ok(homes)
}
