//! Runs libtest runners: prints their output and counts the results in their closing lines.

use std::{
    fmt,
    ops::Add,
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::command;

/// Results of test runners, from their closing lines.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Count {
    passed: u64,
    failed: u64,
    /// Runners that failed without a failed test: a crash, or code that does not compile.
    broken: u64,
}

impl Count {
    /// Did at least one test pass, and none fail?
    pub fn is_good(&self) -> bool {
        self.passed > 0 && self.failed == 0 && self.broken == 0
    }

    /// Notes that this many of the programs exited with a failure. If tests failed, that is why, and the programs are
    /// not counted as broken.
    pub fn of_programs_that_failed(self, failed: u64) -> Self {
        Self { broken: if self.failed == 0 { failed } else { 0 }, ..self }
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            broken: self.broken + other.broken,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, broken } = *self;
        match (passed, failed, broken) {
            (0, 0, 0) => write!(f, "FAILED: no tests ran"),
            (_, 0, 0) => write!(f, "{passed} passed"),
            (_, _, 0) => write!(f, "FAILED: {failed} failed, {passed} passed"),
            _ => write!(f, "FAILED: {failed} tests and {broken} other programs failed, {passed} passed"),
        }
    }
}

/// Runs a test runner, or cargo with many of them.
pub fn watch(runner: &mut Command) -> Result<Count> {
    let mut count = Count::default();
    let status = command::read_lines(runner.stdin(Stdio::null()), |line| {
        println!("{line}");
        count = count + closing(line).unwrap_or_default();
    })?;

    if status.success() {
        return Ok(count);
    }
    eprintln!("test: `{}` failed with {status}", command::shown(runner));
    Ok(count.of_programs_that_failed(1))
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; ...`
pub fn closing(line: &str) -> Option<Count> {
    let counts = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let before = counts.split_once(word)?.0;
        before.rsplit(' ').next()?.parse().ok()
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")?, broken: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closing_lines_are_counted() {
        let good =
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let bad = "test result: FAILED. 11 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";

        assert_eq!(closing(good), Some(Count { passed: 12, failed: 0, broken: 0 }));
        assert_eq!(closing(bad), Some(Count { passed: 11, failed: 2, broken: 0 }));
        assert_eq!(closing("test tests::it_says_passed ... ok"), None);
        assert_eq!(closing("running 12 tests"), None);
    }

    #[test]
    fn a_run_without_tests_is_not_good() {
        assert!(!Count::default().is_good());
        assert!(!Count { passed: 1, failed: 0, broken: 1 }.is_good());
        assert!(!Count { passed: 9, failed: 1, broken: 0 }.is_good());
        assert!(Count { passed: 1, failed: 0, broken: 0 }.is_good());
    }

    #[test]
    fn a_runner_that_crashes_without_a_failed_test_is_counted() {
        let output = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'";

        let good = watch(Command::new("sh").args(["-c", output])).unwrap();
        let crashed = watch(Command::new("sh").args(["-c", &format!("{output}; kill -9 $$")])).unwrap();

        assert_eq!(good, Count { passed: 2, failed: 0, broken: 0 });
        assert_eq!(crashed, Count { passed: 2, failed: 0, broken: 1 });
    }
}
