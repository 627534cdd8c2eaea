//! `xlb backend drain --wait`: until the backend has no flows, or for as long as agreed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::{console::Console, exit::Exit, failure::Failure, units};
use crate::{
    api::client::{Client, Error},
    spec::BackendName,
};

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
        flows = match client.backend(name).await {
            Ok(backend) => backend.flows,
            // The wait is as long as agreed: a daemon that is busy may answer the next time.
            Err(Error::TimedOut { .. }) if Instant::now() < deadline => flows,
            Err(error) => return Err(error.into()),
        };
    }
    console.say(&format!("{name}: no flows left"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;
    use crate::cli::args::Args;

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_is_silent_for_a_while_does_not_end_the_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xlb.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let _silent = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = stream.read(&mut [0; 1024]).await;
            stream.write_all(NO_FLOWS.as_bytes()).await.unwrap();
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let global = Args::try_parse_from(["xlb", "status"]).unwrap().global;
        let mut console = Console::new(&mut stdout, &mut stderr, &global, &|_| None, false);
        let name = BackendName::new("web", "web-1");

        wait(&mut console, &Client::new(path), &name, 1, Duration::from_secs(60)).await.unwrap();

        assert_eq!(String::from_utf8(stderr).unwrap(), "web/web-1: 1 flow left\nweb/web-1: no flows left\n");
    }

    const NO_FLOWS: &str = concat!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        r#"{"service": "web", "name": "web-1", "address": "10.0.0.11:80", "weight": 100, "backup": false, "#,
        r#""health": "up", "admin_state": "drain", "flows": 0}"#
    );
}
