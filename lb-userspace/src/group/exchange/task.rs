//! The task that runs the exchange.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use log::{error, info};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Exchange, Moment};
use crate::{
    datapath::{FlowEvents, SharedTables, ticks_now},
    event::Event,
    group::{
        port::{Input, Refusals},
        status::GroupStatus,
        view::View,
        wire::Hello,
    },
    spec::Group,
};

/// How often changes are read and sent. The program does not wake the daemon up: that would cost more than a new flow.
const TICK: Duration = Duration::from_millis(2);
/// How often the status is published.
const STATUS: Duration = Duration::from_millis(250);
/// Inputs that are handled before the next look at the program's changes.
const INPUTS_AT_ONCE: usize = 4;

/// The channels of the exchange.
#[derive(Debug)]
pub struct Ports {
    /// From the sessions.
    pub inputs: mpsc::Receiver<Input>,
    /// From the controller.
    pub view: watch::Receiver<Arc<View>>,
    /// For the controller.
    pub status: watch::Sender<Arc<GroupStatus>>,
    /// For the sessions.
    pub hello: watch::Sender<Hello>,
    /// What the sessions refuse.
    pub refusals: Refusals,
    /// To the controller.
    pub events: mpsc::Sender<Event>,
}

/// Runs the exchange until shutdown, after the controller has told it of the services.
pub async fn run<E: FlowEvents>(
    group: Group,
    tables: SharedTables<E>,
    ports: Ports,
    stop: CancellationToken,
) {
    tokio::select! {
        ended = serve(group, tables, ports) => {
            if let Err(error) = ended {
                error!("flows are not shared with other nodes any more: {error:#}");
            }
        }
        () = stop.cancelled() => {}
    }
}

async fn serve<E: FlowEvents>(group: Group, tables: SharedTables<E>, mut ports: Ports) -> anyhow::Result<()> {
    let view = Arc::clone(&*ports.view.wait_for(|view| !view.services.is_empty()).await?);
    let mut exchange = Exchange::new(&group, tables, view, now()?);
    ports.hello.send_replace(exchange.hello());
    let mut tick = interval(TICK);
    // After a delay, changes are read once, however many ticks were missed.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut status = interval(STATUS);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut inputs = Vec::with_capacity(INPUTS_AT_ONCE);
    let (mut was_learning, mut lacked) = (true, [false; 2]);
    loop {
        tokio::select! {
            _ = tick.tick() => exchange.tick(now()?),
            count = ports.inputs.recv_many(&mut inputs, INPUTS_AT_ONCE) => {
                // The sessions have stopped.
                if count == 0 {
                    return Ok(());
                }
                let now = now()?;
                inputs.drain(..).for_each(|input| exchange.absorb(input, now));
            }
            Ok(()) = ports.view.changed() => {
                let view = Arc::clone(&ports.view.borrow_and_update());
                exchange.set_view(view, now()?);
                let hello = exchange.hello();
                ports.hello.send_if_modified(|current| {
                    let has_changed = *current != hello;
                    *current = hello;
                    has_changed
                });
            }
            _ = status.tick() => {
                let refused = ports.refusals.total();
                let status = GroupStatus { refused, ..exchange.status(now()?.instant) };
                let has_learned = was_learning && !status.is_learning;
                let lacks = [status.awaits_flows(), status.misses_a_peer()];
                let has_changed = has_learned || lacks != lacked;
                (was_learning, lacked) = (status.is_learning, lacks);
                ports.status.send_replace(Arc::new(status));
                if has_learned {
                    info!("this node has the flows of its peers, or they cannot be reached");
                }
                if has_changed {
                    ports.events.send(Event::GroupChanged).await?;
                }
            }
        }
    }
}

fn now() -> anyhow::Result<Moment> {
    Ok(Moment { instant: Instant::now(), ticks: ticks_now()? })
}
