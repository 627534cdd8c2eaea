//! Which backend gets a new flow, and what happens to flows whose backend is removed.

use std::net::SocketAddr;

use lb_common::{
    backend::BackendId, flow::State, limits::MAX_PLACES, net::Protocol, reason::Reason, service::Mode,
};

use crate::{
    case::{Case, Drops, Opens, Passes, Reaches, Resets, Returns, answered},
    dialogue::{Dialogue, flow},
    world::{Kind, Service, WEB_1, WEB_2, WEB_3, World},
};

const DNS_1: &str = "dns-1";
const DNS_2: &str = "dns-2";

/// Every kind, then TCP alone, then backends that connect to their own service with nat.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::all() {
        rows.extend(every_kind(kind));
    }
    for kind in Kind::tcp() {
        rows.extend(tcp(kind));
    }
    for kind in Kind::all().into_iter().filter(|kind| kind.mode == Mode::Nat) {
        rows.extend(hairpins(kind));
    }
    rows
}

/// nat keeps the client's address, so a client that is a backend cannot be its own backend.
fn hairpins(kind: Kind) -> Vec<Case> {
    let own = Dialogue::new(kind).client(World::new(kind).find(WEB_1).address.ip());
    let two_ports = World::new(kind).with(|world| {
        let backends = &mut world.services[0].backends;
        backends[1].address = SocketAddr::new(backends[0].address.ip(), 8081);
    });
    vec![
        Case::new(format!("{kind}: a client that is two backends gets the third one"), two_ports)
            .step(own.first(), Opens(WEB_3))
            .step(own.port(40_001).first(), Opens(WEB_3))
            .step(own.port(40_002).first(), Opens(WEB_3)),
        Case::new(
            format!("{kind}: a backend that connects to its own service gets another backend"),
            World::new(kind),
        )
        .establish(own, WEB_2)
        .step(own.port(40_001).first(), Opens(WEB_2))
        .step(own.port(40_002).first(), Opens(WEB_3))
        .step(own.port(40_003).first(), Opens(WEB_2)),
        Case::new(
            format!("{kind}: the only backend is refused by its own service"),
            World::new(kind).with_one_backend(),
        )
        .step(own.first(), Drops(Reason::TupleInUse))
        .records(0),
    ]
}

fn every_kind(kind: Kind) -> Vec<Case> {
    let flow = |number| flow(kind, number);
    let world = World::new(kind);
    vec![
        Case::new(format!("{kind}: new flows go to the backends in turn"), world.clone())
            .step(flow(0).first(), Opens(WEB_1))
            .step(flow(1).first(), Opens(WEB_2))
            .step(flow(2).first(), Opens(WEB_3))
            .step(flow(3).first(), Opens(WEB_1))
            .step(flow(0).first(), Reaches(WEB_1))
            .step(flow(4).first(), Opens(WEB_2)),
        Case::new(format!("{kind}: a removed backend gets no new flows, and keeps its own"), world.clone())
            .establish(flow(0), WEB_1)
            .change(|world| world.rest(WEB_1))
            .step(flow(1).first(), Opens(WEB_3))
            .step(flow(2).first(), Opens(WEB_2))
            .step(flow(3).first(), Opens(WEB_3))
            .step(flow(0).later(), Reaches(WEB_1))
            .step(flow(0).later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: without a backend that is up, the reason is no_backend"), world.clone())
            .establish(flow(0), WEB_1)
            .change(|world| [WEB_1, WEB_2, WEB_3].iter().for_each(|name| world.rest(name)))
            .step(flow(1).first(), answered(kind.protocol, Reason::NoBackend))
            .records(1)
            .step(flow(0).later(), Reaches(WEB_1))
            .change(|world| world.find_mut(WEB_2).accepts = true)
            .step(flow(1).first(), Opens(WEB_2)),
        // Its id has the same place as another's, which is there.
        Case::new(
            format!("{kind}: a slot of a removed backend is passed over"),
            world
                .clone()
                .with(|world| world.find_mut(WEB_2).id = BackendId(world.find(WEB_1).id.0 + MAX_PLACES)),
        )
        .step(flow(0).first(), Opens(WEB_1))
        .step(flow(1).first(), Opens(WEB_3))
        .step(flow(2).first(), Opens(WEB_3)),
        Case::new(
            format!(
                "{kind}: if all slots are of a removed backend, the reason is contended and no record stays"
            ),
            world.clone().with(|world| {
                world.find_mut(WEB_2).id = BackendId(world.find(WEB_1).id.0 + MAX_PLACES);
                world.services[0].slots = Some(vec![1; 3]);
            }),
        )
        .step(flow(0).first(), Drops(Reason::Contended))
        .records(0),
        Case::new(format!("{kind}: a backend that lost its flows cannot reply on them"), world)
            .establish(flow(0), WEB_1)
            .change(|world| world.renew(WEB_1))
            .step(flow(0).later_answer(WEB_1), answered(kind.protocol, Reason::NoFlow))
            .step(flow(0).first(), Opens(WEB_2))
            .records(1),
    ]
}

fn tcp(kind: Kind) -> Vec<Case> {
    let flow = |number| flow(kind, number);
    let one = flow(0);
    let world = World::new(kind);
    let dns = Dialogue { protocol: Protocol::Udp, ..one };
    vec![
        Case::new(format!("{kind}: services of one address have a turn each"), beside(&world, Protocol::Udp))
            .step(flow(0).syn(), Opens(WEB_1))
            .step(dns.first(), Opens(DNS_1))
            .step(flow(1).syn(), Opens(WEB_2))
            .step(dns.port(50_000).first(), Opens(DNS_2))
            .step(dns.port(50_001).first(), Opens(DNS_1))
            .step(dns.answer(DNS_1), Returns)
            .step(flow(0).syn_ack(WEB_1), Returns),
        Case::new(
            format!("{kind}: a data packet of a flow that its backend lost is answered with a reset"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .change(|world| world.renew(WEB_1))
        .step(one.data(), Resets(Reason::NoFlow))
        .flow(one, &[])
        .step(one.data(), Resets(Reason::NoFlow)),
        Case::new(
            format!("{kind}: a repeated SYN moves the flow away from a backend that went down"),
            world.clone(),
        )
        .step(one.syn(), Opens(WEB_1))
        .change(|world| world.rest(WEB_1))
        .step(one.syn(), Opens(WEB_3))
        .flow(one, &[State::HALF_OPEN])
        .records(1)
        .step(one.syn_ack(WEB_1), Passes(Reason::NotService))
        .step(one.syn_ack(WEB_3), Returns),
        Case::new(format!("{kind}: a drained backend finishes handshakes that are in flight"), world.clone())
            .step(one.syn(), Opens(WEB_1))
            .step(one.syn_ack(WEB_1), Returns)
            .change(|world| world.rest(WEB_1))
            .step(one.ack(1), Reaches(WEB_1))
            .flow(one, &[State::ESTABLISHED]),
        Case::new(format!("{kind}: flows keep their backend when another is added"), world.clone())
            .establish(one, WEB_1)
            .change(|world| {
                let added =
                    crate::world::Backend { name: "web-4", id: world.next_id, ..world.find(WEB_2).clone() };
                world.services[0].backends.insert(3, added);
                world.next_id = world.next_id.following();
            })
            .step(one.data(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: packets to a removed service are passed to the host"), world.clone())
            .establish(one, WEB_1)
            .change(|world| world.services.clear())
            .step(one.data(), Passes(Reason::NotService))
            .step(flow(1).syn(), Passes(Reason::NotService)),
        Case::new(
            format!("{kind}: every source address is xlb's own"),
            world.with(|world| world.services[0].sources.push(kind.ip.inside(2))),
        )
        .establish(flow(0), WEB_1)
        .establish(flow(1), WEB_2)
        .establish(flow(2), WEB_3)
        .establish(flow(3), WEB_1)
        .establish(flow(4), WEB_2),
    ]
}

/// The world with a second service on the first one's address.
fn beside(world: &World, protocol: Protocol) -> World {
    let mut world = world.clone();
    let first = world.services[0].clone();
    world.services.push(Service { protocol, backends: Vec::new(), ..first });
    let is_v4 = world.services[0].sources[0].is_ipv4();
    let ip = if is_v4 { crate::world::Family::V4 } else { crate::world::Family::V6 };
    world.backend(DNS_1, ip.inside(11)).backend(DNS_2, ip.inside(12))
}
