//! A metric family as text, in the format 0.0.4 of Prometheus.
//!
//! The text is written line by line, because a scrape of thousands of services has hundreds of thousands of lines.

use std::fmt::{Display, Write as _};

/// `(name, value)`; values are escaped.
pub type Label<'a> = (&'static str, &'a str);

/// A family, with its samples.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    samples: String,
}

/// The values of one sample of a family of histograms.
pub struct Histogram<'a> {
    /// Upper limits, in the form of the label `le`, each with the number of values up to it.
    pub buckets: &'a [(&'static str, u64)],
    pub count: u64,
    pub sum: f64,
}

impl Family {
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, "counter")
    }

    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, "gauge")
    }

    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, "histogram")
    }

    fn new(name: &'static str, help: &'static str, kind: &'static str) -> Self {
        Self { name, help, kind, samples: String::new() }
    }

    #[cfg(test)]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Without a sample there is no family.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Adds a sample to a family of counters or gauges.
    pub fn set(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.samples.push_str(self.name);
        write_labels(&mut self.samples, labels);
        end(&mut self.samples, value);
    }

    /// Adds a sample to a family of histograms.
    pub fn distribute(&mut self, labels: &[Label<'_>], Histogram { buckets, count, sum }: &Histogram<'_>) {
        let mut common = String::new();
        write_labels(&mut common, labels);
        let opened = common.strip_suffix('}').unwrap_or("{");
        let comma = if labels.is_empty() { "" } else { "," };
        let (text, name) = (&mut self.samples, self.name);
        for (limit, below) in buckets.iter().chain(&[("+Inf", *count)]) {
            for part in [name, "_bucket", opened, comma, "le=\"", limit, "\"}"] {
                text.push_str(part);
            }
            end(text, below);
        }
        for part in [name, "_sum", &common] {
            text.push_str(part);
        }
        end(text, sum);
        for part in [name, "_count", &common] {
            text.push_str(part);
        }
        end(text, count);
    }

    /// Appends the family to a text, unless it is empty.
    pub fn write_to(&self, text: &mut String) {
        if !self.is_empty() {
            let Self { name, help, kind, samples } = self;
            // The help texts are ours: nothing in them needs to be escaped.
            text.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n", samples]);
        }
    }
}

/// `{service="web",backend="web-1"}`, or nothing without labels.
fn write_labels(text: &mut String, labels: &[Label<'_>]) {
    for (place, (name, value)) in labels.iter().enumerate() {
        text.push(if place == 0 { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        write_escaped(text, value);
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
}

fn write_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

fn end(text: &mut String, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, " {value}");
}
