//! Agents that answer well, badly, not at all and endlessly.

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    super::{
        ProbeOutcome,
        fixture::{AMPLE, Backend, configured, drain, probe_as, probe_within, told},
    },
    *,
};
use crate::{
    event::ProbeResult,
    probe::{Kind, Probe},
};

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn an_agent_that_answers_is_up_unless_it_says_otherwise() {
    let report = |state, weight: Option<u32>| Some(AgentReport { state, weight: weight.map(WeightPercent) });
    let cases = [
        ("up\n", ProbeOutcome::Success, "up", report(None, None)),
        ("75%\r\n", ProbeOutcome::Success, "75%", report(None, Some(75))),
        ("ready, up\t5%", ProbeOutcome::Success, "ready, up 5%", report(Some(AdminState::Ready), Some(5))),
        ("drain\nup\n", ProbeOutcome::Success, "drain", report(Some(AdminState::Drain), None)),
        ("maint down #disk\n", ProbeOutcome::Failure, "maint down #disk", report(Some(AdminState::Maint), None)),
        ("stopped\u{1b}[2J\n", ProbeOutcome::Failure, "not an agent's line: `stopped\u{fffd}[2J`", None),
        ("\nup\n", ProbeOutcome::Failure, "not an agent's line: ``", None),
        ("", ProbeOutcome::Failure, "not an agent's line: ``", None),
        ("SSH-2.0-x\r\n", ProbeOutcome::Failure, "not an agent's line: `SSH-2.0-x`", None),
    ];
    for (line, outcome, detail, report) in cases {
        let agent = says(line.as_bytes().to_vec()).await;

        let result = probe(&agent).await;

        assert_eq!(told(&result), (outcome, detail), "{line:?}");
        assert_eq!(result.facts.agent, report, "{line:?}");
    }
}

#[tokio::test]
async fn what_is_to_be_sent_is_sent() {
    let agent = Backend::new(async |mut stream: TcpStream| {
        let mut asked = [0; 7];
        stream.read_exact(&mut asked).await.unwrap();
        let line: &[u8] = if &asked == b"web \t1\n" { b"up\n" } else { b"down\n" };
        let _ = stream.write_all(line).await;
    })
    .await;

    let result = probe_as(agent.address, "type = 'agent'\nagent_send = \"web \\t1\\n\"").await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "up"));
}

#[tokio::test]
async fn an_agent_that_closes_without_reading_is_understood() {
    let agent = Backend::hasty("up 50%\n").await;

    for _ in 0..20 {
        let result = probe_as(agent.address, "type = 'agent'\nagent_send = 'web-1'").await;

        assert_eq!(told(&result), (ProbeOutcome::Success, "up 50%"));
    }
}

#[tokio::test]
async fn an_agent_that_takes_nothing_and_says_nothing_has_broken_the_connection() {
    let (mut ours, theirs) = tokio::io::duplex(64);
    drop(theirs);
    let agent = Agent { send: "web-1".to_owned() };

    assert_eq!(agent.ask(&mut ours).await, Err(Fault::Failed("broken pipe".to_owned())));
}

#[tokio::test]
async fn the_connection_is_closed_cleanly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end: JoinHandle<_> = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"up\n").await.unwrap();
        stream.read(&mut [0; 1]).await
    });

    probe_as(address, "type = 'agent'").await;

    assert_eq!(end.await.unwrap().unwrap(), 0, "a FIN, not a reset");
}

#[tokio::test]
async fn long_and_endless_lines_are_cut_off() {
    let longest = format!("up #{}", "x".repeat(LINE_MAX_BYTES - 4));
    let agent = says(longest.clone().into_bytes()).await;
    assert_eq!(told(&probe(&agent).await), (ProbeOutcome::Success, longest.as_str()));

    let long = says(format!("{longest}x\n").into_bytes()).await;
    let endless = Backend::new(async |mut stream: TcpStream| {
        while stream.write_all(b"up ").await.is_ok() {}
    })
    .await;
    for agent in [long, endless] {
        let result = probe(&agent).await;

        assert_eq!(told(&result), (ProbeOutcome::Failure, "a line longer than 256 bytes"));
    }
}

#[tokio::test]
async fn an_agent_that_does_not_end_its_line_is_silent() {
    let holding = Backend::new(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"up").await;
        drain(&mut stream).await;
    })
    .await;
    let dripping = Backend::new(async |mut stream: TcpStream| {
        while stream.write_all(b"u").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for agent in [holding, dripping] {
        let result = probe_within(agent.address, configured("type = 'agent'"), SHORT).await;

        assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 150ms"));
    }
}

#[test]
fn an_agent_that_said_down_is_down_until_it_says_up() {
    let mut session = AgentSession::default();
    let mut judge = |line: &str| match session.judge(line.as_bytes()) {
        Ok(answer) => (true, answer.text),
        Err(Fault::Reported(answer)) => (false, answer.text),
        Err(fault) => panic!("{fault:?}"),
    };

    assert_eq!(judge("50%"), (true, "50%".to_owned()), "nothing was said before");
    assert_eq!(judge("down #disk"), (false, "down #disk".to_owned()));
    assert_eq!(judge("down #disk"), (false, "down #disk".to_owned()));
    assert_eq!(judge("70%"), (false, "70%; it said `down #disk` before".to_owned()));
    assert_eq!(judge("up"), (true, "up".to_owned()));
    assert_eq!(judge("70%"), (true, "70%".to_owned()));
}

#[test]
fn the_type_has_a_key_of_its_own() {
    let probe = configured("type = 'agent'\nagent_send = 'a'");

    assert_eq!(probe.kind(), Kind::Agent);
    assert_eq!(probe, Probe::Agent(Agent { send: "a".to_owned() }));
}

/// Sends this and closes, without reading anything.
async fn says(line: Vec<u8>) -> Backend {
    Backend::new(move |mut stream: TcpStream| {
        let line = line.clone();
        async move {
            let _ = stream.write_all(&line).await;
            let _ = stream.shutdown().await;
            drain(&mut stream).await;
        }
    })
    .await
}

async fn probe(agent: &Backend) -> ProbeResult {
    probe_within(agent.address, configured("type = 'agent'"), AMPLE).await
}
