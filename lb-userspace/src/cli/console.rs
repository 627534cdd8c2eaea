//! Output of commands: data to stdout in the chosen format, messages to stderr.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    args::{Color, Global, Output, Verbosity},
    failure::Failure,
    table::Table,
};
use crate::text::printable;

pub struct Console<'a> {
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    output: Output,
    verbosity: Verbosity,
    is_colourful: bool,
    is_terminal: bool,
    has_screen: bool,
}

impl<'a> Console<'a> {
    pub fn new(
        stdout: &'a mut dyn Write,
        stderr: &'a mut dyn Write,
        global: &Global,
        env: &dyn Fn(&str) -> Option<OsString>,
        is_terminal: bool,
    ) -> Self {
        let is_colourful = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && may_colour(env),
        };
        let (output, verbosity) = (global.output, global.verbosity());
        Self { stdout, stderr, output, verbosity, is_colourful, is_terminal, has_screen: false }
    }

    pub fn is_wide(&self) -> bool {
        self.output == Output::Wide
    }

    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Shows a list: unchanged as JSON, otherwise as a table.
    pub fn list<T: Serialize>(&mut self, list: &[T], table: Table) -> Result<(), Failure> {
        if self.is_json() { self.json(&list) } else { self.table(table) }
    }

    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.line(&text)
    }

    pub fn table(&mut self, mut table: Table) -> Result<(), Failure> {
        for line in table.lines(self.is_colourful) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// `name  value`, aligned, one per line.
    pub fn facts(&mut self, facts: &[(&str, String)]) -> Result<(), Failure> {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in facts {
            self.line(&format!("{name:width$}   {}", printable(value)))?;
        }
        Ok(())
    }

    /// A title and lines, after a blank line; nothing if there are no lines.
    pub fn section(&mut self, title: &str, lines: &[String]) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        self.line("")?;
        self.line(title)?;
        lines.iter().try_for_each(|line| self.line(&format!("  {}", printable(line))))
    }

    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.stdout, "{line}")?)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes)?;
        Ok(self.stdout.flush()?)
    }

    /// Starts a screen that replaces the one before: in place on a terminal, otherwise below a blank line.
    pub fn next_screen(&mut self) -> Result<(), Failure> {
        let gap = match (self.is_terminal, self.has_screen) {
            // ECMA-48: cursor to the upper left, clear the screen.
            (true, _) => "\x1b[H\x1b[2J",
            (false, true) => "\n",
            (false, false) => "",
        };
        self.has_screen = true;
        Ok(write!(self.stdout, "{gap}")?)
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }

    /// A message, unless `--quiet` is given.
    pub fn say(&mut self, message: &str) -> Result<(), Failure> {
        match self.verbosity {
            Verbosity::Quiet => Ok(()),
            Verbosity::Usual | Verbosity::Verbose => Ok(writeln!(self.stderr, "{}", printable(message))?),
        }
    }

    /// A message with `--verbose`.
    pub fn say_more(&mut self, message: &str) -> Result<(), Failure> {
        match self.verbosity {
            Verbosity::Quiet | Verbosity::Usual => Ok(()),
            Verbosity::Verbose => self.say(message),
        }
    }

    /// Prints why a command failed. Nothing follows it.
    pub fn fail(&mut self, failure: &Failure) {
        // An error on stderr cannot be reported. The exit code remains.
        let _closed = write!(self.stderr, "{failure}");
    }
}

/// <https://no-color.org>: no colours if the variable is set and not empty.
pub fn may_colour(env: &dyn Fn(&str) -> Option<OsString>) -> bool {
    env("NO_COLOR").is_none_or(|value| value.is_empty())
}
