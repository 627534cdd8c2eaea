//! `xlb backend drain --wait`: until the backend has no flows, or for as long as agreed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::{console::Console, exit::Exit, failure::Failure, units};
use crate::{api::client::Client, spec::BackendName};

pub async fn wait(
    console: &mut Console<'_>,
    client: &Client,
    name: &BackendName,
    mut flows: u64,
    at_most: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + at_most;
    // Often enough to be worth a short wait, seldom enough to be free.
    let pause = (at_most / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut said = None;
    while flows > 0 {
        if said != Some(flows) {
            console.say(&format!("{name}: {} left", units::counted(flows, "flow")))?;
            said = Some(flows);
        }
        if Instant::now() >= deadline {
            let left = units::counted(flows, "flow");
            return Err(Failure::new(Exit::Failed, format!("{name}: {left} left after {at_most:?}"))
                .hint(format!("it stays in drain; `xlb backend maint {name}` ends its flows")));
        }
        sleep(pause).await;
        flows = client.backend(name).await?.flows;
    }
    console.say(&format!("{name}: no flows left"))
}
