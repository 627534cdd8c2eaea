//! `xlb detach`: the daemon removes the data plane; without a daemon, the command removes what an earlier one left.

use std::path::Path;

use super::{console::Console, failure::Failure};
use crate::api::client::Client;

pub async fn detach(
    console: &mut Console<'_>,
    client: &Client,
    remove_pins: fn(&Path) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    match client.detach().await {
        Ok(()) => console.say("detached: removed the data plane; the daemon is stopping"),
        Err(error) if error.is_dead() => match remove_pins(client.socket()) {
            Ok(true) => console.say("detached: removed the data plane that an earlier daemon left"),
            Ok(false) => console.say("nothing was attached"),
            Err(failure) => Err(failure),
        },
        Err(error) => Err(error.into()),
    }
}
