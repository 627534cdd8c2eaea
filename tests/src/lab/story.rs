//! The output of a demo: numbered steps, commands as they would be typed, and their output.

use std::cell::Cell;

use anyhow::Result;
use serde_json::Value;

use crate::lab::{Daemon, Namespace};

/// Longer output is truncated, with a note.
const LINES: usize = 100;

/// Writes to the standard output.
pub struct Story {
    is_silent: bool,
    steps: Cell<u32>,
}

impl Story {
    /// Prints the steps, or (`json`) only the figures at the end.
    pub const fn new(json: bool) -> Self {
        Self { is_silent: json, steps: Cell::new(0) }
    }

    /// Begins a step.
    pub fn step(&self, sentence: &str) {
        self.steps.set(self.steps.get() + 1);
        self.say(&format!("\n{}. {sentence}\n", self.steps.get()));
    }

    /// Prints a line.
    pub fn say(&self, line: &str) {
        if !self.is_silent {
            println!("{line}");
        }
    }

    /// Shows a command and its output.
    pub fn show(&self, command: &str, answer: &str) {
        self.say(&format!("  $ {command}"));
        let lines: Vec<_> = answer.trim_end().lines().collect();
        for line in lines.iter().take(LINES) {
            self.say(format!("  {line}").trim_end());
        }
        if lines.len() > LINES {
            self.say(&format!("  .. and {} lines more", lines.len() - LINES));
        }
    }

    /// Runs a line of shell in a namespace, and shows it. The line must succeed.
    pub fn run(&self, namespace: &Namespace, line: &str) -> Result<String> {
        let answer = namespace.run(&["sh", "-c", line])?;
        self.show(&format!("ip netns exec {namespace} {line}"), &answer);
        Ok(answer)
    }

    /// Runs `xlb WORDS`, and shows it.
    pub fn xlb(&self, daemon: &Daemon, words: &str) -> Result<()> {
        let answer = daemon.run(&words.split(' ').collect::<Vec<_>>())?;
        self.show(&format!("xlb {words}"), &answer);
        Ok(())
    }

    /// Ends the output, or prints the figures.
    pub fn end(&self, figures: &Value) -> Result<()> {
        self.figures(figures)?;
        if let Some(seconds) = figures["seconds"].as_f64() {
            self.say(&format!("\nAll checks passed, in {seconds:.0} s."));
        }
        Ok(())
    }

    /// Prints the figures, if only these are printed.
    pub fn figures(&self, figures: &Value) -> Result<()> {
        if self.is_silent {
            println!("{}", serde_json::to_string_pretty(figures)?);
        }
        Ok(())
    }
}
