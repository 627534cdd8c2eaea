//! Starts the tasks of a group.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::listen::Pending,
    controller::local_host::GroupLink,
    datapath::{FlowEvents, SharedTables},
    event::Event,
    group::{
        self,
        exchange::task::{self, Ports},
        port::INPUTS,
        status::GroupStatus,
        view::View,
        wire::Hello,
    },
    spec::Group,
};

/// Starts the exchange of flows and its sessions.
pub fn join<E: FlowEvents + 'static>(
    group: &Group,
    tables: SharedTables<E>,
    listener: Pending,
    events: &mpsc::Sender<Event>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> GroupLink {
    let (to_exchange, inputs) = mpsc::channel(INPUTS);
    let (view, known_view) = watch::channel(Arc::<View>::default());
    // Until the exchange has begun, this node is learning.
    let beginning = GroupStatus { is_learning: true, ..GroupStatus::default() };
    let (to_status, status) = watch::channel(Arc::new(beginning));
    let own = Hello { node: group.node.clone(), epoch: tables.epoch(), ..Hello::default() };
    let (hello, own_hello) = watch::channel(own);
    let refusals = group::start(group, listener, &own_hello, &to_exchange, stop, tasks);
    let ports =
        Ports { inputs, view: known_view, status: to_status, hello, refusals, events: events.clone() };
    tasks.spawn(task::run(group.clone(), tables, ports, stop.clone()));
    GroupLink { status, view }
}
