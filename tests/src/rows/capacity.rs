//! Full tables, ports and tuples: which flows are evicted, and which never are.

use lb_common::{
    flow::{BucketIndex, State},
    net::Protocol,
    reason::Reason,
    service::Mode,
    settings::PortPool,
};
use lb_ebpf::table::record;

use crate::{
    case::{Case, Drops, Opens, Reaches, Returns},
    dialogue::{Dialogue, flow},
    world::{Family, Kind, Service, WEB_1, WEB_2, World},
};

/// Records of a table of one bucket.
const ALL: u16 = 8;
const DNS: &str = "dns-1";

/// Tables of one bucket and pools of one port, so that a few flows fill them.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::tcp().into_iter().chain(Kind::udp()) {
        rows.extend(records(kind));
        rows.extend(ports(kind));
    }
    rows.extend(Kind::tcp().into_iter().flat_map(resets));
    for kind in Kind::all() {
        rows.extend(reply_index(kind));
    }
    for ip in Family::ALL {
        rows.extend(between_protocols(ip));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            rows.extend(tuples(Kind::new(ip, protocol, Mode::Nat)));
        }
    }
    rows
}

fn tiny(kind: Kind) -> World {
    World::new(kind).with_one_backend().with_buckets(1)
}

/// This many flows, a second apart.
fn filled(
    mut case: Case,
    kind: Kind,
    half_open: std::ops::Range<u16>,
    established: std::ops::Range<u16>,
) -> Case {
    for number in established {
        case = case.establish(flow(kind, number), WEB_1);
    }
    for number in half_open {
        case = case.after_s(1).step(flow(kind, number).first(), Opens(WEB_1));
    }
    case
}

fn records(kind: Kind) -> Vec<Case> {
    let new = flow(kind, 99);
    let case = |name: &str| Case::new(format!("{kind}: {name}"), tiny(kind));
    vec![
        filled(case("a table of established flows refuses a new one"), kind, 0..0, 0..ALL)
            .step(new.first(), Drops(Reason::TableFull))
            .records(8)
            .step(flow(kind, 0).later(), Reaches(WEB_1))
            .step(flow(kind, 7).later_answer(WEB_1), Returns),
        filled(case("the oldest half-open flow is evicted"), kind, 0..ALL, 0..0)
            .step(new.first(), Opens(WEB_1))
            .records(8)
            .flow(flow(kind, 0), &[])
            .flow(flow(kind, 1), &[State::HALF_OPEN])
            .step(new.answer(WEB_1), Returns),
        filled(case("a flood evicts no established flow"), kind, 7..ALL, 0..7)
            .step(flow(kind, 90).first(), Opens(WEB_1))
            .step(flow(kind, 91).first(), Opens(WEB_1))
            .step(flow(kind, 92).first(), Opens(WEB_1))
            .step(flow(kind, 93).first(), Opens(WEB_1))
            .records(8)
            .flow(flow(kind, 92), &[])
            .step(flow(kind, 0).later(), Reaches(WEB_1))
            .step(flow(kind, 6).later_answer(WEB_1), Returns),
        filled(case("an expired flow is evicted before a half-open one"), kind, 0..0, 0..1)
            .after_s(7441)
            .step(flow(kind, 1).first(), Opens(WEB_1))
            .step(flow(kind, 2).first(), Opens(WEB_1))
            .step(flow(kind, 3).first(), Opens(WEB_1))
            .step(flow(kind, 4).first(), Opens(WEB_1))
            .step(flow(kind, 5).first(), Opens(WEB_1))
            .step(flow(kind, 6).first(), Opens(WEB_1))
            .step(flow(kind, 7).first(), Opens(WEB_1))
            .records(8)
            .step(new.first(), Opens(WEB_1))
            .records(8)
            .flow(flow(kind, 0), &[])
            .flow(flow(kind, 1), &[State::HALF_OPEN]),
        filled(
            Case::new(
                format!(
                    "{kind}: above the limit of half-open flows one of them is evicted, even with empty records"
                ),
                tiny(kind).with(|world| world.shape.half_open = 2),
            ),
            kind,
            0..2,
            0..0,
        )
        .step(new.first(), Opens(WEB_1))
        .records(2)
        .flow(flow(kind, 0), &[])
        .flow(flow(kind, 1), &[State::HALF_OPEN]),
        above_the_limit_the_past_stays(kind),
        filled(
            Case::new(
                format!(
                    "{kind}: above the limit an empty record is used if the bucket has no half-open flow"
                ),
                tiny(kind).with(|world| world.shape.half_open = 0),
            ),
            kind,
            0..0,
            0..3,
        )
        .records(3),
        second_bucket(kind),
    ]
}

/// Enough records, but one line in the reply index for all of them.
fn reply_index(kind: Kind) -> Vec<Case> {
    let world = World::new(kind).with_one_backend().with(|world| world.shape.lines = 1);
    let case = |name: &str| Case::new(format!("{kind}: {name}"), world.clone());
    let new = flow(kind, 99);
    let full = match kind.mode {
        Mode::FullNat => Reason::PortsExhausted,
        Mode::Nat => Reason::TupleInUse,
    };
    vec![
        filled(case("no established flow loses its entry of the reply index"), kind, 0..0, 0..ALL)
            .step(new.first(), Drops(full))
            .records(8)
            .step(flow(kind, 0).later_answer(WEB_1), Returns)
            .step(flow(kind, 7).later_answer(WEB_1), Returns),
        filled(case("a half-open flow is evicted for its entry of the reply index"), kind, 0..1, 1..ALL)
            .step(new.first(), Opens(WEB_1))
            .records(8)
            .flow(flow(kind, 0), &[])
            .step(new.answer(WEB_1), Returns)
            .step(flow(kind, 7).later_answer(WEB_1), Returns),
        filled(case("an expired flow is evicted for its entry of the reply index"), kind, 0..0, 0..ALL)
            .after_s(7441)
            .step(new.first(), Opens(WEB_1))
            .records(8)
            .step(new.answer(WEB_1), Returns),
    ]
}

/// A flood must not evict closed flows, whose backends may be in TIME-WAIT, to fill the table.
fn above_the_limit_the_past_stays(kind: Kind) -> Case {
    let (over, new) = (flow(kind, 50), flow(kind, 99));
    let case = Case::new(
        format!("{kind}: above the limit a half-open flow is evicted before a closed one"),
        tiny(kind).with(|world| world.shape.half_open = 2),
    );
    let case = case.establish(over, WEB_1);
    match kind.protocol {
        Protocol::Tcp => {
            let closed = State(State::ESTABLISHED.0 | State::FIN_CLIENT | State::FIN_BACKEND);
            let case = case.step(over.fin(), Reaches(WEB_1)).step(over.reply_fin(WEB_1), Returns);
            filled(
                case.step(over.ack(2), Reaches(WEB_1)).step(over.later_answer(WEB_1), Returns),
                kind,
                0..2,
                0..0,
            )
            .step(new.first(), Opens(WEB_1))
            .flow(over, &[closed])
            .flow(flow(kind, 0), &[])
        }
        // UDP flows are never closed.
        Protocol::Udp => {
            filled(case, kind, 0..2, 0..0).step(new.first(), Opens(WEB_1)).flow(flow(kind, 0), &[])
        }
    }
}

/// Flows with the same two buckets fill one, then the other.
fn second_bucket(kind: Kind) -> Case {
    let world = World::new(kind).with_one_backend().with(|world| world.shape.buckets = 2);
    let shape = world.shape;
    let mut together = (40_000..u16::MAX).map(|port| Dialogue::new(kind).port(port)).filter(|dialogue| {
        let hash = dialogue.hash();
        (record::home(hash, shape), record::second(hash, shape)) == (BucketIndex(0), BucketIndex(1))
    });
    let mut case = Case::new(
        format!("{kind}: the second bucket is used when the first is full, and no third one"),
        world,
    );
    for dialogue in together.by_ref().take(2 * usize::from(ALL)) {
        case = case.establish(dialogue, WEB_1).step(dialogue.later_answer(WEB_1), Returns);
    }
    let left_out = together.next().unwrap_or_else(|| flow(kind, 99));
    case.records(16).step(left_out.first(), Drops(Reason::TableFull))
}

fn ports(kind: Kind) -> Vec<Case> {
    let one_port = PortPool { low_first: 2000, low_count: 1, high_first: 0, high_count: 0 };
    let world = World::new(kind).with_one_backend().with(|world| world.ports = one_port);
    let (one, two) = (flow(kind, 1), flow(kind, 2));
    vec![
        Case::new(format!("{kind}: ports are exhausted when established flows hold them all"), world.clone())
            .establish(one, WEB_1)
            .step(two.first(), Drops(Reason::PortsExhausted))
            .records(1)
            .step(one.later(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: a half-open flow's port is evicted"), world.clone())
            .step(one.first(), Opens(WEB_1))
            .after_s(1)
            .step(two.first(), Opens(WEB_1))
            .flow(one, &[])
            .records(1)
            .step(two.answer(WEB_1), Returns),
        Case::new(format!("{kind}: an expired flow's port is evicted"), world.clone())
            .establish(one, WEB_1)
            .after_s(7441)
            .step(two.first(), Opens(WEB_1))
            .flow(one, &[]),
        Case::new(
            format!("{kind}: a port is used once for each backend"),
            World::new(kind).with(|world| world.ports = one_port),
        )
        .establish(one, WEB_1)
        .establish(two, WEB_2),
        Case::new(
            format!("{kind}: a port is used once for each source address"),
            world.with(|world| world.services[0].sources.push(kind.ip.inside(2))),
        )
        .establish(one, WEB_1)
        .establish(two, WEB_1)
        .step(flow(kind, 3).first(), Drops(Reason::PortsExhausted)),
    ]
}

/// What may be evicted of a reset flow, and for which flows.
fn resets(kind: Kind) -> Vec<Case> {
    let new = flow(kind, 99);
    let reset = State(State::ESTABLISHED.0 | State::RESET | State::SHORT_CLIENT);
    let close =
        |case: Case, it: Dialogue| case.step(it.fin(), Reaches(WEB_1)).step(it.reply_fin(WEB_1), Returns);
    let table = |name: &str| Case::new(format!("{kind}: {name}"), tiny(kind));
    let one_port = PortPool { low_first: 2000, low_count: 1, high_first: 0, high_count: 0 };
    let port = |name: &str| {
        let world = World::new(kind).with_one_backend().with(|world| world.ports = one_port);
        Case::new(format!("{kind}: {name}"), world)
    };
    let (one, two) = (flow(kind, 1), flow(kind, 2));
    vec![
        filled(table("a full table has room for one more flow when one was reset"), kind, 0..0, 0..ALL)
            .step(flow(kind, 3).rst(), Reaches(WEB_1))
            .step(new.syn(), Opens(WEB_1))
            .records(8)
            .flow(flow(kind, 3), &[]),
        filled(table("the flow that was reset first is evicted first"), kind, 0..0, 0..ALL)
            .step(flow(kind, 5).rst(), Reaches(WEB_1))
            .after_s(1)
            .step(flow(kind, 2).rst(), Reaches(WEB_1))
            .step(new.syn(), Opens(WEB_1))
            .flow(flow(kind, 5), &[])
            .flow(flow(kind, 2), &[reset]),
        close(filled(table("a closed flow is evicted before a reset one"), kind, 0..0, 0..ALL), one)
            .step(two.rst(), Reaches(WEB_1))
            .step(new.syn(), Opens(WEB_1))
            .flow(one, &[])
            .flow(two, &[reset]),
        filled(table("a reset flow is evicted before a half-open one"), kind, 7..ALL, 0..7)
            .after_s(1)
            .step(two.rst(), Reaches(WEB_1))
            .step(new.syn(), Opens(WEB_1))
            .flow(two, &[])
            .flow(flow(kind, 7), &[State::HALF_OPEN]),
        filled(table("a flow that was restored keeps its record"), kind, 0..0, 0..ALL)
            .step(two.rst(), Reaches(WEB_1))
            .step(two.later_answer(WEB_1), Returns)
            .step(new.syn(), Drops(Reason::TableFull))
            .step(two.data(), Reaches(WEB_1)),
        port("a reset flow's port is evicted at once")
            .establish(one, WEB_1)
            .step(one.reply_rst(WEB_1), Returns)
            .step(two.syn(), Opens(WEB_1))
            .flow(one, &[])
            .records(1)
            .step(two.syn_ack(WEB_1), Returns),
        port("a flow that was restored keeps its port")
            .establish(one, WEB_1)
            .step(one.reply_rst(WEB_1), Returns)
            .step(one.data(), Reaches(WEB_1))
            .step(two.syn(), Drops(Reason::PortsExhausted))
            .step(one.later_answer(WEB_1), Returns),
    ]
}

fn between_protocols(ip: Family) -> Vec<Case> {
    let kind = Kind::new(ip, Protocol::Tcp, Mode::FullNat);
    let mut world = tiny(kind);
    let first = world.services[0].clone();
    world.services.push(Service { protocol: Protocol::Udp, backends: Vec::new(), ..first });
    let world = world.backend(DNS, ip.inside(13));
    let one_line = world.clone().with(|world| (world.shape.buckets, world.shape.lines) = (16, 1));
    let tcp = flow(kind, 99);
    let udp = Dialogue { protocol: Protocol::Udp, ..tcp };
    let udp_first = (0..ALL)
        .fold(Case::new(format!("{ip:?}: TCP evicts half-open UDP"), world.clone()), |case, number| {
            case.after_s(1).step(udp.port(50_000 + number).first(), Opens(DNS))
        });
    vec![
        filled(Case::new(format!("{ip:?}: UDP never evicts half-open TCP"), world), kind, 0..ALL, 0..0)
            .step(udp.first(), Drops(Reason::TableFull))
            .step(tcp.syn(), Opens(WEB_1))
            .records(8),
        udp_first.step(tcp.syn(), Opens(WEB_1)).records(8).flow(udp.port(50_000), &[]),
        filled(
            Case::new(format!("{ip:?}: UDP never evicts half-open TCP from the reply index"), one_line),
            kind,
            0..ALL,
            0..0,
        )
        .step(udp.first(), Drops(Reason::PortsExhausted))
        .records(8)
        .step(tcp.syn(), Opens(WEB_1))
        .records(8),
    ]
}

/// nat: backends see the client's port, which may be the same towards several listen addresses.
fn tuples(kind: Kind) -> Vec<Case> {
    let other_listen = std::net::SocketAddr::new(kind.ip.address("192.0.2.20", "2001:db8::20"), 80);
    let two_addresses = |world: World| world.with(|world| world.services[0].listen.push(other_listen));
    let world = two_addresses(World::new(kind).with_one_backend());
    let one = Dialogue::new(kind);
    let other = one.listen(other_listen);
    vec![
        Case::new(
            format!("{kind}: one client port towards two addresses and one backend is tuple_in_use"),
            world.clone(),
        )
        .establish(one, WEB_1)
        .step(other.first(), Drops(Reason::TupleInUse))
        .step(one.later(), Reaches(WEB_1))
        .step(one.later_answer(WEB_1), Returns),
        Case::new(format!("{kind}: a half-open flow's tuple is evicted"), world)
            .step(one.first(), Opens(WEB_1))
            .after_s(1)
            .step(other.first(), Opens(WEB_1))
            .flow(one, &[])
            .step(other.answer(WEB_1), Returns),
        Case::new(
            format!("{kind}: one client port towards two addresses gets two backends"),
            two_addresses(World::new(kind).with(|world| world.services[0].backends.truncate(2))),
        )
        .establish(one, WEB_1)
        .step(one.port(40_001).first(), Opens(WEB_2))
        .establish(other, WEB_2)
        .step(one.later_answer(WEB_1), Returns)
        .step(other.later_answer(WEB_2), Returns),
    ]
}
