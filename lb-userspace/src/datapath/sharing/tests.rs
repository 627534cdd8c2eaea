use std::net::SocketAddr;

use lb_common::{backend::Backend, net::V4};
use lb_ebpf::table::{
    reply_index::{self, Owner as ReplyOwner},
    transition,
};

use super::{
    fixture::{NoEvents, tables},
    *,
};
use crate::datapath::flows::fixture;

const NOW: Ticks = Ticks::from_seconds(100_000);
const WEB: BackendId = BackendId(7);
const HERE: Placement = Placement { backend: WEB, mode: Mode::FullNat, seen_before: None };

struct Node {
    tables: SharedTables<NoEvents>,
    flows: Arc<Flows>,
}

impl Node {
    fn new(buckets: u32) -> Self {
        let backend = Backend { id: WEB, ..Backend::default() };
        let (tables, flows) = tables(fixture::settings(buckets, buckets), &[backend]);
        Self { tables, flows }
    }

    fn adopt(&self, flow: &SharedFlow) -> Result<Adopted, Refusal> {
        self.tables.adopt(flow, &HERE, NOW)
    }

    /// The shared flows, in the order of the tables.
    fn all(&self) -> Vec<SharedFlow> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(begin) = from {
            from = self.tables.walk(begin, NOW, &mut |_, flow, _| all.push(flow));
        }
        all
    }

    fn load(&self) -> u64 {
        self.flows.v4.backends.load(WEB).unwrap().flows.load()
    }

    fn state(&self, id: FlowId) -> State {
        by_index::<V4>(&self.flows.v4, id.record()).unwrap().control.state()
    }

    fn set_state(&self, id: FlowId, state: State) {
        let found = by_index::<V4>(&self.flows.v4, id.record()).unwrap();
        let to = found.control.with_state(state);
        assert!(transition::replace(&self.flows.v4, found.record, found.control, to));
    }

    fn take(&mut self) -> Vec<FlowId> {
        let mut ids = Vec::new();
        self.tables.take(100, &mut ids);
        ids
    }
}

fn flow(client: u16) -> SharedFlow {
    SharedFlow {
        protocol: Protocol::Tcp,
        client: SocketAddr::from(([10, 0, 0, 1], client)),
        listen: "192.0.2.10:80".parse().unwrap(),
        backend: "10.1.0.1:8080".parse().unwrap(),
        source: SocketAddr::from(([10, 1, 0, 254], client)),
        answer: Some(77),
        idle: Duration::ZERO,
    }
}

fn flow6(client: u16) -> SharedFlow {
    SharedFlow {
        client: format!("[2001:db8::1]:{client}").parse().unwrap(),
        listen: "[2001:db8::10]:80".parse().unwrap(),
        backend: "[fd00::1]:8080".parse().unwrap(),
        source: format!("[fd00::fe]:{client}").parse().unwrap(),
        ..flow(client)
    }
}

fn idle(seconds: u64, flow: SharedFlow) -> SharedFlow {
    SharedFlow { idle: Ticks::from_seconds(seconds).as_duration(), ..flow }
}

#[test]
fn a_flow_of_another_node_is_written_as_it_is_there() {
    let mut node = Node::new(64);

    let v4 = node.adopt(&idle(9, flow(1000))).unwrap();
    let v6 = node.adopt(&flow6(1000)).unwrap();
    let udp = SharedFlow { protocol: Protocol::Udp, answer: None, ..flow(1000) };
    node.adopt(&udp).unwrap();

    assert_eq!(node.tables.read(v4.id, NOW), Reading::Shared(idle(9, flow(1000)), v4.seen));
    assert_eq!(node.tables.read(v6.id, NOW), Reading::Shared(flow6(1000), NOW));
    assert_eq!((node.all().len(), node.load()), (3, 3));
    assert!(node.take().is_empty(), "what another node sent is not sent back");
}

#[test]
fn packets_of_both_directions_find_the_flow_of_another_node() {
    let node = Node::new(64);
    let adopted = node.adopt(&flow(1000)).unwrap();
    let (table, settings) = (&node.flows.v4, &node.tables.settings);

    let request = flow(1000).request::<V4>();
    let hash = V4::hash(&settings.keys, &request);
    let found = record::at_home(table, &request, hash, settings.shape4).unwrap().unwrap();
    assert_eq!(found.index, adopted.id.record());

    let reply = flow(1000).reply::<V4>();
    let hash = V4::hash(&settings.keys, &reply);
    let owner = reply_index::reply(table, &reply, hash, settings.shape4).unwrap();
    assert!(matches!(owner, ReplyOwner::Flow(it) if it.index == found.index));
}

#[test]
fn a_flow_that_is_there_is_refreshed_and_never_becomes_older() {
    let node = Node::new(64);
    let first = node.adopt(&idle(60, flow(1000))).unwrap();

    let refreshed = node.adopt(&idle(5, flow(1000))).unwrap();
    let outdated = node.adopt(&idle(30, flow(1000))).unwrap();

    assert_eq!((refreshed.id, outdated.id), (first.id, first.id));
    assert_eq!(refreshed.seen, NOW.earlier_by(Ticks::from_seconds(5)));
    assert_eq!(outdated.seen, refreshed.seen);
    assert_eq!((node.all(), node.load()), (vec![idle(5, flow(1000))], 1));
}

#[test]
fn of_two_flows_of_one_client_the_newer_one_stays() {
    let other = SharedFlow { source: "10.1.0.254:9".parse().unwrap(), ..flow(1000) };
    for (here, there, wins) in [(30, 5, true), (5, 30, false), (5, 5, false)] {
        let node = Node::new(64);
        node.adopt(&idle(here, flow(1000))).unwrap();

        let adopted = node.adopt(&idle(there, other));

        assert_eq!(
            adopted.err(),
            (!wins).then_some(Refusal::Newer),
            "idle for {here} s here, {there} s there"
        );
        assert_eq!(node.all(), [if wins { idle(there, other) } else { idle(here, flow(1000)) }]);
        assert_eq!(node.load(), 1);
    }
}

#[test]
fn a_half_open_flow_gives_way_to_one_that_is_proven_elsewhere() {
    let node = Node::new(64);
    let here = node.adopt(&flow(1000)).unwrap();
    node.set_state(here.id, State::HALF_OPEN);
    let other = SharedFlow { source: "10.1.0.254:9".parse().unwrap(), ..flow(1000) };

    node.adopt(&other).unwrap();

    assert_eq!(node.all(), [other]);
    assert_eq!(node.flows.v4.half_open[0].load(), 0);
}

#[test]
fn a_flow_that_was_closed_here_is_not_opened_again_by_what_is_under_way() {
    let node = Node::new(64);
    let here = node.adopt(&idle(10, flow(1000))).unwrap();
    node.set_state(here.id, Ending::Closed.state());

    assert_eq!(node.adopt(&idle(9, flow(1000))), Err(Refusal::Closed));
    assert!(node.all().is_empty());
    // The client has opened another one since.
    node.adopt(&flow(1000)).unwrap();
    assert_eq!(node.all(), [flow(1000)]);
}

#[test]
fn a_flow_that_ended_elsewhere_ends_here_in_the_same_way() {
    let resets = [Resets::Client, Resets::Backend, Resets::Both].map(Ending::Reset);
    for ending in resets.into_iter().chain([Ending::Closed, Ending::Removed]) {
        let mut node = Node::new(64);
        let here = node.adopt(&flow(1000)).unwrap();
        node.adopt(&flow(1001)).unwrap();
        let other = SharedFlow { source: "10.1.0.254:9".parse().unwrap(), ..flow(1000) };

        assert_eq!(node.tables.end(&other, ending, NOW), None, "another flow of that client");
        assert_eq!(node.tables.end(&flow(1000), ending, NOW), Some(here.id));
        assert_eq!(node.tables.end(&flow(1000), ending, NOW), None);

        assert_eq!((node.all(), node.load()), (vec![flow(1001)], 1));
        assert_eq!(node.state(here.id), ending.state());
        assert_eq!(node.tables.read(here.id, NOW), Reading::Ended(flow(1000), ending));
        assert!(node.take().is_empty());
    }
}

#[test]
fn a_flow_that_the_controller_ends_is_reported() {
    let mut node = Node::new(64);
    let here = node.adopt(&flow(1000)).unwrap();

    node.flows.end(0, NOW, &mut |_| true);

    assert_eq!(node.take(), [here.id]);
    assert_eq!(node.tables.read(here.id, NOW), Reading::Ended(flow(1000), Ending::Removed));
}

#[test]
fn a_flow_whose_packets_come_here_does_not_end_because_of_what_another_node_saw_before() {
    let node = Node::new(64);
    node.adopt(&flow(1000)).unwrap();

    assert_eq!(node.tables.end(&idle(10, flow(1000)), Ending::Closed, NOW), None);
    assert_eq!(node.all(), [flow(1000)]);
}

#[test]
fn a_flow_that_was_reset_here_and_restored_there_is_restored() {
    let node = Node::new(64);
    let here = node.adopt(&idle(1, flow(1000))).unwrap();
    node.set_state(here.id, Ending::Reset(Resets::Client).state());
    assert!(node.all().is_empty());

    assert_eq!(node.adopt(&flow(1000)).unwrap().id, here.id);

    assert_eq!((node.all(), node.load()), (vec![flow(1000)], 1));
}

#[test]
fn a_connection_that_begins_here_is_not_replaced_by_an_idle_one_of_another_node() {
    let node = Node::new(64);
    let here = node.adopt(&flow(1000)).unwrap();
    node.set_state(here.id, State::HALF_OPEN);
    let other = SharedFlow { source: "10.1.0.254:9".parse().unwrap(), ..idle(60, flow(1000)) };

    assert_eq!(node.adopt(&other), Err(Refusal::Newer));
    assert_eq!(node.state(here.id), State::HALF_OPEN);
}

#[test]
fn a_flow_that_this_node_must_have_had_is_not_written() {
    let node = Node::new(64);
    let place = Placement { seen_before: Some(NOW.earlier_by(Ticks::from_seconds(60))), ..HERE };

    assert_eq!(node.tables.adopt(&idle(61, flow(1000)), &place, NOW), Err(Refusal::Ended));
    node.tables.adopt(&idle(59, flow(1001)), &place, NOW).unwrap();
    // One that it has is refreshed.
    node.adopt(&idle(200, flow(1002))).unwrap();
    node.tables.adopt(&idle(100, flow(1002)), &place, NOW).unwrap();
    assert_eq!(node.all().len(), 2);
}

#[test]
fn a_flow_that_no_other_node_has_is_forgotten_unless_a_packet_came() {
    let node = Node::new(64);
    let here = node.adopt(&idle(5, flow(1000))).unwrap();

    node.tables.forget(here.id, NOW);
    assert_eq!(node.all().len(), 1);
    node.tables.forget(here.id, here.seen);

    assert_eq!((node.all().len(), node.load(), node.state(here.id)), (0, 0, State::EMPTY));
    node.adopt(&idle(5, flow(1000))).unwrap();
}

#[test]
fn a_full_table_takes_no_flow_and_loses_none() {
    let node = Node::new(1);
    let adopted = (0..8).filter(|port| node.adopt(&flow(1000 + port)).is_ok()).count();

    assert_eq!(adopted, 8);
    assert_eq!(node.adopt(&flow(2000)), Err(Refusal::TableFull));
    assert_eq!((node.all().len(), node.load()), (8, 8));
}

#[test]
fn a_flow_with_the_reply_tuple_of_another_is_refused() {
    let node = Node::new(64);
    node.adopt(&flow(1000)).unwrap();
    let other = SharedFlow { client: "10.0.0.2:1000".parse().unwrap(), ..flow(1000) };

    assert_eq!(node.adopt(&other), Err(Refusal::Newer));
    assert_eq!((node.all(), node.load()), (vec![flow(1000)], 1));
}

#[test]
fn the_record_of_another_flow_is_not_taken_for_the_one_that_was_reported() {
    let node = Node::new(64);
    let here = node.adopt(&flow(1000)).unwrap();
    let next = FlowId::new(false, here.id.record(), here.id.generation() + 1);

    assert_eq!(node.tables.read(next, NOW), Reading::Gone);
    assert_eq!(node.tables.read(here.id, NOW), Reading::Shared(flow(1000), NOW));
    node.tables.forget(next, NOW);
    assert_eq!(node.all(), [flow(1000)]);
}

#[test]
fn an_idle_time_beyond_every_timeout_is_not_taken_for_a_recent_one() {
    let node = Node::new(64);
    let long = SharedFlow { idle: Duration::from_millis(u32::MAX.into()), ..flow(1000) };

    node.adopt(&long).unwrap();

    assert!(node.all().is_empty(), "it has expired");
}
