//! The figures of all events, and whether they reach the goals.

use std::{fmt, time::Duration};

use anyhow::{Result, ensure};
use lb_common::service::Mode;
use serde_json::{Value, json};

use super::load::Figures;
use crate::lab::story::Story;

/// New connections are served again within this time.
const SERVED: Duration = Duration::from_millis(500);

/// Of this number of new connections, at most one fails apart from the outage: a switch drops frames while it gets no CPU.
const STRAY: usize = 100;

/// What became of the load in one event.
#[derive(Clone, Debug)]
pub struct Row {
    /// A few words.
    pub event: String,
    /// The mode of the services.
    pub mode: Mode,
    /// What the clients noticed.
    pub figures: Figures,
    /// The nodes that have the addresses afterwards.
    pub owners: Vec<String>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    errors: Vec<String>,
}

impl Row {
    /// The first line of the table.
    pub fn head() -> String {
        line([
            "event",
            "mode",
            "new connections fail for",
            "live connections kept",
            "longest silence",
            "addresses",
        ])
    }

    /// What must hold on any machine: every live connection goes on, and new ones are served.
    pub fn keeps_all(&self) -> Result<()> {
        let Figures { live, kept, served, .. } = self.figures;
        ensure!(kept == live, "{self}: {} of {live} live connections broke", live - kept);
        ensure!(served, "{self}: new connections are not served");
        Ok(())
    }

    /// What must hold on a machine that is not busy.
    pub fn is_in_time(&self) -> Result<()> {
        let Figures { failed_for, stray, opened, .. } = self.figures;
        let (took, limit) = (milliseconds(failed_for), milliseconds(SERVED));
        ensure!(failed_for <= SERVED, "{self}: new connections fail for {took} ms, longer than {limit} ms");
        ensure!(
            stray * STRAY <= opened,
            "{self}: {stray} of {opened} new connections fail apart from the outage"
        );
        Ok(())
    }

    /// The line of the table.
    pub fn line(&self) -> String {
        let Figures { opened, failed, stray, failed_for, live, kept, silence, .. } = self.figures;
        line([
            &self.event,
            name(self.mode),
            &format!("{} ms ({} of {opened}) + {stray}", milliseconds(failed_for), failed - stray),
            &format!("{kept} of {live}"),
            &format!("{} ms", milliseconds(silence)),
            &self.owners.join(", "),
        ])
    }

    /// The worse figures of two rows of one event.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        let (one, two) = (self.figures, other.figures);
        let figures = Figures {
            opened: one.opened + two.opened,
            failed: one.failed + two.failed,
            failed_for: one.failed_for.max(two.failed_for),
            stray: one.stray + two.stray,
            served: one.served && two.served,
            live: one.live,
            kept: one.kept.min(two.kept),
            silence: one.silence.max(two.silence),
        };
        Self { figures, ..other }
    }

    fn json(&self) -> Value {
        let Figures { opened, failed, stray, served, failed_for, live, kept, silence } = self.figures;
        json!({
            "event": self.event,
            "mode": name(self.mode),
            "new_connections": opened,
            "failed": failed,
            "failed_for_ms": milliseconds(failed_for),
            "failed_apart_from_that": stray,
            "served_again": served,
            "live_connections": live,
            "kept": kept,
            "longest_silence_ms": milliseconds(silence),
            "addresses": self.owners,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.event, name(self.mode))
    }
}

impl Table {
    /// Adds a row, and shows it.
    pub fn add(&mut self, row: Row, story: &Story) {
        story.say(&format!("  {}", row.line()));
        for error in [row.keeps_all(), row.is_in_time()].into_iter().filter_map(Result::err) {
            self.fail(&error, story);
        }
        self.rows.push(row);
    }

    /// The same with a row for which only live connections have a goal.
    pub fn add_slow(&mut self, row: Row, story: &Story) {
        story.say(&format!("  {}", row.line()));
        row.keeps_all().unwrap_or_else(|error| self.fail(&error, story));
        self.rows.push(row);
    }

    /// A goal was missed, or an act ended early.
    pub fn fail(&mut self, error: &anyhow::Error, story: &Story) {
        let error = format!("{error:#}");
        story.say(&format!("  -> FAILED: {error}"));
        self.errors.push(error);
    }

    /// Shows all rows, or prints them as JSON. An error if a goal was missed.
    pub fn end(self, story: &Story, took: Duration) -> Result<()> {
        story.step("All figures.");
        story.say(&format!("  {}", Row::head()));
        self.rows.iter().for_each(|row| story.say(&format!("  {}", row.line())));
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        story.figures(&json!({ "rows": rows, "failed": self.errors, "seconds": took.as_secs_f64() }))?;
        ensure!(
            self.errors.is_empty(),
            "{} goals were missed; the first: {}",
            self.errors.len(),
            self.errors[0]
        );
        story.say(&format!("\nAll goals were reached, in {:.0} s.", took.as_secs_f64()));
        Ok(())
    }
}

fn line([event, mode, new, live, silence, owners]: [&str; 6]) -> String {
    format!("{event:<40} {mode:<8} {new:<30} {live:<22} {silence:<16} {owners}")
}

/// As in the configuration.
pub const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::FullNat => "full-nat",
        Mode::Nat => "nat",
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
