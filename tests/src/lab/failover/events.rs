//! What happens to the active node, and how it ends.

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::lab::nodes::{Cable, Nodes};

/// A change of the node with this number.
type Change = fn(&mut Nodes, usize) -> Result<()>;

/// See the [module](self).
#[derive(Clone, Copy)]
pub struct Event {
    /// A few words.
    pub name: &'static str,
    /// What was done, as a command or in words.
    pub shown: &'static str,
    /// Happens to the active node.
    pub happens: Change,
    /// Does the other node take over?
    pub moves: bool,
    /// A few words for the end.
    pub name_of_end: &'static str,
    /// Ends it.
    pub ends: Change,
}

/// The host dies, with everything in it.
pub const KILLED: Event = Event {
    name: "node killed",
    shown: "kill -9 of everything on the active node; its cables, addresses, program and tables are gone",
    happens: |both, node| both.kill(node),
    moves: true,
    name_of_end: "it is back, with empty tables",
    ends: |both, node| both.bring_back(node),
};

/// The cable to the router is cut.
pub const FRONT_CUT: Event = Event {
    name: "link to the router cut",
    shown: "ip link set lb-N down        # on the router's side",
    happens: |both, node| both.set_front(node, Cable::Down),
    moves: true,
    name_of_end: "link repaired",
    ends: |both, node| both.set_front(node, Cable::Up),
};

/// keepalived is killed, and nothing else: the addresses stay there, too.
pub const KEEPALIVED_KILLED: Event = Event {
    name: "keepalived killed",
    shown: "kill -9 of both processes of keepalived, so that the addresses stay there, too",
    happens: |both, node| both.nodes[node].kill_keepalived(),
    moves: true,
    name_of_end: "keepalived started again",
    ends: |both, node| both.nodes[node].start_keepalived(),
};

/// xlb is killed, and nothing else.
pub const XLB_KILLED: Event = Event {
    name: "xlb killed",
    shown: "kill -9 of xlb alone",
    happens: |both, node| both.nodes[node].xlb.kill(),
    moves: false,
    name_of_end: "xlb started again",
    ends: |both, node| {
        both.nodes[node].xlb.start_again()?;
        both.nodes[node].xlb.wait_until_all_are_up()
    },
};

/// The operator withdraws the node.
pub const DRAINED: Event = Event {
    name: "xlb ha drain",
    shown: "xlb ha drain",
    happens: |both, node| both.nodes[node].xlb.run(&["ha", "drain", "--wait", "10s"]).map(drop),
    moves: true,
    name_of_end: "xlb ha ready",
    ends: |both, node| both.nodes[node].xlb.run(&["ha", "ready"]).map(drop),
};

/// All, in the order in which they are shown.
pub const EVENTS: [Event; 9] = [
    KILLED,
    FRONT_CUT,
    Event {
        name: "link to the servers cut",
        shown: "ip link set lb-N down        # on the switch's side",
        happens: |both, node| both.set_back(node, Cable::Down),
        moves: true,
        name_of_end: "link repaired",
        ends: |both, node| both.set_back(node, Cable::Up),
    },
    Event {
        name: "node stopped in order",
        shown: "kill keepalived; wait; kill xlb",
        happens: |both, node| {
            both.nodes[node].stop_keepalived()?;
            both.nodes[node].xlb.stop()
        },
        moves: true,
        name_of_end: "it is started again",
        ends: |both, node| {
            both.nodes[node].xlb.start_again()?;
            both.nodes[node].xlb.wait_until_all_are_up()?;
            both.nodes[node].start_keepalived()?;
            both.nodes[node].wait_until("standby")
        },
    },
    Event {
        name: "node frozen",
        shown: "kill -STOP of everything on the active node",
        happens: |both, node| both.nodes[node].signal_all(Signal::SIGSTOP),
        moves: true,
        name_of_end: "it goes on",
        ends: |both, node| both.nodes[node].signal_all(Signal::SIGCONT),
    },
    KEEPALIVED_KILLED,
    Event {
        name: "quorum lost on one node",
        shown: "nft add rule ... drop         # health checks of the active node",
        happens: |both, node| both.nodes[node].lose_sight(),
        moves: true,
        name_of_end: "checks succeed again",
        ends: |both, node| {
            both.nodes[node].see_again()?;
            both.nodes[node].xlb.wait_until_all_are_up()
        },
    },
    DRAINED,
    XLB_KILLED,
];
