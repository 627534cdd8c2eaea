//! `xlb stats`: counters of services and backends, or their rates.

mod rates;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    console::Console,
    failure::Failure,
    table::{Table, Tone},
    units,
};
use crate::{api::client::Client, exit::Exit, view::Stats};

pub async fn stats(
    console: &mut Console<'_>,
    client: &Client,
    of: Option<String>,
    watch: Option<Duration>,
) -> Result<(), Failure> {
    match watch {
        None => {
            let stats = of_interest(client, of.as_deref()).await?;
            console.list(&stats, totals(&stats))
        }
        Some(pause) => watching(console, client, of.as_deref(), pause).await,
    }
}

/// Runs until interrupted, or until the daemon ends.
async fn watching(
    console: &mut Console<'_>,
    client: &Client,
    of: Option<&str>,
    pause: Duration,
) -> Result<(), Failure> {
    let mut before = of_interest(client, of).await?;
    let mut at = Instant::now();
    loop {
        sleep(pause).await;
        let after = of_interest(client, of).await?;
        let elapsed = at.elapsed();
        at = Instant::now();
        // JSON keeps its shape: totals, from which programs compute rates.
        if !console.is_json() {
            console.next_screen()?;
        }
        let table = rates::table(&before, &after, elapsed);
        console.list(&after, table)?;
        console.flush()?;
        before = after;
    }
}

async fn of_interest(client: &Client, of: Option<&str>) -> Result<Vec<Stats>, Failure> {
    let mut stats = client.stats().await?;
    let Some(of) = of else {
        return Ok(stats);
    };

    let (service, backend) =
        of.split_once('/').map_or((of, None), |(service, backend)| (service, Some(backend)));
    stats.retain(|row| row.service == service && (backend.is_none() || row.backend.as_deref() == backend));
    if stats.is_empty() {
        let noun = if backend.is_some() { "backend" } else { "service" };
        return Err(Failure::new(Exit::NotFound, format!("there is no {noun} `{of}`"))
            .hint(format!("`xlb {noun} list` shows all")));
    }
    Ok(stats)
}

fn totals(stats: &[Stats]) -> Table {
    let mut table = Table::new(&["NAME", "FLOWS", "NEW", "FORWARDED", "BYTES", "RETURNED", "BYTES"]);
    for row in stats {
        let cells = [
            name_of(row),
            row.flows.to_string(),
            row.new_flows_total.to_string(),
            row.forwarded_packets_total.to_string(),
            units::size(row.forwarded_bytes_total),
            row.returned_packets_total.to_string(),
            units::size(row.returned_bytes_total),
        ];
        table.row(Tone::Plain, cells);
    }
    table
}

fn name_of(row: &Stats) -> String {
    row.backend.as_ref().map_or_else(|| row.service.clone(), |backend| format!("{}/{backend}", row.service))
}
