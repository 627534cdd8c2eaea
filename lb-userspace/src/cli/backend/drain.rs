//! `xlb backend drain --wait`: until the backend has no flows, or for as long as agreed.
//!
//! What is waited for is `drained`, not a count of 0: flows that began after the count would be missed, and the operator is
//! about to stop the server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::{console::Console, failure::Failure, units};
use crate::{
    api::client::{Client, Error},
    exit::Exit,
    spec::{AdminState, BackendName},
    view::Backend,
};

pub async fn wait(
    console: &mut Console<'_>,
    client: &Client,
    name: &BackendName,
    mut backend: Backend,
    at_most: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + at_most;
    // Often enough to be worth a short wait, seldom enough to be free.
    let pause = (at_most / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut said = 0;
    while !backend.drained {
        if backend.admin_state == AdminState::Ready.name() {
            return Err(Failure::new(Exit::Conflict, format!("{name}: made ready by another command")));
        }
        if said != backend.flows && backend.flows > 0 {
            console.say(&format!("{name}: {} left", units::counted(backend.flows, "flow")))?;
            said = backend.flows;
        }
        if Instant::now() >= deadline {
            return Err(too_late(name, backend.flows, at_most));
        }
        sleep(pause).await;
        backend = match client.backend(name).await {
            Ok(backend) => backend,
            // The wait is as long as agreed: a daemon that is busy may answer the next time.
            Err(Error::TimedOut { .. }) if Instant::now() < deadline => backend,
            Err(error) => return Err(error.into()),
        };
    }
    console.say(&format!("{name}: no flows left"))
}

fn too_late(name: &BackendName, flows: u64, at_most: Duration) -> Failure {
    if flows == 0 {
        return Failure::new(Exit::Failed, format!("{name}: no final count of its flows after {at_most:?}"))
            .hint("it stays in drain; a final count takes a few seconds, give `--wait` more");
    }
    let left = units::counted(flows, "flow");
    Failure::new(Exit::Failed, format!("{name}: {left} left after {at_most:?}"))
        .hint(format!("it stays in drain; `xlb backend maint {name}` ends its flows"))
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
            answer(&listener, &backend(0, true)).await;
        });

        let (outcome, said) = waited(path, backend(1, false)).await;

        assert_eq!(outcome.map_err(|it| it.to_string()), Ok(()));
        assert_eq!(said, "web/web-1: 1 flow left\nweb/web-1: no flows left\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_of_0_is_not_believed_before_it_is_final() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xlb.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            answer(&listener, &backend(0, false)).await;
            answer(&listener, &backend(2, false)).await;
            answer(&listener, &backend(0, true)).await;
        });

        let (outcome, said) = waited(path, backend(0, false)).await;

        assert_eq!(outcome.map_err(|it| it.to_string()), Ok(()));
        assert_eq!(said, "web/web-1: 2 flows left\nweb/web-1: no flows left\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_is_made_ready_is_not_waited_for() {
        let ready = Backend { admin_state: "ready".into(), ..backend(0, false) };

        let (outcome, said) = waited("/nonexistent".into(), ready).await;

        assert_eq!(outcome.unwrap_err().to_string(), "error: web/web-1: made ready by another command\n");
        assert_eq!(said, "");
    }

    async fn waited(socket: std::path::PathBuf, first: Backend) -> (Result<(), Failure>, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let global = Args::try_parse_from(["xlb", "status"]).unwrap().global;
        let mut console = Console::new(&mut stdout, &mut stderr, &global, &|_| None, false);
        let name = BackendName::new("web", "web-1");
        let outcome = wait(&mut console, &Client::new(socket), &name, first, Duration::from_secs(60)).await;
        (outcome, String::from_utf8(stderr).unwrap())
    }

    async fn answer(listener: &UnixListener, backend: &Backend) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _head = stream.read(&mut [0; 1024]).await;
        let body = serde_json::to_string(backend).unwrap();
        let reply = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(reply.as_bytes()).await.unwrap();
    }

    fn backend(flows: u64, drained: bool) -> Backend {
        Backend {
            service: "web".into(),
            name: "web-1".into(),
            address: "10.0.0.11:80".parse().unwrap(),
            weight: 100,
            backup: false,
            health: "up".into(),
            admin_state: "drain".into(),
            flows,
            drained,
        }
    }
}
