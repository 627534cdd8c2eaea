//! Which addresses this node announces: those of its ready services. They are put on a device whose addresses a routing
//! daemon exports.
//!
//! ```text
//!   a service becomes ready ─▶ its addresses are added at once
//!   no ready service needs it ──HOLD──▶ it is taken off           (not in the first START of a daemon)
//!   this node is unfit ─▶ all are taken off at once
//!   the daemon stops or dies ─▶ they stay: traffic flows
//! ```
//!
//! Sources are added before listen addresses, and taken off after them: where a client's SYN comes, the backend's answer must come,
//! too. An address that the operator has put on the device is never touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use log::{info, warn};

use super::{Controller, Host, RETRY};
use crate::{announced_addresses::Placed, datapath::Datapath, view};

/// How long an address is kept that no ready service needs: each change of a route moves flows of other nodes, so a service
/// that is ready again within this time must cause none.
const HOLD: Duration = Duration::from_secs(1);
/// After a start, nothing is taken off for this time, in which health checks find out which services are ready.
const START: Duration = Duration::from_secs(10);

/// What was last announced.
#[derive(Debug)]
pub struct Announce {
    /// `None`: nothing is announced, and what an earlier daemon has announced is taken off.
    device: Option<String>,
    /// The end of [`START`].
    started: Instant,
    /// Since when no ready service needs an address.
    unneeded: BTreeMap<Placed, Instant>,
    /// What is on the device: of xlb or of the operator.
    present: BTreeSet<IpAddr>,
    /// There is no device, and nothing to take off.
    is_idle: bool,
    /// Why the addresses could not be changed, and when to try again.
    failure: Option<(String, Instant)>,
    /// When the next address is to be taken off.
    next: Option<Instant>,
}

/// When addresses that are not needed are taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Withdrawal {
    AfterHold,
    AtOnce,
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    add: Vec<IpAddr>,
    remove: Vec<Placed>,
}

impl Announce {
    pub fn new(device: Option<String>, now: Instant) -> Self {
        Self {
            device,
            started: now + START,
            unneeded: BTreeMap::new(),
            present: BTreeSet::new(),
            is_idle: false,
            failure: None,
            next: None,
        }
    }

    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|(why, _)| why.as_str())
    }

    /// When it must be looked at without another reason.
    pub fn due(&self) -> Option<Instant> {
        self.failure.as_ref().map(|(_, retry)| *retry).into_iter().chain(self.next).min()
    }

    /// Is something announced?
    pub fn is_announcing(&self) -> bool {
        self.device.is_some() && !self.present.is_empty()
    }

    /// What to do so that the device has the addresses that are needed.
    fn changes(
        &mut self,
        needed: &BTreeSet<IpAddr>,
        withdrawal: Withdrawal,
        placed: Vec<Placed>,
        now: Instant,
    ) -> Changes {
        let on_device = placed.iter().filter(|it| it.is_on_device).map(|it| it.net.addr());
        self.present = on_device.collect();
        let add = needed.iter().filter(|address| !self.present.contains(address)).copied().collect();
        let former = std::mem::take(&mut self.unneeded);
        let is_needed = |it: &Placed| it.is_on_device && needed.contains(&it.net.addr());
        let mut remove = Vec::new();
        self.next = None;
        for it in placed.into_iter().filter(|it| it.is_ours && !is_needed(it)) {
            let since = former.get(&it).copied().unwrap_or(now);
            let due = self.started.max(since + HOLD);
            self.unneeded.insert(it.clone(), since);
            match withdrawal {
                Withdrawal::AfterHold if now < due => {
                    self.next = Some(self.next.map_or(due, |next| next.min(due)));
                }
                Withdrawal::AfterHold | Withdrawal::AtOnce => remove.push(it),
            }
        }
        Changes { add, remove }
    }
}

impl<D: Datapath, H: Host> Controller<D, H> {
    /// Brings what other programs follow up to date: the addresses on the device, and the track file.
    pub(super) fn tell_others_if_due(&mut self, all_changed: bool, now: Instant) {
        let has_changed = all_changed | self.readiness.take_changed();
        if has_changed || self.announce.due().is_some_and(|due| due <= now) {
            self.announce_or_warn(now);
        }
        if has_changed || self.track.is_due(now) {
            self.track_or_warn(now);
        }
    }

    /// A failure is logged when it begins, and the change repeated.
    pub(super) fn announce_or_warn(&mut self, now: Instant) {
        let had_failed = self.announce.failure.is_some();
        if let Err(error) = self.announce(now)
            && !had_failed
        {
            warn!("{error:#}; retrying");
        }
    }

    /// Adds and takes off addresses.
    pub(super) fn announce(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.announce.is_idle {
            return Ok(());
        }
        let outcome = self.change_addresses(now);
        self.announce.failure = outcome.as_ref().err().map(|error| (format!("{error:#}"), now + RETRY));
        outcome
    }

    fn change_addresses(&mut self, now: Instant) -> anyhow::Result<()> {
        let placed = self.host.placed()?;
        let withdrawal = if self.is_unfit() { Withdrawal::AtOnce } else { Withdrawal::AfterHold };
        let needed = self.needed_addresses(withdrawal);
        let Changes { mut add, mut remove } = self.announce.changes(&needed, withdrawal, placed, now);
        let listens = self.state.spec().listen_addresses();
        add.sort_by_key(|address| listens.contains(address));
        remove.sort_by_key(|it| !listens.contains(&it.net.addr()));
        let device = self.announce.device.clone().unwrap_or_default();
        let mut outcome = Ok(());
        for it in remove {
            let address = it.net.addr();
            let taken = self.host.withdraw(&it);
            if taken.is_ok() {
                info!(address:%; "withdrawn");
                self.announce.unneeded.remove(&it);
                if it.is_on_device {
                    self.announce.present.remove(&address);
                }
            }
            outcome = outcome.and(taken);
        }
        for address in add {
            let added = self.host.announce(address);
            if added.is_ok() {
                info!(address:%, device; "announced");
                self.announce.present.insert(address);
            }
            outcome = outcome.and(added);
        }
        self.announce.is_idle = self.announce.device.is_none() && self.announce.unneeded.is_empty();
        outcome
    }

    fn needed_addresses(&self, withdrawal: Withdrawal) -> BTreeSet<IpAddr> {
        if withdrawal == Withdrawal::AtOnce || self.announce.device.is_none() {
            return BTreeSet::new();
        }
        let services = self.state.spec().services.iter();
        let ready = services.filter(|service| self.readiness.is_ready(service, &self.state));
        ready.flat_map(|service| service.addresses()).collect()
    }

    /// Whether each address is on the device.
    pub(super) fn announced(&self) -> Vec<(IpAddr, bool)> {
        let known = |it: view::Announcement| {
            let withdrawn = it.withdrawn.into_iter().map(|address| (address, false));
            it.announced.into_iter().map(|address| (address, true)).chain(withdrawn).collect()
        };
        self.announcement().map(known).unwrap_or_default()
    }

    /// `None`: nothing is to be announced.
    pub(super) fn announcement(&self) -> Option<view::Announcement> {
        let device = self.announce.device.clone()?;
        let all = self.state.spec().addresses().into_iter();
        let (announced, withdrawn) = all.partition(|address| self.announce.present.contains(address));
        Some(view::Announcement { device, announced, withdrawn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: &str = "192.0.2.10";
    const OLD: &str = "192.0.2.11";

    #[test]
    fn what_is_needed_is_added_unless_it_is_there() {
        let now = Instant::now();
        for (present, expected) in
            [(vec![], vec![ip(VIP)]), (vec![ours(VIP)], vec![]), (vec![foreign(VIP)], vec![])]
        {
            let mut announce = Announce::new(Some("lo".into()), now);

            let changes = announce.changes(&needs(&[VIP]), Withdrawal::AfterHold, present.clone(), now);

            assert_eq!(changes, Changes { add: expected, remove: vec![] }, "{present:?}");
            assert_eq!(announce.due(), None);
        }
    }

    #[test]
    fn what_is_not_needed_is_removed_after_a_hold_which_begins_again_when_it_was_needed() {
        let start = Instant::now();
        let mut announce = Announce::new(Some("lo".into()), start);
        let mut remove = |needed: &[&str], ms: u64| {
            let now = start + START + Duration::from_millis(ms);
            let changes = announce.changes(&needs(needed), Withdrawal::AfterHold, vec![ours(VIP)], now);
            (changes.remove.len(), announce.due().map(|due| due - now))
        };

        assert_eq!(remove(&[], 0), (0, Some(HOLD)));
        assert_eq!(remove(&[], 999), (0, Some(Duration::from_millis(1))));
        assert_eq!(remove(&[VIP], 999), (0, None));
        assert_eq!(remove(&[], 1_500), (0, Some(HOLD)));
        assert_eq!(remove(&[], 2_500), (1, None));
    }

    #[test]
    fn nothing_is_removed_after_a_start_unless_this_node_is_unfit() {
        let start = Instant::now();
        let mut announce = Announce::new(Some("lo".into()), start);
        let mut remove =
            |withdrawal, now| announce.changes(&needs(&[]), withdrawal, vec![ours(VIP)], now).remove;

        assert_eq!(remove(Withdrawal::AfterHold, start), []);
        assert_eq!(remove(Withdrawal::AfterHold, start + START - Duration::from_millis(1)), []);
        assert_eq!(remove(Withdrawal::AtOnce, start), [ours(VIP)]);
        assert_eq!(remove(Withdrawal::AfterHold, start + START), [ours(VIP)]);
    }

    #[test]
    fn what_an_earlier_daemon_left_on_another_device_is_replaced_and_the_operators_own_never_removed() {
        let start = Instant::now();
        let later = start + START + HOLD;
        let elsewhere = Placed { interface: 2, is_on_device: false, ..ours(VIP) };
        let mut announce = Announce::new(Some("lo".into()), start);
        let placed = vec![elsewhere.clone(), foreign(OLD)];

        let first = announce.changes(&needs(&[VIP]), Withdrawal::AfterHold, placed.clone(), start);
        let unfit = announce.changes(&needs(&[]), Withdrawal::AtOnce, placed, later);

        assert_eq!(first, Changes { add: vec![ip(VIP)], remove: vec![] });
        assert_eq!(unfit, Changes { add: vec![], remove: vec![elsewhere] });
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn needs(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|it| ip(it)).collect()
    }

    fn ours(address: &str) -> Placed {
        Placed { net: ip(address).into(), interface: 1, is_on_device: true, is_ours: true }
    }

    fn foreign(address: &str) -> Placed {
        Placed { is_ours: false, ..ours(address) }
    }
}
