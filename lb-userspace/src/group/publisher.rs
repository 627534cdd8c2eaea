//! Serves the subscription of one peer: the latest of its connections.

use std::time::Duration;

use log::{info, warn};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    accept::Arrival,
    dial,
    port::{Connections, Input, OUTBOX},
    session::{self, Session},
    wire::Hello,
};

/// From one connection to the next: no longer than a peer waits itself. One that connects again and again costs no more lines
/// in the log and no more rounds; what is beyond that waits, or is refused.
const INTERVAL: Duration = dial::PAUSE;

/// Serves one peer.
#[derive(Debug)]
pub struct Publisher {
    pub arrivals: mpsc::Receiver<Arrival>,
    pub own_hello: watch::Receiver<Hello>,
    pub connections: Connections,
    /// Its connection number is that of the connection which is served.
    pub session: Session,
}

impl Publisher {
    /// Runs until the exchange or the acceptor ends.
    pub async fn run(mut self) {
        let mut next = self.arrivals.recv().await;
        while let Some(arrival) = next.take() {
            let begun = Instant::now();
            let Ok(newer) = self.serve(arrival).await else { return };
            sleep_until(begun + INTERVAL).await;
            next = match newer {
                Some(newer) => Some(newer),
                None => self.arrivals.recv().await,
            };
        }
    }

    /// Serves a connection until it ends, or another one replaces it.
    async fn serve(&mut self, arrival: Arrival) -> Result<Option<Arrival>, String> {
        self.session.connection = self.connections.number();
        let Session { peer, ref node, connection, ref inputs } = self.session;
        let Arrival { stream, hello, address } = arrival;
        let (outbox, frames) = mpsc::channel(OUTBOX);
        info!(peer = node, from:% = address; "peer subscribed to the flows of this node");
        session::tell(inputs, Input::Subscribed { peer, connection, hello, outbox }).await?;
        let published = session::publish(stream, &self.session, frames, self.own_hello.clone());
        let (why, newer) = tokio::select! {
            why = published => (why, None),
            Some(newer) = self.arrivals.recv() => ("it has connected again".to_owned(), Some(newer)),
        };
        if newer.is_none() {
            warn!(peer = node, from:% = address, why; "peer gets no flows of this node until it connects again");
        }
        session::tell(inputs, Input::Unsubscribed { peer, connection, why }).await?;
        Ok(newer)
    }
}
