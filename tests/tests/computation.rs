//! The daemon computes the backend that the program gives a flow: nodes do not tell each other of such flows.

use std::time::Duration;

use lb_common::{backend::BackendId, pool::Picker};
use lb_userspace::{datapath::SharedFlow, group::computation::Computation, hash_key::HashKey};
use tests::{
    case::{self, Case, Opens},
    dialogue::{Dialogue, flow},
    host::HostEngine,
    world::{HASH_KEYS, Kind, WEBS, World},
};

/// The backends of a table whose length is no power of two, by slot.
const TABLE: [usize; 7] = [0, 2, 1, 0, 2, 1, 2];
/// The most half-open flows.
const FLOWS: u16 = 40;

#[test]
fn the_daemon_computes_the_backend_of_the_program() {
    let mut engine = HostEngine::default();
    for picker in [Picker::SourceHash, Picker::FlowHash] {
        for kind in Kind::all() {
            for first in [0, FLOWS, 2 * FLOWS] {
                let row = flows_of(kind, picker, first);

                case::run(&row, &mut engine).unwrap_or_else(|error| panic!("{error:#}"));
            }
        }
    }
}

#[test]
fn other_pickers_and_empty_slots_compute_nothing() {
    let one = shared(flow(Kind::all()[0], 1));
    let backend_of = |picker, slots| computation(picker, slots).backend_of(&one);

    for picker in [Picker::Turn, Picker::LeastOfAll, Picker::LeastOfTwo] {
        assert_eq!(backend_of(picker, vec![BackendId(1)]), None);
    }
    for picker in [Picker::SourceHash, Picker::FlowHash] {
        assert_eq!(backend_of(picker, vec![BackendId(1)]), Some(BackendId(1)));
        assert_eq!(backend_of(picker, vec![BackendId::NONE]), None);
        assert_eq!(backend_of(picker, Vec::new()), None);
    }
}

/// Flows of many clients, each with the backend that the daemon computes.
fn flows_of(kind: Kind, picker: Picker, first: u16) -> Case {
    let computation = computation(picker, TABLE.map(|place| BackendId(place as u32 + 1)).to_vec());
    // In a small table, flows whose place is taken get another backend.
    let world = World::new(kind).with_buckets(256).with(|world| {
        (world.services[0].picker, world.services[0].slots) = (picker, Some(TABLE.to_vec()));
    });
    let client = |number: u16| flow(kind, number).client(kind.ip.client(number as u8 + 1));
    let clients = (first..first + FLOWS).map(client);
    clients.fold(Case::new(format!("{kind}: {picker:?}"), world), |case, client| {
        let computed = computation.backend_of(&shared(client));
        case.step(client.first(), Opens(computed.map_or("none", |id| WEBS[id.0 as usize - 1])))
    })
}

fn computation(picker: Picker, slots: Vec<BackendId>) -> Computation {
    Computation { slots: slots.into(), picker, key: HashKey::new(HASH_KEYS) }
}

/// The computed backend depends on requests alone.
fn shared(flow: Dialogue) -> SharedFlow {
    let Dialogue { protocol, client, listen } = flow;
    let (backend, source, idle) = (listen, client, Duration::ZERO);
    SharedFlow { protocol, client, listen, backend, source, answer: None, idle }
}
