//! A list of flows, built during a walk over the tables.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    datapath::{Flow, Snapshot},
    event::Reply,
    problem::{Problem, ProblemKind},
    spec::BackendName,
    view,
};

/// The limit if the query has none.
pub const DEFAULT_LIMIT: usize = 1_000;
/// The highest limit.
pub const MAX_LIMIT: usize = 100_000;

#[derive(Debug)]
pub struct Listing {
    filter: Filter,
    found: Vec<view::Flow>,
    reply: Reply<Vec<view::Flow>>,
}

/// Selects flows. All given criteria must match.
#[derive(Clone, Debug)]
pub struct Filter {
    service: Option<String>,
    backend: Option<BackendName>,
    client: Option<IpNet>,
    limit: usize,
}

impl Filter {
    pub fn parse(query: &view::FlowQuery) -> Result<Self, Problem> {
        let invalid = |detail: String| Problem::new(ProblemKind::Invalid, detail);
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if limit > MAX_LIMIT {
            return Err(invalid(format!(
                "limit {limit} is too high: at most {MAX_LIMIT} flows can be listed at once"
            )));
        }
        Ok(Self {
            service: query.service.clone(),
            backend: query.backend.as_deref().map(str::parse).transpose().map_err(invalid)?,
            client: query.client.as_deref().map(network).transpose().map_err(invalid)?,
            limit,
        })
    }

    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    pub fn backend(&self) -> Option<&BackendName> {
        self.backend.as_ref()
    }

    fn admits(&self, flow: &Flow, name: &BackendName) -> bool {
        self.service.as_ref().is_none_or(|service| *service == name.service)
            && self.backend.as_ref().is_none_or(|backend| backend == name)
            && self.client.is_none_or(|network| network.contains(&flow.client.ip()))
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse().ok().or_else(address);
    network.ok_or_else(|| format!("`{text}` is neither an address nor a network like 192.0.2.0/24"))
}

impl Listing {
    pub fn new(filter: Filter, reply: Reply<Vec<view::Flow>>) -> Self {
        Self { filter, found: Vec::new(), reply }
    }

    /// Adds the flow if it matches. A flow of a removed backend is left out: it ends with its next packet.
    pub fn add(&mut self, flow: &Flow, have: &Snapshot) {
        let backend = have.backend(flow.backend_id);
        let Some(name) = backend.and_then(|backend| have.backend_names.get(&backend.counters)) else {
            return;
        };
        if self.found.len() < self.filter.limit && self.filter.admits(flow, name) {
            self.found.push(shown(flow, name));
        }
    }

    /// The list is full, or the client has disconnected.
    pub fn is_done(&self) -> bool {
        self.found.len() >= self.filter.limit || self.reply.is_closed()
    }

    pub fn finish(self) {
        self.reply.send(Ok(self.found));
    }

    pub fn refuse(self, why: String) {
        self.reply.send(Err(Problem::new(ProblemKind::Failed, why)));
    }
}

fn shown(flow: &Flow, name: &BackendName) -> view::Flow {
    view::Flow {
        protocol: flow.protocol,
        client: flow.client,
        listen: flow.listen,
        service: name.service.clone(),
        backend: name.backend.clone(),
        backend_address: flow.backend,
        source: flow.source,
        state: flow.state.into(),
        idle_seconds: flow.idle.as_secs_f64(),
    }
}
