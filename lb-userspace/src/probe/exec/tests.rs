//! Programs that end well, badly and not at all, and what they leave behind.

use std::{net::SocketAddr, path::Path};

use nix::{sys::stat::Mode, unistd::mkfifo};
use rustix::process::Pid;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    super::{
        Probe, ProbeOutcome,
        fixture::{AMPLE, configured, probe_within, told},
    },
    *,
};
use crate::event::ProbeResult;

const SHORT: Duration = Duration::from_millis(300);

/// Programs of all backends share one limit, and so do those of all tests.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

#[tokio::test]
async fn the_exit_code_decides_and_the_first_line_is_shown() {
    let _alone = alone().await;
    let cases = [
        ("exit 0", ProbeOutcome::Success, "exit code 0"),
        ("echo 'lag 3 s'; echo more", ProbeOutcome::Success, "exit code 0: lag 3 s"),
        ("echo; echo 'no master' >&2; exit 1", ProbeOutcome::Failure, "exit code 1: no master"),
        ("exit 255", ProbeOutcome::Failure, "exit code 255"),
        ("kill -9 $$", ProbeOutcome::Failure, "ended by signal 9"),
        ("read line; echo \"[$line]\"", ProbeOutcome::Success, "exit code 0: []"),
        ("pwd", ProbeOutcome::Success, "exit code 0: /"),
    ];
    for (script, outcome, detail) in cases {
        let result = run(script, AMPLE).await;

        assert_eq!(told(&result), (outcome, detail), "{script}");
    }
}

#[tokio::test]
async fn a_program_knows_whom_it_is_asked_about_and_nothing_else() {
    let _alone = alone().await;
    let cases = [
        ("$XLB_SERVICE $XLB_BACKEND $XLB_ADDRESS $XLB_PORT", "web web-1 127.0.0.1 8080"),
        ("$HAPROXY_PROXY_NAME $HAPROXY_SERVER_NAME", "web web-1"),
        ("$HAPROXY_SERVER_ADDR $HAPROXY_SERVER_PORT", "127.0.0.1 8080"),
        ("[${HAPROXY_PROXY_ADDR-unset}${HAPROXY_PROXY_PORT-unset}]", "[]"),
        ("$PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("${HOME-none} ${CARGO_MANIFEST_DIR-none}", "none none"),
    ];
    for (variables, expected) in cases {
        let result = run(&format!("echo \"{variables}\""), AMPLE).await;

        assert_eq!(result.detail, format!("exit code 0: {expected}"), "{variables}");
    }
}

#[tokio::test]
async fn arguments_are_passed_as_they_are() {
    let _alone = alone().await;
    let probe = configured("type = 'exec'\ncommand = ['/bin/echo', '$HOME', 'a b', '; exit 1']");

    let result = probe_within(address(), probe, AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "exit code 0: $HOME a b ; exit 1"));
}

#[tokio::test]
async fn a_program_that_cannot_run_says_nothing_about_the_backend() {
    let _alone = alone().await;
    for (program, why) in [
        ("/nonexistent/check", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("/etc", "permission denied"),
    ] {
        let result = probe_within(address(), configured(&of(program)), AMPLE).await;

        let expected = format!("not probed, local error: cannot run {program}: {why}");
        assert_eq!(told(&result), (ProbeOutcome::Undecided, expected.as_str()));
    }
}

#[tokio::test]
async fn the_timeout_ends_a_program_and_what_it_has_started() {
    let _alone = alone().await;
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! > {}; wait", pids.display());

    // Long enough to write the file on a busy machine.
    let result = run(&script, Duration::from_secs(2)).await;

    assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 2s"));
    for pid in read_pids(&pids) {
        wait_for_end(pid).await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it_and_does_not_delay_the_result() {
    let _alone = alone().await;
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");

    let result = run(&format!("sleep 1000 & echo $! > {}; echo done", pids.display()), AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "exit code 0: done"));
    wait_for_end(read_pids(&pids)[0]).await;
}

#[tokio::test]
async fn a_check_that_is_stopped_ends_its_program() {
    let _alone = alone().await;
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    mkfifo(&pids, Mode::S_IRWXU).unwrap();
    let script = format!("sleep 1000 & echo $$ $! > {}; wait", pids.display());
    let check = tokio::spawn(async move { run(&script, AMPLE).await });
    let pids = spawn_blocking(move || read_pids(&pids)).await.unwrap();

    check.abort();

    for pid in pids {
        wait_for_end(pid).await;
    }
}

#[tokio::test]
async fn much_output_is_no_fault_and_endless_output_ends_with_the_timeout() {
    let _alone = alone().await;
    let much = run("echo first; head -c 1000000 /dev/zero", AMPLE).await;
    let endless = run("exec yes", SHORT).await;

    assert_eq!(told(&much), (ProbeOutcome::Success, "exit code 0: first"));
    assert_eq!(told(&endless), (ProbeOutcome::Timeout, "no answer within 300ms"));
}

#[tokio::test]
async fn no_more_programs_run_at_once_than_allowed() {
    let _alone = alone().await;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let script = format!("echo + >> {0}; sleep 0.1; echo - >> {0}", log.display());
    let checks: Vec<_> = (0..6)
        .map(|_| {
            let probe = at_once(&script, 2);
            tokio::spawn(async move { probe_within(address(), probe, AMPLE).await })
        })
        .collect();

    for check in checks {
        assert_eq!(check.await.unwrap().outcome, ProbeOutcome::Success);
    }

    let log = fs::read_to_string(log).unwrap();
    let running = log.lines().scan(0, |running, line| {
        *running += if line == "+" { 1 } else { -1 };
        Some(*running)
    });
    assert_eq!(running.max(), Some(2), "{log}");
}

#[tokio::test]
async fn a_program_that_gets_no_turn_decides_nothing() {
    let _alone = alone().await;
    let turn = turns::take(1).await;

    let result = probe_within(address(), at_once("exit 0", 1), SHORT).await;

    let expected = "not probed, local error: 1 other program ran all the time: raise `max` in [exec], or the intervals";
    assert_eq!(told(&result), (ProbeOutcome::Undecided, expected));
    drop(turn);
    let result = probe_within(address(), at_once("exit 0", 1), AMPLE).await;
    assert_eq!(result.outcome, ProbeOutcome::Success);
}

#[test]
fn a_program_that_others_can_change_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("check");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let cases = [
        (0o755, None),
        (0o700, None),
        (0o644, Some("it is not an executable file")),
        (0o775, Some("others can change this program: run `chown root: FILE` and `chmod go-w FILE`")),
        (0o757, Some("others can change this program: run `chown root: FILE` and `chmod go-w FILE`")),
    ];
    for (mode, why) in cases {
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();

        let checked = configured(&of(&program.display().to_string())).check_files();

        assert_eq!(checked.err(), why.map(|why| format!("{}: {why}", program.display())), "{mode:o}");
    }
    assert!(configured(&of("/nonexistent/check")).check_files().unwrap_err().contains("No such file"));
}

#[test]
fn a_program_of_another_user_can_be_changed_by_that_user() {
    for (owner, mode, is_bad) in [
        (0, 0o755, false),
        (1000, 0o755, false),
        (1001, 0o755, true),
        (1001, 0o555, true),
        (0, 0o775, true),
        (1000, 0o757, true),
    ] {
        assert_eq!(can_others_change(owner, mode, 1000), is_bad, "{owner} {mode:o}");
    }
}

fn address() -> SocketAddr {
    "127.0.0.1:8080".parse().unwrap()
}

fn of(program: &str) -> String {
    format!("type = 'exec'\ncommand = ['{program}']")
}

fn script(script: &str) -> Exec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned);
    Exec { command: command.into(), most_at_once: 8 }
}

fn at_once(text: &str, most: u32) -> Probe {
    Probe::Exec(Exec { most_at_once: most, ..script(text) })
}

async fn run(text: &str, timeout: Duration) -> ProbeResult {
    probe_within(address(), Probe::Exec(script(text)), timeout).await
}

fn read_pids(file: &Path) -> Vec<i32> {
    let text = fs::read_to_string(file).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// It may remain a zombie: its parent need not reap it.
async fn wait_for_end(pid: i32) {
    // Without such a process, it has been reaped.
    let Ok(process) = program::watch(Pid::from_raw(pid).unwrap()) else { return };
    let _ended = timeout(AMPLE, process.readable()).await.expect("the process ends").unwrap();
}
