//! Live connections that last, and new ones while something happens.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::lab::{
    Family, Lab, Live, Namespace, address,
    rush::{Connection, Rush},
    visit::SYN_AGAIN,
    wait,
};

/// From one byte of a live connection to the next.
const INTERVAL: Duration = Duration::from_millis(100);
/// New connections, of both families together.
const PER_SECOND: u32 = 200;
/// Before and after the event.
const AROUND: Duration = Duration::from_millis(500);
/// A live connection without an echo for so long after the event is broken.
const BROKEN: Duration = Duration::from_secs(5);

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
    /// From the beginning of the first one that failed to that of the first one after the last.
    pub failed_for: Duration,
    /// From the event to the same moment. `None`: the last connection failed, too.
    pub served_after: Option<Duration>,
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
        let rush = Rush { ways: ways(lab), per_second: PER_SECOND, limit: SYN_AGAIN };
        let mut load = Self { live: Vec::new(), connections: 0, rush };
        load.open_more(lab, port, connections)?;
        Ok(load)
    }

    /// Opens more of them.
    pub fn open_more(&mut self, lab: &Lab, port: u16, connections: usize) -> Result<()> {
        let each = connections / Family::ALL.len();
        for family in Family::ALL {
            let from = lab.client_addresses(family);
            let to = address::SERVICE.port(family, port);
            self.live.push(Live::open_at(INTERVAL, &lab.client, (&from, to), each)?);
            self.connections += each;
        }
        Ok(())
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
            let seen = self.watch(event);
            is_over.store(true, Ordering::Relaxed);
            Ok((wait::join(rushing)?, seen?))
        })?;
        let (at, kept, silence) = seen;
        Ok(Figures { live: self.connections, kept, silence, ..of_new(&connections, at) })
    }

    fn watch(&self, event: impl FnOnce() -> Result<Instant>) -> Result<(Instant, usize, Duration)> {
        sleep(AROUND);
        self.silence();
        let at = event()?;
        let kept = self.count_alive()?;
        sleep(AROUND);
        Ok((at, kept, self.silence()))
    }

    fn silence(&self) -> Duration {
        self.live.iter().map(Live::longest_silence).max().unwrap_or_default()
    }

    /// Closes the live connections. An error if one of them has broken.
    pub fn close(self) -> Result<()> {
        let mut closed = self.live.into_iter().map(Live::finish_unbroken);
        closed.try_for_each(|report| report.map(drop)).context("close the live connections")
    }
}

/// Both families in turn.
fn ways(lab: &Lab) -> Vec<(IpAddr, std::net::SocketAddr)> {
    let clients = lab.clients.iter();
    clients.flat_map(|pair| Family::ALL.map(|it| (pair.of(it), address::SERVICE.port(it, 80)))).collect()
}

fn of_new(connections: &[Connection], at: Instant) -> Figures {
    let has_failed = |it: &Connection| it.answer.is_none();
    let mut sorted: Vec<_> = connections.iter().collect();
    sorted.sort_by_key(|it| it.begun);
    let first = sorted.iter().position(|it| has_failed(it));
    let last = sorted.iter().rposition(|it| has_failed(it));
    let (Some(first), Some(last)) = (first, last) else {
        return Figures { opened: sorted.len(), served_after: Some(Duration::ZERO), ..Figures::default() };
    };
    let served = sorted.get(last + 1).map(|it| it.begun);
    let end = served.unwrap_or_else(|| sorted[last].begun);
    Figures {
        opened: sorted.len(),
        failed: sorted.iter().filter(|it| has_failed(it)).count(),
        failed_for: end.saturating_duration_since(sorted[first].begun),
        served_after: served.map(|it| it.saturating_duration_since(at)),
        ..Figures::default()
    }
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
    fn the_outage_lasts_from_the_first_connection_that_failed_to_the_one_after_the_last() {
        let one = figures("...x.xx..", 4);

        assert_eq!((one.opened, one.failed), (9, 3));
        assert_eq!(one.failed_for, Duration::from_millis(20));
        assert_eq!(one.served_after, Some(Duration::from_millis(15)));
    }

    #[test]
    fn without_a_failure_there_is_no_outage_and_without_an_end_no_return() {
        assert_eq!(figures("....", 1).served_after, Some(Duration::ZERO));
        assert_eq!(figures("..xx", 1).served_after, None);
    }
}
