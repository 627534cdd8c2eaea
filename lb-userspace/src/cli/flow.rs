//! `xlb flow`: the connections in the flow table.

use super::{
    args::{FlowFilter, FlowList, FlowRemoval, FlowVerb},
    console::Console,
    failure::Failure,
    table::{Table, Tone},
};
use crate::{
    api::client::Client,
    exit::Exit,
    named::Named,
    text::counted,
    view::{Flow, FlowCount, FlowQuery},
};

pub async fn flow(console: &mut Console<'_>, client: &Client, verb: FlowVerb) -> Result<(), Failure> {
    match verb {
        FlowVerb::List(which) => list(console, client, which).await,
        FlowVerb::Count => count(console, client).await,
        FlowVerb::Remove(which) => remove(console, client, which).await,
    }
}

impl From<FlowFilter> for FlowQuery {
    fn from(filter: FlowFilter) -> Self {
        let backend = filter.backend.map(|name| name.to_string());
        Self { service: filter.service, backend, client: filter.client, ..Self::default() }
    }
}

async fn list(console: &mut Console<'_>, client: &Client, which: FlowList) -> Result<(), Failure> {
    let limit = which.limit;
    let query = FlowQuery { limit: Some(limit), ..which.filter.into() };
    let flows = client.flows(&query).await?;

    let table = table(&flows, console.is_wide());
    console.list(&flows, table)?;
    if flows.len() < limit {
        return Ok(());
    }
    console.say(&format!("the list ends at --limit {limit}; there may be more flows"))
}

fn table(flows: &[Flow], is_wide: bool) -> Table {
    let mut header = vec!["PROTOCOL", "CLIENT", "LISTEN", "BACKEND", "STATE", "IDLE"];
    if is_wide {
        header.extend(["SOURCE", "ADDRESS"]);
    }
    let mut table = Table::new(&header);
    for flow in flows {
        let mut cells = vec![
            flow.protocol.name().to_owned(),
            flow.client.to_string(),
            flow.listen.to_string(),
            format!("{}/{}", flow.service, flow.backend),
            flow.state.name().to_owned(),
            format!("{:.1}s", flow.idle_seconds),
        ];
        if is_wide {
            cells.extend([flow.source.to_string(), flow.backend_address.to_string()]);
        }
        table.row(Tone::Plain, cells);
    }
    table
}

async fn count(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let count = client.flow_count().await?;
    if console.is_json() {
        return console.json(&count);
    }

    let FlowCount { half_open, established, closing, established_max, half_open_max } = count;
    let mut table = Table::new(&["STATE", "FLOWS", "MAX"]);
    table.row(Tone::Plain, ["half_open".to_owned(), half_open.to_string(), half_open_max.to_string()]);
    table.row(Tone::Plain, ["established".to_owned(), established.to_string(), established_max.to_string()]);
    table.row(Tone::Plain, ["closing".to_owned(), closing.to_string(), "-".to_owned()]);
    console.table(table)
}

async fn remove(console: &mut Console<'_>, client: &Client, which: FlowRemoval) -> Result<(), Failure> {
    let query = FlowQuery { limit: which.limit, all: which.all, ..which.filter.into() };
    if !query.has_filter() && !query.all {
        let message = "which flows? Give --service, --backend or --client, or --all for all flows";
        return Err(Failure::new(Exit::Usage, message));
    }
    let answer = client.remove_flows(&query).await?;
    if console.is_json() {
        console.json(&answer)?;
    }
    console.say(&format!("{} removed", counted(answer.removed, "flow")))
}
