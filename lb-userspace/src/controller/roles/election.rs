//! Which of the servers that say primary is the primary.
//!
//! ```text
//!   claims ─▶ of this cluster ─▶ not older than what is known ─▶ not before the fence ─▶ one: elected
//! ```
//!
//! A claim that is newer than another one counts from its first answer: the older server gets no more writes. It is elected
//! when it has been steady. Two claims of which neither is newer: neither is elected, because each of them may lose writes
//! that the other one took.

use std::net::SocketAddr;

use super::memory::{ClusterId, RoleMemory, ServiceMemory};
use crate::probe::Mark;

/// A server that says primary.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub address: SocketAddr,
    pub mark: &'a Mark,
    /// It is up, and has said so often enough.
    pub is_steady: bool,
}

/// The result of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Elected(SocketAddr),
    Vacant(Vacancy),
}

/// Why there is no primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vacancy {
    /// Not all servers have answered yet.
    Unknown,
    /// No server says primary.
    NoClaim,
    /// One says primary, but not often enough yet.
    NotSteady,
    /// Those that say primary were replaced by a newer one, or belong to another cluster.
    Refused,
    /// The operator has fenced the service, and there is no newer primary yet.
    Fenced,
    /// These say primary, and neither is newer than the other.
    Contested(Vec<SocketAddr>),
}

impl Vacancy {
    /// Is a server that says primary all that is missing?
    pub const fn is_pending(&self) -> bool {
        matches!(self, Self::NoClaim | Self::NotSteady)
    }

    /// For the log and the status.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Unknown => "not all servers have answered yet",
            Self::NoClaim => "no server says primary",
            Self::NotSteady => "a server says primary, but not often enough in a row yet",
            Self::Refused => "the servers that say primary are outdated, or of another cluster",
            Self::Fenced => "fenced by the operator",
            Self::Contested(_) => "several servers say primary, and none is newer",
        }
    }
}

/// Why a server that says primary is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It belongs to another cluster.
    OtherCluster,
    /// There is, or was, a newer primary.
    Outdated,
    /// It was primary when the service was fenced.
    Fenced,
}

/// Elects. `are_all_known`: each server has answered, or is down.
pub fn elect(
    claims: &[Claim<'_>],
    memory: &RoleMemory,
    service: &ServiceMemory,
    incumbent: Option<SocketAddr>,
    are_all_known: bool,
) -> Outcome {
    let refusal = |claim: &&Claim<'_>| refusal(claim, claims, memory, service);
    let valid: Vec<_> = claims.iter().filter(|claim| refusal(claim).is_none()).collect();
    let steady: Vec<_> = valid.iter().filter(|claim| claim.is_steady).map(|claim| claim.address).collect();
    let is_valid = |address: SocketAddr| valid.iter().any(|claim| claim.address == address);
    match service.forced.filter(|forced| is_valid(forced.address)) {
        Some(forced) if steady.contains(&forced.address) => return Outcome::Elected(forced.address),
        Some(_) => return Outcome::Vacant(Vacancy::NotSteady),
        None => {}
    }
    match steady[..] {
        [only] if are_all_known || incumbent == Some(only) => Outcome::Elected(only),
        [_] => Outcome::Vacant(Vacancy::Unknown),
        [] if !valid.is_empty() => Outcome::Vacant(Vacancy::NotSteady),
        [] if service.fence.is_some() => Outcome::Vacant(Vacancy::Fenced),
        [] if !claims.is_empty() => Outcome::Vacant(Vacancy::Refused),
        [] if are_all_known => Outcome::Vacant(Vacancy::NoClaim),
        [] => Outcome::Vacant(Vacancy::Unknown),
        [..] => Outcome::Vacant(Vacancy::Contested(steady)),
    }
}

/// Why a server that says primary cannot be it, if that is so.
pub fn refusal(
    claim: &Claim<'_>,
    claims: &[Claim<'_>],
    memory: &RoleMemory,
    service: &ServiceMemory,
) -> Option<Refusal> {
    let cluster = claim.mark.cluster().map(ClusterId);
    if service.cluster.is_some() && cluster != service.cluster {
        return Some(Refusal::OtherCluster);
    }
    let forced = service.forced.filter(|forced| forced.address == claim.address);
    let claimed = claims.iter().filter(|other| other.mark.cluster() == claim.mark.cluster());
    let newest = claimed.map(|other| other.mark.term()).max().flatten().max(memory.term(cluster));
    let is_older = claim.mark.term() < newest && forced.is_none_or(|forced| forced.term < newest);
    let is_replaced = claims.iter().any(|other| other.mark.continues(claim.mark));
    if is_older || (forced.is_none() && (is_replaced || is_of_other_history(claim, service))) {
        return Some(Refusal::Outdated);
    }
    (!lifts_fence(claim, service)).then_some(Refusal::Fenced)
}

/// Without terms, the history of the last primary tells whether another server took part in it.
fn is_of_other_history(claim: &Claim<'_>, service: &ServiceMemory) -> bool {
    let Some(last) = &service.primary else { return false };
    let Some(history) = &last.history else { return false };
    last.address != claim.address && !claim.mark.is_of_history(history)
}

/// Is there no fence, or is this server newer than the primary that was fenced? If none was known then, only the operator ends
/// the fence.
fn lifts_fence(claim: &Claim<'_>, service: &ServiceMemory) -> bool {
    let Some(fence) = &service.fence else { return true };
    match claim.mark.term() {
        Some(term) => fence.term.is_some_and(|fenced| fenced < term),
        None => !fence.fenced.is_empty() && !fence.fenced.contains(&claim.address),
    }
}
