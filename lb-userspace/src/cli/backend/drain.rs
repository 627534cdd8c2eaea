//! `xlb backend drain --wait`: waits until the backend has no flows, or for the given time.
//!
//! Waits for `drained` rather than a count of 0, which would miss flows that began after the count: the operator is
//! about to stop the server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::{console::Console, failure::Failure};
use crate::{
    api::client::{Client, Error},
    duration,
    exit::Exit,
    spec::{AdminState, BackendName},
    text::counted,
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
    // Often enough for a short wait, and rarely enough to cost nothing.
    let pause = (at_most / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut said = 0;
    while !backend.drained {
        if backend.admin_state == AdminState::Ready {
            return Err(Failure::new(Exit::Conflict, format!("{name}: made ready by another command")));
        }
        if said != backend.flows && backend.flows > 0 {
            console.say(&format!("{name}: {} left", counted(backend.flows, "flow")))?;
            said = backend.flows;
        }
        if Instant::now() >= deadline {
            return Err(too_late(name, backend.flows, at_most));
        }
        sleep(pause).await;
        backend = match client.backend(name).await {
            Ok(backend) => backend,
            // A busy daemon may answer the next request: the wait continues for the given time.
            Err(Error::TimedOut { .. }) if Instant::now() < deadline => backend,
            Err(error) => return Err(error.into()),
        };
    }
    console.say(&format!("{name}: no flows left"))
}

fn too_late(name: &BackendName, flows: u64, at_most: Duration) -> Failure {
    let at_most = duration::show(at_most);
    if flows == 0 {
        let message = format!("{name}: after {at_most} it is still unknown whether all flows have ended");
        return Failure::new(Exit::Failed, message)
            .hint("it stays in drain; a reliable count takes a few seconds: use a longer `--wait`");
    }
    let left = counted(flows, "flow");
    Failure::new(Exit::Failed, format!("{name}: {left} left after {at_most}"))
        .hint(format!("it stays in drain; `xlb backend maint {name}` ends its flows"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::args::Args,
        event::Request,
        fake::{Balancer, Daemon},
        spec::AdminState,
    };

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_is_silent_for_a_while_does_not_end_the_wait() {
        let daemon = daemon([None, Some(backend(0, true))]).await;

        let (outcome, said) = waited(daemon, backend(1, false)).await;

        assert_eq!(outcome.map_err(|it| it.to_string()), Ok(()));
        assert_eq!(said, "web/web-1: 1 flow left\nweb/web-1: no flows left\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_of_0_is_ignored_before_it_is_final() {
        let daemon = daemon([backend(0, false), backend(2, false), backend(0, true)].map(Some)).await;

        let (outcome, said) = waited(daemon, backend(0, false)).await;

        assert_eq!(outcome.map_err(|it| it.to_string()), Ok(()));
        assert_eq!(said, "web/web-1: 2 flows left\nweb/web-1: no flows left\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_is_made_ready_is_not_waited_for() {
        let ready = Backend { admin_state: AdminState::Ready, ..backend(0, false) };

        let (outcome, said) = waited(daemon([]).await, ready).await;

        assert_eq!(outcome.unwrap_err().to_string(), "error: web/web-1: made ready by another command\n");
        assert_eq!(said, "");
    }

    /// Returns these answers one after another. `None`: no answer.
    async fn daemon<const N: usize>(answers: [Option<Backend>; N]) -> Daemon {
        let mut answers = answers.into_iter();
        let mut unanswered = Vec::new();
        Daemon::start(move |request| match (request, answers.next().unwrap()) {
            (Request::Backend { reply, .. }, Some(backend)) => reply.send(Ok(backend)),
            (request, _) => unanswered.push(request),
        })
        .await
    }

    async fn waited(daemon: Daemon, first: Backend) -> (Result<(), Failure>, String) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let global = Args::try_parse_from(["xlb", "status"]).unwrap().global;
        let mut console = Console::new(&mut stdout, &mut stderr, &global, &|_| None, false);
        let (name, client) = (BackendName::new("web", "web-1"), Client::new(daemon.socket()));
        let outcome = wait(&mut console, &client, &name, first, Duration::from_secs(60)).await;
        (outcome, String::from_utf8(stderr).unwrap())
    }

    fn backend(flows: u64, drained: bool) -> Backend {
        let web_1 = Balancer::new().backends(Some("web")).unwrap().remove(0);
        Backend { admin_state: AdminState::Drain, flows, drained, ..web_1 }
    }
}
