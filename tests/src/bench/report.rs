//! Figures, as text or as JSON.

use serde_json::{Value, json};

/// The median; of an even number, the lower one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// A table with a heading. Its first column is text.
#[derive(Clone, Debug)]
pub struct Table {
    /// Printed above it, with the unit of its figures.
    pub title: String,
    /// Headings of all columns but the first.
    pub columns: Vec<String>,
    /// A name, and a value for each column. `None`: not measured, printed as `-`.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
    /// Digits behind the point.
    pub digits: usize,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str], digits: usize) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new(), digits }
    }

    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, values: impl IntoIterator<Item = Option<f64>>) {
        self.rows.push((name.into(), values.into_iter().collect()));
    }

    /// Prints it as text.
    pub fn print(&self) {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        println!("\n{}", self.title);
        print!("  {:width$}", "");
        self.columns.iter().for_each(|column| print!("  {column:>9}"));
        println!();
        for (name, values) in &self.rows {
            print!("  {name:width$}");
            for value in values {
                let text = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.*}", self.digits));
                print!("  {text:>9}");
            }
            println!();
        }
    }

    /// As JSON: an object per row.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, values)| {
            let cells = self.columns.iter().cloned().zip(values.iter().map(|value| json!(value)));
            let mut row: serde_json::Map<_, _> = cells.collect();
            row.insert("case".to_owned(), json!(name));
            Value::Object(row)
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
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
}
