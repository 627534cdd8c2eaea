//! The controller as a whole, with a datapath in memory and a fake host.

mod agents;
mod announce;
mod availability;
mod cluster;
mod counters;
mod counts;
mod failures;
mod fences;
mod logging;
mod membership;
mod names;
mod presence;
mod reloads;
mod requests;
mod restarts;
mod role_words;
mod roles;
mod schedulers;
mod serving;
mod slow_start;
mod sources;
mod track;
mod turns;
mod warnings;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::{backend::BackendId, limits::Room, net::Protocol, pool::PoolNumber};
use tokio::sync::{mpsc, oneshot};

use self::world::{World, add, change, dns, patch, remove};
use super::{
    fixture::{backend, hop, hops, name, path, probed, socket, spec, web},
    *,
};
use crate::{
    datapath::{Op, Snapshot},
    event::{HopState, Reply, Request},
    problem::{Problem, ProblemKind},
    spec::{AdminState, BackendPatch, NewBackend, Service},
    view::{self, FlowQuery},
};
