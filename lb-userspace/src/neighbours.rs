//! Knows the way to each backend, and has the kernel find out what it does not know.
//!
//! ```text
//!   netlink's messages ─▶ decode ─▶ network ─┐ a few ms later
//!   every 10 s, after a gap: a full look ────┴▶ routes ─▶ resolve ─▶ outbox ─▶ Hops, RoutingChanged, LinksChanged
//!   the program's asks, silent and stale neighbours ─▶ asking ─▶ kernel: "use this neighbour"
//! ```
//!
//! Messages only say when to look; links and neighbours are kept in step by them, routes are looked up anew. The listener
//! subscribes before the first look, so that nothing falls between the two. The first look reports everything as changed:
//! nobody was watching before.

mod asking;
mod decode;
mod netlink;
mod network;
mod outbox;
mod resolve;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::Context;
use lb_common::event::NeighbourWanted;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use self::{
    asking::Asking,
    netlink::{Heard, Kernel, Monitor},
    network::{Changes, Fact, Network},
    outbox::Outbox,
    resolve::{Neighbour, Place, Route, resolve},
};
use crate::{datapath::Attached, event::Event, shutdown::Shutdown};

/// Messages come in bursts: this long after the first, the burst is looked at as a whole.
const SETTLE: Duration = Duration::from_millis(5);
/// The least time from one look to the next: a storm of messages must not become a storm of lookups.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is seen to that neighbours are fresh.
const TICK: Duration = Duration::from_secs(1);
/// How often everything is looked at, whatever messages say.
const RESYNC: Duration = Duration::from_secs(10);
/// After netlink failed.
const RECONNECT: Duration = Duration::from_secs(1);

/// Watches the ways to the `wanted` backends through the attached `interfaces`, until shutdown or until the other end
/// of `wanted`, `interfaces` or `events` is gone.
pub async fn run(
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    interfaces: watch::Receiver<Vec<Attached>>,
    asks: mpsc::Receiver<NeighbourWanted>,
    events: mpsc::Sender<Event>,
    shutdown: Shutdown,
) {
    let mut watcher = Watcher::new(wanted, interfaces, asks, events);
    tokio::select! {
        () = watcher.watch() => {}
        () = shutdown.wait() => {}
    }
}

/// All addresses of this host, on whatever interface.
pub async fn local_addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    Kernel::connect()?.local_addresses().await
}

struct Watcher {
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    interfaces: watch::Receiver<Vec<Attached>>,
    asks: mpsc::Receiver<NeighbourWanted>,
    events: mpsc::Sender<Event>,

    network: Network,
    routes: BTreeMap<IpAddr, Route>,
    asking: Asking,
    outbox: Outbox,

    /// What the next look has to look at, and when it comes.
    pending: Changes,
    look_at: Instant,
    resync_at: Instant,
    /// Neighbours that just failed: they may answer elsewhere.
    lost: BTreeSet<Place>,
    /// The kernel refused to ask the last time: it is told once.
    is_refused: bool,
}

/// Nobody is there any more to watch for.
struct Abandoned;

impl Watcher {
    fn new(
        wanted: watch::Receiver<BTreeSet<IpAddr>>,
        interfaces: watch::Receiver<Vec<Attached>>,
        asks: mpsc::Receiver<NeighbourWanted>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let now = Instant::now();
        Self {
            wanted,
            interfaces,
            asks,
            events,
            network: Network::default(),
            routes: BTreeMap::new(),
            asking: Asking::new(now),
            outbox: Outbox::default(),
            pending: Changes::default(),
            look_at: now,
            resync_at: now,
            lost: BTreeSet::new(),
            is_refused: false,
        }
    }

    async fn watch(&mut self) {
        loop {
            match self.session().await {
                Ok(Abandoned) => return,
                Err(error) => log::warn!("netlink: {error:#}; next hops are as they were, trying again"),
            }
            sleep(RECONNECT).await;
        }
    }

    /// Ends with an error when netlink fails.
    async fn session(&mut self) -> anyhow::Result<Abandoned> {
        let mut monitor = Monitor::subscribe()?;
        let kernel = Kernel::connect()?;
        let events = self.events.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nobody was watching until here.
        self.pending = Changes::ALL;
        self.outbox.note(Changes::ALL);
        self.look_at_everything(&kernel).await?;
        loop {
            tokio::select! {
                heard = monitor.next() => match heard.context("the listening socket broke")? {
                    Heard::Fact(fact) => self.absorb(fact),
                    Heard::Gap => self.distrust(),
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
                Some(asked) = self.asks.recv() => self.ask_for_client(&kernel, asked).await?,
                _ = tick.tick() => self.keep_fresh(&kernel).await?,
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
            if before.is_some() && self.is_attached(place.0) {
                self.lost.insert(place);
            }
        }
        let changes = self.network.absorb(fact);
        self.schedule(changes);
    }

    /// Messages were lost, perhaps of anything.
    fn distrust(&mut self) {
        log::warn!("netlink messages were lost: looking at everything again");
        self.resync_at = Instant::now();
        self.schedule(Changes::ALL);
    }

    fn schedule(&mut self, changes: Changes) {
        self.outbox.note(changes);
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
        let changes = self.network.replace(links, neighbours);
        self.outbox.note(changes);
        self.pending |= changes;
        // Routes that changed without a message, such as one that expired, show only in their answers.
        self.pending.routes = true;
        self.look_at_changes(kernel).await
    }

    async fn look_at_changes(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        if self.pending.routes {
            self.look_up_routes(kernel).await?;
        }
        self.pending = Changes::default();
        let attached = self.interfaces.borrow_and_update().clone();
        let hop = |route: &Route| resolve(*route, self.network.links(), self.network.neighbours(), &attached);
        let hops = self.routes.iter().map(|(address, route)| (*address, hop(route))).collect();
        self.outbox.put(hops);
        self.look_at = Instant::now() + PAUSE;
        self.ask_for_backends(kernel).await?;
        for place in std::mem::take(&mut self.lost) {
            if self.asking.client(place, Instant::now()) {
                self.ask(kernel, place).await?;
            }
        }
        Ok(())
    }

    async fn look_up_routes(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        let wanted = self.wanted.borrow_and_update().clone();
        let mut routes = BTreeMap::new();
        for address in wanted {
            routes.insert(address, kernel.route(address).await?);
        }
        let is_rerouted = |(address, route)| self.routes.get(address).is_some_and(|before| before != route);
        let flows = routes.iter().any(is_rerouted);
        self.outbox.note(Changes { flows, ..Changes::default() });
        self.routes = routes;
        Ok(())
    }

    async fn keep_fresh(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        let now = Instant::now();
        if now >= self.resync_at {
            self.look_at_everything(kernel).await?;
        }
        self.asking.prune(now);
        self.ask_for_backends(kernel).await?;
        let due: Vec<Place> = self
            .network
            .neighbours()
            .iter()
            .filter(|((interface, _), _)| is_attached(&self.interfaces, *interface))
            .filter(|(place, neighbour)| self.asking.other(**place, **neighbour, now))
            .map(|(place, _)| *place)
            .collect();
        for place in due {
            self.ask(kernel, place).await?;
        }
        Ok(())
    }

    async fn ask_for_backends(&mut self, kernel: &Kernel) -> anyhow::Result<()> {
        let now = Instant::now();
        let places: BTreeSet<Place> = self.routes.values().filter_map(|route| route.place()).collect();
        for place in places {
            let neighbour = self.network.neighbours().get(&place).copied();
            if self.is_attached(place.0) && self.asking.backend(place, neighbour, now) {
                self.ask(kernel, place).await?;
            }
        }
        Ok(())
    }

    /// The program drops a client's packet and wants its neighbour for the next one.
    async fn ask_for_client(&mut self, kernel: &Kernel, wanted: NeighbourWanted) -> anyhow::Result<()> {
        let place = (wanted.interface, wanted.address.to_ip());
        // What has an address needs no asking; and a fixed one would lose it (see `asking`).
        let is_known =
            self.network.neighbours().get(&place).is_some_and(|neighbour| neighbour.mac().is_some());
        if !is_known && self.is_attached(place.0) && self.asking.client(place, Instant::now()) {
            self.ask(kernel, place).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, kernel: &Kernel, place: Place) -> anyhow::Result<()> {
        let refusal = kernel.ask(place).await?.err();
        if let Some(refusal) = &refusal
            && !self.is_refused
        {
            let (interface, address) = place;
            log::warn!(address:%, interface, refusal:%; "the kernel does not ask for a neighbour");
        }
        self.is_refused = refusal.is_some();
        Ok(())
    }

    fn is_attached(&self, interface: u32) -> bool {
        is_attached(&self.interfaces, interface)
    }
}

fn is_attached(interfaces: &watch::Receiver<Vec<Attached>>, index: u32) -> bool {
    interfaces.borrow().iter().any(|attached| attached.index == index)
}
