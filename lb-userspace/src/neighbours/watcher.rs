//! The loop: receives notifications, reads state, requests neighbours and sends events, each when it is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    time::Duration,
};

use anyhow::Context;
use lb_common::{event::NeighbourWanted, hop::InterfaceIndex};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    limiter::Limiter,
    netlink::{Kernel, Monitor, Notification},
    network::{Changes, Fact, Network},
    outbox::Outbox,
    resolve::{Neighbour, Place, Route, resolve},
};
use crate::{
    datapath::Attached,
    event::{Event, Path},
};

/// Messages come in bursts. A burst is handled as a whole, this long after its first message.
const SETTLE: Duration = Duration::from_millis(5);
/// Minimum interval of updates: a storm of messages must not cause a storm of lookups.
const PAUSE: Duration = Duration::from_millis(50);
/// How often stale neighbours are requested.
const TICK: Duration = Duration::from_secs(1);
/// How often all state is read, even without notifications.
const RESYNC: Duration = Duration::from_secs(10);
/// How often a refused request is logged.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a netlink failure.
const RECONNECT: Duration = Duration::from_secs(1);

/// The known state, and the pending work.
pub struct Watcher {
    wanted: watch::Receiver<BTreeSet<Path>>,
    interfaces: watch::Receiver<Vec<Attached>>,
    requests: mpsc::Receiver<NeighbourWanted>,
    events: mpsc::Sender<Event>,

    network: Network,
    routes: BTreeMap<Path, Route>,
    limiter: Limiter,
    outbox: Outbox,

    /// What the next update includes, and when it is due.
    pending: Changes,
    look_at: Instant,
    resync_at: Instant,
    /// Neighbours to request, one at a time, so that a long list does not block other work.
    to_request: BTreeSet<Place>,
    /// When a refused request was last logged.
    refusal_logged: Option<Instant>,
}

/// A channel is closed.
struct Abandoned;

impl Watcher {
    pub fn new(
        wanted: watch::Receiver<BTreeSet<Path>>,
        interfaces: watch::Receiver<Vec<Attached>>,
        requests: mpsc::Receiver<NeighbourWanted>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let now = Instant::now();
        Self {
            wanted,
            interfaces,
            requests,
            events,
            network: Network::default(),
            routes: BTreeMap::new(),
            limiter: Limiter::new(now),
            outbox: Outbox::default(),
            pending: Changes::default(),
            look_at: now,
            resync_at: now,
            to_request: BTreeSet::new(),
            refusal_logged: None,
        }
    }

    /// Returns when the controller has ended. Cancel-safe: the state is kept.
    pub async fn watch(&mut self) {
        loop {
            match self.session().await {
                Ok(Abandoned) => return,
                Err(error) => log::warn!("netlink: {error:#}; keeping the current next hops; retrying"),
            }
            sleep(RECONNECT).await;
        }
    }

    /// Returns an error if netlink fails.
    async fn session(&mut self) -> anyhow::Result<Abandoned> {
        let mut monitor = Monitor::subscribe()?;
        let kernel = Kernel::connect()?;
        let events = self.events.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nothing was watched before.
        self.pending = Changes::ALL;
        self.look_at_everything(&kernel).await?;
        loop {
            tokio::select! {
                notification = monitor.next() => match notification.context("cannot receive netlink notifications")? {
                    Notification::Fact(fact) => self.absorb(fact),
                    Notification::Gap => self.resync(),
                },
                () = sleep_until(self.look_at), if self.pending.any() => self.look(&kernel).await?,
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.schedule(Changes { routes: true, hops: true, ..Changes::default() }),
                    Err(_) => return Ok(Abandoned),
                },
                changed = self.interfaces.changed() => match changed {
                    Ok(()) => self.schedule(Changes { hops: true, ..Changes::default() }),
                    Err(_) => return Ok(Abandoned),
                },
                Some(request) = self.requests.recv() => self.request_for_client(request),
                _ = tick.tick() => self.keep_fresh(&kernel).await?,
                () = ready(()), if !self.to_request.is_empty() => self.ask(&kernel).await?,
                permit = events.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => self.outbox.take().map_or((), |event| permit.send(event)),
                    Err(_) => return Ok(Abandoned),
                },
            }
        }
    }

    fn absorb(&mut self, fact: Fact) {
        if let Fact::Neighbour(place, Some(Neighbour::Failed)) = fact {
            let before = self.network.neighbours().get(&place).and_then(|neighbour| neighbour.mac());
            // It may have another address: only the last one was probed (RFC 4861, 7.3.3: unicast
            // probes).
            if before.is_some() {
                self.request_if_attached(place, |limiter, now| limiter.client(place, now));
            }
        }
        let interface = match &fact {
            Fact::Link(index, _) => Some(*index),
            Fact::Neighbour(..) | Fact::Routes | Fact::Addresses => None,
        };
        let mut changes = self.network.absorb(fact);
        // Reported without a pause: until the program has an interface's new MAC, frames for it go to the host.
        if changes.links && interface.is_some_and(|index| self.is_attached(index)) {
            self.outbox.note(Changes { links: true, ..Changes::default() });
            changes.links = false;
        }
        self.schedule(changes);
    }

    /// Messages of any kind may have been lost.
    fn resync(&mut self) {
        log::warn!("netlink notifications were lost: reading everything again");
        self.resync_at = Instant::now();
        self.schedule(Changes::ALL);
    }

    fn schedule(&mut self, changes: Changes) {
        if changes.any() && !self.pending.any() {
            self.look_at = self.look_at.max(Instant::now() + SETTLE);
        }
        self.pending |= changes;
    }

    async fn look(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        if Instant::now() >= self.resync_at {
            return self.look_at_everything(kernel).await;
        }
        self.look_at_changes(kernel).await
    }

    async fn look_at_everything(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        self.resync_at = Instant::now() + RESYNC;
        let (links, neighbours) = (kernel.links().await?, kernel.neighbours().await?);
        self.pending |= self.network.replace(links, neighbours);
        // Routes that changed without a message, for example by expiry, show up only in lookups.
        self.pending.routes = true;
        self.look_at_changes(kernel).await
    }

    async fn look_at_changes(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        if self.pending.routes {
            self.pending.flows |= self.look_up_routes(kernel).await?;
        }
        let changes = std::mem::take(&mut self.pending);
        self.outbox.note(changes);
        let attached = self.interfaces.borrow_and_update().clone();
        let hop = |route: &Route| resolve(*route, self.network.links(), self.network.neighbours(), &attached);
        let hops = self.routes.iter().map(|(path, route)| (*path, hop(route))).collect();
        self.outbox.put(hops);
        self.look_at = Instant::now() + PAUSE;
        self.ask_for_backends();
        Ok(())
    }

    /// Has the next hop of a backend changed?
    async fn look_up_routes(&mut self, kernel: &Kernel) -> anyhow::Result<bool> {
        let wanted = self.wanted.borrow_and_update().clone();
        let routes = kernel.routes(wanted).await?;
        let is_rerouted = |(path, route)| self.routes.get(path).is_some_and(|before| before != route);
        let any_rerouted = routes.iter().any(is_rerouted);
        self.routes = routes;
        Ok(any_rerouted)
    }

    async fn keep_fresh(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        let now = Instant::now();
        if now >= self.resync_at {
            self.look_at_everything(kernel).await?;
        }
        self.limiter.prune(now);
        self.ask_for_backends();
        let stale = self
            .network
            .neighbours()
            .iter()
            .filter(|(_, neighbour)| matches!(neighbour, Neighbour::Stale(_)));
        let places: Vec<Place> = stale.map(|(place, _)| *place).collect();
        for place in places {
            self.request_if_attached(place, |limiter, now| limiter.stale(place, now));
        }
        Ok(())
    }

    fn ask_for_backends(&mut self) {
        let places: BTreeSet<Place> = self.routes.values().filter_map(|route| route.place()).collect();
        for place in places {
            let neighbour = self.network.neighbours().get(&place).copied();
            self.request_if_attached(place, |limiter, now| limiter.backend(place, neighbour, now));
        }
    }

    /// The program has seen a client whose next hop is not resolved.
    fn request_for_client(&mut self, wanted: NeighbourWanted) {
        let place = (wanted.hop.interface(), wanted.address.to_ip());
        // A neighbour with an address needs no request, and a permanent one would become ordinary (see
        // `limiter`).
        let is_known =
            self.network.neighbours().get(&place).is_some_and(|neighbour| neighbour.mac().is_some());
        if is_known || self.request_if_attached(place, |limiter, now| limiter.client(place, now)) {
            let assumed = Some(wanted.hop.mac()).filter(|mac| !mac.is_zero());
            let changes = assumed.map(|mac| self.network.assume(place, mac));
            self.schedule(changes.unwrap_or_default());
        }
    }

    /// Returns whether it was requested.
    fn request_if_attached(
        &mut self,
        place: Place,
        decide: impl FnOnce(&mut Limiter, Instant) -> bool,
    ) -> bool {
        let is_requested = self.is_attached(place.0) && decide(&mut self.limiter, Instant::now());
        if is_requested {
            self.to_request.insert(place);
        }
        is_requested
    }

    fn is_attached(&self, index: InterfaceIndex) -> bool {
        self.interfaces.borrow().iter().any(|attached| attached.index == index)
    }

    async fn ask(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        let Some(place) = self.to_request.pop_first() else { return Ok(()) };
        let Err(refusal) = kernel.ask(place).await? else { return Ok(()) };
        let now = Instant::now();
        if self.refusal_logged.is_none_or(|logged| now >= logged + REFUSAL_LOG_INTERVAL) {
            let (interface, address) = place;
            log::warn!(address:%, interface:%, error:% = refusal; "the kernel refused a neighbour request");
            self.refusal_logged = Some(now);
        }
        Ok(())
    }
}
