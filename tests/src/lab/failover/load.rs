//! Live connections that last, and new ones while something happens.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::lab::{
    Family, Lab, Live, Namespace, address,
    live::Report,
    rush::{Connection, Rush},
    visit::SYN_AGAIN,
    wait::{self, eventually},
};

/// From one byte of a live connection to the next.
const INTERVAL: Duration = Duration::from_millis(100);
/// New connections, of both families together.
const PER_SECOND: u32 = 200;
/// Before and after the event.
const AROUND: Duration = Duration::from_millis(500);
/// A live connection without an echo for so long after the event is broken.
const BROKEN: Duration = Duration::from_secs(5);

/// An outage is over when this number of new connections in a row are answered: those of 100 ms.
const SERVED: usize = 20;
/// A connection that began so long before the event may fail because of it.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// Connections to the echo service that live until the end, half of them in each family.
pub struct Load {
    live: Vec<Live>,
    /// The number of live connections.
    pub connections: usize,
    rush: Rush,
}

/// What the clients noticed of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// New connections while it was measured.
    pub opened: usize,
    /// Those that got no answer within 0.9 s.
    pub failed: usize,
    /// Those of them that failed before the outage or after it.
    pub stray: usize,
    /// Were connections answered again?
    pub served: bool,
    /// From the beginning of the first one that failed to that of the first one of the next 20 that were all answered.
    pub failed_for: Duration,
    /// Live connections.
    pub live: usize,
    /// Those that echo bytes that were sent after the event.
    pub kept: usize,
    /// The longest time in which one of them echoed nothing. A byte is sent every 100 ms.
    pub silence: Duration,
}

impl Load {
    /// Opens the live connections; returns when each of them has echoed a byte.
    pub fn open(lab: &Lab, port: u16, connections: usize) -> Result<Self> {
        let open = |family| {
            let from = lab.client_addresses(family);
            let to = address::SERVICE.port(family, port);
            Live::open_at(INTERVAL, &lab.client, (&from, to), connections / Family::ALL.len())
        };
        let live = Family::ALL.into_iter().map(open).collect::<Result<_>>()?;
        let rush = Rush { ways: ways(lab), per_second: PER_SECOND, limit: SYN_AGAIN };
        Ok(Self { live, connections, rush })
    }

    /// Waits until each live connection has echoed a byte that was sent after the call; how many have.
    pub fn count_alive(&self) -> Result<usize> {
        self.live.iter().map(|live| live.count_alive(BROKEN)).sum()
    }

    /// Opens new connections from before the event until live ones go on after it. The event returns when it began.
    pub fn during(&self, client: &Namespace, event: impl FnOnce() -> Result<Instant>) -> Result<Figures> {
        let is_over = AtomicBool::new(false);
        let (connections, seen) = thread::scope(|scope| -> Result<_> {
            let rushing = scope.spawn(|| self.rush.run(client, || !is_over.load(Ordering::Relaxed)));
            let seen = self.watch(client, event);
            is_over.store(true, Ordering::Relaxed);
            Ok((wait::join(rushing)?, seen?))
        })?;
        let (at, kept, silence) = seen;
        Ok(Figures { live: self.connections, kept, silence, ..of_new(&connections, at) })
    }

    fn watch(
        &self,
        client: &Namespace,
        event: impl FnOnce() -> Result<Instant>,
    ) -> Result<(Instant, usize, Duration)> {
        sleep(AROUND);
        self.silence();
        let at = event()?;
        let kept = self.count_alive()?;
        self.wait_until_served(client)?;
        sleep(AROUND);
        Ok((at, kept, self.silence()))
    }

    /// Waits until as many connections are answered as end an outage. They come on top of those that are measured.
    fn wait_until_served(&self, client: &Namespace) -> Result<()> {
        eventually(BROKEN, "new connections are served", || {
            let end = Instant::now() + Duration::from_secs(1) * SERVED as u32 / PER_SECOND;
            Ok(!self.rush.run(client, || Instant::now() < end)?.iter().any(has_failed))
        })
        .map(drop)
    }

    fn silence(&self) -> Duration {
        self.live.iter().map(Live::longest_silence).max().unwrap_or_default()
    }

    /// Closes the live connections.
    pub fn finish(self) -> Result<Report> {
        let mut all = Report::default();
        for live in self.live {
            let Report { connections, echoed, broken } = live.finish()?;
            all.connections += connections;
            all.echoed += echoed;
            all.broken.extend(broken);
        }
        Ok(all)
    }

    /// The same. An error if one of them has broken.
    pub fn close(self) -> Result<()> {
        let report = self.finish()?;
        ensure!(report.broken.is_empty(), "live connections: {report}");
        Ok(())
    }
}

/// Both families in turn.
fn ways(lab: &Lab) -> Vec<(IpAddr, std::net::SocketAddr)> {
    let clients = lab.clients.iter();
    clients.flat_map(|pair| Family::ALL.map(|it| (pair.of(it), address::SERVICE.port(it, 80)))).collect()
}

/// The outage begins with the first connection that fails, and ends with the first one of [`SERVED`] that are all answered.
fn of_new(connections: &[Connection], at: Instant) -> Figures {
    let mut sorted: Vec<_> = connections.iter().collect();
    sorted.sort_by_key(|it| it.begun);
    let (opened, failed) = (sorted.len(), sorted.iter().filter(|it| has_failed(it)).count());
    let is_of_event = |it: &&Connection| has_failed(it) && it.begun + IN_FLIGHT >= at;
    let Some(first) = sorted.iter().position(is_of_event) else {
        return Figures { opened, failed, stray: failed, served: true, ..Figures::default() };
    };
    let calm = sorted[first..].windows(SERVED).position(|next| next.iter().all(|it| !has_failed(it)));
    let end = calm.map_or(opened - 1, |calm| first + calm);
    let outage = &sorted[first..end];
    Figures {
        opened,
        failed,
        stray: failed - outage.iter().filter(|it| has_failed(it)).count(),
        served: calm.is_some(),
        failed_for: sorted[end].begun - sorted[first].begun,
        ..Figures::default()
    }
}

const fn has_failed(connection: &Connection) -> bool {
    connection.answer.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection every 5 ms; `.` is answered, `x` fails.
    fn figures(seen: &str, event_at: u32) -> Figures {
        let (start, step) = (Instant::now(), Duration::from_millis(5));
        let connections: Vec<_> = (0..)
            .zip(seen.chars())
            .map(|(number, sign)| Connection {
                begun: start + step * number,
                connected: Ok(Duration::ZERO),
                answer: (sign == '.').then(|| "web-1".to_owned()),
            })
            .collect();
        of_new(&connections, start + step * event_at)
    }

    #[test]
    fn the_outage_lasts_from_the_first_connection_that_failed_until_twenty_in_a_row_are_answered() {
        let calm = ".".repeat(SERVED);
        let one = figures(&format!("...x.xx{calm}x.."), 4);

        assert_eq!((one.opened, one.failed, one.stray), (10 + SERVED, 4, 1));
        assert_eq!(one.failed_for, Duration::from_millis(20));
        assert!(one.served);
    }

    #[test]
    fn without_a_failure_there_is_no_outage_and_without_an_end_no_service() {
        assert!(figures("....", 1).served);
        assert!(!figures("..xx", 1).served);
    }

    #[test]
    fn a_failure_long_before_the_event_is_no_part_of_the_outage() {
        let one = figures(&format!("x{}x{}", ".".repeat(40), ".".repeat(SERVED)), 41);

        assert_eq!((one.failed, one.stray, one.failed_for), (2, 1, Duration::from_millis(5)));
    }
}
