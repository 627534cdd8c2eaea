//! `xlb metrics`: the same text that Prometheus scrapes.

use super::{console::Console, failure::Failure};
use crate::api::client::Client;

pub async fn metrics(console: &mut Console<'_>, client: &Client) -> Result<(), Failure> {
    let text = client.metrics().await?;
    console.bytes(&text)
}
