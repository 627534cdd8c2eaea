//! Flows that are ended by `xlb flow remove` and otherwise: real sockets on both ends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{net::Protocol, service::Mode};
use tests::lab::{
    Config, Daemon, Family, Lab, Shape, Topology, address, config::Service, eventually, pass, sweep,
    wait::SOON,
};
use tokio::net::TcpSocket;

/// The ports of two services.
const PORTS: [(&str, u16); 2] = [("one", 1001), ("two", 1002)];

/// A listening socket on a backend.
struct Listener {
    socket: TcpListener,
    family: Family,
    port: u16,
    /// The backend's name, with its service.
    backend: String,
}

/// A connection: both of its ends.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    from: IpAddr,
    service: &'static str,
    backend: String,
}

/// A lab whose links accept answers, on both sides of xlb.
fn build(topology: &Topology) -> Result<Lab> {
    let lab = Lab::build(topology)?;
    for end in [(&lab.client, "eth0"), (&lab.switch, "xlb")] {
        pass::pass_everything(end, &lab.directory().join(sweep::BPFFS))?;
    }
    Ok(lab)
}

/// Listeners of all services on all backends.
fn listen(lab: &Lab) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for (service, port) in PORTS {
        for backend in &lab.backends {
            for family in Family::ALL {
                let address = backend.address.port(family, port);
                let socket = backend.namespace.inside(|| Ok(TcpListener::bind(address)?))?;
                socket.set_nonblocking(true)?;
                let suffix = if family == Family::V6 { "-v6" } else { "" };
                let backend = format!("{service}/{}{suffix}", backend.name);
                listeners.push(Listener { socket, family, port, backend });
            }
        }
    }
    Ok(listeners)
}

/// Services over all backends, with these keys.
fn start(lab: &Lab, mode: Mode, keys: &[&'static str]) -> Result<Daemon> {
    let config = PORTS.into_iter().fold(Config::new(lab), |config, (name, port)| {
        let service = Service::over(lab, name, Protocol::Tcp, mode, port, port);
        config.service(Service { keys: keys.to_vec(), ..service })
    });
    let xlb = lab.start(&config)?;
    xlb.wait_until_all_are_up()?;
    Ok(xlb)
}

impl Connection {
    /// Connects from a client address to a service, and finds the server's end.
    fn open(
        lab: &Lab,
        listeners: &[Listener],
        family: Family,
        client: usize,
        service: usize,
    ) -> Result<Self> {
        let (name, port) = PORTS[service];
        let from = lab.clients[client].of(family);
        let to = address::SERVICE.port(family, port);
        let mut client = lab.client.block_on(async || {
            let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind((from, 0).into())?;
            Ok(socket.connect(to).await?.into_std()?)
        })?;
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(SOON))?;
        client.write_all(b"x")?;
        let mut found = None;
        eventually(SOON, "a server has the connection", || {
            let may_have = listeners.iter().filter(|it| (it.family, it.port) == (family, port));
            found = may_have.filter_map(|it| Some((accept(&it.socket)?, it.backend.clone()))).next();
            Ok(found.is_some())
        })?;
        let (server, backend) = found.context("no server has it")?;
        Ok(Self { client, server, from, service: name, backend })
    }

    /// Do both ends hear each other?
    fn assert_lives(&mut self) -> Result<()> {
        for is_of_client in [true, false] {
            let (from, to) = match is_of_client {
                true => (&mut self.client, &mut self.server),
                false => (&mut self.server, &mut self.client),
            };
            from.write_all(b"y")?;
            to.read_exact(&mut [0]).with_context(|| format!("{} {} is dead", self.from, self.backend))?;
        }
        Ok(())
    }

    /// How the next packet of either end is answered, the server's first.
    fn ends(&mut self) -> Result<[Option<ErrorKind>; 2]> {
        let mut ends = [None; 2];
        for (end, stream) in ends.iter_mut().zip([&mut self.server, &mut self.client]) {
            stream.write_all(b"z")?;
            *end = stream.read(&mut [0]).err().map(|error| error.kind());
        }
        Ok(ends)
    }
}

/// A connection that has sent something: not one of a health check.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        if stream.read_exact(&mut [0]).is_ok() {
            return Some(stream);
        }
    }
    None
}

#[test]
fn flows_are_removed_by_each_filter_and_all_others_survive() -> Result<()> {
    let lab = build(&Topology::new("removes", Shape::TwoNics).backends(2))?;
    let listeners = listen(&lab)?;
    let xlb = start(&lab, Mode::FullNat, &[])?;
    let mut connections = Vec::new();
    for family in Family::ALL {
        for (client, service) in [(0, 0), (0, 1), (1, 0), (1, 1)].repeat(3) {
            connections.push(Connection::open(&lab, &listeners, family, client, service)?);
        }
    }
    let client = lab.clients[1].of(Family::V4);
    type Filter<'a> = (&'a [&'a str], &'a dyn Fn(&Connection) -> bool);
    let filters: [Filter<'_>; 4] = [
        (&["--backend", "one/web-2-v6"], &|it| it.backend == "one/web-2-v6"),
        (&["--client", &client.to_string()], &|it| it.from == client),
        (&["--service", "two"], &|it| it.service == "two"),
        (&["--all"], &|_| true),
    ];

    for (words, is_selected) in filters {
        let (mut selected, others): (Vec<_>, Vec<_>) = connections.into_iter().partition(is_selected);
        connections = others;
        let answer = xlb.json(&[&["flow", "remove"], words].concat())?;

        println!("{words:?}: {answer}, {} are left", connections.len());
        assert!(!selected.is_empty(), "{words:?} selects nothing: the test shows nothing");
        assert_eq!(answer, serde_json::json!({"removed": selected.len()}), "{words:?}");
        for one in &mut selected {
            assert_eq!(one.ends()?, [Some(ErrorKind::ConnectionReset); 2], "{words:?}");
        }
        for other in &mut connections {
            other.assert_lives().with_context(|| format!("{words:?}"))?;
        }
        // A count may be a second old.
        eventually(SOON, "each backend has as many flows as connections", || {
            let list = xlb.json(&["backend", "list"])?;
            let backends = list.as_array().context("no list")?;
            Ok(backends.iter().all(|it| {
                let name = format!("{}/{}", it["service"], it["name"]).replace('"', "");
                it["flows"] == connections.iter().filter(|it| it.backend == name).count()
            }))
        })?;
    }
    let nothing = xlb.output(&["flow", "remove"])?;
    ensure!(nothing.code == 2 && nothing.stderr.contains("--all"), "{}", nothing.stderr);
    ensure!(xlb.output(&["flow", "remove", "--service", "three"])?.code == 3);
    Ok(())
}

/// What ends all flows of the backends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Maint,
    RemoveBackend,
    /// `on_down = "reset"`
    Down,
    RemoveFlows,
}

/// One connection per family, ended: how its ends learn that.
fn ended(mode: Mode, end: End, keys: &[&'static str]) -> Result<Vec<[Option<ErrorKind>; 2]>> {
    const SILENCE: Duration = Duration::from_millis(300);
    let lab = build(&Topology::new("ends", Shape::TwoNics).mode(mode).backends(1).clients(1))?;
    let listeners = listen(&lab)?;
    let xlb = start(&lab, mode, keys)?;
    let open = |family| Connection::open(&lab, &listeners, family, 0, 0);
    let mut connections = Family::ALL.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    connections.iter_mut().try_for_each(Connection::assert_lives)?;

    for backend in ["one/web-1", "one/web-1-v6"] {
        match end {
            End::Maint => drop(xlb.run(&["backend", "maint", backend])?),
            End::RemoveBackend => drop(xlb.run(&["backend", "remove", backend])?),
            End::RemoveFlows => drop(xlb.run(&["flow", "remove", "--backend", backend])?),
            End::Down => {}
        }
    }
    if end == End::Down {
        drop(listeners);
    }
    let count = || Ok(xlb.json(&["flow", "list"])?.as_array().is_some_and(Vec::is_empty));
    eventually(SOON, "all flows have ended", count)?;
    for one in &connections {
        let patience = if keys.contains(&"reject = \"drop\"") { SILENCE } else { SOON };
        one.client.set_read_timeout(Some(patience))?;
        one.server.set_read_timeout(Some(patience))?;
    }
    connections.iter_mut().map(Connection::ends).collect()
}

#[test]
fn the_next_packet_of_either_end_is_reset_however_a_flow_was_ended() -> Result<()> {
    for mode in [Mode::FullNat, Mode::Nat] {
        for (end, keys) in [
            (End::Maint, &[][..]),
            (End::RemoveBackend, &[]),
            (End::Down, &["on_down = \"reset\""]),
            (End::RemoveFlows, &[]),
        ] {
            for (family, ends) in Family::ALL.iter().zip(ended(mode, end, keys)?) {
                assert_eq!(ends, [Some(ErrorKind::ConnectionReset); 2], "{mode:?} {end:?} {family:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn ended_flows_of_a_service_that_drops_are_not_answered() -> Result<()> {
    for mode in [Mode::FullNat, Mode::Nat] {
        for end in [End::Maint, End::RemoveFlows] {
            for (family, ends) in Family::ALL.iter().zip(ended(mode, end, &["reject = \"drop\""])?) {
                assert_eq!(ends, [Some(ErrorKind::WouldBlock); 2], "{mode:?} {end:?} {family:?}");
            }
        }
    }
    Ok(())
}
