//! Programs that end well, badly and not at all, and what they leave behind.

use std::{net::SocketAddr, path::Path, sync::mpsc as blocking};

use nix::{sys::stat::Mode, unistd::mkfifo};
use rustix::process::Pid;

use super::{
    super::{
        Probe, ProbeOutcome,
        fixture::{AMPLE, configured, probe_within, told},
    },
    *,
};
use crate::event::ProbeResult;

/// Long enough for a program to start on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_exit_code_decides_and_the_first_line_is_shown() {
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
    let probe = configured("type = 'exec'\ncommand = ['/bin/echo', '$HOME', 'a b', '; exit 1']");

    let result = probe_within(address(), probe, AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "exit code 0: $HOME a b ; exit 1"));
}

#[tokio::test]
async fn a_program_that_cannot_run_says_nothing_about_the_backend() {
    for (program, why) in [
        ("/nonexistent/check", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("/etc", "permission denied"),
    ] {
        let result = probe_within(address(), configured(&of(program)), AMPLE).await;

        let expected = format!("not probed, local error: cannot run `{program}`: {why}");
        assert_eq!(told(&result), (ProbeOutcome::Undecided, expected.as_str()));
    }
}

#[tokio::test]
async fn the_timeout_ends_a_program_and_what_it_has_started() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let script = format!("sleep 1000 & echo $$ $! > {}; wait", pids.display());

    let result = run(&script, SHORT).await;

    assert_eq!(told(&result), (ProbeOutcome::Timeout, "no answer within 2s"));
    for pid in read_pids(&pids) {
        wait_for_end(pid).await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it_and_does_not_delay_the_result() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");

    let result = run(&format!("sleep 1000 & echo $! > {}; echo done", pids.display()), AMPLE).await;

    assert_eq!(told(&result), (ProbeOutcome::Success, "exit code 0: done"));
    wait_for_end(read_pids(&pids)[0]).await;
}

#[tokio::test]
async fn a_check_that_is_stopped_ends_its_program() {
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
    let much = run("echo first; head -c 1000000 /dev/zero", AMPLE).await;
    let endless = run("exec yes", SHORT).await;

    assert_eq!(told(&much), (ProbeOutcome::Success, "exit code 0: first"));
    assert_eq!(told(&endless), (ProbeOutcome::Timeout, "no answer within 2s"));
}

#[tokio::test]
async fn a_failed_start_does_not_show_the_arguments() {
    let probe = configured("type = 'exec'\ncommand = ['/nonexistent/check', '--password', 'secret']");

    let result = probe_within(address(), probe, AMPLE).await;

    assert!(!result.detail.contains("secret"), "{}", result.detail);
}

#[tokio::test]
async fn no_more_programs_run_at_once_than_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let text = format!("echo + >> {0}; sleep 0.1; echo - >> {0}", log.display());
    let two = at_once(2);
    let checks: Vec<_> = (0..6)
        .map(|_| {
            let text = text.clone();
            tokio::spawn(async move { run_in_turn(two, &text, AMPLE).await })
        })
        .collect();

    for check in checks {
        assert!(check.await.unwrap().is_ok());
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
    let one = at_once(1);
    let turn = one.take().await;

    let answer = run_in_turn(one, "exit 0", Duration::from_millis(50)).await;

    let expected = "1 other program ran all the time: raise `max` in [exec], or the intervals";
    assert_eq!(answer, Err(Fault::local(expected)));
    drop(turn);
    assert!(run_in_turn(one, "exit 0", AMPLE).await.is_ok());
}

/// The only thread for calls that block is busy, as with a call that waits for a file server.
#[test]
fn a_start_that_takes_too_long_decides_nothing_keeps_its_turn_and_is_not_made_up_for() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let text = format!("touch {}", mark.display());
    runtime.block_on(async {
        let one = at_once(1);
        let (release, held) = blocking::channel::<()>();
        spawn_blocking(move || held.recv());

        let answer = run_in_turn(one, &text, Duration::from_millis(50)).await;

        assert_eq!(answer, Err(Fault::local("`/bin/sh` did not start within 50ms")));
        assert!(timeout(Duration::from_millis(50), one.take()).await.is_err(), "the turn is held");
        drop(release);
        let _turn = timeout(AMPLE, one.take()).await.unwrap();
        assert!(!mark.exists());
    });
}

#[tokio::test]
async fn a_turn_lasts_until_the_program_has_been_reaped() {
    let one = at_once(1);
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");

    let answer = run_in_turn(one, &format!("echo $$ > {}; exec sleep 1000", pids.display()), SHORT).await;

    assert_eq!(answer, Err(Fault::Silent));
    let _turn = timeout(AMPLE, one.take()).await.unwrap();
    let process = Pid::from_raw(read_pids(&pids)[0]).unwrap();
    assert!(program::watch(process).is_err(), "it has been reaped");
}

#[tokio::test]
async fn a_program_that_others_can_change_is_refused_at_the_start_and_for_each_run() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("check");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let name = program.display();
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let others = |path: &Path| {
        let path = path.display();
        format!("others can change `{path}`: run `chown root: {path}` and `chmod go-w {path}`")
    };
    for (directory_mode, mode, why) in [
        (0o755, 0o755, None),
        (0o700, 0o700, None),
        (0o755, 0o775, Some(others(&program))),
        (0o755, 0o757, Some(others(&program))),
        (0o757, 0o755, Some(others(directory.path()))),
        (0o775, 0o755, Some(others(directory.path()))),
    ] {
        chmod(directory.path(), directory_mode);
        chmod(&program, mode);
        let probe = configured(&of(&name.to_string()));

        let checked = probe.check_files();
        let ran = probe_within(address(), probe, AMPLE).await;

        assert_eq!(checked.err(), why.as_ref().map(|why| format!("`{name}`: {why}")), "{mode:o}");
        let expected = why.map(|why| format!("not probed, local error: cannot run `{name}`: {why}"));
        assert_eq!(ran.detail, expected.unwrap_or_else(|| "exit code 0".to_owned()));
    }
    chmod(directory.path(), 0o755);
    chmod(&program, 0o644);
    let checked = configured(&of(&name.to_string())).check_files();
    assert_eq!(checked, Err(format!("`{name}`: it is not an executable file")));
    assert!(configured(&of("/nonexistent/check")).check_files().unwrap_err().contains("no such file"));
}

fn address() -> SocketAddr {
    "127.0.0.1:8080".parse().unwrap()
}

fn of(program: &str) -> String {
    format!("type = 'exec'\ncommand = ['{program}']")
}

fn script(script: &str) -> Exec {
    Exec { command: ["/bin/sh", "-c", script].map(str::to_owned).into() }
}

async fn run(text: &str, timeout: Duration) -> ProbeResult {
    probe_within(address(), Probe::Exec(script(text)), timeout).await
}

/// A limit of one test.
fn at_once(most: u32) -> &'static Limit {
    Box::leak(Box::new(Limit::new("programs", most)))
}

async fn run_in_turn(limit: &'static Limit, text: &str, time: Duration) -> Result<Answer, Fault> {
    let place = Place { address: address(), source: None };
    script(text).run_in_turn(limit, &ExecSession::default(), place, time).await
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
