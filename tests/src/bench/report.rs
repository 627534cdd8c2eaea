//! Figures, as text or as JSON.

use std::fmt;

use serde_json::{Value, json};

/// The median; of an even number, the lower one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// A table with a heading. Its first column is text.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Printed above it, with the unit of its figures.
    pub title: String,
    /// Headings of all columns but the first.
    pub columns: Vec<String>,
    /// A name, and a value for each column. `None`: not measured, printed as `-`.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
    /// Digits after the decimal point.
    pub digits: usize,
    /// Goals of figures, by number of row and column.
    goals: Vec<(usize, usize, Goal)>,
    failed: Vec<String>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// A ratio, such as throughput.
    AtLeast(f64),
    /// A time, or another cost.
    AtMost(f64),
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str], digits: usize) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), digits, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = Option<f64>>) {
        self.rows.push((name.into(), values.into_iter().collect()));
    }

    /// Sets a goal for a column of the last row.
    pub fn goal(&mut self, column: &str, goal: Goal) {
        let place = self.columns.iter().position(|it| it == column);
        let place = self.rows.len().checked_sub(1).zip(place);
        let (row, column) = place.unwrap_or_else(|| panic!("there is no {column} for a goal"));
        self.goals.push((row, column, goal));
    }

    /// Adds a row without figures, because they could not be measured.
    pub fn fail(&mut self, name: impl Into<String>, error: &anyhow::Error) {
        let name = name.into();
        self.failed.push(format!("{name}: {error:#}"));
        self.row(name, self.columns.iter().map(|_| None).collect::<Vec<_>>());
    }

    /// The figures that miss their goals or could not be measured, a line for each.
    pub fn missed(&self) -> Vec<String> {
        let misses = self.goals.iter().filter_map(|&(row, column, goal)| {
            let (name, values) = &self.rows[row];
            let value = values[column].filter(|&value| !goal.is_met(value))?;
            let (column, digits) = (&self.columns[column], self.digits);
            Some(format!("{name}: {column} {value:.digits$}, the goal is {goal:.digits$}"))
        });
        misses.chain(self.failed.iter().cloned()).collect()
    }

    /// Prints it as text.
    pub fn print(&self) {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        println!("\n{}", self.title);
        print!("  {:width$}", "");
        self.columns.iter().for_each(|column| print!("  {column:>9}"));
        println!("{}", if self.goals.is_empty() { "" } else { "  goal" });
        for (number, (name, values)) in self.rows.iter().enumerate() {
            print!("  {name:width$}");
            for value in values {
                let text = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.*}", self.digits));
                print!("  {text:>9}");
            }
            let goals = self.goals_of(number, |goal| format!("{goal:.*}", self.digits));
            println!("{}", goals.map_or_else(String::new, |goals| format!("  {goals}")));
        }
    }

    /// As JSON: an object per row.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().enumerate().map(|(number, (name, values))| {
            let cells = self.columns.iter().cloned().zip(values.iter().map(|value| json!(value)));
            let mut row: serde_json::Map<_, _> = cells.collect();
            row.insert("case".to_owned(), json!(name));
            if let Some(goals) = self.goals_of(number, |goal| goal.to_string()) {
                row.insert("goal".to_owned(), json!(goals));
            }
            Value::Object(row)
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }

    /// The goals of a row, each with its column, or `None`.
    fn goals_of(&self, number: usize, text: impl Fn(Goal) -> String) -> Option<String> {
        let goals = self.goals.iter().filter(|(row, ..)| *row == number);
        let goals: Vec<_> =
            goals.map(|&(_, column, goal)| format!("{} {}", self.columns[column], text(goal))).collect();
        (!goals.is_empty()).then(|| goals.join(", "))
    }
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, goal) = match self {
            Self::AtLeast(goal) => ("at least ", goal),
            Self::AtMost(goal) => ("at most ", goal),
        };
        f.write_str(words)?;
        goal.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_value_does_not_move_the_median() {
        assert_eq!(median(&[3.0, 1.0, 1000.0]), 3.0);
        assert_eq!(median(&[2.0, 1.0]), 1.0);
    }

    #[test]
    fn only_figures_beyond_their_goals_and_those_that_failed_are_missed() {
        let mut table = Table::new("a title", &["ms", "times"], 1);
        for (name, times) in [("good", 1.9), ("bad", 1.84)] {
            table.row(name, [20.0, times].map(Some));
            table.goal("times", Goal::AtLeast(1.9));
        }
        table.row("slow", [20.1, 1.0].map(Some));
        table.goal("ms", Goal::AtMost(20.0));
        table.goal("times", Goal::AtLeast(2.0));
        table.row("not measured", [None, None]);
        table.goal("ms", Goal::AtMost(20.0));
        table.fail("broken", &anyhow::anyhow!("no answer"));

        let missed = table.missed();

        let expected = [
            "bad: times 1.8, the goal is at least 1.9",
            "slow: ms 20.1, the goal is at most 20.0",
            "slow: times 1.0, the goal is at least 2.0",
            "broken: no answer",
        ];
        assert_eq!(missed, expected);
        assert_eq!(table.json()["rows"][0]["goal"], "times at least 1.9");
        assert_eq!(table.json()["rows"][2]["goal"], "ms at most 20, times at least 2");
        assert_eq!(table.rows[4].1, [None, None]);
    }
}
