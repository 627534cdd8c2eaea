//! Events that the controller has not received yet. While it is busy, events of one kind are merged, and no sender
//! waits. No I/O.

use std::collections::BTreeMap;

use super::network::Changes;
use crate::event::{Event, HopState, Path};

type Hops = BTreeMap<Path, HopState>;

/// At most one event of each kind.
#[derive(Debug, Default)]
pub struct Outbox {
    links: bool,
    hops: Option<Hops>,
    routing: bool,
    /// The next hops last sent to the controller.
    sent: Option<Hops>,
}

impl Outbox {
    pub fn note(&mut self, changes: Changes) {
        self.links |= changes.links;
        self.routing |= changes.flows;
    }

    /// Next hops are sent the first time, and when they differ from those sent before.
    pub fn put(&mut self, hops: Hops) {
        self.hops = (self.sent.as_ref() != Some(&hops)).then_some(hops);
    }

    pub fn is_empty(&self) -> bool {
        !self.links && !self.routing && self.hops.is_none()
    }

    pub fn take(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.links) {
            return Some(Event::LinksChanged);
        }
        if let Some(hops) = self.hops.take() {
            self.sent = Some(hops.clone());
            return Some(Event::Hops(hops));
        }
        std::mem::take(&mut self.routing).then_some(Event::RoutingChanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_kind_are_merged() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.note(Changes { flows: true, links: true, ..Changes::default() });
            outbox.put(Hops::new());
        }

        assert!(matches!(outbox.take(), Some(Event::LinksChanged)));
        assert!(matches!(outbox.take(), Some(Event::Hops(_))));
        assert!(!outbox.is_empty());
        assert!(matches!(outbox.take(), Some(Event::RoutingChanged)));
        assert!(outbox.is_empty());
        assert!(outbox.take().is_none());
    }

    #[test]
    fn hops_are_sent_the_first_time_and_when_they_differ() {
        let other = Hops::from([(Path { to: "10.0.0.1".parse().unwrap(), from: None }, HopState::NoRoute)]);
        let mut outbox = Outbox::default();

        outbox.put(Hops::new());
        assert!(matches!(outbox.take(), Some(Event::Hops(hops)) if hops.is_empty()));
        outbox.put(Hops::new());
        assert!(outbox.is_empty());
        outbox.put(other.clone());
        assert!(!outbox.is_empty());
        outbox.put(Hops::new());
        assert!(outbox.is_empty(), "it changed back before it was taken");
        outbox.put(other.clone());
        assert!(matches!(outbox.take(), Some(Event::Hops(hops)) if hops == other));
    }
}
