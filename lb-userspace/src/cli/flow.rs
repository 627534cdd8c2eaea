//! `xlb flow`: the connections in the flow table.

use super::{
    args::{FlowFilter, FlowVerb},
    console::Console,
    failure::Failure,
    table::{Table, Tone},
};
use crate::{
    api::client::Client,
    named::Named,
    view::{Flow, FlowCount, FlowQuery},
};

pub async fn flow(console: &mut Console<'_>, client: &Client, verb: FlowVerb) -> Result<(), Failure> {
    match verb {
        FlowVerb::List(filter) => list(console, client, filter).await,
        FlowVerb::Count => count(console, client).await,
    }
}

async fn list(console: &mut Console<'_>, client: &Client, filter: FlowFilter) -> Result<(), Failure> {
    let limit = filter.limit;
    let query = FlowQuery {
        service: filter.service,
        backend: filter.backend.map(|name| name.to_string()),
        client: filter.client,
        limit: Some(limit),
    };
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
