//! `xlb reload`: the daemon reads its file again. An invalid one changes nothing.

use super::{console::Console, failure::Failure};
use crate::api::client::Client;

pub async fn reload(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let reloaded = client.reload().await?;

    for change in &reloaded.changes {
        console.say(change)?;
    }
    for warning in &reloaded.warnings {
        console.say(&format!("warning: {warning}"))?;
    }
    console.say(if reloaded.changes.is_empty() { "reloaded: nothing changed" } else { "reloaded" })?;
    if console.is_json() { console.json(&reloaded) } else { Ok(()) }
}
