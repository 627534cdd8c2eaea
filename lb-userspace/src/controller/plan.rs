//! Plans: the operations that bring the maps up to date, for everything or for some services.

use lb_common::counters::ServiceNumber;

use super::{
    compile::{NoRoom, compile, compile_services},
    diff::diff,
    identity,
    index::Indexed,
    state::{Scope, State},
};
use crate::{datapath::Op, spec::Service};

/// The operations that lead from `have` to what `state` means, as far as this scope goes.
pub fn plan(state: &State, have: &Indexed, scope: &Scope) -> Result<Vec<Op>, NoRoom> {
    match numbered(state, have, scope) {
        Some(services) => match compile_services(state, have, &services) {
            Ok(want) => {
                let numbers = services.iter().map(|(_, number)| *number);
                Ok(diff(&have.part(numbers, state.grace()), &want))
            }
            // The slots of all services may have to move.
            Err(NoRoom::Slots) => Ok(diff(have, &compile(state, have)?)),
            Err(no_room) => Err(no_room),
        },
        None => Ok(diff(have, &compile(state, have)?)),
    }
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
