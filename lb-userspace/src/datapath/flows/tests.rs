use lb_common::{
    backend::Backend,
    clock::Ticks,
    flow::{Control, Owner, Record, ReplyEntry, State},
    net::Ports,
    service::Mode,
    settings::Settings,
};

use lb_ebpf::{family::Tuple, table::hash::reduce};

use super::*;

const NOW: Ticks = Ticks::from_seconds(100_000);
const TCP: u8 = Protocol::Tcp as u8;
const ALIVE: BackendId = BackendId(7);
const DEAD: BackendId = BackendId(8);

#[test]
fn a_walk_visits_each_live_flow_once_even_if_its_backend_was_removed() {
    let world = World::new(2 * CHUNK + 1, 3);
    let last = world.flows.v4.buckets.len() as u32 * WAYS as u32 - 1;
    for number in [0, 9, CHUNK * WAYS as u32, last] {
        world.put4(number, State::ESTABLISHED, ALIVE, NOW);
    }
    world.put4(17, State::ESTABLISHED, DEAD, NOW);
    world.put6(23, State::HALF_OPEN, ALIVE, ago(60));

    let mut seen = Vec::new();
    let chunks = world.walk(|flow| seen.push(flow.clone()));

    assert_eq!(chunks, 4);
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[2].backend_id, DEAD);
    assert_eq!(
        seen[5],
        Flow {
            protocol: Protocol::Tcp,
            client: "[fd00::17]:1023".parse().unwrap(),
            listen: "[fd00::2]:80".parse().unwrap(),
            backend: "[fd00::3]:8080".parse().unwrap(),
            source: "[fd00::4]:2023".parse().unwrap(),
            backend_id: ALIVE,
            state: State::HALF_OPEN,
            idle: Ticks::from_seconds(60).as_duration(),
        }
    );
}

#[test]
fn a_walk_skips_records_that_are_free_or_expired() {
    let world = World::new(2, 1);
    world.put4(0, State::BUSY, ALIVE, NOW);
    world.put4(1, State::EMPTY, ALIVE, NOW);
    world.put4(2, State::ESTABLISHED, ALIVE, ago(7440).earlier_by(Ticks(1)));
    world.put4(3, State::HALF_OPEN, ALIVE, ago(120).earlier_by(Ticks(1)));

    world.walk(|flow| panic!("{flow:?}"));
}

#[test]
fn a_sweep_ends_flows_of_retired_backends_and_keeps_their_reply_tuples() {
    let world = World::new(8, 8);
    world.put4(0, State::ESTABLISHED, DEAD, NOW);
    world.put4(1, State::HALF_OPEN, DEAD, NOW);
    world.put4(2, State::HALF_OPEN, ALIVE, NOW);
    world.put6(3, State::REOPENING, DEAD, NOW);
    assert_eq!((world.entries(), world.half_open()), (4, [2, 1]));

    world.sweep(DEAD);

    assert_eq!((world.entries(), world.half_open()), (4, [1, 0]));
    let states: Vec<State> = (0..3).map(|number| world.control4(number).state()).collect();
    assert_eq!(states, [State::ENDED, State::ENDED, State::HALF_OPEN]);
    assert_eq!(world.control4(0), Control::new(5, State::ENDED, 0xabcd));
}

#[test]
fn a_sweep_ends_expired_flows_and_their_backend_has_fewer() {
    let world = World::new(8, 8);
    world.put4(0, State::ESTABLISHED, ALIVE, ago(7440).earlier_by(Ticks(1)));
    world.put4(1, State::ESTABLISHED, ALIVE, ago(7440));
    world.put6(2, State::HALF_OPEN, ALIVE, ago(121));
    world.put6(3, State::ESTABLISHED, DEAD, ago(7441));
    assert_eq!((world.load(), world.half_open()), (3, [0, 1]));

    world.sweep(BackendId::NONE);

    assert_eq!((world.load(), world.half_open()), (1, [0, 0]));
    let states: Vec<State> = (0..2).map(|number| world.control4(number).state()).collect();
    assert_eq!(states, [State::RETIRED, State::ESTABLISHED]);
}

#[test]
fn a_wrong_load_is_corrected() {
    for wrong in [0, 2, 9] {
        let world = World::new(2 * CHUNK, 8);
        world.put4(0, State::ESTABLISHED, ALIVE, NOW);
        world.put4(CHUNK * WAYS as u32, State::HALF_OPEN, ALIVE, ago(200));
        world.put4(1, State::ENDED, ALIVE, NOW);
        world.put4(2, State::ESTABLISHED, DEAD, NOW);
        world.put6(3, State::ESTABLISHED, ALIVE, NOW);
        let load = world.flows.v4.backends.load(ALIVE).unwrap();
        assert!(load.flows.replace(3, wrong));

        world.flows.correct_loads();

        assert_eq!(world.load(), 3, "instead of {wrong}");
    }
}

#[test]
fn selected_flows_are_ended_and_counted_once() {
    let world = World::new(CHUNK + 1, 8);
    let last = CHUNK * WAYS as u32;
    world.put4(0, State::ESTABLISHED, ALIVE, NOW);
    world.put4(1, State::HALF_OPEN, ALIVE, NOW);
    world.put4(2, State(State::ESTABLISHED.0 | State::FIN_CLIENT | State::SHORT_CLIENT), ALIVE, NOW);
    world.put4(3, State::ESTABLISHED, ALIVE, ago(7441));
    world.put4(4, State::RETIRED, ALIVE, NOW);
    world.put4(last, State::ESTABLISHED, ALIVE, NOW);
    world.put6(3, State::REOPENING, ALIVE, NOW);
    assert_eq!((world.load(), world.entries(), world.half_open()), (6, 7, [1, 1]));

    assert_eq!(world.end(|flow| flow.client.port() == 1001), 1);
    assert_eq!((world.load(), world.half_open()), (5, [0, 1]));

    assert_eq!(world.end(|_| true), 4);
    assert_eq!(
        (world.load(), world.entries(), world.half_open()),
        (1, 7, [0, 0]),
        "an expired one is left to the sweep"
    );
    let states = [0, 1, 2, 4, last].map(|number| world.control4(number).state());
    assert_eq!(states, [State::ENDED, State::ENDED, State::ENDED, State::RETIRED, State::ENDED]);
    assert_eq!(world.end(|_| true), 0);
}

#[test]
fn a_flow_that_ends_while_it_is_selected_is_not_counted() {
    let world = World::new(8, 1);
    world.put4(0, State::ESTABLISHED, ALIVE, NOW);

    let ended = world.end(|_| {
        reply_index::end::<V4>(&world.flows.v4, RecordIndex(0), world.control4(0));
        true
    });

    assert_eq!((ended, world.load()), (0, 0));
}

#[test]
fn a_flow_that_replaced_another_in_its_record_is_not_ended() {
    let world = World::new(8, 1);
    world.put4(0, State::ESTABLISHED, ALIVE, NOW);
    let seen = world.control4(0);
    let record = &world.flows.v4.buckets[0].way[0];
    record.control.store(Control::new(6, State::ESTABLISHED, 1).0);

    let is_ended = reply_index::end::<V4>(&world.flows.v4, RecordIndex(0), seen);

    assert_eq!((is_ended, world.control4(0).state()), (false, State::ESTABLISHED));
}

#[test]
fn records_that_a_killed_daemon_was_writing_are_freed_and_those_of_cpus_are_not() {
    let world = World::new(8, 8);
    world.put4(0, State::BUSY, ALIVE, NOW);
    world.put4(1, State::BUSY, ALIVE, NOW);
    world.put4(2, State::ESTABLISHED, ALIVE, NOW);
    assert_eq!(world.entries(), 3);

    let publish = || {
        let record = &world.flows.v4.buckets[0].way[1];
        record.control.store(Control::new(5, State::HALF_OPEN, 0xabcd).0);
        Ok(())
    };
    world.flows.free_abandoned(&world.settings, publish).unwrap();

    let states: Vec<State> = (0..3).map(|number| world.control4(number).state()).collect();
    assert_eq!(states, [State::EMPTY, State::HALF_OPEN, State::ESTABLISHED]);
    assert_eq!(world.entries(), 2);
    world.flows.free_abandoned(&world.settings, || panic!("there is nothing to wait for")).unwrap();
}

/// The moment this many seconds before [`NOW`].
fn ago(seconds: u64) -> Ticks {
    NOW.earlier_by(Ticks::from_seconds(seconds))
}

struct World {
    flows: Flows,
    settings: Settings,
}

impl World {
    fn new(buckets4: u32, buckets6: u32) -> Self {
        let settings = fixture::settings(buckets4, buckets6);
        let flows = fixture::flows(&settings, &[Backend { id: ALIVE, ..Backend::default() }], None);
        Self { flows, settings }
    }

    fn put4(&self, number: u32, state: State, backend: BackendId, last_seen: Ticks) {
        let address = |last: u32| V4::from(std::net::Ipv4Addr::from(0x0a00_0000 + last));
        put(&self.flows.v4, &self.settings, number, address, (state, backend, last_seen));
        self.count(&self.flows.v4.half_open, state, backend);
    }

    fn put6(&self, number: u32, state: State, backend: BackendId, last_seen: Ticks) {
        let address = |last: u32| V6::from(std::net::Ipv6Addr::from((0xfd00 << 112) + u128::from(last)));
        put(&self.flows.v6, &self.settings, number, address, (state, backend, last_seen));
        self.count(&self.flows.v6.half_open, state, backend);
    }

    fn count(&self, half_open: &[Word], state: State, backend: BackendId) {
        half_open[0].fetch_add(u64::from(state.is_half_open()));
        if let Some(load) = self.flows.v4.backends.load(backend) {
            load.flows.fetch_add(u64::from(state.is_counted()));
        }
    }

    /// The flows of the backend that is there.
    fn load(&self) -> u64 {
        self.flows.v4.backends.load(ALIVE).unwrap().flows.load()
    }

    fn walk(&self, mut visit: impl FnMut(&Flow)) -> usize {
        let (mut chunks, mut from) = (0, Some(0));
        while let Some(start) = from {
            from = self.flows.walk(start, NOW, &mut visit);
            chunks += 1;
        }
        chunks
    }

    fn sweep(&self, backend: BackendId) {
        let mut from = Some(0);
        while let Some(start) = from {
            from = self.flows.sweep(start, &BTreeSet::from([backend]), NOW);
        }
    }

    fn end(&self, mut select: impl FnMut(&Flow) -> bool) -> u64 {
        let (mut all, mut from) = (0, Some(0));
        while let Some(start) = from {
            let (ended, next) = self.flows.end(start, NOW, &mut select);
            (all, from) = (all + ended, next);
        }
        all
    }

    fn entries(&self) -> usize {
        let lines = self.flows.v4.lines.iter().chain(self.flows.v6.lines.iter());
        lines.flat_map(|line| &line.entry).filter(|entry| entry.load() != 0).count()
    }

    fn half_open(&self) -> [u64; 2] {
        [self.flows.v4.half_open[0].load(), self.flows.v6.half_open[0].load()]
    }

    fn control4(&self, number: u32) -> Control {
        let number = number as usize;
        Control(self.flows.v4.buckets[number / WAYS].way[number % WAYS].control.load())
    }
}

/// Inserts a flow whose addresses and ports follow from its number, with its reply index entry.
fn put<F: Family>(
    table: &Table<F>,
    settings: &Settings,
    number: u32,
    address: impl Fn(u32) -> F::Address,
    (state, backend, last_seen): (State, BackendId, Ticks),
) {
    let at = number as usize;
    let record: &Record<F::Address, F::Spare> = &table.buckets[at / WAYS].way[at % WAYS];
    let port = |base: u32| Be16::new((base + number % 1000) as u16);
    let reply = Tuple::<F> {
        source: address(3),
        destination: address(4),
        ports: Ports::new(Be16::new(8080), port(2000)),
        protocol: u32::from(TCP),
    };
    record.client.set(address(number));
    record.listen.set(address(2));
    record.request_ports.set(Ports::new(port(1000), Be16::new(80)));
    record.owner.set(Owner::new(backend, Mode::FullNat, TCP));
    record.backend.set(reply.source);
    record.source.set(reply.destination);
    record.reply_ports.set(reply.ports);
    record.last_seen.store(last_seen.0);
    record.control.store(Control::new(5, state, 0xabcd).0);

    let hash = F::hash(&settings.keys, &reply);
    let line = &table.lines[reduce(hash as u32, F::shape(settings).lines) as usize];
    let entry = ReplyEntry::new((hash >> 32) as u32, 5, RecordIndex(number));
    assert!(line.entry.iter().any(|word| word.replace(0, entry.0)), "the line is full");
}
