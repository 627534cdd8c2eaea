//! The kernel's links and neighbours, updated by its messages, and the consequences of each message. No I/O.

use std::{collections::BTreeMap, ops::BitOrAssign};

use lb_common::{hop::InterfaceIndex, net::Mac};

use super::resolve::{Link, Neighbour, Place};

/// Number of remembered addresses of neighbours without an entry. If such a neighbour gets a different address, flows
/// must look it up.
const DEPARTED_MAX: usize = 16 * 1024;

/// The address that flows use for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Used {
    One(Mac),
    /// Unknown: flows use more than one address, so any entry may differ from that of some flows.
    Several,
}

/// A message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `None`: it was deleted.
    Link(InterfaceIndex, Option<Link>),
    /// `None`: it was deleted.
    Neighbour(Place, Option<Neighbour>),
    /// A route or a rule changed.
    Routes,
    /// An address of this host changed: it may be the source of a route, or make a route unusable.
    Addresses,
}

/// The consequences of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Backends' routes must be looked up again.
    pub routes: bool,
    /// Backends' hops must be resolved again.
    pub hops: bool,
    /// Flows must look up their next hop again.
    pub flows: bool,
    /// Links, or this host's addresses, have changed.
    pub links: bool,
}

impl Changes {
    pub const ALL: Self = Self { routes: true, hops: true, flows: true, links: true };

    pub fn any(self) -> bool {
        self != Self::default()
    }
}

impl BitOrAssign for Changes {
    fn bitor_assign(&mut self, other: Self) {
        self.routes |= other.routes;
        self.hops |= other.hops;
        self.flows |= other.flows;
        self.links |= other.links;
    }
}

/// Links and neighbours.
#[derive(Clone, Debug, Default)]
pub struct Network {
    links: BTreeMap<InterfaceIndex, Link>,
    neighbours: BTreeMap<Place, Neighbour>,
    /// The last known or assumed address of each neighbour, even while it has no entry.
    used: BTreeMap<Place, Used>,
}

impl Network {
    pub fn links(&self) -> &BTreeMap<InterfaceIndex, Link> {
        &self.links
    }

    pub fn neighbours(&self) -> &BTreeMap<Place, Neighbour> {
        &self.neighbours
    }

    /// Applies a message.
    pub fn absorb(&mut self, fact: Fact) -> Changes {
        match fact {
            Fact::Link(index, link) => self.absorb_link(index, link),
            Fact::Neighbour(place, neighbour) => self.absorb_neighbour(place, neighbour),
            Fact::Routes => Changes { links: false, ..Changes::ALL },
            // The controller reads links and addresses together, and reports missing listen addresses.
            Fact::Addresses => Changes { flows: false, ..Changes::ALL },
        }
    }

    /// Applies a full read. What it lacks is gone.
    pub fn replace(
        &mut self,
        links: BTreeMap<InterfaceIndex, Link>,
        neighbours: BTreeMap<Place, Neighbour>,
    ) -> Changes {
        let gone_links: Vec<_> =
            self.links.keys().filter(|index| !links.contains_key(index)).copied().collect();
        let gone: Vec<_> =
            self.neighbours.keys().filter(|place| !neighbours.contains_key(place)).copied().collect();
        let gone_links = gone_links.into_iter().map(|index| Fact::Link(index, None));
        let gone = gone.into_iter().map(|place| Fact::Neighbour(place, None));
        let links = links.into_iter().map(|(index, link)| Fact::Link(index, Some(link)));
        let neighbours =
            neighbours.into_iter().map(|(place, neighbour)| Fact::Neighbour(place, Some(neighbour)));
        let mut changes = Changes::default();
        for fact in gone_links.chain(gone).chain(links).chain(neighbours) {
            changes |= self.absorb(fact);
        }
        changes
    }

    /// Flows use this address, from a client's frame, for a neighbour without an entry.
    pub fn assume(&mut self, place: Place, mac: Mac) -> Changes {
        // The entry was created meanwhile.
        if let Some(known) = self.neighbours.get(&place).and_then(|neighbour| neighbour.mac()) {
            return Changes { flows: known != mac, ..Changes::default() };
        }
        let used = Used::One(mac);
        self.used
            .entry(place)
            .and_modify(|last| *last = if *last == used { used } else { Used::Several })
            .or_insert(used);
        Changes { flows: self.forget_departed(), ..Changes::default() }
    }

    fn absorb_link(&mut self, index: InterfaceIndex, link: Option<Link>) -> Changes {
        let before = match link.clone() {
            Some(link) => self.links.insert(index, link),
            None => self.links.remove(&index),
        };
        if before == link { Changes::default() } else { Changes::ALL }
    }

    /// A neighbour that is confirmed, deleted or seen for the first time changes nothing for flows: the address that
    /// they use is still right. Only an address that differs from the last one does.
    fn absorb_neighbour(&mut self, place: Place, neighbour: Option<Neighbour>) -> Changes {
        let before = match neighbour {
            Some(neighbour) => self.neighbours.insert(place, neighbour),
            None => self.neighbours.remove(&place),
        };
        let mac = neighbour.and_then(Neighbour::mac);
        let hops = before.and_then(Neighbour::mac) != mac;
        let moved = match mac {
            Some(mac) => {
                let used = Used::One(mac);
                self.used.insert(place, used).is_some_and(|last| last != used)
            }
            None => self.forget_departed(),
        };
        Changes { hops, flows: moved, ..Changes::default() }
    }

    /// Without the old addresses, it must be assumed that all of them changed.
    fn forget_departed(&mut self) -> bool {
        if self.used.len() <= self.neighbours.len() + DEPARTED_MAX {
            return false;
        }
        self.used.retain(|place, _| self.neighbours.contains_key(place));
        log::info!(
            "forgot the MAC addresses of more than {DEPARTED_MAX} former neighbours: all flows look up their \
             next hops again"
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const A: Mac = Mac([1; 3]);
    const B: Mac = Mac([2; 3]);

    #[test]
    fn flows_are_affected_only_by_another_address_of_a_neighbour() {
        use Neighbour::{Failed, Fixed, Fresh, Incomplete, Stale};
        type Case<'a> = (&'a str, &'a [Option<Neighbour>], (bool, bool));
        let cases: &[Case] = &[
            ("first address", &[Some(Fresh(A))], (true, false)),
            ("reachable to stale", &[Some(Fresh(A)), Some(Stale(A))], (false, false)),
            ("stale to reachable", &[Some(Stale(A)), Some(Fresh(A))], (false, false)),
            ("first asked for, then answered", &[Some(Incomplete), Some(Fresh(A))], (true, false)),
            ("another address", &[Some(Fresh(A)), Some(Fresh(B))], (true, true)),
            ("set by the operator", &[Some(Fresh(A)), Some(Fixed(B))], (true, true)),
            ("lost", &[Some(Stale(A)), Some(Failed)], (true, false)),
            ("lost and back", &[Some(Stale(A)), Some(Failed), Some(Fresh(A))], (true, false)),
            ("lost and back as another", &[Some(Stale(A)), Some(Failed), None, Some(Fresh(B))], (true, true)),
            ("forgotten", &[Some(Stale(A)), None], (true, false)),
        ];
        for (case, messages, (hops, flows)) in cases {
            let mut network = Network::default();

            let changes = messages.iter().map(|it| network.absorb(Fact::Neighbour(place(1), *it))).last();

            assert_eq!(changes, Some(Changes { hops: *hops, flows: *flows, ..Changes::default() }), "{case}");
        }
    }

    #[test]
    fn an_address_that_flows_assume_is_news_when_the_neighbour_has_another() {
        use Neighbour::{Fresh, Stale};
        type Case<'a> = (&'a str, Option<Neighbour>, &'a [Mac], Neighbour, bool);
        let cases: &[Case] = &[
            ("it is right", None, &[A], Fresh(A), false),
            ("twice", None, &[A, A], Fresh(A), false),
            ("it is wrong", None, &[A], Fresh(B), true),
            ("flows differ", None, &[A, B], Fresh(A), true),
            ("flows differ, the other way", None, &[A, B], Fresh(B), true),
            ("older flows have another", Some(Stale(A)), &[B], Fresh(B), true),
            ("older flows have the same", Some(Stale(A)), &[A], Fresh(A), false),
        ];
        for (case, met_before, assumed, answer, flows) in cases {
            let mut network = Network::default();
            if met_before.is_some() {
                network.absorb(Fact::Neighbour(place(1), *met_before));
                network.absorb(Fact::Neighbour(place(1), None));
            }
            for mac in *assumed {
                assert_eq!(network.assume(place(1), *mac), Changes::default(), "{case}");
            }

            let changes = network.absorb(Fact::Neighbour(place(1), Some(*answer)));
            let again = network.absorb(Fact::Neighbour(place(1), Some(*answer)));

            assert_eq!((changes.flows, again.flows), (*flows, false), "{case}");
        }
    }

    #[test]
    fn an_address_that_flows_assume_is_news_when_another_became_known_meanwhile() {
        let mut network = Network::default();
        network.absorb(Fact::Neighbour(place(1), Some(Neighbour::Fresh(A))));

        assert!(!network.assume(place(1), A).flows);
        assert!(network.assume(place(1), B).flows);
    }

    #[test]
    fn assumed_addresses_are_bounded() {
        let mut network = Network::default();
        let mut lookups = 0;
        for number in 0..2 * DEPARTED_MAX as u32 {
            lookups += u32::from(network.assume(place(number), A).flows);
            assert!(network.used.len() <= DEPARTED_MAX + 1);
        }
        assert_eq!(lookups, 1);
    }

    #[test]
    fn any_change_of_a_link_has_consequences() {
        let up = Link { name: "eth0".to_owned(), mac: Some(A), mtu: 1500, is_up: true };
        let others = [
            Some(Link { is_up: false, ..up.clone() }),
            Some(Link { mtu: 9000, ..up.clone() }),
            Some(Link { mac: Some(B), ..up.clone() }),
            Some(Link { name: "wan0".to_owned(), ..up.clone() }),
            None,
        ];
        for other in others {
            let mut network = Network::default();

            assert_eq!(network.absorb(Fact::Link(InterfaceIndex(2), Some(up.clone()))), Changes::ALL);
            assert_eq!(network.absorb(Fact::Link(InterfaceIndex(2), Some(up.clone()))), Changes::default());
            assert_eq!(network.absorb(Fact::Link(InterfaceIndex(2), other)), Changes::ALL);
        }
    }

    #[test]
    fn an_address_of_this_host_changes_everything_but_flows() {
        let changes = Network::default().absorb(Fact::Addresses);

        assert_eq!(changes, Changes { routes: true, hops: true, links: true, flows: false });
    }

    #[test]
    fn a_full_read_has_the_same_result_as_messages() {
        let link = Link { name: "eth0".to_owned(), mac: Some(A), mtu: 1500, is_up: true };
        let links = BTreeMap::from([(InterfaceIndex(2), link)]);
        let neighbours = BTreeMap::from([(place(1), Neighbour::Fresh(A)), (place(2), Neighbour::Fresh(A))]);
        let mut network = Network::default();

        assert_eq!(network.replace(links.clone(), neighbours.clone()), Changes::ALL);
        assert_eq!(network.replace(links.clone(), neighbours), Changes::default());

        let moved = BTreeMap::from([(place(2), Neighbour::Stale(B))]);
        let expected = Changes { hops: true, flows: true, ..Changes::default() };
        assert_eq!(network.replace(links, moved.clone()), expected);
        assert_eq!(network.neighbours(), &moved);
        assert_eq!(network.replace(BTreeMap::new(), moved), Changes::ALL);
    }

    #[test]
    fn former_neighbours_are_limited_and_flows_look_up_again_when_they_are_forgotten() {
        let mut network = Network::default();
        let mut lookups = 0;
        for number in 0..3 * DEPARTED_MAX as u32 {
            network.absorb(Fact::Neighbour(place(number), Some(Neighbour::Fresh(A))));
            lookups += u32::from(network.absorb(Fact::Neighbour(place(number), None)).flows);
            assert!(network.used.len() <= DEPARTED_MAX + 1);
        }
        assert_eq!(lookups, 2);
    }

    fn place(number: u32) -> Place {
        (InterfaceIndex(2), IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)))
    }
}
