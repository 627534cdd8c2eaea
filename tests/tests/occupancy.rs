//! A table holds as many flows as its capacity, and flows that have ended take no room from new ones.
//!
//! With one backend: nat has then one reply tuple for a flow and nothing to choose from.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use lb_common::{net::Protocol, service::Mode};
use tests::{
    dialogue::{Dialogue, Message, Sender},
    engine::{Action, Engine as _},
    host::HostEngine,
    packet::read,
    world::{Kind, WEB_1, World, network},
};

/// The capacity of the table, in flows.
const FLOWS: u32 = 8192;
const FIRST_PORT: u16 = 1024;

/// Maximum number of refused flows per 100,000, while a table is filled to its capacity with established flows.
const fn refused_max(mode: Mode) -> u32 {
    match mode {
        // Full buckets.
        Mode::FullNat => 50,
        // And full lines of the reply index.
        Mode::Nat => 100,
    }
}

#[test]
fn a_table_holds_as_many_established_flows_as_it_promises() {
    for kind in Kind::all() {
        let refused = filled(kind, Table::establish);

        assert!(
            refused * 100_000 <= FLOWS * refused_max(kind.mode),
            "{kind}: {refused} of {FLOWS} were refused"
        );
    }
}

#[test]
fn ended_connections_take_no_room_from_new_ones() {
    for kind in Kind::all().into_iter().filter(|kind| kind.protocol == Protocol::Tcp) {
        let refused = churned(kind, Table::establish_and_close);

        assert_eq!(refused, 0, "{kind}: of {} connections, one after the other", 5 * FLOWS);
    }
}

#[test]
fn reset_connections_take_no_room_from_new_ones() {
    for kind in Kind::all().into_iter().filter(|kind| kind.protocol == Protocol::Tcp) {
        for reset in [Table::establish_and_reset_by_client, Table::establish_and_reset_by_backend] {
            let refused = churned(kind, reset);

            assert_eq!(refused, 0, "{kind}: of {} connections, one after the other", 5 * FLOWS);
        }
    }
}

#[test]
fn unproven_connections_take_no_room_from_new_ones() {
    for kind in Kind::all() {
        let refused = churned(kind, Table::open);

        assert_eq!(refused, 0, "{kind}: of {} half-open flows", 5 * FLOWS);
    }
}

/// Starts as many flows as the capacity, all of which stay. Returns how many are refused.
fn filled(kind: Kind, add: impl Fn(&mut Table, Dialogue) -> Result<bool>) -> u32 {
    refused(kind, FLOWS, add)
}

/// Starts five times as many flows as the capacity, each of which may be evicted when the next one starts. Returns how
/// many are refused.
fn churned(kind: Kind, add: impl Fn(&mut Table, Dialogue) -> Result<bool>) -> u32 {
    refused(kind, 5 * FLOWS, add)
}

fn refused(kind: Kind, count: u32, add: impl Fn(&mut Table, Dialogue) -> Result<bool>) -> u32 {
    let run = || {
        let mut table = Table::new(kind)?;
        let mut refused = 0;
        for number in 0..count {
            let flow = Dialogue::new(kind).port(FIRST_PORT + u16::try_from(number)?);
            let is_served = add(&mut table, flow).with_context(|| format!("{kind}: flow {number}"))?;
            refused += u32::from(!is_served);
        }
        anyhow::Ok(refused)
    };
    run().unwrap_or_else(|error| panic!("{error:#}"))
}

struct Table {
    engine: HostEngine,
    world: World,
}

impl Table {
    fn new(kind: Kind) -> Result<Self> {
        let world = World::new(kind).with_one_backend().with_flows(FLOWS);
        let mut engine = HostEngine::default();
        engine.reset(&world)?;
        Ok(Self { engine, world })
    }

    /// Sends what opens a flow. Is it forwarded?
    fn open(&mut self, flow: Dialogue) -> Result<bool> {
        Ok(self.send(&flow.first(), flow.client)?.is_some())
    }

    /// Opens a flow and proves it. Was it forwarded at first?
    fn establish(&mut self, flow: Dialogue) -> Result<bool> {
        let Some(source) = self.send(&flow.first(), flow.client)? else { return Ok(false) };
        let proof = match flow.protocol {
            Protocol::Tcp => flow.ack(1),
            Protocol::Udp => flow.later(),
        };
        self.must_pass(&flow.answer(WEB_1), source)?;
        self.must_pass(&proof, flow.client)?;
        Ok(true)
    }

    /// Establishes a connection, and both sides close it.
    fn establish_and_close(&mut self, flow: Dialogue) -> Result<bool> {
        let Some(source) = self.send(&flow.first(), flow.client)? else { return Ok(false) };
        self.must_pass(&flow.answer(WEB_1), source)?;
        self.must_pass(&flow.fin(), flow.client)?;
        self.must_pass(&flow.reply_fin(WEB_1), source)?;
        Ok(true)
    }

    /// Establishes a connection, and the client resets it.
    fn establish_and_reset_by_client(&mut self, flow: Dialogue) -> Result<bool> {
        let is_served = self.establish(flow)?;
        if is_served {
            self.must_pass(&flow.rst(), flow.client)?;
        }
        Ok(is_served)
    }

    /// Establishes a connection, and the backend resets it.
    fn establish_and_reset_by_backend(&mut self, flow: Dialogue) -> Result<bool> {
        let Some(source) = self.send(&flow.first(), flow.client)? else { return Ok(false) };
        self.must_pass(&flow.answer(WEB_1), source)?;
        self.must_pass(&flow.ack(1), flow.client)?;
        self.must_pass(&flow.reply_rst(WEB_1), source)?;
        Ok(true)
    }

    fn must_pass(&mut self, message: &Message, client: SocketAddr) -> Result<()> {
        self.send(message, client)?.map(drop).with_context(|| format!("refused: {message:?}"))
    }

    /// Sends a message from or to `client`, with the addresses that its sender sees. Returns the source it was forwarded with.
    fn send(&mut self, message: &Message, client: SocketAddr) -> Result<Option<SocketAddr>> {
        let backend = self.world.find(WEB_1);
        let (from, to, interface) = match message.sender {
            Sender::Client => (client, message.dialogue.listen, network::interface_towards(client.ip())),
            Sender::Backend(_) => (backend.address, client, backend.interface),
        };
        let packet = message.packet.clone().with(|packet| {
            packet.readdress(from, to);
            packet.to_mac = network::mac_of_interface(interface);
        });
        let outcome = self.engine.run(interface, &packet.to_frame())?;
        match outcome.action {
            Action::Transmit | Action::Redirect => Ok(read::endpoints(&outcome.frame).map(|(from, _)| from)),
            Action::Pass | Action::Drop => Ok(None),
        }
    }
}
