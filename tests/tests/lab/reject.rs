//! What clients get that have no flow or no backend: real kernels, on both sides of the answers.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    limits::{ANSWER_DEBT_BYTES, ANSWERS_PER_SECOND},
    net::Protocol,
    service::Mode,
};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address,
    config::{Check, Service},
    eventually,
    flood::{self, Flood, Kind, MOST_KEYS, RATE},
    pass, sweep,
    wait::SOON,
};

use crate::{
    datagrams::{self, DNS},
    stage::ECHO,
};

/// A client is refused within this time.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Attempts. More than half of them must be that fast: some run while the CPUs are busy with other tests' processes.
const TIMES: usize = 11;
/// After this time, there will be no answer.
const SILENCE: Duration = Duration::from_millis(300);

/// One backend and one client, whose link accepts answers.
fn build(tag: &'static str, mode: Mode) -> Result<Lab> {
    let lab = Lab::build(&Topology::new(tag, Shape::TwoNics).mode(mode).backends(1).clients(1))?;
    pass::pass_everything((&lab.client, "eth0"), &lab.directory().join(sweep::BPFFS))?;
    Ok(lab)
}

/// Services of both protocols without a backend that takes flows.
fn without_backends(lab: &Lab, mode: Mode, keys: &[&'static str]) -> Result<Daemon> {
    let keys = keys.to_vec();
    let tcp = Service { keys: keys.clone(), ..Service::over(lab, "echo", Protocol::Tcp, mode, ECHO, ECHO) };
    let udp = Service { keys, ..datagrams::service(lab, mode) };
    let xlb = lab.start(&Config::new(lab).service(tcp).service(udp))?;
    for name in ["web-1", "web-1-v6"] {
        xlb.run(&["backend", "maint", &format!("echo/{name}")])?;
        xlb.run(&["backend", "maint", &format!("dns/{name}")])?;
    }
    Ok(xlb)
}

/// How connecting ends, and after what time.
fn connect(lab: &Lab, to: SocketAddr) -> Result<(ErrorKind, Duration)> {
    lab.client.inside(|| {
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&to, SILENCE).err().context("there was no error")?;
        Ok((error.kind(), start.elapsed()))
    })
}

/// How asking ends, and after what time.
fn ask(lab: &Lab, from: SocketAddr, to: SocketAddr) -> Result<(ErrorKind, Duration)> {
    lab.client.inside(|| {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(SILENCE))?;
        let start = Instant::now();
        socket.send(b"question")?;
        let error = socket.recv(&mut [0; 64]).err().context("there was no error")?;
        Ok((error.kind(), start.elapsed()))
    })
}

#[test]
fn clients_of_a_service_without_a_backend_are_refused_at_once() -> Result<()> {
    for mode in [Mode::FullNat, Mode::Nat] {
        let lab = build("reject", mode)?;
        let xlb = without_backends(&lab, mode, &[])?;
        for family in Family::ALL {
            let (from, to) = (lab.clients[0].port(family, 0), |port| address::SERVICE.port(family, port));
            for (name, try_once) in [
                ("tcp", &(|| connect(&lab, to(ECHO))) as &dyn Fn() -> Result<(ErrorKind, Duration)>),
                ("udp", &|| ask(&lab, from, to(DNS))),
            ] {
                eventually(
                    SOON,
                    "a client is refused",
                    || Ok(try_once()?.0 == ErrorKind::ConnectionRefused),
                )?;
                let ends = (0..TIMES).map(|_| try_once()).collect::<Result<Vec<_>>>()?;
                let mut times: Vec<_> = ends.iter().map(|(_, time)| *time).collect();
                times.sort();
                let median = times[TIMES / 2];

                println!("{mode:?} {family:?} {name}: refused within {median:?}");
                assert!(ends.iter().all(|(kind, _)| *kind == ErrorKind::ConnectionRefused), "{ends:?}");
                assert!(median < AT_ONCE, "{mode:?} {family:?} {name}: {ends:?}");
            }
        }
        let rejected = xlb.metrics()?.sum("xlb_xdp_packets_total", &[("action", "reject")]);
        assert!(rejected >= (4 * TIMES) as f64, "{rejected}");
    }
    Ok(())
}

#[test]
fn a_service_that_drops_is_silent() -> Result<()> {
    let lab = build("drop", Mode::FullNat)?;
    let xlb = without_backends(&lab, Mode::FullNat, &["reject = \"drop\""])?;
    for family in Family::ALL {
        let (from, to) = (lab.clients[0].port(family, 0), |port| address::SERVICE.port(family, port));

        let ends = [connect(&lab, to(ECHO))?, ask(&lab, from, to(DNS))?].map(|(kind, _)| kind);

        assert_eq!(ends, [ErrorKind::TimedOut, ErrorKind::WouldBlock], "{family:?}");
    }
    let metrics = xlb.metrics()?;
    assert!(metrics.sum("xlb_xdp_packets_total", &[("action", "reject")]) == 0.0);
    assert!(metrics.sum("xlb_dropped_packets_total", &[("reason", "no_backend")]) >= 4.0);
    Ok(())
}

#[test]
fn clients_learn_with_their_next_packet_that_the_flow_table_was_lost() -> Result<()> {
    for mode in [Mode::FullNat, Mode::Nat] {
        let lab = build("lost", mode)?;
        let _echoes = lab.tcp_echoes(ECHO)?;
        let mut xlb = lab.start(&Config::new(&lab).service(Service::over(
            &lab,
            "echo",
            Protocol::Tcp,
            mode,
            ECHO,
            ECHO,
        )))?;
        xlb.wait_until_all_are_up()?;
        let mut streams = Vec::new();
        for family in Family::ALL {
            let to = address::SERVICE.port(family, ECHO);
            let mut stream = lab.client.inside(|| Ok(TcpStream::connect_timeout(&to, SOON)?))?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            streams.push((family, stream));
        }
        xlb.run(&["detach"])?;
        xlb.wait()?;
        xlb.start_again()?;
        xlb.wait_until_all_are_up()?;

        for (family, mut stream) in streams {
            stream.write_all(b"x")?;
            let ended = stream.read(&mut [0]);

            let kind = ended.as_ref().map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::ConnectionReset), "{mode:?} {family:?}");
        }
    }
    Ok(())
}

/// Packets and bytes that the clients' link has received.
fn received(lab: &Lab) -> Result<(u64, u64)> {
    let text = lab.client.run(&["ip", "-s", "-j", "link", "show", "dev", "eth0"])?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let count =
        |what: &str| all[0]["stats64"]["rx"][what].as_u64().with_context(|| format!("eth0 has no {what}"));
    Ok((count("packets")?, count("bytes")?))
}

/// What a flood of one kind has caused.
#[derive(Debug)]
struct Outcome {
    sent: u64,
    /// Packets that were answered, and packets that were not.
    rejected: u64,
    dropped: u64,
    answers: (u64, u64),
    sent_bytes: u64,
    seconds: f64,
}

fn flood(lab: &Lab, xlb: &Daemon, kind: Kind, to: SocketAddr, keys: u32, rate: u32) -> Result<Outcome> {
    let counted = || -> Result<[f64; 2]> {
        let metrics = xlb.metrics()?;
        Ok(["reject", "drop"].map(|action| metrics.sum("xlb_xdp_packets_total", &[("action", action)])))
    };
    let (before, received_before) = (counted()?, received(lab)?);
    let sent = Flood::start(lab, kind, to, keys, rate)?.finish()?;
    let mut after = before;
    let (mut rejected, mut dropped) = (0, 0);
    eventually(SOON, "all packets of the flood are counted", || {
        after = counted()?;
        (rejected, dropped) = ((after[0] - before[0]) as u64, (after[1] - before[1]) as u64);
        Ok(rejected + dropped >= sent.packets)
    })?;
    let received = received(lab)?;
    let outcome = Outcome {
        sent: sent.packets,
        rejected,
        dropped,
        answers: (received.0 - received_before.0, received.1 - received_before.1),
        sent_bytes: sent.bytes,
        seconds: sent.took.as_secs_f64(),
    };
    println!("{kind:?} to {to}: {outcome:?}");
    ensure!(rejected + dropped <= sent.packets + SOME, "more packets are counted: {outcome:?}");
    Ok(outcome)
}

/// Packets of others on the link: neighbour discovery, for example.
const SOME: u64 = 50;
/// What answers may have beyond the bytes of a flood: the debt, and the packets of others.
const BEYOND: u64 = ANSWER_DEBT_BYTES as u64 + SOME * 100;

#[test]
fn a_million_hostile_packets_get_fewer_bytes_than_they_have_and_a_thousand_answers_a_second() -> Result<()> {
    let lab = build("hostile", Mode::FullNat)?;
    let mut tcp = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO);
    tcp.health.check = Check::None;
    let config = Config::new(&lab).service(tcp).service(datagrams::service(&lab, Mode::FullNat));
    let xlb = lab.start(&config)?;
    for name in ["web-1", "web-1-v6"] {
        xlb.run(&["backend", "maint", &format!("dns/{name}")])?;
    }
    flood::route_back(&lab)?;
    let mut sent = 0;
    for (family, kind, port) in [Kind::Ack, Kind::Datagram]
        .into_iter()
        .flat_map(|kind| Family::ALL.map(|family| (family, kind)))
        .map(|(family, kind)| (family, kind, if kind == Kind::Datagram { DNS } else { ECHO }))
        .flat_map(|one| [one; 2])
    {
        let outcome = flood(&lab, &xlb, kind, address::SERVICE.port(family, port), MOST_KEYS, RATE)?;

        // The bound for any time is twice that of a second, because a second begins with its first answer.
        let most = (outcome.seconds + 2.0) * f64::from(ANSWERS_PER_SECOND);
        assert!(outcome.rejected <= most as u64, "{outcome:?}");
        assert!(outcome.rejected >= u64::from(ANSWERS_PER_SECOND), "{outcome:?}");
        assert!(outcome.dropped > outcome.rejected, "{outcome:?}");
        assert!(outcome.answers.0.abs_diff(outcome.rejected) <= SOME, "{outcome:?}");
        assert!(outcome.answers.1 <= outcome.sent_bytes + BEYOND, "{outcome:?}");
        sent += outcome.sent;
    }
    assert!(sent >= 1_000_000, "{sent}");
    Ok(())
}

/// An ICMP error is longer than an empty datagram.
#[test]
fn answers_to_empty_datagrams_have_no_more_bytes_than_these_had() -> Result<()> {
    const DATAGRAMS: u32 = 2_000;
    let lab = build("bytes", Mode::FullNat)?;
    let xlb = without_backends(&lab, Mode::FullNat, &[])?;
    flood::route_back(&lab)?;
    for family in Family::ALL {
        let to = address::SERVICE.port(family, DNS);
        let outcome = flood(&lab, &xlb, Kind::Datagram, to, DATAGRAMS, ANSWERS_PER_SECOND / 2)?;

        assert!(outcome.answers.1 <= outcome.sent_bytes + BEYOND, "{outcome:?}");
        assert!(outcome.answers.1 > outcome.sent_bytes / 2, "{outcome:?}");
        assert!(outcome.dropped > 0, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn resets_are_never_answered() -> Result<()> {
    const RESETS: u32 = 10_000;
    let lab = build("resets", Mode::FullNat)?;
    let mut tcp = Service::over(&lab, "echo", Protocol::Tcp, Mode::FullNat, ECHO, ECHO);
    tcp.health.check = Check::None;
    let xlb = lab.start(&Config::new(&lab).service(tcp))?;
    for family in Family::ALL {
        let outcome = flood(&lab, &xlb, Kind::Reset, address::SERVICE.port(family, ECHO), RESETS, RATE)?;

        assert_eq!((outcome.rejected, outcome.dropped >= u64::from(RESETS)), (0, true), "{outcome:?}");
        assert!(outcome.answers.0 <= SOME, "{outcome:?}");
    }
    Ok(())
}
