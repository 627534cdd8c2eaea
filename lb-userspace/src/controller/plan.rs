//! Plans: the operations that bring the maps up to date, for everything or for some services.

use std::collections::BTreeSet;

use lb_common::{backend::BackendId, counters::ServiceNumber, pool::PoolNumber};

use super::{
    compile::{NoRoom, WITHOUT_SLOTS, compile, compile_services},
    diff::diff,
    identity,
    index::Indexed,
    state::{Scope, State},
};
use crate::{
    datapath::{Op, Snapshot},
    probe::Role,
    shared::Shared,
    spec::{Service, rules::Family},
};

/// The operations that lead from `have` to what `state` means, as far as this scope goes.
pub fn plan(state: &State, have: &Indexed, scope: &Scope) -> Result<Vec<Op>, NoRoom> {
    let exclusive = exclusive_pools(state, have);
    match numbered(state, have, scope) {
        Some(services) => match compile_services(state, have, &services) {
            Ok(want) => {
                let numbers = services.iter().map(|(_, number)| *number);
                Ok(steps(&have.part(numbers, state.grace()), &want, &exclusive))
            }
            // The slots of all services may have to move.
            Err(NoRoom::Slots) => Ok(steps(have, &compile(state, have)?, &exclusive)),
            Err(no_room) => Err(no_room),
        },
        None => Ok(steps(have, &compile(state, have)?, &exclusive)),
    }
}

/// The operations from `have` to `want`. In an exclusive pool, the flows of a backend that leaves end before another one gets
/// any: its id is deleted while the pool has no slots.
fn steps(have: &Snapshot, want: &Snapshot, exclusive: &BTreeSet<PoolNumber>) -> Vec<Op> {
    let mut between = have.clone();
    for number in exclusive {
        let Some(pool) = have.pools.get(number) else { continue };
        let is_gone = |id: &&BackendId| want.backend(**id).is_none();
        let gone: Vec<_> = have.ids(*pool).iter().filter(is_gone).copied().collect();
        if gone.is_empty() {
            continue;
        }
        between.pools.insert(*number, WITHOUT_SLOTS);
        between.members.remove(number);
        between.backends.retain(|_, backend| !gone.contains(&backend.id));
    }
    let mut steps = diff(have, &between);
    steps.extend(diff(&between, want));
    steps
}

/// The pools of services that only a primary serves.
fn exclusive_pools(state: &State, have: &Indexed) -> BTreeSet<PoolNumber> {
    let is_exclusive = |service: &&Shared<Service>| service.role.wanted == Some(Role::Primary);
    let services = state.spec().services.iter().filter(is_exclusive);
    let numbers = services.filter_map(|service| identity::number(have, service));
    numbers.flat_map(|number| Family::ALL.map(|family| have.pool(number, family))).flatten().collect()
}

/// The services of a scope, with their numbers. `None`: all.
fn numbered<'a>(
    state: &'a State,
    have: &Indexed,
    scope: &Scope,
) -> Option<Vec<(&'a Service, ServiceNumber)>> {
    let Scope::Services(names) = scope else { return None };
    let services = state.services(names).into_iter();
    services.map(|service| Some((service, identity::number(have, service)?))).collect()
}
