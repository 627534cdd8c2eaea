//! Which flows a list shows, or a removal ends.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{
    datapath::{Flow, Snapshot},
    problem::{Problem, ProblemKind},
    spec::BackendName,
    view,
};

/// Selects flows. All given criteria must match.
#[derive(Clone, Debug)]
pub struct Selection {
    service: Option<String>,
    backend: Option<BackendName>,
    client: Option<IpNet>,
}

impl Selection {
    pub fn parse(query: &view::FlowQuery) -> Result<Self, Problem> {
        let invalid = |detail: String| Problem::new(ProblemKind::Invalid, detail);
        Ok(Self {
            service: query.service.clone(),
            backend: query.backend.as_deref().map(str::parse).transpose().map_err(invalid)?,
            client: query.client.as_deref().map(network).transpose().map_err(invalid)?,
        })
    }

    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    pub fn backend(&self) -> Option<&BackendName> {
        self.backend.as_ref()
    }

    /// The name of the flow's backend, if the flow is selected. A flow of a removed backend is not: the sweep ends it.
    pub fn name_of<'a>(&self, flow: &Flow, have: &'a Snapshot) -> Option<&'a BackendName> {
        let name = have.backend_names.get(&have.backend(flow.backend_id)?.counters)?;
        let is_selected = self.service.as_ref().is_none_or(|service| *service == name.service)
            && self.backend.as_ref().is_none_or(|backend| backend == name)
            && self.client.is_none_or(|network| network.contains(&flow.client.ip()));
        is_selected.then_some(name)
    }
}

/// For the log.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let criteria = [
            self.service.as_ref().map(|service| format!("service {service}")),
            self.backend.as_ref().map(|backend| format!("backend {backend}")),
            self.client.map(|network| format!("client {network}")),
        ];
        let criteria: Vec<String> = criteria.into_iter().flatten().collect();
        f.write_str(&if criteria.is_empty() { "all".to_owned() } else { criteria.join(", ") })
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse().ok().or_else(address);
    network.ok_or_else(|| format!("`{text}` is neither an address nor a network like 192.0.2.0/24"))
}
